//! A launch's own steps in two parts: what can be made for it before its process is there, and what cannot.
//!
//! Its network, its IPC and most of its mounts are made ahead: each is used once and was nobody's. What shows a process's
//! own namespaces (proc by the pid namespace, cgroup2 by the cgroup namespace) or holds what is read for this launch
//! (credentials) is made by the launch, and so is all that stands on it.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the few kinds of steps that matter here are asked for by name"
)]

use std::{collections::BTreeSet, ffi::CString};

use super::{collected, entering};
use crate::plan::{BerthPlan, Op, Phase, Slot, Step};

/// File systems that are made by the process that they are for.
const LATE: [&[u8]; 3] = [b"proc", b"cgroup2", b"ramfs"];

/// The two parts; `None` for a launch that joins a network, since sysfs shows that.
pub(super) fn split(own: &[&Step], mount_points: &[Step], namespaces: u64) -> Option<BerthPlan> {
    if own.iter().any(|step| matches!(step.op, Op::JoinNetwork)) {
        return None;
    }
    let late = Late::of(own);
    let (ahead, launch): (Vec<&Step>, Vec<&Step>) = own.iter().partition(|step| match step.phase {
        Phase::Network => matches!(step.op, Op::LoopbackUp),
        Phase::Collect | Phase::Root | Phase::Mount | Phase::Seal | Phase::NetworkMount => !late.has(step),
        _ => false,
    });
    let can_be_made = u64::from((libc::CLONE_NEWNET | libc::CLONE_NEWIPC).cast_unsigned());
    let Ahead { steps: ahead, sources, noted } = make(&ahead, mount_points);
    let (before, after): (Vec<&Step>, Vec<&Step>) =
        launch.iter().partition(|step| step.phase <= Phase::Collect);
    let mut launch = collected(&before);
    launch.push(entering(Phase::Root, Op::EnterBerth, mount_points));
    let mount_points = noted.len();
    launch.extend(noted);
    launch.extend(after.into_iter().cloned());
    Some(BerthPlan {
        ahead: ahead.into(),
        launch: launch.into(),
        made: namespaces & can_be_made,
        namespaces: namespaces & !can_be_made,
        sources,
        mount_points,
    })
}

/// What is made ahead.
struct Ahead {
    steps: Vec<Step>,
    /// What it shows of the host besides the template.
    sources: Vec<CString>,
    /// The steps that ask for the mount points again.
    noted: Vec<Step>,
}

/// What is made ahead, noted at its end.
fn make(ahead: &[&Step], mount_points: &[Step]) -> Ahead {
    let (mut steps, mut sources) = (Vec::new(), Vec::new());
    steps.push(entering(Phase::Process, Op::Umask(0), mount_points));
    let (before, after): (Vec<&Step>, Vec<&Step>) =
        ahead.iter().partition(|step| step.phase <= Phase::Collect);
    for step in collected(&before) {
        let source = match &step.op {
            Op::CloneTree { path, into } => Some((path.clone(), *into)),
            _ => None,
        };
        steps.push(step.clone());
        if let Some((path, of)) = source {
            steps.push(step.with(Op::NoteTree { of, index: sources.len() }));
            sources.push(path);
        }
    }
    steps.push(entering(Phase::Root, Op::EnterTemplate, mount_points));
    steps.extend(mount_points.iter().cloned());
    let mut noted = mount_points.to_vec();
    for step in after {
        if let Op::Attach { target, .. } | Op::Mount { target, .. } = &step.op {
            let op = Op::StillMounted { path: target.clone(), index: noted.len() };
            noted.push(step.with(op));
        }
        steps.push(step.clone());
    }
    for step in &noted {
        if let Op::StillMounted { path, index } = &step.op {
            let op = Op::NoteMount { path: path.clone(), index: *index };
            steps.push(step.with(op));
        }
    }
    Ahead { steps, sources, noted }
}

/// What the launch makes itself.
struct Late<'a> {
    slots: BTreeSet<usize>,
    targets: Vec<&'a [u8]>,
}

impl<'a> Late<'a> {
    fn of(own: &[&'a Step]) -> Self {
        let mut late = Self { slots: BTreeSet::new(), targets: Vec::new() };
        for step in own {
            match &step.op {
                Op::NewFilesystem { kind, into, .. } if LATE.contains(&kind.to_bytes()) => {
                    late.slots.insert(into.0);
                }
                Op::Mount { kind, target, .. } if LATE.contains(&kind.to_bytes()) => {
                    late.targets.push(target.to_bytes());
                }
                _ => {}
            }
        }
        // What stands on it, and what stands on that.
        loop {
            let before = (late.slots.len(), late.targets.len());
            for step in own {
                if let Op::Attach { from, target, .. } = &step.op {
                    let path = target.to_bytes();
                    if late.slots.contains(&from.0) && !late.targets.contains(&path) {
                        late.targets.push(path);
                    }
                    if late.covers(path) {
                        late.slots.insert(from.0);
                    }
                }
            }
            if before == (late.slots.len(), late.targets.len()) {
                return late;
            }
        }
    }

    /// Whether a path is one of the targets or lies beneath one.
    fn covers(&self, path: &[u8]) -> bool {
        self.targets.iter().any(|target| {
            path.strip_prefix(*target).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        })
    }

    fn has(&self, step: &Step) -> bool {
        let slot = |slot: &Slot| self.slots.contains(&slot.0);
        match &step.op {
            Op::Attach { from, target, .. } => slot(from) || self.covers(target.to_bytes()),
            Op::Mount { target, .. } => self.covers(target.to_bytes()),
            Op::MakeDirectory(path) | Op::MakeFile(path) | Op::Detach(path) => self.covers(path.to_bytes()),
            Op::CloneTree { into, .. } | Op::NewFilesystem { into, .. } => slot(into),
            Op::Mkdir { at, .. }
            | Op::Chown { at, .. }
            | Op::WriteCredential { at, .. }
            | Op::Mknod { at, .. }
            | Op::Symlink { at, .. }
            | Op::SetAttributes { of: at, .. }
            | Op::CheckNull(at)
            | Op::IdMap { of: at, .. } => slot(at),
            // Of anything else nothing is known: the launch does it.
            _ => true,
        }
    }
}
