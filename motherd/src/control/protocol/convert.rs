//! What `sandbox` measured, read back and compiled, in the words of the wire.

use std::borrow::Cow;

use sandbox::{
    Plan,
    attest::{self, Seccomp, Unreadable, Whereabouts, Witness},
    cgroup,
    survey::Sample,
};

use super::{
    Attested, Capabilities, CapabilityBits, Cpu, Figure, Figures, Io, Isolation, LandlockApplied, LeftOut,
    LimitFigure, Memory, Missing, Mounts, Namespace, Pids, Pressure, SeccompMode,
};

impl Isolation {
    /// The isolation of a process as it was just read back, and what was applied at launch and cannot be read back. `cgroup` is how
    /// it is found out where it is; where nobody wants to know that, the answer is brief.
    #[must_use]
    pub fn attested(
        pid: u32,
        sample: &Sample<'_>,
        cgroup: Whereabouts<'_>,
        landlock: Option<LandlockApplied>,
        witness: &Result<Witness, Unreadable>,
    ) -> Self {
        let witness = witness.as_ref().map_err(Clone::clone);
        let attested = witness.and_then(|witness| witness.attest_from(pid, sample, cgroup));
        let brief = matches!(cgroup, Whereabouts::Unasked);
        Self { attested: attested.map(|found| Attested::of(found, brief)).into(), landlock }
    }

    /// Looks whether the network is the one that the main process `pid` of `service` is in now, and says so if it is.
    #[must_use]
    pub fn compared_with(mut self, service: &str, pid: u32) -> Self {
        if let Figure::Value(attested) = &mut self.attested
            && let Some(network) = attested.namespaces.iter_mut().find(|one| one.kind == "net")
            && attest::namespace(pid, "net").is_ok_and(|inode| inode == Some(network.inode))
        {
            network.shared_with = Some(service.to_owned());
        }
        self
    }
}

impl<T> From<Result<T, Unreadable>> for Figure<T> {
    fn from(read: Result<T, Unreadable>) -> Self {
        match read {
            Ok(value) => Figure::Value(value),
            Err(Unreadable { file, why }) => Figure::Missing(Missing { file: file.into(), why: why.into() }),
        }
    }
}

impl Attested {
    fn of(found: attest::Attested, brief: bool) -> Self {
        let attest::Attested { pid, namespaces, status, known_capabilities, cgroup, mounts } = found;
        let namespaces = namespaces
            .into_iter()
            .map(|one| Namespace {
                kind: one.kind.into(),
                inode: one.inode,
                private: one.private,
                shared_with: None,
            })
            .collect();
        let known = known_capabilities.into();
        let capabilities = (!brief).then(|| Capabilities {
            inheritable: names(status.inheritable),
            permitted: names(status.permitted),
            effective: names(status.effective),
            bounding: names(status.bounding),
            ambient: names(status.ambient),
            known,
        });
        let capability_bits = brief.then_some(CapabilityBits {
            inheritable: status.inheritable.0,
            permitted: status.permitted.0,
            effective: status.effective.0,
            bounding: status.bounding.0,
            ambient: status.ambient.0,
            known,
        });
        let seccomp_mode = match status.seccomp {
            Seccomp::Disabled => SeccompMode::Disabled,
            Seccomp::Strict => SeccompMode::Strict,
            Seccomp::Filter => SeccompMode::Filter,
        };
        let seccomp_filters = match status.seccomp_filters {
            Some(count) => Figure::Value(count.into()),
            None => Figure::Missing(Missing {
                file: format!("/proc/{pid}/status").into(),
                why: "no line `Seccomp_filters:` (Linux 5.9)".into(),
            }),
        };
        let in_short = |mounts: attest::Mounts| Mounts {
            count: count(mounts.count),
            root_read_only: mounts.root_read_only,
        };
        Self {
            pid,
            namespaces,
            capabilities,
            capability_bits,
            no_new_privs: status.no_new_privs,
            seccomp_mode,
            seccomp_filters,
            uids: status.uids.into(),
            gids: status.gids.into(),
            groups: status.groups,
            cgroup: cgroup.map(Figure::from),
            mounts: mounts.map(in_short).into(),
        }
    }
}

fn names(set: attest::CapabilitySet) -> Vec<Cow<'static, str>> {
    let mut names = Vec::with_capacity(set.0.count_ones() as usize);
    names.extend(set.each_name().map(Cow::Borrowed));
    names
}

impl LandlockApplied {
    /// What a plan applies; `None` for a plan without a ruleset.
    #[must_use]
    pub fn of(plan: &Plan) -> Option<Self> {
        Some(Self {
            abi: plan.landlock_abi()?,
            path_rules: count(plan.landlock_path_rules()?),
            port_rules: count(plan.landlock_port_rules()?),
            scopes: plan.landlock_scopes()?.into_iter().map(str::to_owned).collect(),
        })
    }
}

impl From<&sandbox::LeftOut> for LeftOut {
    fn from(left: &sandbox::LeftOut) -> Self {
        Self { what: left.what.clone(), why: left.why.clone() }
    }
}

impl From<cgroup::Figures> for Figures {
    fn from(found: cgroup::Figures) -> Self {
        Self {
            pressure: Pressure {
                cpu_some_avg10: figure(found.cpu_pressure.some_avg10),
                cpu_full_avg10: figure(found.cpu_pressure.full_avg10),
                memory_some_avg10: figure(found.memory_pressure.some_avg10),
                memory_full_avg10: figure(found.memory_pressure.full_avg10),
                io_some_avg10: figure(found.io_pressure.some_avg10),
                io_full_avg10: figure(found.io_pressure.full_avg10),
            },
            memory: Memory {
                current_bytes: figure(found.memory_current),
                peak_bytes: figure(found.memory_peak),
                max_bytes: limit(found.memory_max),
                swap_bytes: figure(found.swap_current),
                oom_kills: figure(found.oom_kills),
            },
            cpu: Cpu {
                usage_usec: figure(found.cpu_usage_us),
                user_usec: figure(found.cpu_user_us),
                system_usec: figure(found.cpu_system_us),
                throttled_usec: figure(found.cpu_throttled_us),
            },
            io: Io { read_bytes: figure(found.io_read_bytes), write_bytes: figure(found.io_write_bytes) },
            pids: Pids { current: figure(found.pids_current), max: limit(found.pids_max) },
        }
    }
}

fn figure<T>(found: cgroup::Figure<T>) -> Figure<T> {
    match found {
        Ok(value) => Figure::Value(value),
        Err(lacking) => Figure::Missing(missing(lacking)),
    }
}

fn limit(found: cgroup::Figure<Option<u64>>) -> LimitFigure {
    match found {
        Ok(Some(value)) => LimitFigure::Value(value),
        Ok(None) => LimitFigure::Unlimited {},
        Err(lacking) => LimitFigure::Missing(missing(lacking)),
    }
}

fn missing(lacking: cgroup::Missing) -> Missing {
    Missing { file: lacking.file.into(), why: lacking.why }
}

/// Of things that are all in memory: far fewer than 2^64.
fn count(things: usize) -> u64 {
    things.try_into().unwrap_or(u64::MAX)
}
