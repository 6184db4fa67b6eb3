//! [`Template`]: a mount namespace that launches of one plan copy instead of building it again.
//!
//! Nobody lives in it: a child builds it, passes it on as a descriptor and ends. A launch enters it (setns(2)) and at once
//! makes a copy of it (unshare(2)); what is then mounted is in the copy. The descriptor is all there is of a template, so
//! a launcher that ends loses a cache and nothing else.
//!
//! Invariant: a launch from a template is what a launch without it would be now, or it is not from the template. Three
//! things could differ. The host mounts something: [`MountWatch`] tells. A folder that is shown is exchanged for another:
//! [`Template::is_current`] compares. A folder that is covered is renamed, taking along what covers it: the launch
//! itself looks, and is done again without the template.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};

use crate::{
    apply::{Context, Making, Notes, Outcome, hand_over},
    launch::{Fault, LaunchError, explain},
    making,
    plan::{Plan, TemplateBuild},
    sys::{
        clone::Beside,
        raw::{self, PointerArray},
    },
};

/// Holding one proves that every shared step of its plan succeeded in its namespace.
#[derive(Debug)]
pub struct Template {
    build: Arc<TemplateBuild>,
    namespace: OwnedFd,
    notes: Arc<Notes>,
    /// A launch found something else than what was built.
    stale: AtomicBool,
}

impl Template {
    /// Builds the template of a plan, for it and all that share it; `None` for a plan that has none ([`Plan::has_template`]).
    ///
    /// # Errors
    /// The step that failed, as a launch would tell it.
    pub fn build(plan: &Plan) -> Result<Option<Arc<Self>>, LaunchError> {
        Self::build_with(plan, Fault::default())
    }

    pub(crate) fn build_with(plan: &Plan, fault: Fault) -> Result<Option<Arc<Self>>, LaunchError> {
        let Some(parts) = &plan.template else { return Ok(None) };
        let build = &parts.build;
        let notes = Arc::new(Notes::blank(build.sources.len(), build.mount_points));
        let outcome = Outcome::new();
        let made = making::namespaces(&making::Wanted {
            steps: &build.steps,
            flags: u64::from(libc::CLONE_NEWNS.cast_unsigned()),
            names: &[c"mnt"],
            template: None,
            owner: None,
            notes: &notes,
            outcome: &outcome,
            fault,
        });
        match made.and_then(|mut made| made.pop().ok_or(("pass namespaces on", Errno::EBADMSG))) {
            Ok(namespace) => {
                let stale = AtomicBool::new(false);
                Ok(Some(Arc::new(Self { build: build.clone(), namespace, notes, stale })))
            }
            Err((what, errno)) => Err(match outcome.failure() {
                Some((step, errno)) => explain(plan, &build.steps, None, step, errno, 0),
                None => LaunchError::parent_side(&format!("template: {what}"), errno),
            }),
        }
    }

    /// Whether the paths of the host that it shows lead to the same files and folders as when it was built. While it
    /// shows one, the kernel does not give its inode's number to another. And no launch has found it stale.
    #[must_use]
    pub fn is_current(&self) -> bool {
        !self.stale.load(Ordering::Relaxed) && shows_the_same(&self.build.sources, &self.notes)
    }

    /// Whether launches of this plan can be from it: it was built for this plan, or for one of the same
    /// [`crate::compile::Compiler`] that builds the same.
    #[must_use]
    pub fn is_of(&self, plan: &Plan) -> bool {
        plan.template.as_ref().is_some_and(|parts| Arc::ptr_eq(&parts.build, &self.build))
    }

    /// A launch was not from it, because what stands there is not what was built.
    pub(crate) fn found_stale(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    pub(crate) fn namespace(&self) -> RawFd {
        self.namespace.as_raw_fd()
    }

    pub(crate) fn notes(&self) -> &Arc<Notes> {
        &self.notes
    }
}

/// A template that another process builds, on another processor, for one launch that goes on meanwhile.
///
/// The launch waits for it where it needs it. It makes no copy of it, for nobody else can have it. Where it cannot be built, the
/// launch builds everything by itself, and tells what the kernel has against that.
#[derive(Debug)]
pub struct TemplateMeanwhile {
    /// Where it arrives.
    socket: OwnedFd,
    builder: Beside<Building>,
}

/// What its builder is given.
#[derive(Debug)]
struct Building {
    build: Arc<TemplateBuild>,
    notes: Arc<Notes>,
    /// Nobody reads it: a launch is told no more than that none comes.
    outcome: Outcome,
    none: PointerArray,
    /// Of the builder, which has copies of this process's descriptors: only so is the socket at its end if it is killed.
    socket: RawFd,
    fault: Fault,
}

impl Building {
    fn build(&self) {
        let context =
            Context::of_steps(&self.build.steps, &self.notes, &self.outcome, &self.none, self.fault);
        let making = Making { context: &context, names: &[c"mnt"], socket: self.socket };
        if raw::unshare(libc::CLONE_NEWNS).is_ok() {
            hand_over(&making);
        }
    }
}

impl TemplateMeanwhile {
    /// Has the template of a plan built; `None` for a plan that has none ([`Plan::has_template`]).
    ///
    /// # Errors
    /// There can be no such process.
    pub fn begin(plan: &Plan) -> Result<Option<Self>, LaunchError> {
        Self::begin_with(plan, Fault::default())
    }

    pub(crate) fn begin_with(plan: &Plan, fault: Fault) -> Result<Option<Self>, LaunchError> {
        let Some(parts) = &plan.template else { return Ok(None) };
        let failed = |what| move |errno| LaunchError::parent_side(what, errno);
        fault.refuses("socketpair").map_err(failed("socketpair"))?;
        // Of a kind that tells who reads when nobody is left who can write.
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(failed("socketpair"))?;
        // The builder must not be the first to ask for these: that takes a lock.
        Notes::none();
        let building = Building {
            build: parts.build.clone(),
            notes: Notes::blank(parts.build.sources.len(), parts.build.mount_points).into(),
            outcome: Outcome::new(),
            none: PointerArray::new(Vec::new()),
            socket: theirs.as_raw_fd(),
            fault,
        };
        fault.refuses("clone3").map_err(failed("clone3"))?;
        let builder = Beside::new(building, Building::build).map_err(failed("clone3"))?;
        Ok(Some(Self { socket, builder }))
    }

    pub(crate) fn is_of(&self, plan: &Plan) -> bool {
        plan.template.as_ref().is_some_and(|parts| Arc::ptr_eq(&parts.build, &self.builder.context().build))
    }

    #[cfg(test)]
    pub(crate) fn builder(&self) -> nix::unistd::Pid {
        self.builder.pid()
    }

    pub(crate) fn socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Those of its builder, who has written the last of them before it sends what it has built.
    pub(crate) fn notes(&self) -> &Arc<Notes> {
        &self.builder.context().notes
    }
}

/// Whether paths lead to what was noted of them, in that order.
pub(crate) fn shows_the_same<'a>(paths: impl IntoIterator<Item = &'a CString>, notes: &Notes) -> bool {
    paths.into_iter().zip(&notes.trees).all(|(path, noted)| {
        let path = std::ffi::OsStr::from_bytes(path.to_bytes());
        std::fs::metadata(path).is_ok_and(|found| noted.is((found.dev(), found.ino())))
    })
}

/// Tells whether the mounts of this process's namespace have changed (proc_pid_mountinfo(5): the file polls so).
#[derive(Debug)]
pub struct MountWatch {
    mountinfo: File,
}

impl MountWatch {
    /// Watches from now on.
    ///
    /// # Errors
    /// `/proc/self/mountinfo` cannot be opened.
    pub fn new() -> io::Result<Self> {
        Ok(Self { mountinfo: File::open("/proc/self/mountinfo")? })
    }

    /// Whether something was mounted, unmounted or changed since the last look. Where that cannot be told, it was.
    #[must_use]
    pub fn changed(&self) -> bool {
        let mut fds = [PollFd::new(self.mountinfo.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, PollTimeout::ZERO).is_err() || fds[0].any().unwrap_or(true)
    }
}

/// For an epoll set: EPOLLPRI.
impl AsFd for MountWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mountinfo.as_fd()
    }
}
