//! `[dependencies]`: which services a service names, and as what. What follows from each is [`crate::manager`]'s table.

use sandbox::diagnostic::Located;

use super::{raw::RawService, validate::Checker};

/// What another service is to the one that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// Must be up first, and while it runs.
    Needs,
    /// Must be up first.
    Milestone,
    /// Is started first, and may fail.
    Wants,
    /// Comes first, if it comes.
    After,
    /// Comes later, if it comes.
    Before,
    /// Must be up first, and at every moment after.
    BoundTo,
    /// Is done first, and again each time that it is started.
    PreparedBy,
    /// Is never up at the same time.
    Conflicts,
}

impl Relation {
    /// Each of them, in the order of the reference.
    pub const ALL: [Self; 8] = [
        Self::Needs,
        Self::Milestone,
        Self::Wants,
        Self::After,
        Self::Before,
        Self::BoundTo,
        Self::PreparedBy,
        Self::Conflicts,
    ];

    /// How it is written.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Needs => "needs",
            Self::Milestone => "milestone",
            Self::Wants => "wants",
            Self::After => "after",
            Self::Before => "before",
            Self::BoundTo => "bound_to",
            Self::PreparedBy => "prepared_by",
            Self::Conflicts => "conflicts",
        }
    }

    /// How it is said, between the two names.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Self::Needs => "needs",
            Self::Milestone => "has the milestone",
            Self::Wants => "wants",
            Self::After => "is after",
            Self::Before => "is before",
            Self::BoundTo => "is bound to",
            Self::PreparedBy => "is prepared by",
            Self::Conflicts => "conflicts with",
        }
    }

    /// Without the other one it cannot start.
    #[must_use]
    pub fn is_required(self) -> bool {
        match self {
            Self::Needs | Self::Milestone | Self::BoundTo | Self::PreparedBy => true,
            Self::Wants | Self::After | Self::Before | Self::Conflicts => false,
        }
    }

    /// The other one is started with it.
    #[must_use]
    pub fn starts(self) -> bool {
        self.is_required() || self == Self::Wants
    }

    /// The two come in an order.
    #[must_use]
    pub fn orders(self) -> bool {
        self != Self::Conflicts
    }
}

/// The names of a `[dependencies]`, with their places.
#[derive(Debug, Clone)]
pub struct Dependencies {
    /// Those of each relation together, in the order of [`Relation::ALL`]: one list, since most services have few.
    names: Vec<Located<String>>,
    /// Where those of each relation end.
    ends: [u32; Relation::ALL.len()],
    /// It runs on while what it needs crashed and is started again.
    pub tolerate_restart: bool,
}

impl Default for Dependencies {
    fn default() -> Self {
        Self { names: Vec::new(), ends: Default::default(), tolerate_restart: true }
    }
}

impl Dependencies {
    /// The names of one relation.
    #[must_use]
    pub fn of(&self, relation: Relation) -> &[Located<String>] {
        let begin = (relation as usize).checked_sub(1).map_or(0, |before| self.end(before));
        &self.names[begin..self.end(relation as usize)]
    }

    fn end(&self, relation: usize) -> usize {
        self.ends[relation] as usize
    }

    /// One name more.
    pub(crate) fn add(&mut self, relation: Relation, name: Located<String>) {
        self.names.insert(self.end(relation as usize), name);
        self.ends[relation as usize..].iter_mut().for_each(|end| *end += 1);
    }

    /// One need more, if it is not there.
    pub(super) fn need(&mut self, name: Located<String>) {
        if self.of(Relation::Needs).iter().all(|need| need.value != name.value) {
            self.add(Relation::Needs, name);
        }
    }

    /// All names.
    pub fn each(&self) -> impl Iterator<Item = (Relation, &Located<String>)> {
        Relation::ALL
            .into_iter()
            .flat_map(|relation| self.of(relation).iter().map(move |name| (relation, name)))
    }
}

impl Checker<'_> {
    /// `own` is the service's own name: a service that depends on itself is a cycle.
    pub(super) fn dependencies(&mut self, own: &str, raw: &RawService) -> Dependencies {
        let mut dependencies = Dependencies::default();
        for relation in Relation::ALL {
            for name in self.names(own, &raw.dependencies[relation as usize]) {
                dependencies.add(relation, name);
            }
        }
        dependencies.names.shrink_to_fit();
        if let Some(tolerate) = &raw.tolerate_restart {
            dependencies.tolerate_restart = tolerate.value;
        }
        dependencies
    }
}
