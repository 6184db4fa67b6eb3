//! What a value has to be able to say of itself to stand in a list or in a table of names, so that files can be merged.

/// What may stand in a list: it has a name, by which it is removed and by which it is known to stand there twice.
pub(super) trait Listed: Sized {
    /// The name: a path, a port, a capability.
    fn id(&self) -> String;

    /// What the list of this key holds where no file says anything. Lists that grant are empty; a few restrict.
    fn default_list(_key: &'static str) -> Vec<Self> {
        Vec::new()
    }
}

/// What a table holds whose names are of the author's own choice.
pub(super) trait Keyed {
    /// The name, by which a later entry replaces an earlier one.
    fn key(&self) -> String;

    /// `NAME = false`: the inherited entry goes.
    fn removes(&self) -> bool {
        false
    }

    /// The name as it is written, and the value as it would be.
    fn entry(&self) -> (String, String);
}
