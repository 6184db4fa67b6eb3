//! The keys of `[process]` about processors, memory nodes, priorities, slack and speculation.

use crate::{
    compile::Builder,
    diagnostic::{Diagnostic, Located},
    kernel::Mitigation,
    plan::{Op, Phase},
    policy::{CPUS, IndexRange, IoClass, NODES, NumaPolicy, Process, Scheduler, Speculation, show_duration},
};

// linux/mempolicy.h
const MPOL_DEFAULT: i32 = 0;
const MPOL_PREFERRED: i32 = 1;
const MPOL_BIND: i32 = 2;
const MPOL_INTERLEAVE: i32 = 3;
const MPOL_LOCAL: i32 = 4;

// linux/ioprio.h
const IOPRIO_CLASS_SHIFT: i32 = 13;

/// The steps. All of them survive execve; none is in the memory map that the child shares.
pub(crate) fn compile(process: &Process, builder: &mut Builder<'_>) {
    let scheduler = &process.scheduler;
    let policy = match scheduler.value {
        Scheduler::Other => libc::SCHED_OTHER,
        Scheduler::Batch => libc::SCHED_BATCH,
        Scheduler::Idle => libc::SCHED_IDLE,
        Scheduler::Fifo => libc::SCHED_FIFO,
        Scheduler::RoundRobin => libc::SCHED_RR,
    };
    let priority = i32::from(process.scheduler_priority);
    let object = format!("{:?}, priority {priority}", scheduler.value).to_lowercase();
    builder.step(Phase::Process, Op::Scheduler { policy, priority }, object, Some(scheduler.at.clone()));
    affinity(process, builder);
    memory(process, builder);
    if let Some(Located { value: (class, level), at }) = &process.io_priority {
        let number = match class {
            IoClass::Realtime => 1,
            IoClass::BestEffort => 2,
            IoClass::Idle => 3,
        };
        let op = Op::IoPriority(number << IOPRIO_CLASS_SHIFT | i32::from(*level));
        builder.step(Phase::Process, op, format!("{class:?}, level {level}"), Some(at.clone()));
    }
    if let Some(slack) = &process.timer_slack {
        // At most a second, which fits into any word.
        let op = Op::TimerSlack(usize::try_from(slack.value).unwrap_or(usize::MAX));
        builder.step(Phase::Process, op, show_duration(slack.value), Some(slack.at.clone()));
    }
    speculation(process, builder);
}

fn affinity(process: &Process, builder: &mut Builder<'_>) {
    let Some(ranges) = &process.cpu_affinity else { return };
    for range in ranges {
        if let Some(missing) = (range.value.first..=range.value.last)
            .find(|processor| !builder.kernel.processors.contains(processor))
        {
            let online = Ranges::of(builder.kernel.processors.iter().copied());
            builder.error(
                Diagnostic::error(
                    "no-processor",
                    range.at.clone(),
                    format!("processor {missing} is not online here"),
                )
                .help(format!("online: {online}")),
            );
        }
    }
    let op = Op::Affinity(mask(ranges, CPUS));
    let at = ranges.first().map(|range| range.at.clone());
    builder.step(Phase::Process, op, listed(ranges), at);
}

fn memory(process: &Process, builder: &mut Builder<'_>) {
    let Some(policy) = &process.numa_policy else { return };
    let mode = match policy.value {
        NumaPolicy::Default => MPOL_DEFAULT,
        NumaPolicy::Local => MPOL_LOCAL,
        NumaPolicy::Bind => MPOL_BIND,
        NumaPolicy::Preferred => MPOL_PREFERRED,
        NumaPolicy::Interleave => MPOL_INTERLEAVE,
    };
    let nodes = &process.numa_nodes;
    for range in nodes {
        if let Some(missing) =
            (range.value.first..=range.value.last).find(|node| !builder.kernel.memory_nodes.contains(node))
        {
            let here = Ranges::of(builder.kernel.memory_nodes.iter().copied());
            builder.error(
                Diagnostic::error(
                    "no-memory-node",
                    range.at.clone(),
                    format!("memory node {missing} is not there"),
                )
                .help(format!("nodes with memory: {here}")),
            );
        }
    }
    let object = format!("{:?} {}", policy.value, listed(nodes)).to_lowercase();
    let op = Op::MemoryPolicy { mode, nodes: mask(nodes, NODES) };
    builder.step(Phase::Process, op, object.trim().to_owned(), Some(policy.at.clone()));
}

fn speculation(process: &Process, builder: &mut Builder<'_>) {
    for wanted in &process.disable_speculation {
        let kind = wanted.value.kind;
        let (option, mitigation) = match kind {
            Speculation::StoreBypass => (0, builder.kernel.store_bypass), // PR_SPEC_STORE_BYPASS
            Speculation::IndirectBranch => (1, builder.kernel.indirect_branch), // PR_SPEC_INDIRECT_BRANCH
        };
        match mitigation {
            // A processor that does not do it, or is kept from it for everybody, needs no step.
            Mitigation::NotAffected | Mitigation::Always => {}
            Mitigation::PerProcess => {
                let op = Op::DisableSpeculation(option);
                builder.step(Phase::NoNewPrivs, op, kind.word(), Some(wanted.at.clone()));
            }
            Mitigation::Unavailable if wanted.value.optional => {
                builder.left_out(format!("speculation {}", kind.word()), NO_CONTROL);
            }
            Mitigation::Unavailable => {
                let help = format!(
                    "boot with spec_store_bypass_disable=prctl or spectre_v2_user=prctl where the processor can, or \
                     write {{ kind = \"{}\", optional = true }} to go without",
                    kind.word()
                );
                builder.error(Diagnostic::error("no-mitigation", wanted.at.clone(), NO_CONTROL).help(help));
            }
        }
    }
}

const NO_CONTROL: &str = "this processor or kernel cannot disable it for one process";

/// A bit for each number of the ranges, in `bits` bits.
fn mask(ranges: &[Located<IndexRange>], bits: u32) -> Box<[u64]> {
    let mut words = vec![0_u64; (bits / 64) as usize].into_boxed_slice();
    for number in ranges.iter().flat_map(|range| range.value.first..=range.value.last) {
        words[(number / 64) as usize] |= 1 << (number % 64);
    }
    words
}

fn listed(ranges: &[Located<IndexRange>]) -> String {
    Ranges::of(ranges.iter().flat_map(|range| range.value.first..=range.value.last)).to_string()
}

/// A set of numbers, shown as the kernel shows one: `0-3,8`.
pub(crate) struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    pub(crate) fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        let numbers: std::collections::BTreeSet<u32> = numbers.into_iter().collect();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        Self(ranges)
    }
}

impl std::fmt::Display for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_shown_as_the_kernel_shows_them() {
        for (numbers, expected) in [
            (&[0, 1, 2, 3, 8][..], "0-3,8"),
            (&[5], "5"),
            (&[3, 1], "1,3"),
            (&[2, 1, 0, 1], "0-2"),
            (&[], "none"),
        ] {
            assert_eq!(Ranges::of(numbers.iter().copied()).to_string(), expected);
        }
    }
}
