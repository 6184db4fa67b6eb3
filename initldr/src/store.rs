//! The descriptors that outlive motherd: named slots, bounded.
//!
//! Invariant: each name is there once, and each descriptor is open.

use crate::abi::{EBADF, EDQUOT, ENOENT, ENOSPC};
use crate::{link::SlotName, sys::Fd};

/// 4096 slots: a thousand services with a process, a log pipe and two more each. What was never used is
/// no memory.
pub const CAPACITY: usize = 4096;
/// So many names may begin alike up to the second slash, `fd/SERVICE/`: no service takes the slots of the others. As
/// many descriptors come with one message, 253, and a service may have no more of them.
pub const QUOTA: usize = 256;

type Slot = Option<(SlotName, Fd)>;

/// See the module. From the number on no slot was ever used, so none is looked at.
#[derive(Debug)]
pub struct Store([Slot; CAPACITY], usize);

impl Store {
    /// Nothing stored.
    pub const EMPTY: Store = Store([const { None }; CAPACITY], 0);

    /// Keeps a descriptor, in place of the one of that name where there is one. Answers with an errno if it does not.
    pub fn put(&mut self, name: SlotName, fd: Option<Fd>) -> Option<i32> {
        let Some(fd) = fd else { return Some(EBADF) };
        let held = self.find(Some(&name));
        if held.is_none() && self.alike(&name) >= QUOTA {
            return Some(EDQUOT);
        }
        let at = held.or_else(|| self.find(None)).unwrap_or(self.1);
        let Some(slot) = self.0.get_mut(at) else { return Some(ENOSPC) };
        *slot = Some((name, fd));
        self.1 = self.1.max(at + 1);
        None
    }

    /// Closes and forgets a slot. Answers with an errno where there is none.
    pub fn remove(&mut self, name: SlotName) -> Option<i32> {
        self.find(Some(&name)).map_or(Some(ENOENT), |at| self.0[at].take().and(None))
    }

    /// The nth slot in use: its name and the number of its descriptor.
    pub fn get(&self, index: usize) -> Option<(SlotName, i32)> {
        self.0.iter().take(self.1).flatten().nth(index).map(|(name, fd)| (*name, fd.raw()))
    }

    /// How many share this name's kind and service.
    fn alike(&self, name: &SlotName) -> usize {
        let Some((at, _)) = name.as_str().match_indices('/').nth(1) else { return 0 };
        let prefix = name.as_str().get(..=at).unwrap_or_default();
        self.0.iter().take(self.1).flatten().filter(|(held, _)| held.as_str().starts_with(prefix)).count()
    }

    /// The slot of that name; of none: the first that is free.
    fn find(&self, name: Option<&SlotName>) -> Option<usize> {
        self.0.iter().take(self.1).position(|slot| slot.as_ref().map(|(held, _)| held) == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        abi::{EAGAIN, O_RDWR, POLLIN},
        sys::{self, Errno},
    };

    const POLLHUP: i32 = 0x10;

    fn name(text: &str) -> SlotName {
        SlotName::new(text).expect("a valid name")
    }

    fn fd() -> Option<Fd> {
        Some(sys::open(c"/dev/null", O_RDWR).expect("/dev/null"))
    }

    fn names(store: &Store) -> Vec<String> {
        (0..).map_while(|index| store.get(index)).map(|(name, _)| name.as_str().to_owned()).collect()
    }

    #[test]
    fn a_name_is_held_once_and_the_newer_descriptor_wins() {
        let mut store = Box::new(Store::EMPTY);
        let (ours, older) = sys::socketpair().expect("a pair");
        assert_eq!((store.put(name("a"), Some(older)), store.put(name("b"), fd())), (None, None));
        let newer = fd();
        let number = newer.as_ref().map(Fd::raw);
        let heard = || sys::receive(&ours, &mut [0; 8]).map(|received| received.0);
        assert_eq!(heard(), Err(Errno(EAGAIN)), "control: the older one is open");
        assert_eq!(store.put(name("a"), newer), None);
        assert_eq!(store.get(0).map(|slot| slot.1), number);
        // Soon.
        while sys::ppoll([[ours.raw(), POLLIN]], None) != Ok([POLLIN | POLLHUP]) {}
        assert_eq!(heard(), Ok(0), "the older one is closed");
        assert_eq!(names(&store), ["a", "b"]);
    }

    #[test]
    fn a_slot_that_is_dropped_is_closed_and_its_place_is_used_again() {
        let mut store = Box::new(Store::EMPTY);
        for slot in ["a", "b", "c"] {
            assert_eq!(store.put(name(slot), fd()), None);
        }
        assert_eq!((store.remove(name("a")), store.remove(name("a"))), (None, Some(ENOENT)));
        assert_eq!(names(&store), ["b", "c"]);
        assert_eq!(store.put(name("d"), fd()), None);
        assert_eq!(names(&store), ["d", "b", "c"]);
    }

    #[test]
    fn a_full_store_and_a_missing_descriptor_are_answered() {
        let mut store = Box::new(Store::EMPTY);
        assert_eq!(store.put(name("x"), None), Some(EBADF));
        let mut taken = 0;
        for index in 0..=QUOTA {
            let answer = store.put(name(&format!("fd/greedy/{index}")), fd());
            assert_eq!(answer, (index == QUOTA).then_some(EDQUOT));
        }
        assert_eq!(store.put(name("fd/greedy/0"), fd()), None, "a replacement is not one more");
        assert_eq!(store.put(name("fd/modest/0"), fd()), None);
        (0..QUOTA).for_each(|index| assert_eq!(store.remove(name(&format!("fd/greedy/{index}"))), None));
        assert_eq!(store.remove(name("fd/modest/0")), None);
        for index in 0..CAPACITY {
            let Ok(fd) = sys::open(c"/dev/null", O_RDWR) else { break };
            assert_eq!(store.put(name(&format!("slot {index}")), Some(fd)), None);
            taken += 1;
        }
        if taken == CAPACITY {
            assert_eq!(store.put(name("one more"), fd()), Some(ENOSPC));
            assert_eq!(store.put(name("slot 7"), fd()), None, "a replacement needs no room");
        } else {
            assert!(taken > 200, "the descriptor limit of this test run is very low: {taken}");
        }
    }
}
