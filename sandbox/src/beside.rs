//! [`launch_beside`]: one more process in the sandbox of one that runs.
//!
//! A reload hook or a health check is to see what the service sees: its mounts with its credentials and its private
//! `/tmp`, its network, its processes. So nothing is made for it: it enters the namespaces of the service's process, and is
//! then confined as the service was, by the same capabilities, Landlock rules and filter.
//!
//! Two namespaces are special. A pid namespace is entered by children only, so the parent asks for its next child to be born
//! there, and takes that back at once. A time namespace cannot be entered by who shares its memory: the process gets one of
//! its own with the same offsets.

use std::{
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};

use crate::{
    launch::{Ahead, Fault, Launch, LaunchError, Launched, launch_in},
    plan::{Action, Op, Phase, Plan, Step},
    sys::raw,
};

const NEWNET: u64 = libc::CLONE_NEWNET as u64;
const NEWTIME: u64 = libc::CLONE_NEWTIME as u64;
const NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
const NEWPID: u64 = libc::CLONE_NEWPID as u64;

/// Launches a program into the sandbox of `process`, which was launched with this plan; returns once it has exec'd.
///
/// # Errors
/// Nothing runs then; ESRCH where `process` has ended.
pub fn launch_beside(process: BorrowedFd<'_>, request: &Launch<'_>) -> Result<Launched, LaunchError> {
    let own = if made(request.plan) & NEWPID == 0 { None } else { Some(BornElsewhere::begin(process)?) };
    let plan = Arc::new(beside(request.plan));
    let launched = launch_in(
        &Launch { plan: &plan, ahead: Ahead::default(), ..*request },
        Some(process.as_raw_fd()),
        Fault::default(),
    );
    if let Some(own) = own {
        own.end();
    }
    launched
}

/// The plan of a process beside one of this plan.
fn beside(plan: &Plan) -> Plan {
    let joins = plan.steps.iter().any(|step| matches!(step.op, Op::JoinNetwork));
    let network = if joins { NEWNET } else { 0 };
    let entered = made(plan) & !(NEWPID | NEWTIME | NEWUSER) | network;
    let mut steps: Vec<Step> = plan.steps.iter().filter(|step| stays(step.phase)).cloned().collect();
    let enter = |flags: u64, phase, object: &str| {
        let op = Op::Enter(i32::try_from(flags).unwrap_or_default());
        (flags != 0)
            .then(|| Step::new(Action { phase, op, object: object.to_owned(), at: None, shared: false }))
    };
    steps.extend(enter(entered, Phase::Root, "the namespaces of the service"));
    steps.extend(enter(made(plan) & NEWUSER, Phase::UserNamespace, "the user namespace of the service"));
    steps.sort_by_key(|step| step.phase);
    // A Landlock domain cannot be entered: this process gets one of its own with the same rules. Its scopes would part it from
    // the service itself, so they go where a namespace draws the same line around both.
    let mut landlock = plan.landlock.clone();
    if let Some(landlock) = &mut landlock {
        let mut inside = landlock::BitFlags::EMPTY;
        inside |=
            if made(plan) & NEWPID == 0 { landlock::BitFlags::EMPTY } else { landlock::Scope::Signal.into() };
        inside |= if made(plan) & NEWNET == 0 {
            landlock::BitFlags::EMPTY
        } else {
            landlock::Scope::AbstractUnixSocket.into()
        };
        landlock.scope &= !inside;
    }
    Plan {
        namespaces: plan.namespaces & NEWTIME,
        landlock,
        user_namespace: None,
        id_maps: Vec::new(),
        steps: steps.into(),
        credentials: Vec::new(),
        ..plan.clone()
    }
}

/// What makes a namespace, or fills one, was done for the process that is there.
fn stays(phase: Phase) -> bool {
    match phase {
        Phase::OwnNamespaces
        | Phase::CgroupNamespace
        | Phase::Network
        | Phase::Collect
        | Phase::Overlay
        | Phase::Root
        | Phase::Mount
        | Phase::Seal
        | Phase::NetworkMount
        | Phase::UserNamespace => false,
        Phase::Process
        | Phase::Umask
        | Phase::WorkingDirectory
        | Phase::LandlockRules
        | Phase::Bounding
        | Phase::OpenFiles
        | Phase::Identity
        | Phase::Keyring
        | Phase::NoNewPrivs
        | Phase::Descriptors
        | Phase::Landlock
        | Phase::Signals
        | Phase::Seccomp => true,
    }
}

/// The kinds of namespaces (CLONE_NEW*) that a process of this plan has for itself.
fn made(plan: &Plan) -> u64 {
    let unshared = plan
        .steps
        .iter()
        .map(|step| if let Op::Unshare(flags) = step.op { u64::from(flags.cast_unsigned()) } else { 0 });
    let owned = plan.user_namespace.as_ref().map_or(0, |user| NEWUSER | user.owned);
    unshared.fold(plan.namespaces | owned, |all, flags| all | flags)
}

/// This thread's next child is born into another pid namespace.
struct BornElsewhere {
    own: OwnedFd,
}

impl BornElsewhere {
    fn begin(process: BorrowedFd<'_>) -> Result<Self, LaunchError> {
        let path = "/proc/thread-self/ns/pid";
        let own = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| LaunchError::parent_side(path, errno))?;
        raw::setns(process.as_raw_fd(), libc::CLONE_NEWPID)
            .map_err(|errno| LaunchError::parent_side("setns: the pid namespace of the service", errno))?;
        Ok(Self { own })
    }

    /// Back to its own.
    fn end(self) {
        // Whatever this process launched from here on would be born there, so it does not go on where that fails; for what
        // is its own already and open, the kernel has no reason but a lack of memory.
        raw::setns(self.own.as_raw_fd(), libc::CLONE_NEWPID).expect("its own pid namespace is open to it");
    }
}
