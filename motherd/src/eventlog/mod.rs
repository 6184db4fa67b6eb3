//! The event log: what happened to which service, when, and why; the newest few thousand entries, in a memory that
//! outlives motherd (a memfd that initldr keeps).
//!
//! ```text
//! 0    magic, layout version
//! 64   cell 1   S | checksum, sequence, length, fields ...      an entry begins
//! 128  cell 2   C | ...                                         and goes on
//! 192  cell 3   S | checksum, sequence, ...                     the next
//! ```
//!
//! The memory is a ring of cells of 64 bytes; the first byte of each says whether an entry begins there. An entry never
//! goes around the end. There is no head and no tail to keep in step: whoever maps it finds the entries by their first
//! cells, believes those whose checksum is right, and sorts them by sequence. So a motherd that dies at any instruction
//! leaves every older entry and the new one whole or not at all. What a service can put into an entry never stands in
//! a cell's first byte, so it can forge none.

mod entry;

use std::{collections::VecDeque, os::fd::AsFd};

use nix::errno::Errno;

pub use self::entry::{Entry, What};
use crate::sys::memory::Shared;

/// 256 KiB: with 120 bytes an entry, which is usual, some 2000 of them.
pub const SIZE: usize = 256 << 10;
/// "MotherDe", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"MotherDe");
/// The layout above and that of an entry. Another version is not read.
pub(crate) const LAYOUT: u64 = 1;
/// A cache line; the first cell is the header.
const CELL: usize = 64;
/// What a cell holds besides its tag.
const PAYLOAD: usize = CELL - 1;
/// All cells but the header.
const CELLS: usize = SIZE / CELL - 1;
/// The first byte of a cell in which an entry begins.
const START: u8 = b'S';
/// The first byte of a cell in which one goes on.
const CONTINUED: u8 = b'C';

/// The mapped log.
#[derive(Debug)]
pub struct EventLog {
    memory: Shared,
    /// Where each entry is, oldest first.
    index: VecDeque<Place>,
    /// The cell after the newest entry.
    next: usize,
    sequence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    sequence: u64,
    cell: usize,
    cells: usize,
}

impl EventLog {
    /// Maps a memfd of [`SIZE`] bytes and finds what is in it. Something that no motherd of this layout wrote is cleared.
    ///
    /// # Errors
    /// mmap(2), or ENODATA where it is too small.
    pub fn map(fd: impl AsFd) -> Result<Self, Errno> {
        let memory = Shared::map(fd, SIZE)?;
        let mut log = Self { memory, index: VecDeque::new(), next: 0, sequence: 0 };
        let mut header = [0; 16];
        log.memory.read(0, &mut header);
        let ours = [MAGIC.to_le_bytes(), LAYOUT.to_le_bytes()].concat();
        if header == *ours {
            log.find();
        } else {
            log.clear(0..CELLS);
            log.memory.write(0, &ours);
        }
        Ok(log)
    }

    fn find(&mut self) {
        let mut found: Vec<Place> = (0..CELLS)
            .filter_map(|cell| {
                let (entry, cells) = self.read(cell)?;
                Some(Place { sequence: entry.sequence, cell, cells })
            })
            .collect();
        found.sort_by_key(|place| place.sequence);
        if let Some(newest) = found.last() {
            self.next = newest.cell + newest.cells;
            self.sequence = newest.sequence;
        }
        self.index = found.into();
    }

    /// The sequence number of the newest entry; 0 where there is none.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.sequence
    }

    /// The sequence number of the oldest entry; that of the next where there is none.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.index.front().map_or(self.sequence + 1, |place| place.sequence)
    }

    /// Writes an entry, over the oldest ones where there is no room; its sequence number is the next one, whatever it
    /// says.
    pub fn push(&mut self, entry: &Entry) {
        let sequence = self.sequence + 1;
        let bytes = entry.encode(sequence);
        let cells = bytes.len().div_ceil(PAYLOAD);
        if self.next + cells > CELLS {
            let rest = self.next..CELLS;
            self.index.retain(|place| !rest.contains(&place.cell));
            self.clear(rest);
            self.next = 0;
        }
        let range = self.next..self.next + cells;
        while let Some(oldest) = self.index.front().copied()
            && oldest.cell < range.end
            && oldest.cell + oldest.cells > range.start
        {
            self.index.pop_front();
            self.clear(oldest.cell..oldest.cell + oldest.cells);
        }
        for (number, part) in bytes.chunks(PAYLOAD).enumerate() {
            let mut cell = [0; CELL];
            cell[0] = if number == 0 { START } else { CONTINUED };
            cell[1..=part.len()].copy_from_slice(part);
            self.memory.write(offset(range.start + number), &cell);
        }
        self.index.push_back(Place { sequence, cell: range.start, cells });
        self.next = range.end;
        self.sequence = sequence;
    }

    /// The entries with a sequence number above this, oldest first.
    pub fn after(&self, sequence: u64) -> impl DoubleEndedIterator<Item = Entry> + '_ {
        let first = self.index.partition_point(|place| place.sequence <= sequence);
        self.index.range(first..).filter_map(|place| Some(self.read(place.cell)?.0))
    }

    fn read(&self, cell: usize) -> Option<(Entry, usize)> {
        let mut bytes = vec![0; CELL];
        self.memory.read(offset(cell), &mut bytes);
        (bytes[0] == START).then_some(())?;
        let mut payload = bytes.split_off(1);
        let cells = Entry::encoded_len(&payload)?.div_ceil(PAYLOAD);
        if cell + cells > CELLS {
            return None;
        }
        for number in 1..cells {
            let mut bytes = [0; CELL];
            self.memory.read(offset(cell + number), &mut bytes);
            (bytes[0] == CONTINUED).then_some(())?;
            payload.extend_from_slice(&bytes[1..]);
        }
        Some((Entry::decode(&payload)?, cells))
    }

    fn clear(&mut self, cells: std::ops::Range<usize>) {
        for cell in cells {
            self.memory.write(offset(cell), &[0]);
        }
    }
}

/// Where a cell is; the header comes before the first.
fn offset(cell: usize) -> usize {
    (cell + 1) * CELL
}

#[cfg(test)]
mod tests;
