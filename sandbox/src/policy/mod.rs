//! [`Policy`]: what a service may do. Holding one proves that every value in it was checked and that `extends` is
//! resolved; it says nothing about this machine, which is `compile`'s question.
//!
//! No serde here: the file's shape is `raw`, and `validate` is the only way from there to here.

mod addresses;
mod arguments;
pub mod codes;
mod devices;
mod filesystem;
mod filter;
mod listed;
mod names;
mod namespaces;
mod pressure;
mod raw;
mod reader;
mod resources;
mod scheduling;
mod store;
mod validate;
mod values;
mod written;

use std::collections::BTreeSet;

pub use addresses::{Network, PortRule, Prefix, Protocol};
pub use devices::{DeviceAccess, DeviceKind, DeviceRule, Devices};
pub(crate) use filter::SOCKET_FLAGS;
pub use filter::{Action, Architecture, NamespaceKind, SocketRule};
pub use pressure::{Action as PressureAction, PressureTrigger, Resource, Waiting};
pub use resources::{Device, IoLatency, IoMax, NamedLimit, RdmaMax};
pub(crate) use scheduling::{CPUS, NODES, show_duration};
pub use scheduling::{
    DisabledSpeculation, IndexRange, IoClass, NumaPolicy, Scheduler, Securebit, Speculation,
};
pub use store::{Store, load_file, load_file_telling, load_text, read_file};
pub use written::{Element, Shown, Value, quoted, text as show};

use crate::diagnostic::{Located, Place, Sources};

/// A checked policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The name it is called by (`base/default`), or the path of a file given directly.
    pub(crate) name: String,
    /// What its author says it is for.
    pub(crate) description: String,
    /// The texts that the places in it point into.
    pub(crate) sources: Sources,
    /// What each of them was found by, in the same order; `None` for one that was given and not looked for.
    pub(crate) names: Vec<Option<String>>,
    /// The rules, or the loudly named absence of any.
    pub(crate) rules: Rules,
    /// Where each key is written.
    pub(crate) written: Vec<written::WrittenTable>,
}

/// Confined, or not.
#[derive(Debug, Clone)]
pub enum Rules {
    /// `unconfined = true`, at this place: a cgroup of its own and nothing else.
    Unconfined(Place),
    /// Everything below applies.
    Confined(Box<Confinement>),
}

/// Every section of a confining policy. A key that the file and its ancestors leave out has the value that this
/// type's documentation calls the default; each default is the strict one.
#[derive(Debug, Clone)]
pub struct Confinement {
    /// `[namespaces]`
    pub namespaces: Namespaces,
    /// `[filesystem]`
    pub filesystem: Filesystem,
    /// `[process]`
    pub process: Process,
    /// `[capabilities]`
    pub capabilities: Capabilities,
    /// `[landlock]`
    pub landlock: Landlock,
    /// `[seccomp]`
    pub seccomp: Seccomp,
    /// `[cgroup]`
    pub cgroup: CgroupLimits,
    /// `[credentials]`, in file order.
    pub credentials: Vec<Located<Credential>>,
    /// `[rlimits]`, in file order.
    pub rlimits: Vec<Located<Rlimit>>,
}

/// A namespace: a new one, or the host's (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// A new one (the default).
    Private,
    /// The one that motherd is in.
    Host,
}

/// The network namespace (network_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Net {
    /// A new one with the loopback interface up (the default).
    Private,
    /// A new one with nothing up, not even loopback.
    None,
    /// The one that motherd is in.
    Host,
    /// The one of another service, by its name, while that runs.
    Service(String),
}

/// Some ids of a map: `inside` to `inside + count - 1` are `outside` to `outside + count - 1` (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in the namespace; of an idmapped bind, on the disk.
    pub inside: u32,
    /// The first id of the host that it is.
    pub outside: u32,
    /// How many, at least one.
    pub count: u32,
}

/// As a line of `/proc/PID/uid_map`.
impl std::fmt::Display for IdRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.inside, self.outside, self.count)
    }
}

/// A map of users and one of groups. Neither is empty, and no id is in two ranges of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// Users.
    pub uid: Vec<IdRange>,
    /// Groups.
    pub gid: Vec<IdRange>,
}

/// The user namespace (user_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserNamespace {
    /// The one that motherd is in (the default).
    Host,
    /// A new one with 65,536 ids of the service's own, by its name.
    Auto,
    /// A new one with this map, in which nothing is the host's root.
    Mapped(IdMap),
}

/// `[namespaces]`.
#[derive(Debug, Clone)]
pub struct Namespaces {
    /// mount_namespaces(7)
    pub mount: Located<Share>,
    /// pid_namespaces(7)
    pub pid: Located<Share>,
    /// ipc_namespaces(7)
    pub ipc: Located<Share>,
    /// uts_namespaces(7)
    pub uts: Located<Share>,
    /// cgroup_namespaces(7)
    pub cgroup: Located<Share>,
    /// network_namespaces(7)
    pub net: Located<Net>,
    /// user_namespaces(7); the default is the host's.
    pub user: Located<UserNamespace>,
    /// time_namespaces(7); the default is the host's.
    pub time: Located<Share>,
    /// sethostname(2), in a private uts namespace; `None` keeps the host's name.
    pub hostname: Option<Located<String>>,
    /// setdomainname(2), likewise.
    pub domainname: Option<Located<String>>,
    /// How far CLOCK_MONOTONIC is ahead of the host's, in nanoseconds, in a private time namespace.
    pub time_offset_monotonic: Option<Located<i64>>,
    /// How far CLOCK_BOOTTIME is, likewise.
    pub time_offset_boottime: Option<Located<i64>>,
}

/// Where the service's root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// The host's tree (the default).
    Host,
    /// An empty tmpfs; what is needed is bound into it.
    Empty,
    /// A directory.
    Directory(String),
}

/// What `/proc` shows (proc(5), `hidepid=` and `subset=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcView {
    /// A new proc with `hidepid=ptraceable,subset=pid` (the default).
    SelfOnly,
    /// A new proc with everything, its dangerous files masked or read-only.
    Full,
    /// None: an empty, unreadable directory.
    None,
}

/// What `/dev` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DevView {
    /// null zero full random urandom tty, its own pts and shm (the default).
    Minimal,
    /// The host's.
    Host,
    /// None.
    None,
}

/// What `/sys` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SysView {
    /// A read-only sysfs (the default).
    ReadOnly,
    /// None.
    None,
    /// The host's.
    Host,
}

/// One tmpfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute, without `..`.
    pub path: String,
    /// `size=`, bytes.
    pub size_bytes: u64,
    /// `mode=`, the permission bits.
    pub mode: u32,
    /// `nr_inodes=`; the default is one inode per 4 KiB of `size`.
    pub inodes: u64,
    /// Nothing in it can be executed or mapped executable; `None` is `process.memory_deny_write_execute`.
    pub noexec: Option<bool>,
}

/// One overlay (Documentation/filesystems/overlayfs.rst): folders of the host, and above them a tmpfs that takes what is
/// written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// In the sandbox.
    pub path: String,
    /// On the host, the topmost first; at least one.
    pub lower: Vec<Located<String>>,
    /// `size=` of the tmpfs, bytes.
    pub size_bytes: u64,
    /// `nr_inodes=` of the tmpfs; the default is one inode per 4 KiB of `size`.
    pub inodes: u64,
    /// The permission bits of the folder itself, which belongs to the service.
    pub mode: u32,
    /// Nothing in it can be executed or mapped executable; `None` is `process.memory_deny_write_execute`.
    pub noexec: Option<bool>,
}

/// Where a service finds its credentials: the variable, and what it holds.
pub(crate) const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// A folder of /run, as other service managers have it.
pub(crate) const CREDENTIALS_DIRECTORY: &str = "/run/credentials";

/// A file that the service alone can read, in `$CREDENTIALS_DIRECTORY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its name there.
    pub name: String,
    /// On the host; read at each launch.
    pub file: Located<String>,
    /// A missing file is no error.
    pub optional: bool,
}

/// One bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub from: Located<String>,
    /// In the sandbox.
    pub to: Located<String>,
    /// Recursively read-only (the default is true).
    pub read_only: bool,
    /// A missing `from` is no error.
    pub optional: bool,
    /// set-user-ID bits and file capabilities mean nothing there (the default is true; `false` leaves it as on the host,
    /// and so for the others).
    pub nosuid: bool,
    /// Device nodes mean nothing there (the default is true).
    pub nodev: bool,
    /// Nothing in it can be executed or mapped executable; `None` is `process.memory_deny_write_execute` where it is
    /// writable, and false where it is not.
    pub noexec: Option<bool>,
    /// Symbolic links in it are not followed (the default is false).
    pub nosymfollow: bool,
    /// It may be a socket by which the machine is governed (the default is false).
    pub control_socket: bool,
    /// Owners are shown as others: inside is on the disk, outside what the host would see (mount_setattr(2)).
    pub idmap: Option<Located<IdMap>>,
}

/// `[filesystem]`.
#[derive(Debug, Clone)]
pub struct Filesystem {
    /// Where the root comes from.
    pub root: Located<Root>,
    /// Paths made read-only, submounts included.
    pub read_only: Vec<Located<String>>,
    /// Paths replaced by an empty, unreadable node; a missing one is hidden already.
    pub hidden: Vec<Located<String>>,
    /// Fresh tmpfs mounts.
    pub tmpfs: Vec<Located<Tmpfs>>,
    /// `/proc`
    pub proc: Located<ProcView>,
    /// `/dev`
    pub dev: Located<DevView>,
    /// `/sys`
    pub sys: Located<SysView>,
    /// Paths that are writable although an ancestor is read-only; a missing one is an error.
    pub read_write: Vec<Located<WritablePath>>,
    /// Binds.
    pub bind: Vec<Located<Bind>>,
    /// Overlays.
    pub overlay: Vec<Located<Overlay>>,
}

/// A path, and whether its absence is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionalPath {
    /// Absolute, without `..`.
    pub path: String,
    /// A missing one is no error.
    pub optional: bool,
}

/// A path that is writable although an ancestor is read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WritablePath {
    /// Absolute, without `..`.
    pub path: String,
    /// A missing one is no error.
    pub optional: bool,
    /// Nothing in it can be executed or mapped executable; `None` is `process.memory_deny_write_execute`.
    pub noexec: Option<bool>,
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// An id of the service's own, stable by its name (the default).
    Auto,
    /// A name of passwd(5) or group(5); `root` among them.
    Name(String),
    /// A number.
    Id(u32),
}

/// `[process]`.
#[derive(Debug, Clone)]
pub struct Process {
    /// The user.
    pub user: Located<Account>,
    /// The group.
    pub group: Located<Account>,
    /// Supplementary groups; empty means none.
    pub supplementary_groups: Vec<Located<Account>>,
    /// PR_SET_NO_NEW_PRIVS; the default is true, and `false` is refused together with a seccomp section for a user
    /// who is not root.
    pub no_new_privs: Located<bool>,
    /// umask(2); the default is 0077.
    pub umask: Located<u32>,
    /// Inside the sandbox; the default is `/`.
    pub working_directory: Located<String>,
    /// The whole environment, sorted by name.
    pub environment: Vec<Located<(String, String)>>,
    /// `/proc/self/oom_score_adj`, -1000 to 1000; the default is 0.
    pub oom_score_adj: Located<i16>,
    /// nice(2), -20 to 19; the default is 0.
    pub nice: Located<i8>,
    /// W^X, enforced by seccomp rules; the default is true.
    pub memory_deny_write_execute: Located<bool>,
    /// personality(2) may be read and not changed; the default is true.
    pub lock_personality: Located<bool>,
    /// The default is false: none is written, whatever core_pattern says.
    pub core_dumps: Located<bool>,
    /// A session keyring of its own (keyrings(7)); the default is private.
    pub keyring: Located<Share>,
    /// The scheduling policy; the default is `other`.
    pub scheduler: Located<Scheduler>,
    /// Its priority: 1 to 99 for a realtime one, 0 for the others.
    pub scheduler_priority: u8,
    /// The processors it may run on, all of them; `None` leaves them as they are.
    pub cpu_affinity: Option<Vec<Located<IndexRange>>>,
    /// Where its memory comes from; `None` leaves it as it is.
    pub numa_policy: Option<Located<NumaPolicy>>,
    /// The memory nodes of `numa_policy`; empty where that names none.
    pub numa_nodes: Vec<Located<IndexRange>>,
    /// Class and level, 0 (first) to 7, of its io; `None` leaves it to follow `nice`.
    pub io_priority: Option<Located<(IoClass, u8)>>,
    /// How late a timer may fire, in nanoseconds; `None` leaves it as it is.
    pub timer_slack: Option<Located<u64>>,
    /// What its processor must not guess.
    pub disable_speculation: Vec<Located<DisabledSpeculation>>,
    /// What differs from the strict securebits.
    pub securebits: Vec<Located<Securebit>>,
    /// No realtime scheduler by its own doing; the default is true.
    pub restrict_realtime: Located<bool>,
    /// No file gets a set-user-ID or set-group-ID bit; the default is true.
    pub restrict_suid: Located<bool>,
    /// The kinds of namespaces that it may make and enter; the default is none.
    pub may_make_namespaces: Located<BTreeSet<NamespaceKind>>,
}

/// `[capabilities]`: numbers of capabilities(7).
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// Bounding and permitted; everything else is gone for good.
    pub keep: Vec<Located<caps::Capability>>,
    /// Ambient; each is also in `keep`.
    pub ambient: Vec<Located<caps::Capability>>,
}

/// TCP ports that may be used.
#[derive(Debug, Clone)]
pub enum Ports {
    /// No rule at all: `"any"`.
    Any(Place),
    /// These; an empty list means none (the default).
    Only(Vec<Located<u16>>),
}

/// A right that an older kernel may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LandlockFeature {
    /// `bind_tcp` and `connect_tcp`: ABI 4.
    Net,
    /// `scope`: ABI 6.
    Scope,
    /// All of it: ABI 1.
    Filesystem,
}

/// Where signals and abstract sockets end at the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
    AbstractUnixSocket,
    /// LANDLOCK_SCOPE_SIGNAL
    Signal,
}

/// `[landlock]` (landlock(7)).
#[derive(Debug, Clone)]
pub struct Landlock {
    /// Read files and directories beneath.
    pub read: Vec<Located<OptionalPath>>,
    /// Execute files beneath, which includes reading them.
    pub execute: Vec<Located<OptionalPath>>,
    /// Write, truncate, make, remove, rename and link beneath, and read what was written.
    pub write: Vec<Located<OptionalPath>>,
    /// bind(2) on TCP.
    pub bind_tcp: Ports,
    /// connect(2) on TCP.
    pub connect_tcp: Ports,
    /// Scopes.
    pub scope: Vec<Located<Scope>>,
    /// What an older kernel may lack.
    pub optional: BTreeSet<LandlockFeature>,
    /// Where the section is, for errors that concern the whole of it.
    pub at: Place,
}

/// What a denied call gets (seccomp(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// SECCOMP_RET_KILL_PROCESS
    KillProcess,
    /// SECCOMP_RET_ERRNO with this errno.
    Errno(u16),
    /// SECCOMP_RET_LOG: allowed, and logged.
    Log,
    /// SECCOMP_RET_TRAP: SIGSYS.
    Trap,
}

/// A rule on one argument of one call: the call is allowed only with one of these values.
#[derive(Debug, Clone)]
pub struct ArgumentRule {
    /// The call's number on x86_64.
    pub call: Located<u32>,
    /// Which argument, 0 to 5.
    pub argument: Located<u8>,
    /// The values, compared as 32 bits.
    pub values: Vec<Located<u32>>,
}

/// `[seccomp]`, its groups already expanded.
#[derive(Debug, Clone)]
pub struct Seccomp {
    /// For calls not allowed; a call unknown to the table gets ENOSYS.
    pub default: Located<Denial>,
    /// Numbers of the calls that are allowed: `allow` less `deny`.
    pub allowed: BTreeSet<u32>,
    /// `[[seccomp.rule]]`
    pub rules: Vec<Located<ArgumentRule>>,
    /// The sockets that may be made; `None` leaves it to the rules.
    pub sockets: Option<Vec<Located<SocketRule>>>,
    /// io_uring, if its calls are allowed too; the default is false.
    pub io_uring: Located<bool>,
    /// The version of the groups that its lists were expanded by; the default is the newest.
    pub groups: u32,
    /// What denied calls get instead of `default`.
    pub actions: Vec<Located<Action>>,
    /// What may call; the native one always, and it alone by default.
    pub architectures: BTreeSet<Architecture>,
    /// SECCOMP_FILTER_FLAG_LOG; the default is true.
    pub log: bool,
}

/// A limit of cgroup v2: a figure, or `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// No limit: `"max"`.
    Max,
    /// Bytes, or a count.
    Value(u64),
}

/// `[cgroup]` (Documentation/admin-guide/cgroup-v2.rst). What is `None` keeps the kernel's default.
#[derive(Debug, Clone)]
pub struct CgroupLimits {
    /// `memory.high`, bytes.
    pub memory_high: Option<Located<Limit>>,
    /// `memory.max`, bytes.
    pub memory_max: Option<Located<Limit>>,
    /// `memory.swap.max`, bytes.
    pub swap_max: Option<Located<Limit>>,
    /// `pids.max`
    pub pids_max: Option<Located<Limit>>,
    /// `cpu.weight`, 1 to 10,000.
    pub cpu_weight: Option<Located<u32>>,
    /// `cpu.max`: microseconds of CPU time per 100,000 microseconds.
    pub cpu_max: Option<Located<Limit>>,
    /// `io.weight`, 1 to 10,000.
    pub io_weight: Option<Located<u32>>,
    /// `memory.oom.group`
    pub oom_group: Option<Located<bool>>,
    /// `memory.min`, bytes.
    pub memory_min: Option<Located<Limit>>,
    /// `memory.low`, bytes.
    pub memory_low: Option<Located<Limit>>,
    /// `memory.swap.high`, bytes.
    pub swap_high: Option<Located<Limit>>,
    /// `memory.zswap.max`, bytes.
    pub memory_zswap_max: Option<Located<Limit>>,
    /// `memory.zswap.writeback`
    pub memory_zswap_writeback: Option<Located<bool>>,
    /// `cpu.idle`, which takes the place of `cpu_weight`.
    pub cpu_idle: Option<Located<bool>>,
    /// `cpu.max.burst`, nanoseconds; at most what `cpu_max` grants in a period.
    pub cpu_burst: Option<Located<u64>>,
    /// `cpuset.cpus`, at least one.
    pub cpuset_cpus: Option<Vec<Located<IndexRange>>>,
    /// `cpuset.mems`, at least one.
    pub cpuset_mems: Option<Vec<Located<IndexRange>>>,
    /// `io.max`
    pub io_max: Vec<Located<IoMax>>,
    /// `io.latency`
    pub io_latency: Vec<Located<IoLatency>>,
    /// `hugetlb.SIZE.max`
    pub hugetlb: Vec<Located<NamedLimit>>,
    /// `rdma.max`
    pub rdma: Vec<Located<RdmaMax>>,
    /// `misc.max`
    pub misc: Vec<Located<NamedLimit>>,
    /// What is done when its processes wait too much.
    pub pressure: Vec<Located<PressureTrigger>>,
    /// What may be opened and made beyond what `filesystem.dev` gives; `None` does not restrict it.
    pub devices: Option<Located<Vec<Located<DeviceRule>>>>,
    /// Whom packets may go to and come from; `None` does not restrict it. Of the networks in this and in `ip_deny` that hold
    /// an address the narrowest decides.
    pub ip_allow: Option<Located<Vec<Located<Network>>>>,
    /// Whom they may not.
    pub ip_deny: Vec<Located<Network>>,
    /// bind(2) to a port; `None` does not restrict it.
    pub socket_bind: Option<Located<Vec<Located<PortRule>>>>,
    /// connect(2) to a port, and sending to one; `None` does not restrict it.
    pub socket_connect: Option<Located<Vec<Located<PortRule>>>>,
    /// Controllers that a host may lack, `bpf`, and `pressure`.
    pub optional: BTreeSet<String>,
}

/// One resource limit (getrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// RLIMIT_*
    pub resource: u32,
    /// The soft limit; `None` is RLIM_INFINITY.
    pub soft: Option<u64>,
    /// The hard limit; `None` is RLIM_INFINITY.
    pub hard: Option<u64>,
}

/// Every table that a policy file may have, by its path (`filesystem.tmpfs`; the file itself has none), and the keys
/// that it may have. `[rlimits]`, `[credentials]` and `process.environment` are missing: their keys are names of another kind.
#[must_use]
pub fn keys() -> Vec<(&'static str, &'static [&'static str])> {
    raw::keys()
}

/// The name of a resource limit in `[rlimits]`.
pub(crate) fn rlimit_name(resource: u32) -> String {
    let known = names::RESOURCES.iter().find(|known| known.number == resource);
    known.map_or_else(|| resource.to_string(), |known| known.name.to_owned())
}

/// Whether a policy of this text most likely [wants a network](Policy::wants_network), for who can make one while the policy is read.
/// Only what it says itself is looked at, not what it extends.
#[must_use]
pub fn seems_to_want_network(text: &str) -> bool {
    text.lines().any(|line| {
        let value = line.strip_prefix("net").and_then(|rest| rest.trim_start().strip_prefix('='));
        value.is_some_and(|value| value.trim_start().starts_with("\"private\""))
    })
}

impl Policy {
    /// The name it is called by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its author says it is for.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Whether a launch of it most likely takes a network namespace from a [pool](crate::netpool); whether it does is the
    /// plan's to [say](crate::Plan::takes_network).
    #[must_use]
    pub fn wants_network(&self) -> bool {
        match &self.rules {
            Rules::Unconfined(_) => false,
            Rules::Confined(rules) => {
                let Namespaces { net, user, .. } = &rules.namespaces;
                net.value == Net::Private && user.value == UserNamespace::Host
            }
        }
    }

    /// The texts that its places point into.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// A digest of all its texts: another one means that the policy was written anew, be it by a word of a comment.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut bytes = Vec::new();
        for (file, name) in self.sources.files().zip(&self.names) {
            let (name, text) = (name.as_deref().unwrap_or_default(), self.sources.text(file));
            for part in [name, text] {
                // With the length in front, so that nothing can go from one into the other.
                bytes.extend(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
                bytes.extend(part.as_bytes());
            }
        }
        crate::digest::sha256(&bytes)
    }

    /// The version of the groups of system calls that it was expanded by; `None` without a filter.
    #[must_use]
    pub fn groups_version(&self) -> Option<u32> {
        match &self.rules {
            Rules::Confined(rules) => Some(rules.seccomp.groups),
            Rules::Unconfined(_) => None,
        }
    }

    /// The rules, or their absence.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }
}
