//! What is in a slot: the fields of a record, in their one order.

use std::time::Duration;

use super::{
    Record,
    shape::{SLOT_MAX, Shape},
};
use crate::{
    service::NAME_MAX,
    supervise::{Cause, Command, Exit, ExitHow, Goal, History, Hook, Main, Requester, Stage, State, Then},
};

/// What is kept of the words of a cause.
pub(super) const WORDS_MAX: usize = 380;
/// And of the cause of the goal, which is a request or a dependency, and shorter. In layout 1 it had as much.
const ASKED_MAX: usize = 180;

/// Walks the fields of a slot in their one order, writing them or reading them. A field that a later layout adds goes
/// to the end of [`Fields::record`], behind `if self.layout >= ITS_LAYOUT`: a record without it keeps the default.
pub(super) struct Fields {
    pub(super) bytes: [u8; SLOT_MAX],
    pub(super) at: usize,
    /// No field is beyond.
    end: usize,
    packed: bool,
    layout: u16,
    /// All of them had room, and none that was read has a value that its type does not have.
    pub(super) sound: bool,
}

impl Fields {
    /// Of a slot that ends there.
    pub(super) fn new(bytes: [u8; SLOT_MAX], end: usize, shape: &Shape, layout: u16) -> Self {
        Self { bytes, at: shape.slot_header, end, packed: shape.packed, layout, sound: true }
    }

    pub(super) fn record(&mut self, record: &mut Record, write: bool) {
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
        let end = self.at + value.len();
        let Some(place) = self.bytes[..self.end].get_mut(self.at..end) else {
            self.sound = false;
            return;
        };
        if write {
            place.copy_from_slice(value);
        } else {
            value.copy_from_slice(place);
        }
        self.at = end;
    }

    fn u8(&mut self, value: &mut u8, write: bool) {
        let mut bytes = [*value];
        self.raw(&mut bytes, write);
        [*value] = bytes;
    }

    fn u32(&mut self, value: &mut u32, write: bool) {
        let mut number = u64::from(*value);
        self.number(&mut number, 4, write);
        match u32::try_from(number) {
            Ok(number) => *value = number,
            Err(_) => self.sound = false,
        }
    }

    fn u64(&mut self, value: &mut u64, write: bool) {
        self.number(value, 8, write);
    }

    /// As wide as it can be, or how many bytes it has and those.
    fn number(&mut self, value: &mut u64, mut width: u8, write: bool) {
        if self.packed {
            width = u8::try_from(8 - value.leading_zeros() / 8).unwrap_or(8);
            self.u8(&mut width, write);
        }
        let mut bytes = value.to_le_bytes();
        if !write {
            bytes = [0; 8];
        }
        match bytes.get_mut(..usize::from(width)) {
            Some(bytes) => self.raw(bytes, write),
            None => self.sound = false,
        }
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
        self.u32(&mut len, write);
        let (begin, mut bytes) = (self.at, [0; WORDS_MAX]);
        let text = usize::try_from(len).ok().filter(|len| *len <= max).and_then(|len| bytes.get_mut(..len));
        let Some(text) = text else {
            self.sound = false;
            return;
        };
        if write {
            text.copy_from_slice(&value.as_bytes()[..end]);
        }
        self.raw(text, write);
        if !self.packed {
            self.at = begin + max;
        }
        if !write {
            match str::from_utf8(text) {
                Ok(text) => text.clone_into(value),
                Err(_) => self.sound = false,
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
