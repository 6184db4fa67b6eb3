//! A launch by an ordinary user: this process becomes root of a user namespace of its own, in which it makes the sandbox
//! as root would.
//!
//! Only the caller's own user and group are mapped, once to 0 here and from there to the ids that the service has in the
//! namespace below ([`crate::kernel::Kernel::ordinary_user`]). What takes more than that (a cgroup, device nodes, other
//! ids) is refused, left out, or made in another way, when the policy is compiled.

use std::{fmt, fs, io};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit},
    unistd::{getegid, geteuid},
};

use crate::attest::{Seccomp, attest};

/// The ids that an ordinary user has to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrdinaryUser {
    /// The caller's user.
    pub uid: u32,
    /// The caller's group.
    pub gid: u32,
    /// The lowest nice value that the caller may have: the present one, or what RLIMIT_NICE gives (getrlimit(2)).
    pub lowest_nice: i32,
}

impl OrdinaryUser {
    /// Who calls, unless that is root.
    #[must_use]
    pub fn calling() -> Option<Self> {
        let (uid, gid) = (geteuid(), getegid());
        (!uid.is_root()).then(|| Self { uid: uid.as_raw(), gid: gid.as_raw(), lowest_nice: lowest_nice() })
    }

    /// Makes this process root of a new user namespace, for good. It must have one thread.
    ///
    /// # Errors
    /// What refused, and why as far as the host tells.
    pub fn enter_own_namespace(self) -> Result<(), NoNamespace> {
        let refused = |act: &str| {
            let act = act.to_owned();
            move |errno| NoNamespace { act, errno, cause: cause(errno, &Limits::of_this_host()) }
        };
        unshare(CloneFlags::CLONE_NEWUSER).map_err(refused("unshare(CLONE_NEWUSER)"))?;
        // A gid map is taken from an ordinary user only after setgroups(2) is given up (user_namespaces(7)).
        let files = [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {} 1", self.uid)),
            ("gid_map", format!("0 {} 1", self.gid)),
        ];
        for (file, text) in files {
            let path = format!("/proc/self/{file}");
            let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            fs::write(&path, text).map_err(errno).map_err(refused(&path))?;
        }
        Ok(())
    }
}

/// Where /proc does not tell, no lower one than a process begins with.
fn lowest_nice() -> i32 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields after the name, which may have spaces and parentheses, from the third on; nice is the 19th (proc(5)).
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let own = fields.split_whitespace().nth(16).and_then(|nice| nice.parse().ok()).unwrap_or(0);
    let (limit, _) = getrlimit(Resource::RLIMIT_NICE).unwrap_or_default();
    own.min(20 - i32::try_from(limit.min(40)).unwrap_or_default())
}

/// An ordinary user who cannot make a user namespace here.
#[derive(Debug)]
pub struct NoNamespace {
    act: String,
    errno: Errno,
    cause: String,
}

impl fmt::Display for NoNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { act, errno, cause } = self;
        write!(f, "an ordinary user needs a user namespace to build a sandbox in: {act}: {errno:?}: {cause}")
    }
}

impl std::error::Error for NoNamespace {}

/// What a host can have against user namespaces of ordinary users.
#[derive(Debug, Clone, Default)]
struct Limits {
    /// `user.max_user_namespaces`; a kernel without CONFIG_USER_NS has none.
    most: Option<String>,
    /// `kernel.unprivileged_userns_clone`, of Debian's kernels.
    clone: Option<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, of Ubuntu's.
    apparmor: Option<String>,
    /// This process runs under a seccomp filter.
    filtered: bool,
}

impl Limits {
    fn of_this_host() -> Self {
        let read = |file: &str| {
            let text = fs::read_to_string(format!("/proc/sys/{file}")).ok()?;
            Some(text.trim().to_owned())
        };
        Self {
            most: read("user/max_user_namespaces"),
            clone: read("kernel/unprivileged_userns_clone"),
            apparmor: read("kernel/apparmor_restrict_unprivileged_userns"),
            filtered: attest(std::process::id()).is_ok_and(|own| own.status.seccomp == Seccomp::Filter),
        }
    }
}

/// The likeliest reason, with what to do about it.
fn cause(errno: Errno, limits: &Limits) -> String {
    let is = |value: &Option<String>, wanted: &str| value.as_deref() == Some(wanted);
    if limits.most.is_none() {
        "this kernel has no user namespaces (CONFIG_USER_NS), or /proc is not mounted".to_owned()
    } else if is(&limits.most, "0") {
        "user.max_user_namespaces is 0: an administrator can raise it with sysctl(8)".to_owned()
    } else if is(&limits.clone, "0") {
        "kernel.unprivileged_userns_clone is 0: an administrator can set it to 1 with sysctl(8)".to_owned()
    } else if is(&limits.apparmor, "1") {
        "kernel.apparmor_restrict_unprivileged_userns is 1: it takes an AppArmor profile for motherctl that has `userns`"
            .to_owned()
    } else if errno == Errno::ENOSPC {
        format!(
            "user.max_user_namespaces is {}, and so many exist, or they are nested 32 deep",
            limits.most.as_deref().unwrap_or("unknown")
        )
    } else if limits.filtered {
        "this process runs under a seccomp filter, as in a container, which does not let it".to_owned()
    } else if errno == Errno::EPERM {
        "the kernel refuses: in a chroot, or by a security module".to_owned()
    } else {
        "the kernel refuses".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_named_by_what_the_host_says() {
        let free = Limits {
            most: Some("96365".to_owned()),
            clone: Some("1".to_owned()),
            apparmor: Some("0".to_owned()),
            filtered: false,
        };
        let zero = || Some("0".to_owned());
        for (limits, errno, word) in [
            (Limits { most: None, ..free.clone() }, Errno::EINVAL, "CONFIG_USER_NS"),
            (Limits { most: zero(), ..free.clone() }, Errno::ENOSPC, "user.max_user_namespaces is 0"),
            (Limits { clone: zero(), ..free.clone() }, Errno::EPERM, "kernel.unprivileged_userns_clone is 0"),
            (
                Limits { apparmor: Some("1".to_owned()), ..free.clone() },
                Errno::EPERM,
                "kernel.apparmor_restrict_unprivileged_userns is 1",
            ),
            (free.clone(), Errno::ENOSPC, "user.max_user_namespaces is 96365, and so many exist"),
            (Limits { filtered: true, ..free.clone() }, Errno::EPERM, "under a seccomp filter"),
            (free, Errno::EPERM, "in a chroot"),
        ] {
            let told = cause(errno, &limits);
            assert!(told.contains(word), "{limits:?}: {told}");
        }
    }
}
