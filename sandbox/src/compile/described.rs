//! What the tests of this crate describe: a kernel, a host, and a policy as strict as `base/default`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{FileKind, Host, Subject};
use crate::{
    diagnostic::{Located, Place, Sources},
    kernel::{Kernel, LandlockAbi, Mitigation, PressureWindows},
    policy::*,
    syscalls::{self, groups},
};

/// A kernel of today with every controller.
pub(crate) fn kernel(abi: u32) -> Kernel {
    Kernel {
        release: "6.18.0".to_owned(),
        open_files: 524_288,
        landlock: LandlockAbi(abi),
        last_capability: 40,
        cgroup_bpf: Some(true),
        user_namespaces: true,
        ordinary_user: None,
        cgroup_root: Some("/sys/fs/cgroup".into()),
        cgroup_base: Some("/sys/fs/cgroup".into()),
        controllers: ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"]
            .map(str::to_owned)
            .into(),
        processors: (0..4).collect(),
        memory_nodes: (0..2).collect(),
        pressure: PressureWindows::Any,
        huge_pages: ["2MB", "1GB"].map(str::to_owned).into(),
        store_bypass: Mitigation::PerProcess,
        indirect_branch: Mitigation::NotAffected,
    }
}

pub(crate) fn subject() -> Subject {
    Subject { name: "web".to_owned(), root: "/".into(), sockets: vec![] }
}

/// A host with these paths and the users of a fresh Debian.
#[derive(Debug, Default)]
pub(crate) struct DescribedHost {
    paths: BTreeMap<String, FileKind>,
}

impl DescribedHost {
    pub(crate) fn debian() -> Self {
        let directories =
            "/ /usr /etc /proc /sys /dev /tmp /run /root /home /boot /bin /sbin /lib /lib64 /srv/www";
        let directories = directories.split(' ').map(|path| (path.to_owned(), FileKind::Directory));
        Self { paths: directories.chain([("/dev/null".to_owned(), FileKind::Other)]).collect() }
    }

    pub(crate) fn with(mut self, path: &str) -> Self {
        self.paths.insert(path.to_owned(), FileKind::Directory);
        self
    }

    pub(crate) fn without(mut self, path: &str) -> Self {
        self.paths.remove(path);
        self
    }
}

impl Host for DescribedHost {
    fn kind(&self, path: &str) -> io::Result<FileKind> {
        self.paths.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn user(&self, name: &str) -> io::Result<Option<(u32, u32)>> {
        Ok((name == "www-data").then_some((33, 33)))
    }
    fn primary_group(&self, uid: u32) -> io::Result<Option<u32>> {
        Ok((uid == 33).then_some(33))
    }
    fn device(&self, path: &str) -> io::Result<Option<(DeviceKind, u32, u32)>> {
        match path {
            "/dev/vda" => Ok(Some((DeviceKind::Block, 254, 0))),
            "/dev/null" => Ok(Some((DeviceKind::Char, 1, 3))),
            "/dev/kvm" => Ok(Some((DeviceKind::Char, 10, 232))),
            "/etc" => Ok(None),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
    fn majors(&self, kind: DeviceKind, driver: &str) -> io::Result<Vec<u32>> {
        Ok(match (kind, driver) {
            (DeviceKind::Char, "alsa") => vec![116],
            (DeviceKind::Block, "sd") => vec![8, 65, 66],
            _ => Vec::new(),
        })
    }
    fn group(&self, name: &str) -> io::Result<Option<u32>> {
        Ok((name == "www-data").then_some(33))
    }
}

fn place() -> (Sources, Place) {
    let mut sources = Sources::default();
    let file = sources.add("strict.toml", "policy = true\n");
    (sources, Place { file, span: 0..6 })
}

/// A policy made of these rules.
pub(crate) fn policy(rules: Confinement) -> Policy {
    let (sources, _) = place();
    Policy {
        name: "strict".to_owned(),
        description: String::new(),
        sources,
        names: vec![None],
        rules: Rules::Confined(Box::new(rules)),
        written: Vec::new(),
    }
}

/// The rules of `base/default`.
pub(crate) fn strict() -> Confinement {
    let (_, at) = place();
    Confinement {
        namespaces: Namespaces {
            mount: here(Share::Private),
            pid: here(Share::Private),
            ipc: here(Share::Private),
            uts: here(Share::Private),
            cgroup: here(Share::Private),
            net: here(Net::Private),
            user: here(UserNamespace::Host),
            time: here(Share::Host),
            hostname: None,
            domainname: None,
            time_offset_monotonic: None,
            time_offset_boottime: None,
        },
        filesystem: Filesystem {
            root: here(Root::Host),
            read_only: paths(&["/"]),
            hidden: paths(&["/root", "/home", "/boot"]),
            tmpfs: vec![tmpfs("/tmp", 0o1777), tmpfs("/run", 0o755)],
            proc: here(ProcView::SelfOnly),
            dev: here(DevView::Minimal),
            sys: here(SysView::ReadOnly),
            read_write: Vec::new(),
            bind: Vec::new(),
            overlay: Vec::new(),
        },
        process: Process {
            user: here(Account::Auto),
            group: here(Account::Auto),
            supplementary_groups: Vec::new(),
            no_new_privs: here(true),
            umask: here(0o077),
            working_directory: here("/".to_owned()),
            environment: vec![here(("PATH".to_owned(), "/usr/bin:/bin".to_owned()))],
            oom_score_adj: here(0),
            nice: here(0),
            memory_deny_write_execute: here(true),
            lock_personality: here(true),
            core_dumps: here(false),
            keyring: here(Share::Private),
            scheduler: here(Scheduler::Other),
            scheduler_priority: 0,
            cpu_affinity: None,
            numa_policy: None,
            numa_nodes: Vec::new(),
            io_priority: None,
            timer_slack: None,
            disable_speculation: Vec::new(),
            securebits: Vec::new(),
            restrict_realtime: here(true),
            restrict_suid: here(true),
            may_make_namespaces: here(BTreeSet::new()),
        },
        capabilities: Capabilities { keep: Vec::new(), ambient: Vec::new() },
        landlock: Landlock {
            read: beneath(&["/usr", "/etc", "/proc", "/dev", "/bin", "/lib", "/lib64"]),
            execute: beneath(&["/usr", "/bin", "/lib", "/lib64"]),
            write: beneath(&["/tmp", "/run", "/dev/null"]),
            bind_tcp: Ports::Only(Vec::new()),
            connect_tcp: Ports::Only(Vec::new()),
            scope: vec![here(Scope::AbstractUnixSocket), here(Scope::Signal)],
            optional: BTreeSet::new(),
            at,
        },
        seccomp: Seccomp {
            default: here(Denial::Errno(libc::EPERM.unsigned_abs().try_into().unwrap())),
            allowed: allowed(),
            rules: Vec::new(),
            sockets: None,
            io_uring: here(false),
            groups: crate::syscalls::versions::VERSION,
            actions: Vec::new(),
            architectures: [Architecture::Native].into(),
            log: true,
        },
        cgroup: CgroupLimits {
            memory_high: None,
            memory_max: Some(here(Limit::Value(512 << 20))),
            swap_max: None,
            pids_max: Some(here(Limit::Value(64))),
            cpu_weight: None,
            cpu_max: None,
            io_weight: None,
            oom_group: None,
            memory_min: None,
            memory_low: None,
            swap_high: None,
            memory_zswap_max: None,
            memory_zswap_writeback: None,
            cpu_idle: None,
            cpu_burst: None,
            cpuset_cpus: None,
            cpuset_mems: None,
            io_max: Vec::new(),
            io_latency: Vec::new(),
            hugetlb: Vec::new(),
            rdma: Vec::new(),
            misc: Vec::new(),
            pressure: Vec::new(),
            devices: None,
            ip_allow: None,
            ip_deny: Vec::new(),
            socket_bind: None,
            socket_connect: None,
            optional: BTreeSet::new(),
        },
        credentials: Vec::new(),
        rlimits: Vec::new(),
    }
}

fn allowed() -> BTreeSet<u32> {
    let denied =
        ["@clock", "@cpu-emulation", "@debug", "@module", "@mount", "@obsolete", "@privileged", "@raw-io"];
    let denied = denied.into_iter().filter_map(groups::members).flatten();
    let denied: BTreeSet<u32> = denied.chain(syscalls::number("io_uring_setup")).collect();
    groups::members("@system-service").unwrap().into_iter().filter(|call| !denied.contains(call)).collect()
}

pub(crate) fn here<T>(value: T) -> Located<T> {
    Located::new(value, place().1)
}

pub(crate) fn paths(paths: &[&str]) -> Vec<Located<String>> {
    paths.iter().map(|path| here((*path).to_owned())).collect()
}

pub(crate) fn beneath(paths: &[&str]) -> Vec<Located<OptionalPath>> {
    paths.iter().map(|path| here(OptionalPath { path: (*path).to_owned(), optional: false })).collect()
}

pub(crate) fn writable(paths: &[&str]) -> Vec<Located<WritablePath>> {
    let path = |path: &&str| WritablePath { path: (*path).to_owned(), optional: false, noexec: None };
    paths.iter().map(|wanted| here(path(wanted))).collect()
}

fn tmpfs(path: &str, mode: u32) -> Located<Tmpfs> {
    here(Tmpfs { path: path.to_owned(), size_bytes: 16 << 20, mode, inodes: 4096, noexec: None })
}
