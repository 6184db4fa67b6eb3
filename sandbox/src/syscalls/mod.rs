//! The names and numbers of system calls on x86_64, and the groups that policies name them by.
//!
//! Invariant: every name in a group is in the table, and every call of the table is in a group. What the kernel has
//! and the table lacks is unknown to every policy, so no policy can allow it: a filter answers it with ENOSYS.

pub mod foreign;
pub mod groups;
mod table;
pub mod versions;

use table::TABLE;

/// The number of a call, by its name.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    // Linear: a policy asks some four hundred times while it loads, once.
    TABLE.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
}

/// The name of a call, by its number.
#[must_use]
pub fn name(number: u32) -> Option<&'static str> {
    let index = TABLE.binary_search_by_key(&number, |(known, _)| *known).ok()?;
    Some(TABLE[index].1)
}

/// The highest number that the table knows; a filter answers what is above it with ENOSYS.
#[must_use]
pub fn highest() -> u32 {
    TABLE[TABLE.len() - 1].0
}

/// Every name, in the order of the numbers.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_each_others_inverse() {
        for known in names() {
            assert_eq!(number(known).and_then(name), Some(known));
        }
        assert_eq!(number("opnat"), None);
        assert_eq!(name(400), None);
        assert_eq!(name(highest()), Some("listns"));
    }
}
