//! [`UserNamespace`]: a user namespace, and those that it owns, made by the parent for one launch.
//!
//! A map of more than one's own id can be written only from outside, by a process that runs on meanwhile; the launching
//! parent is suspended (CLONE_VFORK). So a process that does nothing holds the namespaces while they are mapped and
//! opened, and ends; the service joins them by setns(2), at the step where it gives up the host's root.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::Mode,
    unistd::write,
};

use crate::{
    plan::{Joined, UserNamespacePlan},
    sys::clone::{self, Holder},
};

/// Holding one proves that its maps are written.
#[derive(Debug)]
pub(crate) struct UserNamespace {
    open: Vec<(Joined, OwnedFd)>,
}

impl UserNamespace {
    /// Makes the namespaces, or tells which act failed.
    pub(crate) fn make(wanted: &UserNamespacePlan) -> Result<Self, (String, Errno)> {
        let user = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
        let holder =
            clone::hold(user | wanted.owned).map_err(|errno| ("new user namespace".to_owned(), errno))?;
        map(&holder, "uid_map", &wanted.uid_map)?;
        map(&holder, "gid_map", &wanted.gid_map)?;
        let mut namespaces = Vec::new();
        for kind in Joined::ALL {
            if (user | wanted.owned) & u64::from(kind.flag().cast_unsigned()) != 0 {
                let path = format!("/proc/{}/ns/{}", holder.pid(), kind.name());
                let namespace = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                    .map_err(|errno| (path, errno))?;
                namespaces.push((kind, namespace));
            }
        }
        Ok(Self { open: namespaces })
    }

    /// All that it holds open.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.open.iter().map(|(_, fd)| fd.as_raw_fd())
    }

    /// The namespace of a kind, if it was asked for.
    pub(crate) fn get(&self, kind: Joined) -> Option<RawFd> {
        self.open.iter().find(|(known, _)| *known == kind).map(|(_, fd)| fd.as_raw_fd())
    }
}

/// Writes a map, which the kernel takes in one write or not at all.
fn map(holder: &Holder, file: &str, lines: &str) -> Result<(), (String, Errno)> {
    let path = format!("/proc/{}/{file}", holder.pid());
    let told = |errno| (format!("{file} {}", lines.trim_end().replace('\n', ", ")), errno);
    let fd = open(path.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(told)?;
    match write(&fd, lines.as_bytes()) {
        Ok(written) if written == lines.len() => Ok(()),
        Ok(_) => Err(told(Errno::EIO)),
        Err(errno) => Err(told(errno)),
    }
}
