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
    let mut slot = slot(name.as_bytes());
    while let Some((number, known)) = BY_NAME[slot].and_then(|index| TABLE.get(usize::from(index))) {
        if *known == name {
            return Some(*number);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

/// Every number.
pub(crate) fn numbers() -> impl Iterator<Item = u32> {
    TABLE.iter().map(|(number, _)| *number)
}

/// More than twice as many as there are calls.
const SLOTS: usize = 1024;
const _: () = assert!(TABLE.len() * 2 < SLOTS);

/// Where the calls are in [`TABLE`], by a hash of their names: a policy asks for some four hundred while it is read.
static BY_NAME: [Option<u16>; SLOTS] = BY_NAME_WHERE_CONSTANT;
const BY_NAME_WHERE_CONSTANT: [Option<u16>; SLOTS] = by_name();

const fn by_name() -> [Option<u16>; SLOTS] {
    let mut slots = [None; SLOTS];
    let mut index: u16 = 0;
    while (index as usize) < TABLE.len() {
        let mut slot = slot(TABLE[index as usize].1.as_bytes());
        while slots[slot].is_some() {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = Some(index);
        index += 1;
    }
    slots
}

/// Where a name is looked for first (FNV-1a).
const fn slot(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ hash >> 16) as usize % SLOTS
}

/// The same where a constant is made: a call that is not known is an error of the compiler's.
const fn number_of(name: &[u8]) -> u32 {
    let mut slot = slot(name);
    loop {
        let Some(index) = BY_NAME_WHERE_CONSTANT[slot] else { panic!("no call has this name") };
        let (number, known) = TABLE[index as usize];
        if is_same(known.as_bytes(), name) {
            return number;
        }
        slot = (slot + 1) % SLOTS;
    }
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// The name of a call, by its number.
#[must_use]
pub fn name(number: u32) -> Option<&'static str> {
    // The first hundreds have no gap.
    if let Some((known, name)) = usize::try_from(number).ok().and_then(|index| TABLE.get(index))
        && *known == number
    {
        return Some(name);
    }
    let index = TABLE.binary_search_by_key(&number, |(known, _)| *known).ok()?;
    Some(TABLE[index].1)
}

/// The highest number that the table knows; a filter answers what is above it with ENOSYS.
#[must_use]
pub const fn highest() -> u32 {
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
