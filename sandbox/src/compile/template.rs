//! A plan's steps in two parts: what builds a mount namespace once, and what each launch does with a copy of it.
//!
//! A template has what all launches of one plan can have in common: the host's trees with their attributes, empty nodes
//! over what is hidden, device nodes. What is written to, holds secrets, or belongs to one process's namespaces is made
//! for each launch, and so is everything that stands on such a mount. Two things make that safe. The sections say which
//! steps are shared, and a step of which nothing is said is not. And [`split`] takes the steps apart only where no
//! service could change what the next one gets: a file system of the template's own is read-only, and nobody has the
//! capability that makes it writable again. Otherwise there is no template, and each launch builds everything.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the few kinds of steps that matter here are asked for by name"
)]

mod berth;

use std::{collections::BTreeSet, sync::Arc};

use crate::plan::{Action, Op, Phase, Slot, Step, TemplateBuild, TemplatePlan};

/// Makes a mount writable again, in the mount namespaces of the host's user namespace.
const CAP_SYS_ADMIN: u8 = 21;

/// The two parts, or `None` for a plan whose launches share nothing.
pub(crate) fn split(steps: &[Step], namespaces: u64, without_id_maps: bool) -> Option<TemplatePlan> {
    let own_mounts = u64::from(libc::CLONE_NEWNS.cast_unsigned());
    let joins_users = steps.iter().any(|step| matches!(step.op, Op::Join(_) | Op::Enter(_)));
    let own_users = namespaces & u64::from(libc::CLONE_NEWUSER.cast_unsigned()) != 0;
    let overlays = steps.iter().any(|step| step.phase == Phase::Overlay);
    let administers = !steps.iter().any(|step| matches!(step.op, Op::DropBounding(CAP_SYS_ADMIN)));
    if namespaces & own_mounts == 0 || !without_id_maps || joins_users || own_users || overlays || administers
    {
        return None;
    }
    let (shared, own): (Vec<&Step>, Vec<&Step>) = steps.iter().partition(|step| step.shared);
    if !seals_its_own(&shared) || !keeps_its_slots(&own) {
        return None;
    }
    let (build, mount_points) = build(&shared);
    let namespaces = namespaces & !own_mounts;
    let berth = berth::split(&own, &mount_points, namespaces);
    Some(TemplatePlan {
        build: Arc::new(build),
        launch: launch(&own, mount_points).into(),
        namespaces,
        berth,
    })
}

/// Whether each file system that the template makes is read-only at the end, and no service's: what is shared must not be written
/// to.
fn seals_its_own(shared: &[&Step]) -> bool {
    let read_only = |attributes: u64| attributes & libc::MOUNT_ATTR_RDONLY != 0;
    let sealed = |slot: Slot| {
        shared
            .iter()
            .any(|step| matches!(step.op, Op::SetAttributes { of, set, .. } if of == slot && read_only(set)))
    };
    shared.iter().all(|step| match &step.op {
        Op::NewFilesystem { attributes, owned, into, .. } => {
            !owned && (read_only(*attributes) || sealed(*into))
        }
        Op::Mount { flags, owned, .. } => !owned && flags & libc::MS_RDONLY != 0,
        _ => true,
    })
}

/// Whether what a launch does by itself uses only what it has opened itself.
fn keeps_its_slots(own: &[&Step]) -> bool {
    let mut opened = BTreeSet::new();
    own.iter().all(|step| match &step.op {
        Op::CloneTree { into, .. } | Op::NewFilesystem { into, .. } => {
            opened.insert(into.0);
            true
        }
        Op::Mkdir { at, .. }
        | Op::Chown { at, .. }
        | Op::WriteCredential { at, .. }
        | Op::Mknod { at, .. }
        | Op::Symlink { at, .. }
        | Op::SetAttributes { of: at, .. }
        | Op::Attach { from: at, .. } => opened.contains(&at.0),
        // The root is the template's, always.
        Op::PivotRoot { .. } | Op::PrivateMounts => false,
        _ => true,
    })
}

/// Every shared step, and after them what stands where something was mounted: the steps that ask for it again.
fn build(shared: &[&Step]) -> (TemplateBuild, Vec<Step>) {
    let mut parts = TemplateBuild::default();
    let mut mount_points = Vec::new();
    for step in shared {
        parts.steps.push((*step).clone());
        match &step.op {
            Op::CloneTree { path, into } => {
                let op = Op::NoteTree { of: *into, index: parts.sources.len() };
                parts.sources.push(path.clone());
                parts.steps.push(step.with(op));
            }
            Op::Attach { target, .. } | Op::Mount { target, .. } => {
                let op = Op::StillMounted { path: target.clone(), index: mount_points.len() };
                mount_points.push(step.with(op));
            }
            _ => {}
        }
    }
    for step in &mount_points {
        if let Op::StillMounted { path, index } = &step.op {
            let op = Op::NoteMount { path: path.clone(), index: *index };
            parts.steps.push(step.with(op));
        }
    }
    parts.mount_points = mount_points.len();
    (parts, mount_points)
}

/// The launch's own steps. What it copies of the host's tree it copies before it leaves it.
fn launch(own: &[&Step], mount_points: Vec<Step>) -> Vec<Step> {
    let (before, after): (Vec<&Step>, Vec<&Step>) = own.iter().partition(|step| step.phase <= Phase::Collect);
    let mut steps = collected(&before);
    steps.push(entering(Phase::Root, Op::EnterTemplate, &mount_points));
    steps.extend(mount_points);
    steps.extend(after.into_iter().cloned());
    steps
}

/// Steps that come before the host's tree is left. What is copied in the launcher's namespace, whose mounts may be shared
/// with others, is made private.
fn collected(steps: &[&Step]) -> Vec<Step> {
    let mut collected = Vec::new();
    for step in steps {
        collected.push((*step).clone());
        if let Op::CloneTree { into, .. } = &step.op {
            collected.push(step.with(Op::Unpropagated(*into)));
        }
    }
    collected
}

fn entering(phase: Phase, op: Op, mount_points: &[Step]) -> Step {
    let at = mount_points.first().and_then(|step| step.at.clone());
    Step::new(Action { phase, op, object: String::new(), at, shared: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::c_string;

    #[test]
    fn what_is_a_services_own_is_not_shared() {
        let mount = |owned| {
            let op = Op::Mount {
                kind: c_string("tmpfs"),
                target: c_string("/x"),
                through_links: false,
                attributes: libc::MOUNT_ATTR_RDONLY,
                flags: libc::MS_RDONLY,
                options: c_string("size=1"),
                owned,
                like: None,
            };
            Step::new(Action { phase: Phase::Mount, op, object: String::new(), at: None, shared: true })
        };
        assert!(seals_its_own(&[&mount(false)]), "control");
        assert!(!seals_its_own(&[&mount(true)]));
    }
}
