//! What motherd knows, in memory that outlives it: the state memfd, whose other holder is initldr.
//!
//! ```text
//! 0        magic, layout version, whether the boot was begun, how many records were ever used, whether and how the
//!          machine is being ended
//! 64       the same once more
//! 4096     record 0   cells: the pids of the main process and of a command, written by the kernel while it makes them;
//!                     the sequence of the newest slot that was written whole
//!                     slot A, slot B: sequence, checksum, everything else
//! 6144     record 1   ...
//! ```
//!
//! A transition is a write to memory, no system call. A record is written into the slot that does *not* hold the newest
//! valid copy, so a motherd that dies at any instruction leaves the old one or the new one, told apart by checksum and
//! sequence. A slot that was written whole and is damaged now leaves what was true before: that is told apart too, and
//! nothing is done by it. Nothing that is read here is trusted further than that: whether a process is still the recorded one is
//! found out by `daemon::adopt`.
//!
//! The fields of a slot are listed once, in [`Fields`], and both directions walk that list. Each slot says in which
//! layout it was written. A later layout only adds fields at the end: a newer motherd reads older records, and an older
//! one reads what it knows of newer ones. A header of another shape is not read at all: what runs is then found by
//! its cgroup.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::atomic::AtomicU32,
    time::Duration,
};

use initldr::link::{End, STATE_SIZE};
use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::{
    failpoint,
    service::NAME_MAX,
    supervise::{
        Cause, Command, Exit, ExitHow, Goal, History, Hook, Main, Requester, Stage, State, Then, Unit,
    },
    sys::memory::Shared,
};

/// "MotherDs", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"MotherDs");
/// The layout of the header, and where records are. 1 had plain numbers for `booted` and `ending`, which are still read;
/// another is not.
pub(crate) const LAYOUT: u32 = 2;
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
/// Where they are once more: one that is damaged is known by the other.
const MIRROR: usize = 64;
/// One page for the header.
const HEADER_SIZE: usize = 4096;
/// 64 bytes for the cell, two slots.
const RECORD_SIZE: usize = 2048;
/// The cell has a cache line of its own.
const CELL_SIZE: usize = 64;
/// A second cell in that line.
const COMMAND_CELL_AT: usize = 8;
/// And how far the slots are: a sequence.
const WHOLE_AT: usize = 16;
/// (2048 - 64) / 2
const SLOT_SIZE: usize = (RECORD_SIZE - CELL_SIZE) / 2;
/// Sequence and checksum come first.
const SLOT_HEADER: usize = 16;
/// 48 bits of a slot's first word; a transition a microsecond fills them in nine years.
const SEQUENCE: u64 = (1 << 48) - 1;
/// What is kept of the words of a cause.
const WORDS_MAX: usize = 380;
/// And of the cause of the goal, which is a request or a dependency, and shorter. In layout 1 it had as much.
const ASKED_MAX: usize = 180;
/// (4 MiB - 4 KiB) / 2 KiB = 2046 services.
const RECORDS: usize = (STATE_SIZE - HEADER_SIZE) / RECORD_SIZE;

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
    by_name: BTreeMap<String, Place>,
    /// Places that were given back.
    free: Vec<usize>,
    /// Records from here on were never touched: no page of the memfd is spent on them.
    used: usize,
}

/// Where a record is, and which of its slots is the newest.
#[derive(Debug, Clone, Copy)]
struct Place {
    index: usize,
    newest: usize,
    sequence: u64,
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
        let mut table = Self { memory, by_name: BTreeMap::new(), free: Vec::new(), used: 0 };
        let found = table.header();
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
                    table.memory.write(offset(index), &[0; RECORD_SIZE]);
                }
                table.begin();
                Ok((table, found, Vec::new()))
            }
        }
    }

    fn header(&self) -> Found {
        let nothing = |copy: usize| {
            let mut bytes = [0; AT_ENDING + 4];
            self.memory.read(copy, &mut bytes);
            bytes == [0; AT_ENDING + 4]
        };
        let copies = [0, MIRROR];
        let mut known = copies.iter().filter_map(|copy| self.header_at(*copy)).peekable();
        if known.peek().is_some() {
            // What one of them says was written; the other is damaged, or not there yet.
            let both = known.reduce(|one, other| (one.0 || other.0, one.1.or(other.1)));
            let (booted, ending) = both.unwrap_or_default();
            Found::Known { booted, ending, torn: 0, foreign: 0 }
        } else if copies.into_iter().all(nothing) {
            Found::Fresh
        } else {
            Found::Alien
        }
    }

    /// Whether the boot was begun and how the machine is being ended, by one of the two copies; `None`: it is none.
    fn header_at(&self, copy: usize) -> Option<(bool, Option<End>)> {
        let mut magic = [0; 8];
        self.memory.read(copy + AT_MAGIC, &mut magic);
        let [layout, booted, ending] = [AT_LAYOUT, AT_BOOTED, AT_ENDING].map(|at| self.word(copy + at));
        if magic != MAGIC.to_le_bytes() || !(1..=LAYOUT).contains(&layout) {
            return None;
        }
        let plain = layout == 1;
        let mut known = (1..).zip(ENDINGS);
        let how = known.find(|(number, (word, _))| ending == *word || (plain && ending == *number));
        let how = how.map(|(_, (_, how))| how).or_else(|| exit_of(ending));
        Some((booted == BOOTED || (plain && booted == 1), how))
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
        self.set(AT_LAYOUT, &LAYOUT.to_le_bytes());
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
        self.set(AT_LAYOUT, &LAYOUT.to_le_bytes());
        self.set(AT_MAGIC, &MAGIC.to_le_bytes());
    }

    fn read_all(&mut self) -> (Vec<Record>, usize, usize) {
        let mut records = Vec::new();
        let (mut torn, mut foreign) = (0, 0);
        // The greater one: to read a record that nobody wrote does no harm.
        let known = [0, MIRROR].into_iter().filter(|copy| self.header_at(*copy).is_some());
        let used = known.map(|copy| self.word(copy + AT_USED)).max().unwrap_or_default();
        self.used = usize::try_from(used).map_or(RECORDS, |used| used.min(RECORDS));
        for index in (0..self.used).rev() {
            let slots = [self.slot(index, 0), self.slot(index, 1)];
            match newest(&slots) {
                Some((newest, sequence, mut record)) if !self.by_name.contains_key(&record.name) => {
                    // A motherd that had no such word left 0, or what came before.
                    let mut whole = [0; 8];
                    self.memory.read(offset(index) + WHOLE_AT, &mut whole);
                    record.stale =
                        u64::from_le_bytes(whole) > sequence && decode(&slots[1 - newest]).is_none();
                    foreign += usize::from(layout_of(&slots[newest]) != FIELDS);
                    self.by_name.insert(record.name.clone(), Place { index, newest, sequence });
                    records.push(record);
                }
                Some(_) => self.free.push(index),
                None => {
                    if slots.iter().any(|slot| slot.iter().any(|byte| *byte != 0)) {
                        torn += 1;
                    }
                    self.free.push(index);
                }
            }
        }
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

    fn slot(&self, index: usize, which: usize) -> [u8; SLOT_SIZE] {
        let mut slot = [0; SLOT_SIZE];
        self.memory.read(offset(index) + CELL_SIZE + which * SLOT_SIZE, &mut slot);
        slot
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

    /// Records a service. `false`: there is no room for one more, so it must not be launched.
    #[must_use]
    pub fn write(&mut self, record: &Record) -> bool {
        let place = match self.by_name.get(&record.name) {
            Some(place) => Place { newest: 1 - place.newest, sequence: place.sequence + 1, ..*place },
            None => match self.place() {
                Some(index) => {
                    self.memory.write(offset(index), &[0; RECORD_SIZE]);
                    Place { index, newest: 0, sequence: 1 }
                }
                None => return false,
            },
        };
        let slot = encode(record, place.sequence);
        let at = offset(place.index) + CELL_SIZE + place.newest * SLOT_SIZE;
        let (half, rest) = slot.split_at(SLOT_SIZE / 2);
        self.memory.write(at, half);
        failpoint::hit("record.torn");
        self.memory.write(at + half.len(), rest);
        self.memory.write(offset(place.index) + WHOLE_AT, &place.sequence.to_le_bytes());
        failpoint::hit("record.written");
        self.by_name.insert(record.name.clone(), place);
        true
    }

    /// A copy of all of it, which can be read as the state of a motherd.
    ///
    /// # Errors
    /// memfd_create(2), or no memory.
    pub fn copy(&self) -> io::Result<OwnedFd> {
        let copy = File::from(memfd_create(c"motherd-state-copy", MFdFlags::MFD_CLOEXEC)?);
        copy.set_len(STATE_SIZE as u64)?;
        let mut bytes = vec![0; offset(self.used)];
        self.memory.read(0, &mut bytes);
        copy.write_all_at(&bytes, 0)?;
        Ok(copy.into())
    }

    /// Gives a record's place back.
    pub fn forget(&mut self, name: &str) {
        if let Some(place) = self.by_name.remove(name) {
            self.memory.write(offset(place.index), &[0; RECORD_SIZE]);
            self.free.push(place.index);
        }
    }

    /// Where the kernel writes the pid of a service that is recorded as being launched.
    #[must_use]
    pub fn cell(&self, name: &str) -> Option<&AtomicU32> {
        self.by_name.get(name).map(|place| self.memory.cell(offset(place.index)))
    }

    /// The same for the command that is recorded as being at work.
    #[must_use]
    pub fn command_cell(&self, name: &str) -> Option<&AtomicU32> {
        self.by_name.get(name).map(|place| self.memory.cell(offset(place.index) + COMMAND_CELL_AT))
    }
}

fn offset(index: usize) -> usize {
    HEADER_SIZE + index * RECORD_SIZE
}

/// The newest valid one of two slots.
fn newest(slots: &[[u8; SLOT_SIZE]; 2]) -> Option<(usize, u64, Record)> {
    let read = |which: usize| decode(&slots[which]).map(|(sequence, record)| (which, sequence, record));
    match (read(0), read(1)) {
        (Some(first), Some(second)) => Some(if first.1 > second.1 { first } else { second }),
        (first, second) => first.or(second),
    }
}

fn encode(record: &Record, sequence: u64) -> [u8; SLOT_SIZE] {
    encode_in(FIELDS, record, sequence)
}

fn encode_in(layout: u16, record: &Record, sequence: u64) -> [u8; SLOT_SIZE] {
    let mut fields = Fields::new([0; SLOT_SIZE], layout);
    let mut record = record.clone();
    fields.record(&mut record, true);
    let mut slot = fields.bytes;
    let word = (sequence & SEQUENCE) | u64::from(if layout == 1 { 0 } else { layout }) << 48;
    slot[..8].copy_from_slice(&word.to_le_bytes());
    let sum = checksum(&slot);
    slot[8..16].copy_from_slice(&sum.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_SIZE]) -> Option<(u64, Record)> {
    let word = |at: usize| slot[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
    let sequence = word(0) & SEQUENCE;
    if sequence == 0 || word(8) != checksum(slot) {
        return None;
    }
    let mut fields = Fields::new(*slot, layout_of(slot));
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
    fields.sound.then_some((sequence, record))
}

/// In which layout a slot was written.
fn layout_of(slot: &[u8; SLOT_SIZE]) -> u16 {
    u16::from_le_bytes([slot[6], slot[7]]).max(1)
}

/// FNV-1a over all of a slot but the checksum itself: it tells a torn write from a whole one. Nobody else writes here.
fn checksum(slot: &[u8; SLOT_SIZE]) -> u64 {
    let bytes = slot[..8].iter().chain(&slot[SLOT_HEADER..]);
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Walks the fields of a slot in their one order, writing them or reading them. A field that a later layout adds goes
/// to the end of [`Fields::record`], behind `if self.layout >= ITS_LAYOUT`: a record without it keeps the default.
struct Fields {
    bytes: [u8; SLOT_SIZE],
    at: usize,
    layout: u16,
    /// No field that was read has a value that its type does not have.
    sound: bool,
}

impl Fields {
    fn new(bytes: [u8; SLOT_SIZE], layout: u16) -> Self {
        Self { bytes, at: SLOT_HEADER, layout, sound: true }
    }

    fn record(&mut self, record: &mut Record, write: bool) {
        self.text(&mut record.name, NAME_MAX, write);
        self.u64(&mut record.start_ticks, write);
        self.u64(&mut record.cgroup_id, write);
        self.state(&mut record.unit.state, write);
        self.time(&mut record.unit.since, write);
        self.goal(&mut record.unit.goal, write);
        self.history(&mut record.unit.history, write);
        self.last_exit(&mut record.unit.last_exit, write);
        self.cause(&mut record.unit.cause, WORDS_MAX, write);
        let asked_max = if self.layout == 1 { WORDS_MAX } else { ASKED_MAX };
        self.cause(&mut record.unit.asked, asked_max, write);
        if self.layout >= 3 {
            self.flag(&mut record.unit.explicit, write);
            self.time(&mut record.unit.launched, write);
        } else {
            // A motherd that did not tell these apart: nothing of it is taken for unneeded.
            record.unit.explicit = record.unit.goal != Goal::Down;
            record.unit.launched = record.unit.main().map_or(Duration::ZERO, |main| main.launched);
        }
        if self.layout >= 4 {
            self.command(&mut record.unit.state, write);
        }
        if self.layout >= 5 {
            let command = record.unit.state.command();
            let mut overdue = command.as_ref().is_some_and(|command| command.overdue);
            self.flag(&mut overdue, write);
            if let (false, Some(command)) = (write, command) {
                command.overdue = overdue;
            }
        }
        if self.layout >= 6 {
            self.raw(&mut record.policy, write);
        }
        if self.layout >= 7 {
            self.u64(&mut record.standby_cgroup_id, write);
            self.u64(&mut record.oom_kills, write);
        }
    }

    fn raw(&mut self, value: &mut [u8], write: bool) {
        let place = &mut self.bytes[self.at..self.at + value.len()];
        if write {
            place.copy_from_slice(value);
        } else {
            value.copy_from_slice(place);
        }
        self.at += value.len();
    }

    fn u8(&mut self, value: &mut u8, write: bool) {
        let mut bytes = [*value];
        self.raw(&mut bytes, write);
        [*value] = bytes;
    }

    fn u32(&mut self, value: &mut u32, write: bool) {
        let mut bytes = value.to_le_bytes();
        self.raw(&mut bytes, write);
        *value = u32::from_le_bytes(bytes);
    }

    fn u64(&mut self, value: &mut u64, write: bool) {
        let mut bytes = value.to_le_bytes();
        self.raw(&mut bytes, write);
        *value = u64::from_le_bytes(bytes);
    }

    fn flag(&mut self, value: &mut bool, write: bool) {
        let mut byte = u8::from(*value);
        self.u8(&mut byte, write);
        self.sound &= byte <= 1;
        *value = byte == 1;
    }

    /// Nanoseconds: 584 years.
    fn time(&mut self, value: &mut Duration, write: bool) {
        let mut nanoseconds = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.u64(&mut nanoseconds, write);
        *value = Duration::from_nanos(nanoseconds);
    }

    /// At most `max` bytes, cut between characters.
    fn text(&mut self, value: &mut String, max: usize, write: bool) {
        let mut end = value.len().min(max);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let mut len = u32::try_from(end).unwrap_or_default();
        let mut bytes = vec![0; max];
        bytes[..end].copy_from_slice(&value.as_bytes()[..end]);
        self.u32(&mut len, write);
        self.raw(&mut bytes, write);
        if !write {
            let text = usize::try_from(len).ok().and_then(|len| bytes.get(..len));
            match text.map(str::from_utf8) {
                Some(Ok(text)) => text.clone_into(value),
                Some(Err(_)) | None => self.sound = false,
            }
        }
    }

    fn state(&mut self, state: &mut State, write: bool) {
        let (mut tag, mut main, mut stage, mut then, mut deadline, mut until) = flatten(state);
        let mut has_main = main.is_some();
        let Main { mut pid, mut launched } = main.unwrap_or(Main { pid: 0, launched: Duration::ZERO });
        self.u8(&mut tag, write);
        self.u8(&mut stage, write);
        self.u8(&mut then, write);
        self.flag(&mut has_main, write);
        self.u32(&mut pid, write);
        self.time(&mut launched, write);
        self.time(&mut deadline, write);
        self.time(&mut until, write);
        if !write {
            main = has_main.then_some(Main { pid, launched });
            match unflatten(tag, main, stage, then, deadline, until) {
                Some(read) => *state = read,
                None => self.sound = false,
            }
        }
    }

    /// What [`flatten`] leaves out of a command: which one of its list it is, and its process.
    fn command(&mut self, state: &mut State, write: bool) {
        let command = state.command();
        let mut index = command.as_ref().map_or(0, |command| u32::from(command.index));
        let process = command.as_ref().and_then(|command| command.process);
        let mut has_process = process.is_some();
        let Main { mut pid, mut launched } = process.unwrap_or(Main { pid: 0, launched: Duration::ZERO });
        self.u32(&mut index, write);
        self.flag(&mut has_process, write);
        self.u32(&mut pid, write);
        self.time(&mut launched, write);
        if let (false, Some(command)) = (write, command) {
            match u16::try_from(index) {
                Ok(index) => command.index = index,
                Err(_) => self.sound = false,
            }
            command.process = has_process.then_some(Main { pid, launched });
        }
    }

    fn goal(&mut self, goal: &mut Goal, write: bool) {
        let mut tag = match goal {
            Goal::Down => 0,
            Goal::Up => 1,
            Goal::Bounce => 2,
        };
        self.u8(&mut tag, write);
        match tag {
            0 => *goal = Goal::Down,
            1 => *goal = Goal::Up,
            2 => *goal = Goal::Bounce,
            _ => self.sound = false,
        }
    }

    fn history(&mut self, history: &mut History, write: bool) {
        self.u32(&mut history.streak, write);
        self.time(&mut history.window_start, write);
        self.u32(&mut history.in_window, write);
        self.flag(&mut history.failing, write);
        self.u64(&mut history.total, write);
    }

    fn last_exit(&mut self, last: &mut Option<Exit>, write: bool) {
        let exit = last.unwrap_or(Exit { how: ExitHow::Exited, status: 0, at: Duration::ZERO });
        let mut tag = match (last.is_some(), exit.how) {
            (false, _) => 0,
            (true, ExitHow::Exited) => 1,
            (true, ExitHow::Killed) => 2,
            (true, ExitHow::Dumped) => 3,
            (true, ExitHow::OutOfMemory { .. }) => 4,
        };
        let mut status = exit.status.cast_unsigned();
        let mut at = exit.at;
        self.u8(&mut tag, write);
        self.u32(&mut status, write);
        self.time(&mut at, write);
        let read = |how| Some(Exit { how, status: status.cast_signed(), at });
        match tag {
            0 => *last = None,
            1 => *last = read(ExitHow::Exited),
            2 => *last = read(ExitHow::Killed),
            3 => *last = read(ExitHow::Dumped),
            // The limit is in the words of the cause.
            4 => *last = read(ExitHow::OutOfMemory { limit_bytes: 0 }),
            _ => self.sound = false,
        }
    }

    fn cause(&mut self, cause: &mut Cause, words_max: usize, write: bool) {
        let mut asked = cause.request.is_some();
        let mut who = cause.request.unwrap_or(Requester { uid: 0, pid: 0 });
        self.flag(&mut asked, write);
        self.u32(&mut who.uid, write);
        self.u32(&mut who.pid, write);
        self.text(&mut cause.words, words_max, write);
        cause.request = asked.then_some(who);
    }
}

/// A state as tag, main process, stage, what follows, deadline, and the time of what follows.
fn flatten(state: &State) -> (u8, Option<Main>, u8, u8, Duration, Duration) {
    let zero = Duration::ZERO;
    match *state {
        State::Stopped => (0, None, 0, 0, zero, zero),
        State::Waiting => (1, None, 0, 0, zero, zero),
        // To a motherd that knows no conditions it is waiting, which is true.
        State::Expecting { deadline: None } => (1, None, 1, 0, zero, zero),
        State::Expecting { deadline: Some(deadline) } => (1, None, 2, 0, deadline, zero),
        State::Launching => (2, None, 0, 0, zero, zero),
        State::Starting { main, deadline } => {
            (3, Some(main), u8::from(deadline.is_some()), 0, deadline.unwrap_or_default(), zero)
        }
        State::Running { main } => (4, Some(main), 0, 0, zero, zero),
        State::Done => (5, None, 0, 0, zero, zero),
        State::Stopping { main, stage, then } => {
            let (stage, deadline) = match stage {
                Stage::Signalled { deadline } => (0, deadline),
                Stage::Killed { again, stuck: false, cleaned: false } => (1, again),
                Stage::Asking { command } => (2, command.deadline),
                Stage::Killed { again, stuck: true, cleaned: false } => (3, again),
                Stage::Killed { again, stuck: false, cleaned: true } => (4, again),
                Stage::Killed { again, stuck: true, cleaned: true } => (5, again),
            };
            let (then, until) = flatten_then(then);
            (6, main, stage, then, deadline, until)
        }
        State::Backoff { until } => (7, None, 0, 0, zero, until),
        State::Failed => (8, None, 0, 0, zero, zero),
        State::Orphan => (9, None, 0, 0, zero, zero),
        State::Preparing { command } => (10, None, 0, 0, command.deadline, zero),
        State::Settling { main, command } => (11, Some(main), 0, 0, command.deadline, zero),
        State::Cleaning { command, then } => {
            let (then, until) = flatten_then(then);
            (12, None, 0, then, command.deadline, until)
        }
        State::Forked { launched, deadline } => {
            let main = Main { pid: 0, launched };
            (13, Some(main), u8::from(deadline.is_some()), 0, deadline.unwrap_or_default(), zero)
        }
    }
}

fn flatten_then(then: Then) -> (u8, Duration) {
    match then {
        Then::Settle => (0, Duration::ZERO),
        Then::Done => (1, Duration::ZERO),
        Then::Restart { until } => (2, until),
        Then::Fail => (3, Duration::ZERO),
    }
}

fn unflatten_then(then: u8, until: Duration) -> Option<Then> {
    Some(match then {
        0 => Then::Settle,
        1 => Then::Done,
        2 => Then::Restart { until },
        3 => Then::Fail,
        _ => return None,
    })
}

fn unflatten(
    tag: u8,
    main: Option<Main>,
    stage: u8,
    then: u8,
    deadline: Duration,
    until: Duration,
) -> Option<State> {
    // Which one of its list it is, and its process, come from elsewhere: [`Fields::command`].
    let command = |hook| Command { hook, index: 0, process: None, deadline, overdue: false };
    Some(match (tag, main) {
        (0, None) => State::Stopped,
        (1, None) => match stage {
            0 => State::Waiting,
            1 => State::Expecting { deadline: None },
            2 => State::Expecting { deadline: Some(deadline) },
            _ => return None,
        },
        (2, None) => State::Launching,
        (3, Some(main)) => State::Starting { main, deadline: (stage == 1).then_some(deadline) },
        (4, Some(main)) => State::Running { main },
        (5, None) => State::Done,
        (6, main) => {
            let stage = match stage {
                0 => Stage::Signalled { deadline },
                1 => Stage::Killed { again: deadline, stuck: false, cleaned: false },
                2 => Stage::Asking { command: command(Hook::Stop) },
                3 => Stage::Killed { again: deadline, stuck: true, cleaned: false },
                4 => Stage::Killed { again: deadline, stuck: false, cleaned: true },
                5 => Stage::Killed { again: deadline, stuck: true, cleaned: true },
                _ => return None,
            };
            State::Stopping { main, stage, then: unflatten_then(then, until)? }
        }
        (7, None) => State::Backoff { until },
        (8, None) => State::Failed,
        (9, None) => State::Orphan,
        (10, None) => State::Preparing { command: command(Hook::Pre) },
        (11, Some(main)) => State::Settling { main, command: command(Hook::Post) },
        (12, None) => {
            State::Cleaning { command: command(Hook::StopPost), then: unflatten_then(then, until)? }
        }
        (13, Some(Main { launched, .. })) => {
            State::Forked { launched, deadline: (stage == 1).then_some(deadline) }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::Standby;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use proptest::prelude::*;
    use std::{os::fd::OwnedFd, sync::atomic::Ordering};

    fn memfd() -> OwnedFd {
        let fd = memfd_create("state", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, STATE_SIZE.try_into().unwrap()).unwrap();
        fd
    }

    fn record(name: &str, state: State) -> Record {
        let unit = Unit {
            state,
            since: Duration::from_nanos(1_234_567_890),
            cause: Cause::request("started", Requester { uid: 7, pid: 8 }),
            goal: Goal::Up,
            asked: Cause::new("boot"),
            explicit: true,
            launched: Duration::from_millis(1_500),
            history: History { streak: 3, in_window: 2, failing: true, total: 9, ..History::default() },
            last_exit: Some(Exit { how: ExitHow::Dumped, status: 11, at: Duration::from_secs(5) }),
            standby: Standby::None,
        };
        Record {
            name: name.to_owned(),
            unit,
            start_ticks: 77,
            cgroup_id: 1 << 40,
            policy: [7; 8],
            standby_cgroup_id: 1 << 41,
            oom_kills: 3,
            stale: false,
        }
    }

    fn main() -> Main {
        Main { pid: 4321, launched: Duration::from_millis(1500) }
    }

    fn states() -> Vec<State> {
        let until = Duration::from_secs(9);
        let deadline = Duration::from_secs(8);
        let command = |hook| Command { hook, index: 0, process: None, deadline, overdue: false };
        let mut states = vec![
            State::Stopped,
            State::Waiting,
            State::Expecting { deadline: None },
            State::Expecting { deadline: Some(deadline) },
            State::Launching,
            State::Starting { main: main(), deadline: Some(deadline) },
            State::Starting { main: main(), deadline: None },
            State::Running { main: main() },
            State::Done,
            State::Backoff { until },
            State::Failed,
            State::Orphan,
            State::Preparing { command: command(Hook::Pre) },
            State::Preparing { command: Command { index: 7, process: Some(main()), ..command(Hook::Pre) } },
            State::Settling { main: main(), command: command(Hook::Post) },
            State::Settling {
                main: main(),
                command: Command { process: Some(main()), overdue: true, ..command(Hook::Post) },
            },
            State::Cleaning { command: command(Hook::StopPost), then: Then::Restart { until } },
            State::Forked { launched: until, deadline: Some(deadline) },
            State::Forked { launched: until, deadline: None },
        ];
        for main in [None, Some(main())] {
            let killed = |stuck, cleaned| Stage::Killed { again: deadline, stuck, cleaned };
            let mut stages =
                vec![Stage::Signalled { deadline }, Stage::Asking { command: command(Hook::Stop) }];
            stages.extend([
                killed(false, false),
                killed(true, false),
                killed(false, true),
                killed(true, true),
            ]);
            for stage in stages {
                for then in [Then::Settle, Then::Done, Then::Restart { until }, Then::Fail] {
                    states.push(State::Stopping { main, stage, then });
                }
            }
        }
        states
    }

    #[test]
    fn every_state_comes_back_as_it_was() {
        for state in states() {
            let record = record("web", state);
            assert_eq!(decode(&encode(&record, 5)), Some((5, record)));
        }
    }

    #[test]
    fn a_write_that_stops_anywhere_leaves_the_old_record_or_the_new_one() {
        let (old, new) = (record("web", State::Launching), record("web", State::Running { main: main() }));
        let (first, second) = (encode(&old, 1), encode(&record("web", State::Waiting), 0));
        for (before, sequence) in [([0; SLOT_SIZE], 2), (second, 2), (encode(&old, 1), 3)] {
            let whole = encode(&new, sequence);
            for written in 0..=SLOT_SIZE {
                let mut torn = before;
                torn[..written].copy_from_slice(&whole[..written]);
                let (_, _, found) = newest(&[first, torn]).expect("one of them is valid");
                if written == SLOT_SIZE {
                    assert_eq!(found, new);
                } else {
                    assert!(found == old || found == new, "{written} bytes");
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_never_trusted() {
        let whole = encode(&record("web", State::Running { main: main() }), 4);
        for bit in 0..SLOT_SIZE * 8 {
            let mut bent = whole;
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bent), None, "bit {bit}");
        }
    }

    /// Of a record that has changed twice, whatever byte is damaged: it is as it was, or known not to be the newest.
    #[test]
    fn the_record_before_a_damaged_one_is_known_for_stale() {
        let fd = memfd();
        let (mut table, ..) = Table::map(&fd).unwrap();
        let (old, new) = (record("web", State::Launching), record("web", State::Running { main: main() }));
        for one in [record("web", State::Waiting), old.clone(), new.clone()] {
            assert!(table.write(&one));
        }
        let mut whole = [0; RECORD_SIZE];
        table.memory.read(offset(0), &mut whole);
        let mut stale = 0;
        for at in 0..RECORD_SIZE {
            let mut bent = whole;
            bent[at] ^= 0xff;
            table.memory.write(offset(0), &bent);
            let (_, _, records) = Table::map(&fd).unwrap();
            match &records[..] {
                [one] if one.stale => {
                    assert_eq!(*one, Record { stale: true, ..old.clone() }, "byte {at}");
                    stale += 1;
                }
                one => assert_eq!(one, std::slice::from_ref(&new), "byte {at}"),
            }
        }
        assert_eq!(stale, SLOT_SIZE);
        // A motherd that ended while it wrote: what it had written before is the newest.
        table.memory.write(offset(0), &whole);
        let place = table.by_name["web"];
        let next = encode(&record("web", State::Done), place.sequence + 1);
        let at = offset(0) + CELL_SIZE + (1 - place.newest) * SLOT_SIZE;
        table.memory.write(at, &next[..SLOT_HEADER]);
        assert_eq!(Table::map(&fd).unwrap().2, [new]);
    }

    proptest! {
        /// Whatever the bytes, reading them neither panics nor makes a record that is not whole.
        #[test]
        fn alien_bytes_are_no_record(bytes in prop::collection::vec(any::<u8>(), SLOT_SIZE)) {
            let slot: [u8; SLOT_SIZE] = bytes.try_into().unwrap();
            prop_assert_eq!(decode(&slot), None);
            let mut fields = Fields::new(slot, FIELDS);
            let mut record = record("x", State::Stopped);
            fields.record(&mut record, false);
        }
    }

    #[test]
    fn words_are_cut_between_characters() {
        let mut long = record("web", State::Failed);
        long.unit.cause.words = "ü".repeat(300);
        let (_, read) = decode(&encode(&long, 1)).unwrap();
        assert_eq!(read.unit.cause.words, "ü".repeat(WORDS_MAX / 2));
    }

    #[test]
    fn what_one_motherd_wrote_the_next_one_reads() {
        let fd = memfd();
        let (mut table, found, records) = Table::map(&fd).unwrap();
        assert_eq!((found, records.len()), (Found::Fresh, 0));
        assert!(table.write(&record("a", State::Launching)));
        assert!(table.write(&record("b", State::Done)));
        table.cell("a").unwrap().store(99, Ordering::Relaxed);
        assert!(table.write(&record("a", State::Running { main: main() })));
        table.set_booted();
        table.set_ending(End::Reboot);

        let (mut table, found, mut records) = Table::map(&fd).unwrap();
        assert_eq!(found, Found::Known { booted: true, ending: Some(End::Reboot), torn: 0, foreign: 0 });
        records.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(records, [record("a", State::Running { main: main() }), record("b", State::Done)]);
        assert_eq!(table.cell("a").unwrap().load(Ordering::Relaxed), 99, "the cell is no part of a slot");
        table.forget("a");
        table.set_ending(End::Exit(255));
        assert!(matches!(table.header(), Found::Known { ending: Some(End::Exit(255)), .. }));

        let (_, _, records) = Table::map(&fd).unwrap();
        assert_eq!(records, [record("b", State::Done)]);
    }

    #[test]
    fn the_state_of_something_else_is_cleared_and_said() {
        let fd = memfd();
        nix::sys::uio::pwrite(&fd, b"something else entirely, longer than a header", 0).unwrap();
        let (_, found, records) = Table::map(&fd).unwrap();
        assert_eq!((found, records.len()), (Found::Alien, 0));
        let (_, found, _) = Table::map(&fd).unwrap();
        assert_eq!(found, Found::Known { booted: false, ending: None, torn: 0, foreign: 0 });
    }

    /// Writes a state as a motherd of layout 1 did.
    fn state_of_layout_1(fd: &OwnedFd, records: &[Record]) {
        let (mut table, ..) = Table::map(fd).unwrap();
        for record in records {
            assert!(table.write(record));
            let place = table.by_name[&record.name];
            let at = offset(place.index) + CELL_SIZE + place.newest * SLOT_SIZE;
            table.memory.write(at, &encode_in(1, record, 7));
        }
        table.memory.write(AT_LAYOUT, &1_u32.to_le_bytes());
        table.memory.write(AT_BOOTED, &1_u32.to_le_bytes());
        table.memory.write(AT_ENDING, &3_u32.to_le_bytes());
    }

    #[test]
    fn an_older_layout_is_read_and_counted_and_then_written_anew() {
        let fd = memfd();
        let web = record("web", State::Running { main: main() });
        state_of_layout_1(&fd, std::slice::from_ref(&web));
        let (mut table, found, records) = Table::map(&fd).unwrap();
        assert_eq!(found, Found::Known { booted: true, ending: Some(End::Halt), torn: 0, foreign: 1 });
        // What that layout has not is not known.
        assert_eq!(records, [Record { policy: [0; 8], standby_cgroup_id: 0, oom_kills: 0, ..web.clone() }]);
        table.set_booted();
        table.set_ending(End::Halt);
        assert!(table.write(&web));
        let (_, found, records) = Table::map(&fd).unwrap();
        assert_eq!(found, Found::Known { booted: true, ending: Some(End::Halt), torn: 0, foreign: 0 });
        assert_eq!(records, [web]);
    }

    #[test]
    fn a_newer_layout_is_read_as_far_as_it_is_known() {
        let web = record("web", State::Running { main: main() });
        let mut newer = encode_in(FIELDS + 1, &web, 9);
        newer[SLOT_SIZE - 1] = 0xa5; // a field of the future
        let sum = checksum(&newer);
        newer[8..16].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(decode(&newer), Some((9, web)));
    }

    /// The machine is not ended, and nothing is read that nobody wrote, whatever byte of the header is damaged.
    #[test]
    fn a_damaged_header_ends_nothing_and_invents_nothing() {
        let fd = memfd();
        let web = record("web", State::Running { main: main() });
        let (mut table, ..) = Table::map(&fd).unwrap();
        assert!(table.write(&web));
        table.set_booted();
        let mut whole = [0; AT_ENDING + 4];
        table.memory.read(0, &mut whole);
        let mut known = |flip: u8, at: usize, copies: &[usize]| {
            let mut bent = whole;
            bent[at] ^= flip;
            copies.iter().for_each(|copy| table.memory.write(*copy, &bent));
            let header = table.header();
            copies.iter().for_each(|copy| table.memory.write(*copy, &whole));
            header
        };
        for (at, flip) in (0..whole.len()).flat_map(|at| (1..=255_u8).map(move |flip| (at, flip))) {
            for one in [0, MIRROR] {
                let header = known(flip, at, &[one]);
                let unharmed = Found::Known { booted: true, ending: None, torn: 0, foreign: 0 };
                assert_eq!(header, unharmed, "byte {at} of {one}, {flip:#x}");
            }
            match known(flip, at, &[0, MIRROR]) {
                Found::Known { ending, .. } => assert_eq!(ending, None, "byte {at}, {flip:#x}"),
                Found::Fresh => panic!("byte {at}, {flip:#x}: taken for nothing"),
                Found::Alien => {}
            }
        }
        assert_eq!(Table::map(&fd).unwrap().2, [web], "control");
    }

    #[test]
    fn there_is_room_for_two_thousand_services_and_the_next_is_told() {
        let fd = memfd();
        let (mut table, ..) = Table::map(&fd).unwrap();
        for n in 0..RECORDS {
            assert!(table.write(&record(&format!("s{n}"), State::Stopped)));
        }
        assert_eq!(RECORDS, 2046);
        assert!(!table.write(&record("one-more", State::Stopped)));
        assert!(table.write(&record("s5", State::Done)), "those that have a place keep it");
    }
}
