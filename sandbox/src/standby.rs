//! [`park`]: a process with the whole sandbox around it that waits right before execve, so that a start costs an execve.
//!
//! Everything that a launch does is done: namespaces, mounts, ids, capabilities, limits, Landlock. What is left for
//! [`Standby::release`] is what belongs to one run and to no other: arguments, environment, the standard descriptors,
//! sockets, the pid variables. The seccomp filter is applied before the process waits where it lets through the one call
//! by which it waits, recvmsg(2), and otherwise as the last act before execve, as in a launch.
//!
//! The process has memory of its own ([`crate::sys::parked`]): it holds nothing of its launcher's, and when that ends, by
//! whatever death, it ends too, having executed nothing.
//!
//! Invariant: a release is what a launch would be now, or it is none. What was shown of the host when the process was made
//! is compared ([`Standby::is_current`]): its mounts, the folders and files that are bound, the credentials.

use std::{
    fs::{self, File},
    io::{IoSlice, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair,
    },
};

use crate::{
    apply,
    compile::seccomp,
    descriptors::far_up,
    launch::{Fault, Handed, Launch, LaunchError, Launched, Parking, begin, c_strings, explain, variables},
    plan::{Op, Phase, Plan},
    sys::parked::{self, Failed, Order, Orders, RULESET, Setup, Stage},
    template::MountWatch,
};

pub use crate::sys::parked::EXIT_FORGOTTEN;

/// The gate's number where the limit on open files allows it: above all that a service is handed.
const GATE_AT: RawFd = 512;
/// SCM_MAX_FD (unix(7)).
const DESCRIPTORS_MAX: usize = 253;
/// An execve takes no longer, but for a disk that does not answer; then its exit tells what became of it.
const EXEC_MAX: Duration = Duration::from_secs(10);

/// A process that waits. It ends when this is dropped, unless it was released.
#[derive(Debug)]
pub struct Standby {
    pid: u32,
    pidfd: OwnedFd,
    /// Its mounts, where these were made before it ([`Launched::mounts`]).
    berth: Option<OwnedFd>,
    gate: OwnedFd,
    order: Order,
    gate_at: RawFd,
    mounts: MountWatch,
    seen: Vec<(PathBuf, Option<Identity>)>,
}

/// Which file is at a path, and in which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    /// Of a file that is read: when it was changed last, and its size.
    content: Option<(i64, i64, u64)>,
}

/// What belongs to one run.
#[derive(Debug, Clone, Copy)]
pub struct Release<'a> {
    /// The plan that it was parked with.
    pub plan: &'a Plan,
    /// The program, absolute, and its arguments.
    pub argv: &'a [String],
    /// Added to the plan's environment; a name given here wins.
    pub environment: &'a [(String, String)],
    /// stdin, stdout, stderr.
    pub stdio: [BorrowedFd<'a>; 3],
    /// What it gets beside them.
    pub handed: Handed<'a>,
}

/// Why a release did not take place.
#[derive(Debug)]
pub enum Missed {
    /// It could not be used, and ends: whoever wanted it launches instead.
    Unfit(String),
    /// It went on, and could not execute the program: neither could a launch.
    Failed(LaunchError),
}

/// Makes a process that waits. Of the request its arguments, environment, standard descriptors and what is handed on do not
/// matter: they are given with the release.
///
/// # Errors
/// As for a launch.
pub fn park(request: &Launch<'_>) -> Result<Standby, LaunchError> {
    let plan = request.plan;
    let tells =
        |what: &'static str| move |errno| LaunchError::parent_side(&format!("standby: {what}"), errno);
    // Before anything of the host is looked at: what changes from here on is told.
    let mounts = MountWatch::new()
        .map_err(|error| tells("mountinfo")(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))?;
    let seen = shown(plan).map(|(path, is_read)| (path.clone(), identity(&path, is_read))).collect();
    let gate_at = gate_at(plan).ok_or_else(|| tells("limit on open files")(Errno::EMFILE))?;
    let filter = plan.steps.iter().find_map(|step| {
        let Op::Seccomp { program, log } = &step.op else { return None };
        Some((&**program, *log, lets_wait(program)))
    });
    let setup = Setup { landlock: plan.landlock.is_some(), filter, gate_at };
    let order = Order::new(&setup).map_err(tells("order"))?;
    let flags = SockFlag::SOCK_CLOEXEC;
    let (gate, inner) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).map_err(tells("socketpair"))?;
    let null = File::open("/dev/null")
        .map_err(|error| tells("/dev/null")(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))?;
    let parking =
        Parking { image: parked::image().map_err(tells("image"))?, gate: inner.as_fd(), order: order.fd() };
    let argv = ["(standby)".to_owned()];
    let stdio = [null.as_fd(); 3];
    let request = Launch { argv: &argv, stdio, handed: Handed::default(), ..*request };
    let Launched { pid, pidfd, mounts: berth } = begin(&request, None, Some(&parking), Fault::default())?;
    Ok(Standby { pid, pidfd, berth, gate: far_up(gate), order, gate_at, mounts, seen })
}

impl Standby {
    /// Its pid, as the caller sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its identity.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it waits, and has nothing more to do until it is released.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.order.stage() == Stage::Waits
    }

    /// Whether a launch would be shown the same of the host now: nothing was mounted or unmounted, what is bound is what was
    /// bound, and the credentials are those that were read.
    #[must_use]
    pub fn is_current(&self) -> bool {
        !self.mounts.changed()
            && self.seen.iter().all(|(path, seen)| {
                let is_read = seen.is_some_and(|seen| seen.content.is_some());
                identity(path, is_read) == *seen
            })
    }

    /// Has it execute the program; returns once it has.
    ///
    /// # Errors
    /// Nothing runs then, and nothing of it will.
    pub fn release(self, release: &Release<'_>) -> Result<Launched, Missed> {
        let unfit = |what: &str, errno: Errno| Missed::Unfit(format!("standby: {what}: {errno:?}"));
        let plan = release.plan;
        if !matches!(self.order.stage(), Stage::Begun | Stage::Waits) {
            return Err(Missed::Unfit(format!("standby: it ended: {:?}", self.order.stage())));
        }
        let argv = c_strings("argument", release.argv.iter().cloned()).map_err(Missed::Failed)?;
        let (mut envp, pids) =
            variables(plan, release.environment, release.handed).map_err(Missed::Failed)?;
        if !pids.is_empty() {
            let own = own_pid(self.pid).ok_or_else(|| unfit("its own pid", Errno::ESRCH))?;
            let told = pids.iter().map(|name| format!("{name}={own}"));
            envp.extend(c_strings("environment", told).map_err(Missed::Failed)?);
        }
        let listen = release.handed.listen.iter().map(|(_, fd)| fd.as_raw_fd());
        let mut descriptors: Vec<RawFd> =
            release.stdio.iter().map(AsRawFd::as_raw_fd).chain(listen).collect();
        let mut fillers = None;
        if let Some((at, fd)) = release.handed.at {
            let next = RawFd::try_from(descriptors.len()).unwrap_or(RawFd::MAX);
            if at < next {
                return Err(unfit(
                    &format!("descriptor {at} is one of those that it is passed"),
                    Errno::EINVAL,
                ));
            }
            if at > next {
                descriptors.extend((next..at).map(|_| release.stdio[0].as_raw_fd()));
                fillers = Some((next, at - 1));
            }
            descriptors.push(fd.as_raw_fd());
        }
        if descriptors.len() > DESCRIPTORS_MAX
            || RawFd::try_from(descriptors.len()).is_ok_and(|n| n > self.gate_at)
        {
            return Err(unfit("descriptors", Errno::EMFILE));
        }
        let orders = Orders { argv: &argv, envp: &envp, descriptors: descriptors.len(), fillers };
        self.order.tell(&orders).map_err(|errno| unfit("order", errno))?;
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let byte = [IoSlice::new(&[0])];
        sendmsg::<UnixAddr>(self.gate.as_raw_fd(), &byte, &rights, MsgFlags::MSG_NOSIGNAL, None)
            .map_err(|errno| unfit("gate", errno))?;
        self.gone_on(release)
    }

    /// It was told; its side of the gate closes when it executes, or ends.
    fn gone_on(self, release: &Release<'_>) -> Result<Launched, Missed> {
        let deadline = Instant::now() + EXEC_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let time = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            // Nothing is ever sent back, so what wakes is the end of it.
            let mut fds = [PollFd::new(self.gate.as_fd(), PollFlags::empty())];
            match poll(&mut fds, time) {
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        let Self { pid, pidfd, berth, order, .. } = self;
        let plan = release.plan;
        let step_of = |phase| {
            let place = plan.steps.iter().position(|step| step.phase == phase);
            place.and_then(|place| u32::try_from(place).ok()).unwrap_or(apply::EXEC)
        };
        let explained = |step, errno| {
            Err(Missed::Failed(explain(plan, &plan.steps.in_one(), release.argv.first(), step, errno, pid)))
        };
        match order.stage() {
            // Or it was killed since, as may happen after any launch: its exit tells.
            Stage::Told => Ok(Launched { pid, pidfd, mounts: berth }),
            Stage::Begun | Stage::Waits => {
                Err(Missed::Unfit("standby: it ended before it could be told anything".to_owned()))
            }
            Stage::Failed(Failed::Exec, errno) => explained(apply::EXEC, errno),
            Stage::Failed(Failed::Seccomp, errno) => explained(step_of(Phase::Seccomp), errno),
            Stage::Failed(Failed::Landlock, errno) => explained(step_of(Phase::Landlock), errno),
            Stage::Failed(Failed::Gate | Failed::Descriptors, errno) => {
                Err(Missed::Unfit(format!("standby: descriptors: {errno:?}")))
            }
        }
    }
}

/// The lowest number that the gate may have: below the service's limit on open files, and above what the program is
/// executed with.
fn gate_at(plan: &Plan) -> Option<RawFd> {
    let limit = plan.steps.iter().find_map(|step| {
        let Op::Rlimit { resource, soft, .. } = step.op else { return None };
        (resource == libc::RLIMIT_NOFILE).then_some(soft)
    });
    let limit = limit.map_or(GATE_AT, |soft| RawFd::try_from(soft).unwrap_or(RawFd::MAX));
    Some((limit - 1).min(GATE_AT)).filter(|at| *at > RULESET)
}

/// Whether a filter lets a process wait for its release, whatever the arguments.
fn lets_wait(program: &[seccompiler::sock_filter]) -> bool {
    let call = u32::try_from(libc::SYS_recvmsg).unwrap_or(u32::MAX);
    seccomp::verdict(program, call) == Some(seccomp::ALLOW)
}

/// The paths of the host that a plan shows or reads, and whether it reads them.
fn shown(plan: &Plan) -> impl Iterator<Item = (PathBuf, bool)> {
    let bound = plan.steps.iter().filter_map(|step| {
        let Op::CloneTree { path, .. } = &step.op else { return None };
        Some((PathBuf::from(std::ffi::OsStr::from_bytes(path.to_bytes())), false))
    });
    bound.chain(plan.credentials.iter().map(|one| (PathBuf::from(&one.file), true)))
}

fn identity(path: &PathBuf, is_read: bool) -> Option<Identity> {
    let found = fs::metadata(path).ok()?;
    let content = is_read.then(|| (found.ctime(), found.ctime_nsec(), found.size()));
    Some(Identity { device: found.dev(), inode: found.ino(), content })
}

/// What a process calls itself: the last of its pids (proc_pid_status(5), NSpid).
fn own_pid(pid: u32) -> Option<u32> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/status")).ok()?.read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}
