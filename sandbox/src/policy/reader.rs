//! Walks a TOML tree and notes everything that is wrong with it.
//!
//! Not serde: a `Deserialize` ends at its first error, and an author who mistyped three keys wants to hear of three.
//! The `toml` crate's own tree has the span of every key and every value, and its parser goes on after an error, so
//! that a walk over it can note and go on as well. A reading function returns `None` exactly when it has noted why.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::codes;
use crate::diagnostic::{Diagnostic, FileId, Located, Place, nearest};

/// The diagnostics found so far.
#[derive(Debug, Default)]
pub(super) struct Notes {
    diagnostics: Vec<Diagnostic>,
}

impl Notes {
    /// Notes one more.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        debug_assert!(codes::known(diagnostic.code), "{} is not in codes.rs", diagnostic.code);
        self.diagnostics.push(diagnostic);
    }

    /// Whether nothing was noted.
    pub(super) fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// All of them, in the order of the files and of the places in them.
    pub(super) fn into_sorted(mut self) -> Vec<Diagnostic> {
        let place = |d: &Diagnostic| d.at.as_ref().map(|at| (at.file, at.span.start, at.span.end));
        self.diagnostics.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.code.cmp(b.code)));
        self.diagnostics.dedup();
        self.diagnostics
    }
}

/// A value in the tree, with the key that leads to it (`filesystem.tmpfs`) for messages.
#[derive(Debug, Clone)]
pub(super) struct Item<'t> {
    pub(super) key: String,
    /// It is one of the list that the key has.
    element: bool,
    file: FileId,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Item<'t> {
    /// Where it stands.
    pub(super) fn at(&self) -> Place {
        Place { file: self.file, span: self.value.span() }
    }

    /// The value, of whatever type.
    pub(super) fn value(&self) -> &'t DeValue<'t> {
        self.value.get_ref()
    }

    /// What messages call it.
    fn name(&self) -> String {
        let (before, after) = if self.element {
            ("an element of `", "`")
        } else if !self.key.contains('.') && self.value().is_table() {
            ("`[", "]`")
        } else {
            ("`", "`")
        };
        // Not by format!, which takes several times as long: every key of every policy has a name.
        [before, self.key.as_str(), after].concat()
    }

    /// Notes that it is something else than `expected`, and is nothing.
    pub(super) fn wrong_type<T>(&self, expected: &str, notes: &mut Notes) -> Option<T> {
        let found = match self.value() {
            DeValue::Array(_) => "a list",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or a time",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Integer(_) => "a number",
            DeValue::String(_) => "a text",
            DeValue::Table(_) => "a table",
        };
        let message = format!("{} cannot be {found}", self.name());
        notes.push(Diagnostic::error("wrong-type", self.at(), message).label(format!("write {expected}")));
        None
    }

    /// A text without control characters.
    pub(super) fn text(&self, notes: &mut Notes) -> Option<Located<String>> {
        let Some(text) = self.value().as_str() else { return self.wrong_type("a text in quotes", notes) };
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Some(Located::new(text.to_owned(), self.at()));
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            let message = format!("{} contains the control character {control:?}", self.name());
            notes.push(Diagnostic::error("control-character", self.at(), message));
            return None;
        }
        if let Some(unseen) = text.chars().find(|c| is_unseen(*c)) {
            let message =
                format!("{} contains the unseen character {}", self.name(), unseen.escape_unicode());
            let help = "it would read as another text than it is";
            notes.push(Diagnostic::error("control-character", self.at(), message).help(help));
            return None;
        }
        Some(Located::new(text.to_owned(), self.at()))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, notes: &mut Notes) -> Option<Located<bool>> {
        match self.value().as_bool() {
            Some(value) => Some(Located::new(value, self.at())),
            None => self.wrong_type("true or false", notes),
        }
    }

    /// The whole number that it is, if it is one.
    pub(super) fn number(&self) -> Option<i128> {
        let integer = self.value().as_integer()?;
        // Whatever does not fit into 128 bits is out of every range, on the side of its sign.
        let out_of_range = if integer.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
        Some(i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(out_of_range))
    }

    /// A whole number from `low` to `high`.
    pub(super) fn integer<T>(&self, low: T, high: T, notes: &mut Notes) -> Option<Located<T>>
    where
        T: Copy + Into<i128> + TryFrom<i128>,
    {
        let Some(number) = self.number() else { return self.wrong_type("a whole number", notes) };
        self.within(number, low, high, notes)
    }

    /// `number` as a `T`, if it is from `low` to `high`.
    pub(super) fn within<T>(&self, number: i128, low: T, high: T, notes: &mut Notes) -> Option<Located<T>>
    where
        T: Copy + Into<i128> + TryFrom<i128>,
    {
        let (low, high) = (low.into(), high.into());
        if let (true, Ok(value)) = ((low..=high).contains(&number), T::try_from(number)) {
            return Some(Located::new(value, self.at()));
        }
        let message = format!("{} is out of range", self.name());
        let label = format!("from {low} to {high}");
        notes.push(Diagnostic::error("out-of-range", self.at(), message).label(label));
        None
    }

    /// The elements of a list.
    pub(super) fn elements(&self, notes: &mut Notes) -> Option<Vec<Item<'t>>> {
        let Some(array) = self.value().as_array() else { return self.wrong_type("a list in [ ]", notes) };
        let element = |value| Item { key: self.key.clone(), element: true, file: self.file, value };
        Some(array.iter().map(element).collect())
    }

    /// A table whose keys are among `keys`; others are noted.
    pub(super) fn table(&self, keys: &'static [&'static str], notes: &mut Notes) -> Option<Table<'t>> {
        let mut table = self.open_table(notes)?;
        table.refuse_unknown_keys(keys, notes);
        table.name = self.name();
        Some(table)
    }

    /// A table that may have any key.
    pub(super) fn open_table(&self, notes: &mut Notes) -> Option<Table<'t>> {
        let Some(entries) = self.value().as_table() else { return self.wrong_type("a table in { }", notes) };
        Some(Table {
            path: self.key.clone(),
            name: self.name(),
            at: self.at(),
            entries,
            keys: &[],
            unknown: false,
        })
    }
}

/// A table in the tree.
#[derive(Debug)]
pub(super) struct Table<'t> {
    path: String,
    name: String,
    at: Place,
    entries: &'t DeTable<'t>,
    keys: &'static [&'static str],
    /// It has a key that it cannot have, which was noted.
    unknown: bool,
}

impl<'t> Table<'t> {
    /// The whole of a file.
    pub(super) fn root(
        file: FileId,
        tree: &'t Spanned<DeTable<'t>>,
        keys: &'static [&'static str],
        notes: &mut Notes,
    ) -> Self {
        let (path, at, entries) = (String::new(), Place { file, span: 0..0 }, tree.get_ref());
        let mut table = Self { path, name: "a policy".to_owned(), at, entries, keys: &[], unknown: false };
        table.refuse_unknown_keys(keys, notes);
        table
    }

    /// Where it starts: its header, or its brace.
    pub(super) fn at(&self) -> Place {
        self.at.clone()
    }

    /// The value of a key, if it is written.
    pub(super) fn get(&self, key: &'static str) -> Option<Item<'t>> {
        debug_assert!(self.keys.contains(&key), "{key} is not among the keys of {}", self.path);
        let value = self.entries.get(key)?;
        Some(Item { key: self.dotted(key), element: false, file: self.at.file, value })
    }

    /// Where the value of a key begins, if it is written.
    pub(super) fn place(&self, key: &'static str) -> Option<Place> {
        Some(Place { file: self.at.file, span: self.entries.get(key)?.span() })
    }

    /// The value of a key that must be written.
    pub(super) fn require(&self, key: &'static str, notes: &mut Notes) -> Option<Item<'t>> {
        let item = self.get(key);
        // The unknown key is likely to be this one, misspelt; that was told.
        if item.is_none() && !self.unknown {
            let message = format!("{} lacks `{key}`", self.name);
            notes.push(Diagnostic::error("missing-key", self.at(), message));
        }
        item
    }

    /// Whether it has a key that it cannot have, which was noted.
    pub(super) fn has_unknown_key(&self) -> bool {
        self.unknown
    }

    /// Every key with its place and its value, in the order of the file.
    pub(super) fn entries(&self) -> Vec<(Located<String>, Item<'t>)> {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .map(|(key, value)| {
                let at = Place { file: self.at.file, span: key.span() };
                let item =
                    Item { key: self.dotted(key.get_ref()), element: false, file: self.at.file, value };
                (Located::new(key.get_ref().to_string(), at), item)
            })
            .collect();
        entries.sort_by_key(|(key, _)| key.at.span.start);
        entries
    }

    fn dotted(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { [self.path.as_str(), ".", key].concat() }
    }

    fn refuse_unknown_keys(&mut self, keys: &'static [&'static str], notes: &mut Notes) {
        self.keys = keys;
        if self.entries.keys().all(|key| keys.contains(&key.get_ref().as_ref())) {
            return;
        }
        self.unknown = true;
        for (key, _) in self.entries() {
            if !keys.contains(&key.value.as_str()) {
                let message = format!("{} has no key `{}`", self.name, key.value);
                notes.push(unknown("unknown-key", key.at, message, &key.value, keys));
            }
        }
    }
}

/// A word that is none of those allowed: the nearest one under the carets, all of them below.
pub(super) fn unknown(
    code: &'static str,
    at: Place,
    message: String,
    word: &str,
    allowed: &[&str],
) -> Diagnostic {
    let diagnostic = Diagnostic::error(code, at, message).label(did_you_mean(word, allowed.iter().copied()));
    // A list of hundreds of names helps nobody; the nearest one does.
    if allowed.len() > 40 {
        diagnostic
    } else {
        diagnostic.help(format!("allowed here: {}", allowed.join(", ")))
    }
}

/// ``did you mean `x`?``, or nothing.
pub(super) fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |nearest| format!("did you mean `{nearest}`?"))
}

/// Characters that show nothing or turn the order of what is shown around (Unicode's Cf, as far as it is that).
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
