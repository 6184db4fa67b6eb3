//! Which service's record is where.

use std::collections::BTreeMap;

/// Where a record is, and which of its slots is the newest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) index: usize,
    pub(super) newest: usize,
    pub(super) sequence: u64,
}

/// The places of all, by name: sorted, for there are two thousand at most and seldom one more.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<(Box<str>, Small)>);

/// A [`Place`] as it is kept: of an index that is below [`super::RECORDS`].
#[derive(Debug, Clone, Copy)]
struct Small {
    sequence: u64,
    index: u16,
    newest: bool,
}

impl From<Place> for Small {
    fn from(place: Place) -> Self {
        let index = u16::try_from(place.index).unwrap_or(u16::MAX);
        Self { sequence: place.sequence, index, newest: place.newest == 1 }
    }
}

impl From<Small> for Place {
    fn from(small: Small) -> Self {
        Self { index: small.index.into(), newest: small.newest.into(), sequence: small.sequence }
    }
}

impl Places {
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_ref().cmp(name))
    }

    pub(super) fn get(&self, name: &str) -> Option<Place> {
        self.find(name).ok().map(|at| self.0[at].1.into())
    }

    pub(super) fn set(&mut self, name: &str, place: Place) {
        match self.find(name) {
            Ok(at) => self.0[at].1 = place.into(),
            Err(at) => self.0.insert(at, (name.into(), place.into())),
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Place> {
        self.find(name).ok().map(|at| self.0.remove(at).1.into())
    }
}

impl From<BTreeMap<Box<str>, Place>> for Places {
    fn from(by_name: BTreeMap<Box<str>, Place>) -> Self {
        Self(by_name.into_iter().map(|(name, place)| (name, place.into())).collect())
    }
}
