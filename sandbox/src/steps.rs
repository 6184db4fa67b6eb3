//! [`Steps`]: a list of steps of a plan, most of which is one with that of another service.
//!
//! What the plans of one policy do differs in a handful of places: who the service is. So a list is another one's and what
//! is otherwise.

use std::{fmt, ops::Index, sync::Arc};

use crate::plan::Step;

/// See the module.
#[derive(Clone)]
pub(crate) struct Steps {
    common: Arc<[Step]>,
    /// What stands in the place of some of those, by their places in ascending order.
    own: Box<[(usize, Step)]>,
}

impl Steps {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.common.len()
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Step> + ExactSizeIterator + Clone {
        (0..self.len()).map(|place| &self[place])
    }

    /// In one piece, for a launch.
    pub(crate) fn in_one(&self) -> Arc<[Step]> {
        if self.own.is_empty() { self.common.clone() } else { self.iter().cloned().collect() }
    }

    /// Is that list from here on and what is otherwise in this one, where that is less.
    pub(crate) fn share(&mut self, known: &Self) {
        let alike =
            |place: usize| self.common.get(place).filter(|step| known.common.get(place) == Some(*step));
        let (mut own, mut alike_in_all) = (Vec::new(), 0);
        for (place, step) in self.iter().enumerate() {
            match alike(place) {
                Some(_) => alike_in_all += 1,
                None => own.push((place, step.clone())),
            }
        }
        if self.own.is_empty() && self.len() == known.len() && alike_in_all > own.len() {
            *self = Self { common: known.common.clone(), own: own.into() };
        }
    }

    /// Whether they are kept once for both.
    #[cfg(test)]
    pub(crate) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.common, &other.common)
    }
}

impl From<Vec<Step>> for Steps {
    fn from(steps: Vec<Step>) -> Self {
        Self { common: steps.into(), own: Box::default() }
    }
}

impl Index<usize> for Steps {
    type Output = Step;

    fn index(&self, place: usize) -> &Step {
        match self.own.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(at) => &self.own[at].1,
            Err(_) => &self.common[place],
        }
    }
}

impl PartialEq for Steps {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Action, Op, Phase};

    fn list(masks: &[u32]) -> Steps {
        let step = |mask: &u32| {
            let op = Op::Umask(*mask);
            Step::new(Action { phase: Phase::Umask, op, object: String::new(), at: None, shared: false })
        };
        masks.iter().map(step).collect::<Vec<_>>().into()
    }

    #[test]
    fn a_list_is_the_same_whether_it_is_shared_or_not() {
        let known = list(&[1, 2, 3, 4, 5, 6]);
        for (masks, shared) in [
            (&[1, 2, 3, 4, 5, 6][..], true),
            (&[9, 2, 3, 4, 5, 8], true),
            (&[1, 2, 7, 4, 5, 6], true),
            (&[9, 9, 9, 4, 5, 6], false),
            (&[1, 2, 3, 4, 5], false),
            (&[1, 2, 3, 4, 5, 6, 7], false),
            (&[], false),
        ] {
            let (alone, mut both) = (list(masks), list(masks));
            both.share(&known);
            assert_eq!(both.is_shared_with(&known), shared, "{masks:?}");
            assert_eq!(both, alone);
            assert_eq!((both.in_one(), format!("{both:?}")), (alone.in_one(), format!("{alone:?}")));
            assert!(both.iter().rev().eq(alone.iter().rev()));
            assert_eq!(both.len(), masks.len());
            // A third takes the list that the second one has.
            let mut third = list(masks);
            third.share(&both);
            assert_eq!(third, alone);
            assert_eq!(third.is_shared_with(&both), !masks.is_empty());
            assert_eq!(both == list(&[1, 2, 3, 4, 5, 6]), masks == [1, 2, 3, 4, 5, 6]);
        }
    }
}
