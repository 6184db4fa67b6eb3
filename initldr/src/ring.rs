//! The exits that motherd has not acknowledged yet, in a ring of fixed size.
//!
//! Invariant: records are held with consecutive sequence numbers, the newest of which is `last`; what a full ring
//! overwrites is counted, never silent.

use crate::link::ExitRecord;

/// 16384 records of 72 bytes are 1.1 MiB of address space, of which an emptied ring begins anew at the front: what is
/// resident is what once was outstanding. A storm of 10,000 orphans while motherd is down loses no service's exit.
pub const CAPACITY: usize = 16384;

/// See the module.
#[derive(Debug)]
pub struct Ring {
    records: [Option<ExitRecord>; CAPACITY],
    /// The sequence number before that of the record at the front.
    base: u64,
    /// The sequence number before the oldest one held.
    before: u64,
    /// The sequence number of the newest exit ever, 0 before the first.
    pub last: u64,
    /// How many were overwritten.
    pub lost: u64,
}

impl Ring {
    /// All zero bytes: a static one takes no room in the program.
    pub const EMPTY: Ring = Ring { records: [None; CAPACITY], base: 0, before: 0, last: 0, lost: 0 };

    /// Records an exit under the next sequence number, over the oldest one where there is no room.
    pub fn push(&mut self, exit: ExitRecord) {
        self.last += 1;
        if self.last - self.before > CAPACITY as u64 {
            self.before += 1;
            self.lost += 1;
        }
        self.records[self.index(self.last)] = Some(ExitRecord { sequence: self.last, ..exit });
    }

    /// Counts on from `sequence`, with nothing held.
    pub fn count_from(&mut self, sequence: u64) {
        (self.base, self.before, self.last) = (sequence, sequence, sequence);
    }

    /// Forgets every record up to and including `sequence`.
    pub fn acknowledge(&mut self, sequence: u64) {
        self.before = sequence.clamp(self.before, self.last);
        if self.before == self.last {
            self.base = self.last;
        }
    }

    /// The first record after `sequence` that is still held.
    pub fn after(&self, sequence: u64) -> Option<ExitRecord> {
        let next = sequence.max(self.before) + 1;
        if next <= self.last { self.records[self.index(next)] } else { None }
    }

    /// Where the record of a number above `base` is.
    fn index(&self, sequence: u64) -> usize {
        usize::try_from(sequence - self.base - 1).unwrap_or_default() % CAPACITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn exit(pid: u32) -> ExitRecord {
        ExitRecord { pid, ..ExitRecord::default() }
    }

    fn held(ring: &Ring) -> Vec<(u64, u32)> {
        let mut at = 0;
        std::iter::from_fn(|| {
            let record = ring.after(at)?;
            at = record.sequence;
            Some((record.sequence, record.pid))
        })
        .collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_replayed_in_order() {
        let mut ring = Box::new(Ring::EMPTY);
        (1..=5).for_each(|pid| ring.push(exit(pid)));
        ring.acknowledge(2);
        assert_eq!(held(&ring), [(3, 3), (4, 4), (5, 5)]);
        ring.acknowledge(1); // again, and out of order
        assert_eq!((held(&ring).len(), ring.last, ring.lost), (3, 5, 0));
        ring.acknowledge(u64::MAX);
        assert_eq!((held(&ring), ring.last, ring.lost), (vec![], 5, 0));
        ring.push(exit(6));
        assert_eq!((held(&ring), ring.index(6)), (vec![(6, 6)], 0), "at the front again");
    }

    #[test]
    fn an_overflow_keeps_the_newest_and_is_counted() {
        let mut ring = Box::new(Ring::EMPTY);
        (1..=16388).for_each(|pid| ring.push(exit(pid)));
        assert_eq!((held(&ring).len(), ring.last, ring.lost), (16384, 16388, 4));
        assert_eq!(ring.after(0).map(|record| record.pid), Some(5));
        assert_eq!(held(&ring).last(), Some(&(16388, 16388)));
    }

    #[test]
    fn it_agrees_with_a_queue_that_has_no_capacity_tricks() {
        let mut ring = Box::new(Ring::EMPTY);
        let mut model = VecDeque::new();
        let (mut seed, mut next) = (7_u64, 0_u32);
        for _ in 0..300 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let amount = (seed >> 33) % 2800;
            if seed >> 63 == 0 {
                for _ in 0..amount {
                    next += 1;
                    ring.push(exit(next));
                    model.push_back((u64::from(next), next));
                    if model.len() > CAPACITY {
                        model.pop_front();
                    }
                }
            } else {
                let to = model.front().map_or(0, |front| front.0) + amount;
                ring.acknowledge(to);
                model.retain(|record| record.0 > to);
            }
            assert_eq!(held(&ring), Vec::from(model.clone()));
        }
        assert!(ring.lost > 0);
    }
}
