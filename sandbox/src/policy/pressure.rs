//! `cgroup.pressure`: what is to be done when the processes of a service wait too much for a resource (PSI,
//! Documentation/accounting/psi.rst).

use std::fmt;

use super::{
    listed::Listed,
    reader::{Item, Notes},
    resources::microseconds,
    scheduling::show_duration,
    values,
};
use crate::diagnostic::{Diagnostic, Located};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A processor, or quota.
    Cpu,
    /// Memory that has to be taken from elsewhere first.
    Memory,
    /// A device.
    Io,
}

const RESOURCES: &[(&str, Resource)] =
    &[("cpu", Resource::Cpu), ("memory", Resource::Memory), ("io", Resource::Io)];

/// Who has to wait for it to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiting {
    /// At least one of the processes.
    Some,
    /// All that have something to do, at once.
    Full,
}

const WAITINGS: &[(&str, Waiting)] = &[("some", Waiting::Some), ("full", Waiting::Full)];

/// What is done then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is said.
    Report,
    /// The service is stopped in its own way, and started again if its file says so.
    Restart,
    /// Its processes are killed at once, and it is started again if its file says so.
    Kill,
}

const ACTIONS: &[(&str, Action)] =
    &[("report", Action::Report), ("restart", Action::Restart), ("kill", Action::Kill)];

fn word_of<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word)
}

impl Resource {
    /// As it is written, and as its file is named.
    #[must_use]
    pub fn word(self) -> &'static str {
        word_of(RESOURCES, &self)
    }
}

impl Waiting {
    /// As it is written, and as the kernel takes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        word_of(WAITINGS, &self)
    }
}

impl Action {
    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        word_of(ACTIONS, &self)
    }
}

/// One entry: when its processes waited for the resource for `stall` within `window`, something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PressureTrigger {
    /// For what.
    pub resource: Resource,
    /// Who.
    pub waiting: Waiting,
    /// For how long in all, nanoseconds; whole microseconds.
    pub stall: u64,
    /// Within how long, nanoseconds.
    pub window: u64,
    /// What is done.
    pub action: Action,
}

impl fmt::Display for PressureTrigger {
    /// `memory some: 150ms in 1s`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resource, waiting) = (self.resource.word(), self.waiting.word());
        write!(f, "{resource} {waiting}: {} in {}", show_duration(self.stall), show_duration(self.window))
    }
}

impl Listed for PressureTrigger {
    /// `memory some report`
    fn id(&self) -> String {
        format!("{} {} {}", self.resource.word(), self.waiting.word(), self.action.word())
    }
}

/// The keys of an entry.
pub(super) const PRESSURE_KEYS: &[&str] = &["resource", "kind", "stall", "window", "action"];

/// WINDOW_MIN_US and WINDOW_MAX_US (kernel/sched/psi.c).
const WINDOWS: (u64, u64) = (500_000_000, 10_000_000_000);
/// Where none is written: one that the kernel takes from everybody.
const USUAL_WINDOW: u64 = 2_000_000_000;
/// Each keeps a descriptor open, and a worker of the kernel busy while the service is.
pub(super) const MOST: usize = 16;

/// `{ resource = "memory", kind = "some", stall = "150ms", window = "1s", action = "restart" }`.
pub(super) fn trigger(item: &Item<'_>, notes: &mut Notes) -> Option<Located<PressureTrigger>> {
    let table = item.table(PRESSURE_KEYS, notes)?;
    let resource = table
        .require("resource", notes)
        .and_then(|item| values::word(&item, "unknown-value", RESOURCES, notes));
    let waiting = match table.get("kind") {
        Some(item) => values::word(&item, "unknown-value", WAITINGS, notes).map(|kind| kind.value),
        None => Some(Waiting::Some),
    };
    let stall = table.require("stall", notes).and_then(|item| microseconds(&item, 1_000, WINDOWS.1, notes));
    let window = match table.get("window") {
        Some(item) => microseconds(&item, WINDOWS.0, WINDOWS.1, notes).map(|window| window.value),
        None => Some(USUAL_WINDOW),
    };
    let action = match table.get("action") {
        Some(item) => values::word(&item, "unknown-value", ACTIONS, notes).map(|action| action.value),
        None => Some(Action::Report),
    };
    let (stall, window) = (stall?, window?);
    if stall.value > window {
        let message = "nobody waits for longer than the window is";
        let label = format!("at most {}", show_duration(window));
        notes.push(Diagnostic::error("out-of-range", stall.at, message).label(label));
        return None;
    }
    let trigger = PressureTrigger {
        resource: resource?.value,
        waiting: waiting?,
        stall: stall.value,
        window,
        action: action?,
    };
    Some(Located::new(trigger, item.at()))
}
