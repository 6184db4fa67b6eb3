//! What motherd knows, in memory that outlives it: the state memfd, whose other holder is initldr.
//!
//! ```text
//! 0        magic, layout version, whether the boot was begun, how many records were ever used, whether and how the
//!          machine is being ended
//! 64       the same once more
//! 4096     record 0   cells: the pids of the main process and of a command, written by the kernel while it makes them;
//!                     the sequence of the newest slot that was written whole
//!                     slot A, slot B: sequence, checksum, everything else
//! 4608     record 1   ...
//! 1052672  what has no room in its slot ([`shape`])
//! ```
//!
//! A transition is a write to memory, no system call. A record is written into the slot that does *not* hold the newest
//! valid copy, so a motherd that dies at any instruction leaves the old one or the new one, told apart by checksum and
//! sequence. A slot that was written whole and is damaged now leaves what was true before: that is told apart too, and
//! nothing is done by it. Nothing that is read here is trusted further than that: whether a process is still the recorded one is
//! found out by `daemon::adopt`.
//!
//! The fields of a slot are listed once, in [`fields`], and both directions walk that list. Each slot says in which
//! layout it was written. A later layout only adds fields at the end: a newer motherd reads older records, and an older
//! one reads what it knows of newer ones. A header of a layout that is not known is not read at all: what runs is then found
//! by its cgroup.

mod fields;
mod places;
mod shape;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::atomic::AtomicU32,
};

use self::{
    fields::Fields,
    places::{Place, Places},
    shape::{COMMAND_CELL_AT, PACKED, RECORDS, SLOT_MAX, Shape, Slot, WHOLE_AT},
};

use initldr::link::{End, STATE_SIZE};
use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::{failpoint, supervise::Unit, sys::memory::Shared};

/// "MotherDs", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"MotherDs");
/// The newest layout of the header and the records, in which a state is made. 1 had plain numbers for `booted` and `ending`,
/// which are still read; one that is newer is not.
pub(crate) const LAYOUT: u32 = PACKED.layout;
/// The layout of the fields of a slot: in the upper 16 bits of its sequence word, where layout 1 has 0.
pub(crate) const FIELDS: u16 = 7;
/// The boot target was begun. No bit that flips makes this word, or one of [`ENDINGS`].
const BOOTED: u32 = u32::from_le_bytes(*b"boot");
/// The machine is being ended, and how.
const ENDINGS: [(u32, End); 5] = [
    (u32::from_le_bytes(*b"off."), End::PowerOff),
    (u32::from_le_bytes(*b"boot"), End::Reboot),
    (u32::from_le_bytes(*b"halt"), End::Halt),
    (u32::from_le_bytes(*b"exec"), End::Kexec),
    (u32::from_le_bytes(*b"soft"), End::SoftReboot),
];
/// [`End::Exit`] with its status, which is there a second time inverted.
const fn exit_word(status: u8) -> u32 {
    u32::from_le_bytes([b'x', status, !status, b'x'])
}

fn exit_of(word: u32) -> Option<End> {
    let [_, status, ..] = word.to_le_bytes();
    (word == exit_word(status)).then_some(End::Exit(status))
}

/// Where the fields of the header are.
const AT_MAGIC: usize = 0;
const AT_LAYOUT: usize = 8;
const AT_BOOTED: usize = 12;
const AT_USED: usize = 16;
const AT_ENDING: usize = 20;
/// Eight bytes. A motherd that did not have it leaves 0.
const AT_RELATIONS: usize = 24;
/// Where they are once more: one that is damaged is known by the other.
const MIRROR: usize = 64;
/// What is recorded of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Everything that the manager knows.
    pub unit: Unit,
    /// Field 22 of `/proc/PID/stat` of the main process; 0 where there is none.
    pub start_ticks: u64,
    /// The id of its cgroup; 0 where there is none.
    pub cgroup_id: u64,
    /// Which text of its policy the main process was launched with: the beginning of its digest, or zeroes where that is not
    /// known.
    pub policy: [u8; 8],
    /// The id of the cgroup of its standby; 0 where there is none.
    pub standby_cgroup_id: u64,
    /// How many ends for want of memory its cgroup had counted when they were looked at last.
    pub oom_kills: u64,
    /// It is not the newest: that one was written whole, and is damaged. Nothing is to be done by it.
    pub stale: bool,
}

/// The mapped state.
#[derive(Debug)]
pub struct Table {
    memory: Shared,
    shape: &'static Shape,
    by_name: Places,
    /// Places that were given back.
    free: Vec<usize>,
    /// Records from here on were never touched: no page of the memfd is spent on them.
    used: usize,
}

/// What was found when the state was mapped.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing but zeroes: this is the first motherd.
    Fresh,
    /// The state of motherds before this one.
    Known {
        /// Whether one of them had begun to start the boot target.
        booted: bool,
        /// How the machine was being ended.
        ending: Option<End>,
        /// Records of which neither slot was valid.
        torn: usize,
        /// Records that a motherd with another layout wrote, read as far as both know it.
        foreign: usize,
    },
    /// Something that no motherd of this layout wrote. It was cleared.
    Alien,
}

impl Table {
    /// Maps the memfd and reads it.
    ///
    /// # Errors
    /// mmap(2), or ENODATA where it is too small.
    pub fn map(fd: impl AsFd) -> Result<(Self, Found, Vec<Record>), Errno> {
        let memory = Shared::map(fd, STATE_SIZE)?;
        let mut table =
            Self { memory, shape: &PACKED, by_name: Places::default(), free: Vec::new(), used: 0 };
        let (found, shape) = table.header();
        table.shape = shape;
        match found {
            Found::Known { booted, ending, .. } => {
                let (records, torn, foreign) = table.read_all();
                table.mend(booted, ending);
                Ok((table, Found::Known { booted, ending, torn, foreign }, records))
            }
            Found::Fresh => {
                table.begin();
                Ok((table, found, Vec::new()))
            }
            Found::Alien => {
                for index in 0..RECORDS {
                    table.clear(index);
                }
                table.begin();
                Ok((table, found, Vec::new()))
            }
        }
    }

    /// What it says, and in which shape the records are.
    fn header(&self) -> (Found, &'static Shape) {
        let nothing = |copy: usize| {
            let mut bytes = [0; AT_ENDING + 4];
            self.memory.read(copy, &mut bytes);
            bytes == [0; AT_ENDING + 4]
        };
        let copies = [0, MIRROR];
        let known = copies.iter().filter_map(|copy| self.header_at(*copy));
        // What one of them says was written; the other is damaged, or not there yet.
        let both = known.reduce(|one, other| (one.0, one.1 || other.1, one.2.or(other.2)));
        if let Some((shape, booted, ending)) = both {
            (Found::Known { booted, ending, torn: 0, foreign: 0 }, shape)
        } else if copies.into_iter().all(nothing) {
            (Found::Fresh, &PACKED)
        } else {
            (Found::Alien, &PACKED)
        }
    }

    /// The shape of the records, whether the boot was begun and how the machine is being ended, by one of the two copies;
    /// `None`: it is none.
    fn header_at(&self, copy: usize) -> Option<(&'static Shape, bool, Option<End>)> {
        let mut magic = [0; 8];
        self.memory.read(copy + AT_MAGIC, &mut magic);
        let [layout, booted, ending] = [AT_LAYOUT, AT_BOOTED, AT_ENDING].map(|at| self.word(copy + at));
        let shape = Shape::of(layout).filter(|_| magic == MAGIC.to_le_bytes())?;
        let plain = layout == 1;
        let mut known = (1..).zip(ENDINGS);
        let how = known.find(|(number, (word, _))| ending == *word || (plain && ending == *number));
        let how = how.map(|(_, (_, how))| how).or_else(|| exit_of(ending));
        Some((shape, booted == BOOTED || (plain && booted == 1), how))
    }

    /// Writes a field of the header, and its copy.
    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.memory.write(at, bytes);
        self.memory.write(MIRROR + at, bytes);
    }

    fn word(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        self.memory.read(at, &mut word);
        u32::from_le_bytes(word)
    }

    /// A header over records that are all zeroes; the magic number last.
    fn begin(&mut self) {
        self.set(AT_BOOTED, &[0; 4]);
        self.set(AT_USED, &[0; 4]);
        self.set(AT_ENDING, &[0; 4]);
        self.set(AT_RELATIONS, &[0; 8]);
        self.set(AT_LAYOUT, &self.shape.word.to_le_bytes());
        self.set(AT_MAGIC, &MAGIC.to_le_bytes());
    }

    /// Both copies of the header say what was found in either.
    fn mend(&mut self, booted: bool, ending: Option<End>) {
        let used = u32::try_from(self.used).unwrap_or_default();
        self.set(AT_USED, &used.to_le_bytes());
        if booted {
            self.set_booted();
        }
        if let Some(how) = ending {
            self.set_ending(how);
        }
        self.set(AT_LAYOUT, &self.shape.word.to_le_bytes());
        self.set(AT_MAGIC, &MAGIC.to_le_bytes());
    }

    fn read_all(&mut self) -> (Vec<Record>, usize, usize) {
        let mut records = Vec::new();
        let (mut torn, mut foreign) = (0, 0);
        // The greater one: to read a record that nobody wrote does no harm.
        let known = [0, MIRROR].into_iter().filter(|copy| self.header_at(*copy).is_some());
        let used = known.map(|copy| self.word(copy + AT_USED)).max().unwrap_or_default();
        self.used = usize::try_from(used).map_or(RECORDS, |used| used.min(RECORDS));
        let mut by_name = BTreeMap::new();
        for index in (0..self.used).rev() {
            let slots = [self.slot(index, 0), self.slot(index, 1)];
            match newest(&slots) {
                Some((newest, sequence, mut record)) if !by_name.contains_key(record.name.as_str()) => {
                    // A motherd that had no such word left 0, or what came before.
                    let mut whole = [0; 8];
                    self.memory.read(self.shape.record_at(index) + WHOLE_AT, &mut whole);
                    record.stale =
                        u64::from_le_bytes(whole) > sequence && decode(&slots[1 - newest]).is_none();
                    foreign += usize::from(slots[newest].fields() != FIELDS);
                    by_name.insert(record.name.as_str().into(), Place { index, newest, sequence });
                    records.push(record);
                }
                Some(_) => self.free.push(index),
                None => {
                    torn += usize::from(slots.iter().any(|slot| !slot.is_blank()));
                    self.free.push(index);
                }
            }
        }
        self.by_name = Places::from(by_name);
        (records, torn, foreign)
    }

    /// A place for one more record: one that was given back, or the next. Counted before it is written to.
    fn place(&mut self) -> Option<usize> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        let index = self.used;
        let used = u32::try_from(index + 1).ok().filter(|_| index < RECORDS)?;
        self.used += 1;
        self.set(AT_USED, &used.to_le_bytes());
        Some(index)
    }

    fn slot(&self, index: usize, which: usize) -> Slot {
        Slot::read(self.shape, index, which, |at, into| self.memory.read(at, into))
    }

    /// A record that nobody wrote. What is behind all records is nobody's without one.
    fn clear(&mut self, index: usize) {
        let zeroes = [0; 2048];
        self.memory.write(self.shape.record_at(index), &zeroes[..self.shape.record]);
    }

    /// In which layout the state is.
    pub(crate) fn layout(&self) -> u32 {
        self.shape.layout
    }

    /// The boot target is being started: a motherd after this one does not start it again.
    pub fn set_booted(&mut self) {
        self.set(AT_BOOTED, &BOOTED.to_le_bytes());
    }

    /// The machine is being ended: a motherd after this one goes on with that.
    pub fn set_ending(&mut self, how: End) {
        let word = match how {
            End::Exit(status) => exit_word(status),
            End::PowerOff | End::Reboot | End::Halt | End::Kexec | End::SoftReboot => {
                ENDINGS.iter().find(|(_, end)| *end == how).map_or(0, |(word, _)| *word)
            }
        };
        self.set(AT_ENDING, &word.to_le_bytes());
    }

    /// How services are related ([`crate::graph::Graph::relations`]) by the files that were read. What is recorded was decided
    /// by them.
    pub fn set_relations(&mut self, relations: u64) {
        self.set(AT_RELATIONS, &relations.to_le_bytes());
    }

    /// Whether they were others. `false` where that is not known: the motherd before this one did not say.
    #[must_use]
    pub fn was_related_otherwise(&self, relations: u64) -> bool {
        let copies = [0, MIRROR].map(|copy| {
            let mut bytes = [0; 8];
            self.memory.read(copy + AT_RELATIONS, &mut bytes);
            u64::from_le_bytes(bytes)
        });
        copies != [0; 2] && copies != [relations; 2]
    }

    /// Records a service. `false`: there is no room for one more, so it must not be launched.
    #[must_use]
    pub fn write(&mut self, record: &Record) -> bool {
        let known = self.by_name.get(&record.name);
        let sequence = known.map_or(1, |place| place.sequence + 1);
        let Some(slot) = encode(self.shape, record, sequence) else { return false };
        let (index, newest) = match known {
            Some(place) => (place.index, 1 - place.newest),
            None => match self.place() {
                Some(index) => {
                    self.clear(index);
                    (index, 0)
                }
                None => return false,
            },
        };
        let [tail, half, rest] = slot.parts(index, newest);
        self.memory.write(tail.0, tail.1);
        self.memory.write(half.0, half.1);
        failpoint::hit("record.torn");
        self.memory.write(rest.0, rest.1);
        self.memory.write(self.shape.record_at(index) + WHOLE_AT, &sequence.to_le_bytes());
        failpoint::hit("record.written");
        self.by_name.set(&record.name, Place { index, newest, sequence });
        true
    }

    /// Which bytes are a service's: of its record, and of what is behind all records for each of its slots.
    #[must_use]
    pub fn ranges(&self, name: &str) -> Option<[Range<usize>; 3]> {
        let Place { index, .. } = self.by_name.get(name)?;
        let of = |at: usize, len: usize| at..at + len;
        let tails = [0, 1].map(|which| of(self.shape.tail_at(index, which), self.shape.tail));
        let [first, second] = tails;
        Some([of(self.shape.record_at(index), self.shape.record), first, second])
    }

    /// A copy of all of it, which can be read as the state of a motherd.
    ///
    /// # Errors
    /// memfd_create(2), or no memory.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        let copy = File::from(memfd_create(c"motherd-state-copy", MFdFlags::MFD_CLOEXEC)?);
        copy.set_len(STATE_SIZE as u64)?;
        let mut bytes = vec![0; self.shape.record_at(self.used)];
        self.memory.read(0, &mut bytes);
        copy.write_all_at(&bytes, 0)?;
        // To look at one that nobody wrote would spend a page on it.
        for (index, which) in (0..self.used).flat_map(|index| [(index, 0), (index, 1)]) {
            let slot = self.slot(index, which);
            let [(at, tail), ..] = slot.parts(index, which);
            copy.write_all_at(tail, at as u64)?;
        }
        Ok(copy.into())
    }

    /// Gives a record's place back.
    pub fn forget(&mut self, name: &str) {
        if let Some(place) = self.by_name.remove(name) {
            self.clear(place.index);
            self.free.push(place.index);
        }
    }

    /// Where the kernel writes the pid of a service that is recorded as being launched.
    #[must_use]
    pub fn cell(&self, name: &str) -> Option<&AtomicU32> {
        self.by_name.get(name).map(|place| self.memory.cell(self.shape.record_at(place.index)))
    }

    /// The same for the command that is recorded as being at work.
    #[must_use]
    pub fn command_cell(&self, name: &str) -> Option<&AtomicU32> {
        self.by_name
            .get(name)
            .map(|place| self.memory.cell(self.shape.record_at(place.index) + COMMAND_CELL_AT))
    }
}

/// The newest valid one of two slots.
fn newest(slots: &[Slot; 2]) -> Option<(usize, u64, Record)> {
    let read = |which: usize| decode(&slots[which]).map(|(sequence, record)| (which, sequence, record));
    match (read(0), read(1)) {
        (Some(first), Some(second)) => Some(if first.1 > second.1 { first } else { second }),
        (first, second) => first.or(second),
    }
}

/// `None`: it has no room, which a record that motherd makes always has.
fn encode(shape: &'static Shape, record: &Record, sequence: u64) -> Option<Slot> {
    encode_in(FIELDS, shape, record, sequence)
}

fn encode_in(layout: u16, shape: &'static Shape, record: &Record, sequence: u64) -> Option<Slot> {
    let mut fields = Fields::new([0; SLOT_MAX], shape.slot + shape.tail, shape, layout);
    fields.record(&mut record.clone(), true);
    if !fields.sound {
        return None;
    }
    let len = if shape.packed { fields.at } else { shape.slot };
    let mut slot = Slot { shape, bytes: fields.bytes, len };
    slot.seal(sequence, layout);
    Some(slot)
}

fn decode(slot: &Slot) -> Option<(u64, Record)> {
    if !slot.is_whole() {
        return None;
    }
    let mut fields = Fields::new(slot.bytes, slot.len, slot.shape, slot.fields());
    let mut record = Record {
        name: String::new(),
        unit: Unit::default(),
        start_ticks: 0,
        cgroup_id: 0,
        policy: [0; 8],
        standby_cgroup_id: 0,
        oom_kills: 0,
        stale: false,
    };
    fields.record(&mut record, false);
    fields.sound.then(|| (slot.sequence(), record))
}
