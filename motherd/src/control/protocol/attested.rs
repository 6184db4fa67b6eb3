//! What `sandbox::attest` read, in the words of the wire.

use sandbox::attest::{self, Seccomp, Unreadable};

use super::{
    Attested, Capabilities, Figure, Isolation, LandlockApplied, Missing, Mounts, Namespace, SeccompMode,
};

impl Isolation {
    /// Reads the isolation of a process back now, and adds what was applied at launch and cannot be read back.
    #[must_use]
    pub fn read(pid: u32, landlock: Option<LandlockApplied>) -> Self {
        Self { attested: attest::attest(pid).map(Attested::from).into(), landlock }
    }
}

impl<T> From<Result<T, Unreadable>> for Figure<T> {
    fn from(read: Result<T, Unreadable>) -> Self {
        match read {
            Ok(value) => Figure::Value(value),
            Err(Unreadable { file, why }) => Figure::Missing(Missing { file, why }),
        }
    }
}

impl From<attest::Attested> for Attested {
    fn from(found: attest::Attested) -> Self {
        let attest::Attested { pid, namespaces, status, known_capabilities, cgroup, mounts } = found;
        let namespaces = namespaces
            .into_iter()
            .map(|one| Namespace { kind: one.kind.into(), inode: one.inode, private: one.private })
            .collect();
        let capabilities = Capabilities {
            inheritable: status.inheritable.names(),
            permitted: status.permitted.names(),
            effective: status.effective.names(),
            bounding: status.bounding.names(),
            ambient: status.ambient.names(),
            known: known_capabilities.into(),
        };
        let seccomp_mode = match status.seccomp {
            Seccomp::Disabled => SeccompMode::Disabled,
            Seccomp::Strict => SeccompMode::Strict,
            Seccomp::Filter => SeccompMode::Filter,
        };
        let seccomp_filters = match status.seccomp_filters {
            Some(count) => Figure::Value(count.into()),
            None => Figure::Missing(Missing {
                file: format!("/proc/{pid}/status"),
                why: "no line `Seccomp_filters:` (Linux 5.9)".into(),
            }),
        };
        let in_short = |mounts: attest::Mounts| Mounts {
            // Lines of a file that was in memory: far fewer than 2^64.
            count: mounts.count.try_into().unwrap_or(u64::MAX),
            root_read_only: mounts.root_read_only,
        };
        Self {
            pid,
            namespaces,
            capabilities,
            no_new_privs: status.no_new_privs,
            seccomp_mode,
            seccomp_filters,
            uids: status.uids.into(),
            gids: status.gids.into(),
            groups: status.groups,
            cgroup: cgroup.into(),
            mounts: mounts.map(in_short).into(),
        }
    }
}
