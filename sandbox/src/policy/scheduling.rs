//! What `[process]` says about processors, memory nodes, priorities and slack: the types, and how they are read.

use super::{
    listed::Listed,
    reader::{Item, Notes, unknown},
    values,
};
use crate::diagnostic::{Diagnostic, Located};

/// A scheduling policy (sched(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// SCHED_OTHER (the default).
    Other,
    /// SCHED_BATCH
    Batch,
    /// SCHED_IDLE
    Idle,
    /// SCHED_FIFO
    Fifo,
    /// SCHED_RR
    RoundRobin,
}

impl Scheduler {
    /// Whether it has priorities of its own, 1 to 99, and runs before everything that has none.
    #[must_use]
    pub fn is_realtime(self) -> bool {
        matches!(self, Self::Fifo | Self::RoundRobin)
    }
}

/// Where memory comes from (set_mempolicy(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumaPolicy {
    /// MPOL_DEFAULT
    Default,
    /// MPOL_LOCAL
    Local,
    /// MPOL_BIND
    Bind,
    /// MPOL_PREFERRED
    Preferred,
    /// MPOL_INTERLEAVE
    Interleave,
}

impl NumaPolicy {
    /// Whether it is about nodes that are named.
    #[must_use]
    pub fn names_nodes(self) -> bool {
        !matches!(self, Self::Default | Self::Local)
    }
}

/// A class of io priorities (ioprio_set(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoClass {
    /// IOPRIO_CLASS_RT
    Realtime,
    /// IOPRIO_CLASS_BE
    BestEffort,
    /// IOPRIO_CLASS_IDLE
    Idle,
}

/// Processors or memory nodes: one number, or a range with both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRange {
    /// The first.
    pub first: u32,
    /// The last, not below the first.
    pub last: u32,
}

/// What a processor can be kept from guessing (PR_SET_SPECULATION_CTRL).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speculation {
    /// PR_SPEC_STORE_BYPASS
    StoreBypass,
    /// PR_SPEC_INDIRECT_BRANCH
    IndirectBranch,
}

/// One entry of `disable_speculation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DisabledSpeculation {
    /// What is disabled, for good.
    pub kind: Speculation,
    /// A processor or kernel on which it cannot be is no error.
    pub optional: bool,
}

/// What differs from the locked, strict securebits (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Securebit {
    /// uid 0 gains nothing by being 0, even where a root service keeps capabilities.
    NoRoot,
    /// PR_SET_KEEPCAPS may be used: for daemons that give up root themselves.
    MayKeepCaps,
    /// PR_CAP_AMBIENT_RAISE may be used.
    MayRaiseAmbient,
}

/// The highest processor or node that can be named, and the size of the masks: no kernel has more (NR_CPUS and
/// MAX_NUMNODES of x86_64).
pub(crate) const CPUS: u32 = 8192;
/// See [`CPUS`].
pub(crate) const NODES: u32 = 1024;

const SCHEDULERS: &[(&str, Scheduler)] = &[
    ("other", Scheduler::Other),
    ("batch", Scheduler::Batch),
    ("idle", Scheduler::Idle),
    ("fifo", Scheduler::Fifo),
    ("rr", Scheduler::RoundRobin),
];

pub(super) fn scheduler(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Scheduler>> {
    values::word(item, "unknown-value", SCHEDULERS, notes)
}

pub(super) fn numa_policy(item: &Item<'_>, notes: &mut Notes) -> Option<Located<NumaPolicy>> {
    let words = [
        ("default", NumaPolicy::Default),
        ("local", NumaPolicy::Local),
        ("bind", NumaPolicy::Bind),
        ("preferred", NumaPolicy::Preferred),
        ("interleave", NumaPolicy::Interleave),
    ];
    values::word(item, "unknown-value", &words, notes)
}

pub(super) fn io_class(item: &Item<'_>, notes: &mut Notes) -> Option<Located<IoClass>> {
    let words =
        [("realtime", IoClass::Realtime), ("best-effort", IoClass::BestEffort), ("idle", IoClass::Idle)];
    values::word(item, "unknown-value", &words, notes)
}

const SPECULATIONS: &[(&str, Speculation)] =
    &[("store-bypass", Speculation::StoreBypass), ("indirect-branch", Speculation::IndirectBranch)];

impl Speculation {
    /// What policies call it.
    #[must_use]
    pub fn word(self) -> &'static str {
        SPECULATIONS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

impl Listed for DisabledSpeculation {
    fn id(&self) -> String {
        self.kind.word().to_owned()
    }
}

/// The keys of an entry of `disable_speculation` that may be impossible.
pub(super) const SPECULATION_KEYS: &[&str] = &["kind", "optional"];

/// `"store-bypass"`, or `{ kind = "store-bypass", optional = true }`.
pub(super) fn disabled_speculation(
    item: &Item<'_>,
    notes: &mut Notes,
) -> Option<Located<DisabledSpeculation>> {
    let kind = |item: &Item<'_>, notes: &mut Notes| values::word(item, "unknown-value", SPECULATIONS, notes);
    if !item.value().is_table() {
        return Some(kind(item, notes)?.map(|kind| DisabledSpeculation { kind, optional: false }));
    }
    let table = item.table(SPECULATION_KEYS, notes)?;
    let optional = match table.get("optional") {
        Some(item) => item.boolean(notes)?.value,
        None => false,
    };
    let kind = kind(&table.require("kind", notes)?, notes)?.value;
    Some(Located::new(DisabledSpeculation { kind, optional }, item.at()))
}

const SECUREBITS: &[(&str, Securebit)] = &[
    ("noroot", Securebit::NoRoot),
    ("may-keep-caps", Securebit::MayKeepCaps),
    ("may-raise-ambient", Securebit::MayRaiseAmbient),
];

impl Listed for Securebit {
    fn id(&self) -> String {
        SECUREBITS
            .iter()
            .find(|(_, bit)| bit == self)
            .map_or_else(String::new, |(word, _)| (*word).to_owned())
    }
}

pub(super) fn securebit(item: &Item<'_>, notes: &mut Notes) -> Option<Located<Securebit>> {
    values::word(item, "unknown-value", SECUREBITS, notes)
}

impl Listed for IndexRange {
    fn id(&self) -> String {
        if self.first == self.last { self.first.to_string() } else { format!("{}-{}", self.first, self.last) }
    }
}

/// `3`, or `"0-3"`; each below `end`.
pub(super) fn index_range(item: &Item<'_>, end: u32, notes: &mut Notes) -> Option<Located<IndexRange>> {
    if item.number().is_some() {
        return Some(item.integer(0, end - 1, notes)?.map(|first| IndexRange { first, last: first }));
    }
    if !item.value().is_str() {
        return item.wrong_type("a number, or a range in quotes: \"0-3\"", notes);
    }
    let text = item.text(notes)?;
    let number = |text: &str| values::parse_count(text, false).and_then(|number| u32::try_from(number).ok());
    let (first, last) = text.value.split_once('-').unwrap_or((&text.value, &text.value));
    let range = number(first).zip(number(last)).map(|(first, last)| IndexRange { first, last });
    if let Some(range) = range.filter(|range| range.first <= range.last && range.last < end) {
        return Some(Located::new(range, text.at));
    }
    let message = format!("`{}` is no range", text.value);
    let label = format!("\"first-last\", from 0 to {}, the first not above the last", end - 1);
    notes.push(Diagnostic::error("invalid-limit", text.at, message).label(label));
    None
}

/// A span of time with its unit, in nanoseconds, from `lowest` to `highest`.
pub(super) fn duration(
    item: &Item<'_>,
    lowest: u64,
    highest: u64,
    notes: &mut Notes,
) -> Option<Located<u64>> {
    let text = if item.value().is_str() {
        item.text(notes)?
    } else {
        return item.wrong_type("a time in quotes: \"50us\", \"20ms\", \"1s\"", notes);
    };
    let Some(nanoseconds) = parse_duration(&text.value) else {
        let message = format!("`{}` is no time", text.value);
        notes.push(unknown("invalid-limit", text.at, message, &text.value, UNITS_SHOWN));
        return None;
    };
    if !(lowest..=highest).contains(&nanoseconds) {
        let message = format!("`{}` is out of range", item.key);
        let label = format!("from {} to {}", show_duration(lowest), show_duration(highest));
        notes.push(Diagnostic::error("out-of-range", text.at, message).label(label));
        return None;
    }
    Some(Located::new(nanoseconds, text.at))
}

const UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];
const UNITS_SHOWN: &[&str] = &["digits and ns, us, ms, s, m or h"];

/// `50us`, in nanoseconds.
pub(super) fn parse_duration(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let (_, factor) = UNITS.into_iter().find(|(unit, _)| *unit == &text[digits.len()..])?;
    values::parse_count(digits, false)?.checked_mul(factor)
}

/// In the largest unit that it is whole in.
pub(crate) fn show_duration(nanoseconds: u64) -> String {
    let (unit, factor) = UNITS
        .into_iter()
        .rev()
        .find(|(_, factor)| nanoseconds > 0 && nanoseconds.is_multiple_of(*factor))
        .unwrap_or(UNITS[0]);
    format!("{}{unit}", nanoseconds / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            ("50us", Some(50_000)),
            ("1ns", Some(1)),
            ("20ms", Some(20_000_000)),
            ("2s", Some(2_000_000_000)),
            ("1h", Some(3_600_000_000_000)),
            ("50", None),
            ("us", None),
            ("1.5s", None),
            ("-1s", None),
            ("1d", None),
            ("1 s", None),
            ("9223372036854775807h", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
        assert_eq!(show_duration(90 * 1_000_000_000), "90s");
        assert_eq!(show_duration(50_000), "50us");
        assert_eq!(show_duration(0), "0ns");
    }
}
