//! Where in the state a record is, in each layout that a motherd may find.
//!
//! ```text
//!          layouts 1 and 2, which are written no more but by who found them        layout 3
//! record   2,048 bytes at 4096: the cells, two slots of 992                        512 bytes at 4096: the cells, two slots
//!                                                                                  of 244
//! slot     sequence, checksum, fields as wide as they can become                   sequence, checksum, length, fields as long
//!                                                                                  as they are; what is beyond 244 is in the
//!                                                                                  slot's own place behind all records
//! ```
//!
//! So a record of layout 3 costs a quarter of what it did, and one with long words costs more; no page of those places is
//! touched for who needs none. The checksum is over both parts, and both are of the one slot: that one of them was written
//! and the other was not is known as any other torn write.
//!
//! Whoever finds a state goes on in its layout. So a motherd may be put back by the one before it for as long as the state
//! is one that both know: until the next boot, which makes one of the newest layout.

use initldr::link::STATE_SIZE;

use crate::fnv::fnv;

/// One page for the header.
pub(super) const HEADER_SIZE: usize = 4096;
/// The second cell.
pub(super) const COMMAND_CELL_AT: usize = 8;
/// Behind the cells, how far the slots are: a sequence.
pub(super) const WHOLE_AT: usize = 16;
/// Of a page for the header and records of 2 KiB there are as many in 4 MiB. Smaller records do not make them more: a motherd
/// that is put back has room for those that there are.
pub(super) const RECORDS: usize = (STATE_SIZE - HEADER_SIZE) / 2048;
/// No slot is longer.
pub(super) const SLOT_MAX: usize = 992;

/// A layout: its number, and where things are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) layout: u32,
    /// As the header has it. No byte that is damaged makes that of one shape that of another.
    pub(super) word: u32,
    pub(super) record: usize,
    /// What comes before its slots.
    pub(super) cells: usize,
    /// The part of a slot that is in the record.
    pub(super) slot: usize,
    /// What comes before the fields.
    pub(super) slot_header: usize,
    /// What is behind all records for one slot.
    pub(super) tail: usize,
    /// Fields take what they need.
    pub(super) packed: bool,
}

pub(super) const WIDE: Shape = Shape {
    layout: 2,
    word: 2,
    record: 2048,
    cells: 64,
    slot: SLOT_MAX,
    slot_header: 16,
    tail: 0,
    packed: false,
};
pub(super) const PACKED: Shape = Shape {
    layout: 3,
    word: 3 | (!3 << 16),
    record: 512,
    cells: 24,
    slot: 244,
    slot_header: 18,
    tail: 704,
    packed: true,
};

const _: () = {
    let both = [WIDE, PACKED];
    let mut at = 0;
    while at < both.len() {
        let shape = &both[at];
        assert!(shape.cells + 2 * shape.slot == shape.record, "a record is its cells and its slots");
        assert!(shape.slot + shape.tail <= SLOT_MAX, "a slot has room in memory");
        assert!(shape.tail_at(RECORDS, 0) <= STATE_SIZE, "what is behind the records has room in the state");
        at += 1;
    }
};

impl Shape {
    /// That of a header's layout word. What layout 1 has otherwise is in the header.
    pub(super) fn of(word: u32) -> Option<&'static Self> {
        match word {
            1 => Some(&WIDE),
            _ => [&WIDE, &PACKED].into_iter().find(|shape| shape.word == word),
        }
    }

    /// Where a record is.
    pub(super) const fn record_at(&self, index: usize) -> usize {
        HEADER_SIZE + index * self.record
    }

    /// Where the part of a slot is that is in the record.
    pub(super) const fn slot_at(&self, index: usize, which: usize) -> usize {
        self.record_at(index) + self.cells + which * self.slot
    }

    /// And where the rest of it is. Those begin on a page of their own.
    pub(super) const fn tail_at(&self, index: usize, which: usize) -> usize {
        self.record_at(RECORDS).next_multiple_of(4096) + (2 * index + which) * self.tail
    }

    /// How long a slot is of which this is the beginning; `None`: none is.
    pub(super) fn length(&self, begin: &[u8]) -> Option<usize> {
        if !self.packed {
            return Some(self.slot);
        }
        let [low, high] = begin.get(16..18)?.try_into().ok()?;
        let length = usize::from(u16::from_le_bytes([low, high]));
        (self.slot_header..=self.slot + self.tail).contains(&length).then_some(length)
    }
}

/// A slot, in this process's own memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) shape: &'static Shape,
    pub(super) bytes: [u8; SLOT_MAX],
    /// As it says itself; 0: that cannot be.
    pub(super) len: usize,
}

impl Slot {
    /// Reads one, with `read`, which copies bytes of the state.
    pub(super) fn read(
        shape: &'static Shape,
        index: usize,
        which: usize,
        mut read: impl FnMut(usize, &mut [u8]),
    ) -> Self {
        let mut slot = Self { shape, bytes: [0; SLOT_MAX], len: 0 };
        let (begin, tail) = slot.bytes.split_at_mut(shape.slot);
        read(shape.slot_at(index, which), begin);
        slot.len = shape.length(begin).unwrap_or_default();
        if let Some(more) = slot.len.checked_sub(shape.slot).filter(|more| *more > 0) {
            read(shape.tail_at(index, which), &mut tail[..more]);
        }
        slot
    }

    /// Its bytes and where they go, in the order in which they are written.
    pub(super) fn parts(&self, index: usize, which: usize) -> [(usize, &[u8]); 3] {
        let (begin, tail) = self.bytes[..self.len].split_at(self.len.min(self.shape.slot));
        let (half, rest) = begin.split_at(begin.len() / 2);
        let at = self.shape.slot_at(index, which);
        [(self.shape.tail_at(index, which), tail), (at, half), (at + half.len(), rest)]
    }

    fn word(&self, at: usize) -> u64 {
        self.bytes[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default()
    }

    /// 48 bits; a transition a microsecond fills them in nine years.
    pub(super) fn sequence(&self) -> u64 {
        self.word(0) & SEQUENCE
    }

    /// In which layout the fields were written.
    pub(super) fn fields(&self) -> u16 {
        u16::from_le_bytes([self.bytes[6], self.bytes[7]]).max(1)
    }

    /// It was written whole, and is not damaged.
    pub(super) fn is_whole(&self) -> bool {
        self.len != 0 && self.sequence() != 0 && self.word(8) == self.checksum()
    }

    /// Nobody ever wrote to it.
    pub(super) fn is_blank(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }

    /// Writes what comes before the fields.
    pub(super) fn seal(&mut self, sequence: u64, fields: u16) {
        let fields = if fields == 1 { 0 } else { fields };
        let word = (sequence & SEQUENCE) | u64::from(fields) << 48;
        self.bytes[..8].copy_from_slice(&word.to_le_bytes());
        if self.shape.packed {
            // It has room for 992.
            let length = u16::try_from(self.len).unwrap_or_default();
            self.bytes[16..18].copy_from_slice(&length.to_le_bytes());
        }
        let sum = self.checksum();
        self.bytes[8..16].copy_from_slice(&sum.to_le_bytes());
    }

    /// Over all of it but the checksum itself: it tells a torn write from a whole one. Nobody else writes here.
    fn checksum(&self) -> u64 {
        fnv(self.bytes[..8].iter().chain(&self.bytes[16..self.len]))
    }
}

/// See [`Slot::sequence`].
pub(super) const SEQUENCE: u64 = (1 << 48) - 1;
