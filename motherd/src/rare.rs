//! [`Rare`]: what is as usual for most services, and takes room only for the others.

use std::ops::{Deref, DerefMut};

/// A type with a value that most have.
pub trait Usual: Clone + PartialEq + 'static {
    /// That value.
    fn usual() -> &'static Self;
}

/// A value that is the usual one, or one of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Rare<T>(Option<Box<T>>);

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Usual> From<T> for Rare<T> {
    fn from(value: T) -> Self {
        Self((value != *T::usual()).then(|| Box::new(value)))
    }
}

impl<T: Usual> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or_else(|| T::usual())
    }
}

impl<T: Usual> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_with(|| Box::new(T::usual().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Usual for u64 {
        fn usual() -> &'static Self {
            &7
        }
    }

    #[test]
    fn only_what_is_unusual_takes_room() {
        let mut rare = Rare::from(7);
        assert!(rare.0.is_none());
        assert_eq!((*rare, &rare), (7, &Rare::default()));
        *rare += 1;
        assert_eq!((*rare, *Rare::from(8_u64), Rare::from(8)), (8, 8, rare));
    }
}
