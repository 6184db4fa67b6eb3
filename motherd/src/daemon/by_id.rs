//! [`ById`]: something that nearly every service has. A tree of it has nodes that are half empty.

use crate::graph::Id;

/// Values by the id of their service, in one piece.
#[derive(Debug)]
pub(super) struct ById<T>(Vec<Option<T>>);

impl<T> Default for ById<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ById<T> {
    pub(super) fn get(&self, id: Id) -> Option<&T> {
        self.0.get(id.0)?.as_ref()
    }

    /// What was there before.
    pub(super) fn insert(&mut self, id: Id, value: T) -> Option<T> {
        if self.0.len() <= id.0 {
            self.0.resize_with(id.0 + 1, || None);
        }
        self.0[id.0].replace(value)
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        self.0.get_mut(id.0)?.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_there_until_it_is_taken_out() {
        let mut values = ById::default();
        assert_eq!(values.get(Id(3)), None);
        assert_eq!(values.remove(Id(3)), None);
        assert_eq!(
            (values.insert(Id(3), 'a'), values.insert(Id(3), 'b'), values.insert(Id(1), 'c')),
            (None, Some('a'), None)
        );
        assert_eq!([1, 2, 3, 4].map(|id| values.get(Id(id)).copied()), [Some('c'), None, Some('b'), None]);
        assert_eq!((values.remove(Id(3)), values.get(Id(3))), (Some('b'), None));
    }
}
