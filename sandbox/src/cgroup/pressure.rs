//! Triggers on the pressure files of a cgroup.

use std::{fs::File, io::Write, os::fd::OwnedFd};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use super::{Cgroup, CgroupError};
use crate::plan::Trigger;

impl Cgroup {
    /// Arms a trigger: the descriptor is to be polled for POLLPRI, which comes at most once in a window; closing it disarms
    /// the trigger. Close it before the cgroup is removed: older kernels free what an epoll set still waits on.
    ///
    /// # Errors
    /// The kernel does not take it; the place in the policy is named.
    pub fn arm(&self, trigger: &Trigger) -> Result<OwnedFd, CgroupError> {
        let (file, text) = (trigger.file(), trigger.text());
        let path = self.path.join(&file);
        let action = || format!("{}: arm {text} on", trigger.at());
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
        let opened = openat(&self.directory, file.as_str(), flags, Mode::empty())
            .map_err(|errno| CgroupError::new(action(), &path, errno))?;
        let mut opened = File::from(opened);
        opened.write_all(text.as_bytes()).map_err(|error| CgroupError::new(action(), &path, error))?;
        Ok(opened.into())
    }
}
