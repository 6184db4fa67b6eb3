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
};

use crate::{
    apply::{Notes, Outcome},
    launch::{Fault, LaunchError, explain},
    making,
    plan::{Plan, TemplateBuild},
};

/// Holding one proves that every shared step of its plan succeeded in its namespace.
#[derive(Debug)]
pub struct Template {
    build: Arc<TemplateBuild>,
    namespace: OwnedFd,
    notes: Notes,
    /// A launch found something else than what was built.
    stale: AtomicBool,
}

impl Template {
    /// Builds the template of a plan, for it and all that share it; `None` for a plan that has none ([`Plan::has_template`]).
    ///
    /// # Errors
    /// The step that failed, as a launch would tell it.
    pub fn build(plan: &Plan) -> Result<Option<Self>, LaunchError> {
        Self::build_with(plan, Fault::default())
    }

    pub(crate) fn build_with(plan: &Plan, fault: Fault) -> Result<Option<Self>, LaunchError> {
        let Some(parts) = &plan.template else { return Ok(None) };
        let build = &parts.build;
        let notes = Notes::blank(build.sources.len(), build.mount_points);
        let outcome = Outcome::new();
        let made = making::namespaces(&making::Wanted {
            steps: &build.steps,
            flags: u64::from(libc::CLONE_NEWNS.cast_unsigned()),
            names: &[c"mnt"],
            template: None,
            notes: &notes,
            outcome: &outcome,
            fault,
        });
        match made.and_then(|mut made| made.pop().ok_or(("pass namespaces on", Errno::EBADMSG))) {
            Ok(namespace) => {
                Ok(Some(Self { build: build.clone(), namespace, notes, stale: AtomicBool::new(false) }))
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

    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
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
