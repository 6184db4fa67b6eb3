//! [`Plan`]: a policy compiled for one kernel and one service: the ordered [`Step`]s that the child walks, and what the
//! parent prepares around it. `Display` explains it to people.
//!
//! The order of the steps lives here, once, in [`Phase`]; each phase's doc says why it stands where it stands.

use std::{
    borrow::Cow,
    ffi::{CStr, CString},
    fmt,
    ops::Deref,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, OnceLock},
};

use nix::errno::Errno;
use seccompiler::sock_filter;

use crate::{
    diagnostic::{Located, Place, Sources},
    policy::{IdMap, IdRange, PressureTrigger},
    steps::Steps,
    sys::bpf::{self, Hook, Instruction},
};

/// When a step runs. Within one phase steps run in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Session, signals, limits, priorities, umask: some need capabilities that go later, none depends on the root.
    Process,
    /// Into the namespaces that the service's user namespace owns, before anything is set up in them.
    OwnNamespaces,
    /// The cgroup namespace: by unshare in the child, since clone3 would root it in the parent's cgroup
    /// (`copy_cgroup_ns` reads `current`).
    CgroupNamespace,
    /// Loopback, host name: need CAP_NET_ADMIN and CAP_SYS_ADMIN over their namespaces.
    Network,
    /// Private propagation first, then copies of what the host's tree shows, while it is still there to be copied.
    Collect,
    /// Overlays, whose layers have to be in this mount namespace (clone_private_mount of the kernel); after every copy, so
    /// that no copy has their layers in it.
    Overlay,
    /// The new root attached and entered, the old one detached.
    Root,
    /// Mounts inside the new root, parents before children.
    Mount,
    /// What must be writable while it is filled becomes read-only at the end.
    Seal,
    /// The bounding set of a service in the host's user namespace: nothing before exec depends on what is in it. (A user
    /// namespace has a full one of its own, which is dropped in [`Phase::Identity`].)
    Bounding,
    /// sysfs, which shows the network of who mounts it, and what stands on it: after all that does not depend on the
    /// network, since the launch may have to wait for that ([`crate::netpool::PooledNetwork::begin`]).
    NetworkMount,
    /// The service's umask. Until here it is 0, so that what the launch makes has the modes that it is made with.
    Umask,
    /// After the mounts, so that it means a directory of the new root; before the identity, as runc and systemd do.
    WorkingDirectory,
    /// Landlock rules are tied to inodes, so they come after the mounts; the paths are opened with root's rights.
    LandlockRules,
    /// The limit on open files, after the last step that opens one: the child has its launcher's descriptors, and where
    /// these are more than the limit it could open nothing. Before the ids, for raising it needs CAP_SYS_RESOURCE.
    OpenFiles,
    /// After all that takes the host's root (every mount, every path opened), before the ids, which are those inside.
    UserNamespace,
    /// Bounding set, groups, ids, capabilities, securebits: in this order, because each needs what the next gives up.
    Identity,
    /// The session keyring, owned by the final uid.
    Keyring,
    /// Required by the next two for a process without CAP_SYS_ADMIN.
    NoNewPrivs,
    /// stdin, stdout and stderr into place, everything else close-on-exec.
    Descriptors,
    /// After every mount (a confined task cannot mount) and every open.
    Landlock,
    /// An empty mask, as the last act that needs a system call the policy may not allow.
    Signals,
    /// Last: from here on only what the policy allows.
    Seccomp,
}

/// A file descriptor that one step makes and others use: an index into the child's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) usize);

/// How many [`Slot`]s a plan may use.
pub(crate) const SLOTS: usize = 256;

/// A kind of namespace that is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    Net,
    Ipc,
    Uts,
    User,
}

impl Joined {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Net, Self::Ipc, Self::Uts, Self::User];

    /// CLONE_NEW*
    pub(crate) const fn flag(self) -> i32 {
        match self {
            Self::Net => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::User => libc::CLONE_NEWUSER,
        }
    }

    /// As in `/proc/PID/ns`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::User => "user",
        }
    }
}

/// A user namespace that the parent makes before each launch, and the namespaces that it owns.
#[derive(Debug, Clone)]
pub(crate) struct UserNamespacePlan {
    /// For `/proc/PID/uid_map`.
    pub(crate) uid_map: String,
    /// For `/proc/PID/gid_map`.
    pub(crate) gid_map: String,
    /// CLONE_NEW* besides CLONE_NEWUSER.
    pub(crate) owned: u64,
    /// The range that follows from the service's name alone.
    pub(crate) automatic: Option<IdRange>,
    /// Where the policy asks for it.
    pub(crate) at: Place,
}

impl UserNamespacePlan {
    pub(crate) fn new(map: &Located<IdMap>, owned: u64) -> Self {
        let (uid_map, gid_map) = (lines(&map.value.uid), lines(&map.value.gid));
        Self { uid_map, gid_map, owned, automatic: None, at: map.at.clone() }
    }
}

/// Who a service is. Steps that say so do not say who that is: so they are the same for all services of a policy.
#[derive(Debug)]
pub(crate) struct Owner {
    /// Its user and its group, as it sees them.
    pub(crate) inside: [u32; 2],
    /// The same as the host sees them, and as a file system takes them.
    pub(crate) options: [(&'static CStr, CString); 2],
    /// These as mount(2) has them.
    pub(crate) joined: CString,
}

impl Owner {
    fn new(inside: [u32; 2], [uid, gid]: [u32; 2]) -> Self {
        let text = |text: String| CString::new(text).expect("there is no NUL in a number");
        let options = [(c"uid", text(uid.to_string())), (c"gid", text(gid.to_string()))];
        Self { inside, options, joined: text(format!("uid={uid},gid={gid}")) }
    }
}

/// One act of the child. Everything in it was prepared by the parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// setsid(2)
    NewSession,
    /// Every signal that is not caught already gets its default disposition; caught ones were reset by clone3.
    DefaultSignals,
    /// An empty signal mask.
    UnblockSignals,
    /// prlimit(2); `u64::MAX` is RLIM_INFINITY.
    Rlimit { resource: u32, soft: u64, hard: u64 },
    /// umask(2)
    Umask(u32),
    /// setpriority(2)
    Nice(i8),
    /// sched_setscheduler(2)
    Scheduler { policy: i32, priority: i32 },
    /// sched_setaffinity(2), and all of the processors must have been granted: the kernel drops those that the cgroup
    /// does not have without a word.
    Affinity(Box<[u64]>),
    /// set_mempolicy(2), and all of the nodes must have been granted, likewise.
    MemoryPolicy { mode: i32, nodes: Box<[u64]> },
    /// ioprio_set(2)
    IoPriority(i32),
    /// PR_SET_TIMERSLACK, nanoseconds.
    TimerSlack(usize),
    /// PR_SET_SPECULATION_CTRL with PR_SPEC_FORCE_DISABLE.
    DisableSpeculation(usize),
    /// Writes `/proc/self/oom_score_adj`.
    OomScoreAdj(Box<[u8]>),
    /// unshare(2)
    Unshare(i32),
    /// setns(2) into a namespace that the parent made.
    Join(Joined),
    /// setns(2) into the network of a process that the caller of the launch holds.
    JoinNetwork,
    /// setns(2) into these namespaces of the process that this one is launched beside.
    Enter(i32),
    /// Loopback up; or, where the launch has a network namespace from a pool, into that, where it is up.
    LoopbackUp,
    /// sethostname(2)
    HostName(CString),
    /// setdomainname(2)
    DomainName(CString),
    /// Writes `/proc/self/timens_offsets`, of the time namespace that execve will enter (time_namespaces(7)).
    TimeOffsets(Box<[u8]>),
    /// All mounts private.
    PrivateMounts,
    /// A detached, recursive copy of the mounts at a path.
    CloneTree { path: CString, into: Slot },
    /// Of a copy that was made outside of a namespace of its own: it and all beneath it become private.
    Unpropagated(Slot),
    /// While a template is built: which directory or file a copy is of, for [`crate::template::Template`] to compare.
    NoteTree { of: Slot, index: usize },
    /// While a template is built: what stands at a path where something was mounted.
    NoteMount { path: CString, index: usize },
    /// Into a copy of the template's mounts, which is this process's alone.
    EnterTemplate,
    /// Into the namespaces that were made for this launch.
    EnterBerth,
    /// What the template has mounted at a path stands there still. A folder that is renamed on the host takes what is
    /// mounted on it along, in every namespace.
    StillMounted { path: CString, index: usize },
    /// A new file system, detached. `options` as for fsconfig(2); an empty value is a flag. One that is `owned` is the service's.
    NewFilesystem {
        kind: CString,
        options: Vec<(CString, CString)>,
        owned: bool,
        attributes: u64,
        into: Slot,
    },
    /// A directory in a detached or attached mount, by its slot.
    Mkdir { at: Slot, name: CString, mode: u32 },
    /// fchownat(2), not following links.
    Chown { at: Slot, name: CString, uid: u32, gid: u32 },
    /// A credential, by its index: a new file with what the parent has read; nothing for an optional one that is missing.
    WriteCredential { at: Slot, index: usize, name: CString, uid: u32, gid: u32 },
    /// A device node.
    Mknod { at: Slot, name: CString, mode: u32, device: u64 },
    /// A symbolic link.
    Symlink { at: Slot, name: CString, target: CString },
    /// mount_setattr(2)
    SetAttributes { of: Slot, set: u64, recursive: bool },
    /// mount_setattr(2), MOUNT_ATTR_IDMAP: by the index of a user namespace that the parent made.
    IdMap { of: Slot, map: usize },
    /// Attaches a detached mount.
    Attach { from: Slot, target: CString, through_links: bool },
    /// ENXIO unless it is the null device (null(4)), from which masks are made: a host whose /dev/null is something else
    /// would have that in every masked place.
    CheckNull(Slot),
    /// Attaches a detached mount on top of `/`, where only its descriptor reaches it, and makes it the working directory.
    Stage(Slot),
    /// Attaches a detached mount on a folder of the stage.
    AttachStaged { from: Slot, name: CString },
    /// Detaches the stage: what overlays need of it they hold.
    Unstage,
    /// mount(2) of a new file system onto a folder; `flags` say to mount(2) what `attributes` say to fsmount(2).
    Mount {
        kind: CString,
        target: CString,
        through_links: bool,
        attributes: u64,
        flags: u64,
        options: CString,
        /// It is the service's.
        owned: bool,
        /// It is at this path already and cannot be written to: what is there is bound, for a third of what making another
        /// one costs.
        like: Option<CString>,
    },
    /// Takes away what the host's tree has mounted at a path that is about to be covered: a covered mount would still
    /// be listed in mountinfo, and a service with CAP_SYS_ADMIN could uncover it.
    Detach(CString),
    /// Directories of a mount of our own, made so that something can be attached there; one that is there is no error.
    MakeDirectory(CString),
    /// An empty file, for the same purpose.
    MakeFile(CString),
    /// Attaches the tree on top of `/`, enters it, pivots, detaches the old root; and with it what the tree has mounted at
    /// these paths, as [`Op::Detach`] would. Each detaching waits for all processors (`synchronize_rcu_expedited`), so
    /// it is done once.
    PivotRoot { tree: Slot, shed: Box<[CString]> },
    /// chdir(2), and the kernel must not call it unreachable.
    Chdir(CString),
    /// PR_CAPBSET_DROP
    DropBounding(u8),
    /// setgroups(2)
    SetGroups(Box<[u32]>),
    /// setresgid(2), to the service's.
    SetGid,
    /// setresuid(2), to the service's; with `keep_capabilities` the permitted set survives it.
    SetUid { keep_capabilities: bool },
    /// capset(2)
    SetCapabilities { permitted: u64, effective: u64, inheritable: u64 },
    /// PR_CAP_AMBIENT_RAISE
    RaiseAmbient(u8),
    /// PR_SET_SECUREBITS
    Securebits(u32),
    /// KEYCTL_JOIN_SESSION_KEYRING
    NewKeyring,
    /// PR_SET_NO_NEW_PRIVS
    NoNewPrivs,
    /// The three standard descriptors, then close-on-exec on all others.
    Descriptors,
    /// A rule of the ruleset that the parent made.
    LandlockPath { path: CString, directory: u64, file: u64, optional: bool },
    /// landlock_restrict_self(2)
    LandlockRestrict,
    /// seccomp(2)
    Seccomp { program: Arc<[sock_filter]>, log: bool },
}

/// One act, and what to say where it fails. A copy is the same one: a plan has most of them in several of its lists, and in
/// common with the plans of other services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step(Arc<Action>);

impl Step {
    pub(crate) fn new(action: Action) -> Self {
        Self(Arc::new(action))
    }

    /// The same with another act.
    pub(crate) fn with(&self, op: Op) -> Self {
        let Action { phase, op: _, object, at, shared } = &**self;
        Self::new(Action { phase: *phase, op, object: object.clone(), at: at.clone(), shared: *shared })
    }

    /// Whether both are one, and not only alike.
    #[cfg(test)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for Step {
    type Target = Action;

    fn deref(&self) -> &Action {
        &self.0
    }
}

/// What a [`Step`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Action {
    /// When.
    pub(crate) phase: Phase,
    /// What.
    pub(crate) op: Op,
    /// What it concerns, for people: a path, a capability, a limit.
    pub(crate) object: String,
    /// Where the policy asks for it.
    pub(crate) at: Option<Place>,
    /// It may be done once for all launches of the plan ([`crate::compile::template`]).
    pub(crate) shared: bool,
}

/// A right or a controller that this machine lacks and the policy calls optional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// What is not enforced: `cgroup memory.max`.
    pub what: String,
    /// Why: `the memory controller is not available in the cgroup2 tree at /sys/fs/cgroup/unified`.
    pub why: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.why)
    }
}

/// A program on the service's cgroup. It is loaded when it is first attached, and stays so for as long as the plan is
/// kept: the verifier looks at it once, however often the service is started.
#[derive(Debug, Clone)]
pub(crate) struct CgroupProgram {
    /// Where it is attached.
    pub(crate) hook: Hook,
    /// What it does.
    pub(crate) code: Arc<[Instruction]>,
    /// The key of `[cgroup]` that it enforces.
    pub(crate) key: &'static str,
    /// Where that is written.
    pub(crate) at: Place,
    /// And the kernel's number of it.
    loaded: Arc<OnceLock<(OwnedFd, u32)>>,
}

impl CgroupProgram {
    pub(crate) fn new(hook: Hook, code: Arc<[Instruction]>, key: &'static str, at: Place) -> Self {
        Self { hook, code, key, at, loaded: Arc::default() }
    }

    /// Whether it does the same for the same reason.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (self.hook, &self.code, self.key, &self.at) == (other.hook, &other.code, other.key, &other.at)
    }

    /// The program in the kernel and its number there, loaded as `name` if it is not there yet.
    pub(crate) fn loaded(&self, name: &CStr) -> Result<(BorrowedFd<'_>, u32), Errno> {
        if self.loaded.get().is_none() {
            let program = bpf::load(self.hook, name, &self.code)?;
            let id = bpf::info(program.as_fd())?.id;
            // If another thread was faster, this one is closed again.
            drop(self.loaded.set((program, id)));
        }
        self.loaded.get().map(|(program, id)| (program.as_fd(), *id)).ok_or(Errno::EBADF)
    }
}

/// Whether all of them are, in the same order.
pub(crate) fn are_like(one: &[CgroupProgram], other: &[CgroupProgram]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.is_like(other))
}

/// A trigger on pressure, for a cgroup's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    pub(crate) entry: PressureTrigger,
    /// The place of its entry: `web.toml:12:5`.
    pub(crate) at: String,
}

impl Trigger {
    /// When it fires, and what is done then.
    #[must_use]
    pub fn entry(&self) -> &PressureTrigger {
        &self.entry
    }

    /// The place of its entry in the policy.
    #[must_use]
    pub fn at(&self) -> &str {
        &self.at
    }

    /// The file that takes it.
    pub(crate) fn file(&self) -> String {
        format!("{}.pressure", self.entry.resource.word())
    }

    /// What the file takes: `some 150000 1000000`, in microseconds.
    pub(crate) fn text(&self) -> String {
        let PressureTrigger { waiting, stall, window, .. } = &self.entry;
        format!("{} {} {}", waiting.word(), stall / 1_000, window / 1_000)
    }
}

/// A file of the service's cgroup and what goes into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupSetting {
    /// `memory`, `cpu`, `pids`, `io`.
    pub(crate) controller: &'static str,
    /// `memory.max`
    pub(crate) file: String,
    /// As it is written.
    pub(crate) value: String,
    /// Where the policy asks for it.
    pub(crate) at: Place,
}

/// What the parent asks of Landlock: the rights that the ruleset handles, and its port rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LandlockPlan {
    /// The ABI it is built for, never more than the kernel's.
    pub(crate) abi: landlock::ABI,
    /// bind(2) on TCP, where it is handled.
    pub(crate) bind_tcp: Option<Vec<u16>>,
    /// connect(2) on TCP, where it is handled.
    pub(crate) connect_tcp: Option<Vec<u16>>,
    /// Scopes.
    pub(crate) scope: landlock::BitFlags<landlock::Scope>,
}

/// A file that the parent reads before each launch.
#[derive(Debug, Clone)]
pub(crate) struct CredentialPlan {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) optional: bool,
    pub(crate) at: Place,
}

/// The steps of a plan in two parts: what builds a mount namespace once, and what each launch does with a copy of it.
#[derive(Debug, Clone)]
pub(crate) struct TemplatePlan {
    /// The same for all plans whose launches can share a template.
    pub(crate) build: Arc<TemplateBuild>,
    pub(crate) launch: Steps,
    /// CLONE_NEW* of clone3(2) for such a launch.
    pub(crate) namespaces: u64,
    pub(crate) berth: Option<BerthPlan>,
}

/// The steps of a launch from a template in two parts again: what is made for it beforehand, by nobody who stays, and what it
/// does itself.
#[derive(Debug, Clone)]
pub(crate) struct BerthPlan {
    pub(crate) ahead: Steps,
    pub(crate) launch: Steps,
    /// CLONE_NEW* that are made ahead, besides the mounts.
    pub(crate) made: u64,
    /// CLONE_NEW* of clone3(2) for such a launch.
    pub(crate) namespaces: u64,
    /// What of the host it shows besides the template, in the order in which `ahead` notes it.
    pub(crate) sources: Vec<CString>,
    /// How many mount points `ahead` notes, the template's among them.
    pub(crate) mount_points: usize,
}

/// What builds a template.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TemplateBuild {
    pub(crate) steps: Vec<Step>,
    /// What the template shows of the host, in the order in which the steps note it.
    pub(crate) sources: Vec<CString>,
    /// How many mount points they note.
    pub(crate) mount_points: usize,
}

/// A policy compiled for one kernel and one service.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) policy: String,
    pub(crate) sources: Sources,
    /// CLONE_NEW* of clone3(2).
    pub(crate) namespaces: u64,
    /// Made by the parent and joined by the child.
    pub(crate) user_namespace: Option<Box<UserNamespacePlan>>,
    /// The service whose network the child joins.
    pub(crate) network_of: Option<Box<Located<String>>>,
    /// For idmapped binds, likewise.
    pub(crate) id_maps: Vec<UserNamespacePlan>,
    pub(crate) steps: Steps,
    /// The same in two parts, where the first can be shared by launches.
    pub(crate) template: Option<TemplatePlan>,
    pub(crate) credentials: Vec<CredentialPlan>,
    pub(crate) landlock: Option<LandlockPlan>,
    /// The controllers to enable on the way down to the service's cgroup, whether or not a limit is set: they carry
    /// the figures of `status`.
    pub(crate) controllers: Arc<[String]>,
    pub(crate) cgroup: Arc<[CgroupSetting]>,
    /// What whoever launches arms on the cgroup.
    pub(crate) pressure: Vec<Trigger>,
    /// The programs on the cgroup, if any can be attached at all; those of an earlier plan are taken off it.
    pub(crate) programs: Option<Arc<[CgroupProgram]>>,
    pub(crate) environment: Arc<[(String, String)]>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The user as it sees itself; another than `uid` in a user namespace of its own.
    pub(crate) inside_uid: u32,
    /// And its group.
    pub(crate) inside_gid: u32,
    pub(crate) left_out: Arc<[LeftOut]>,
}

impl Plan {
    /// What is on the cgroup by the plan.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &CgroupProgram> {
        self.programs.iter().flat_map(|programs| programs.iter())
    }

    /// Whether a launch by this plan is in all a launch by the other one, of the same policy. Not of plans of which something
    /// is made ahead or read for each service: those are kept apart.
    pub(crate) fn does_the_same_as(&self, other: &Self) -> bool {
        let Self {
            policy: _,
            sources: _,
            namespaces,
            user_namespace: None,
            network_of,
            id_maps,
            steps,
            template: None,
            credentials,
            landlock,
            controllers,
            cgroup,
            pressure,
            programs,
            environment,
            uid,
            gid,
            inside_uid,
            inside_gid,
            left_out,
        } = self
        else {
            return false;
        };
        let same_programs = match (programs, &other.programs) {
            (Some(programs), Some(others)) => are_like(programs, others),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let ids = [uid, gid, inside_uid, inside_gid];
        let other_ids = [&other.uid, &other.gid, &other.inside_uid, &other.inside_gid];
        other.user_namespace.is_none()
            && other.template.is_none()
            && id_maps.is_empty()
            && other.id_maps.is_empty()
            && credentials.is_empty()
            && other.credentials.is_empty()
            && same_programs
            && (namespaces, ids, network_of) == (&other.namespaces, other_ids, &other.network_of)
            && (steps, landlock, environment) == (&other.steps, &other.landlock, &other.environment)
            && (controllers, cgroup, pressure, left_out)
                == (&other.controllers, &other.cgroup, &other.pressure, &other.left_out)
    }

    /// What a step of it concerns, for people.
    pub(crate) fn object<'a>(&self, step: &'a Step) -> Cow<'a, str> {
        if matches!(step.op, Op::SetUid { .. }) {
            self.inside_uid.to_string().into()
        } else if matches!(step.op, Op::SetGid) {
            self.inside_gid.to_string().into()
        } else {
            step.object.as_str().into()
        }
    }

    /// Who the service is, for its steps.
    pub(crate) fn owner(&self) -> Owner {
        Owner::new([self.inside_uid, self.inside_gid], [self.uid, self.gid])
    }

    /// The name of the policy it was compiled from.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// To be armed on the cgroup before the service is launched ([`crate::cgroup::Cgroup::arm`]), and waited for.
    #[must_use]
    pub fn triggers(&self) -> &[Trigger] {
        &self.pressure
    }

    /// What this machine lacks and the policy calls optional.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Whether the service has mounts of its own.
    #[must_use]
    pub fn has_mount_namespace(&self) -> bool {
        self.namespaces & u64::from(libc::CLONE_NEWNS.cast_unsigned()) != 0
    }

    /// Whether the service has a network of its own, which nobody made for it and others.
    #[must_use]
    pub fn has_network_namespace(&self) -> bool {
        self.namespaces & u64::from(libc::CLONE_NEWNET.cast_unsigned()) != 0
    }

    /// Whether the service's first process is PID 1 of a pid namespace.
    #[must_use]
    pub fn has_pid_namespace(&self) -> bool {
        self.namespaces & u64::from(libc::CLONE_NEWPID.cast_unsigned()) != 0
    }

    /// The user that the service runs as, as the host sees it.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The group that the service runs as, as the host sees it.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// The whole environment, before what the launcher adds.
    #[must_use]
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// The ids of the host that `namespaces.user = "auto"` gave it, where the policy asks for that. Two services whose names
    /// meet have the same.
    #[must_use]
    pub fn automatic_ids(&self) -> Option<std::ops::RangeInclusive<u32>> {
        let IdRange { inside: _, outside, count } = self.user_namespace.as_ref()?.automatic?;
        Some(outside..=outside + (count - 1))
    }

    /// The service whose network it joins (`net = "service:NAME"`): [`crate::launch::Launch::network`] has to be given.
    #[must_use]
    pub fn network_of(&self) -> Option<&str> {
        self.network_of.as_ref().map(|service| service.value.as_str())
    }

    /// Its filter as the kernel takes it, `struct sock_filter` after `struct sock_filter` (linux/filter.h); `None` without one.
    #[must_use]
    pub fn filter(&self) -> Option<Vec<u8>> {
        let program = self
            .steps
            .iter()
            .find_map(|step| if let Op::Seccomp { program, .. } = &step.op { Some(program) } else { None })?;
        let instruction = |filter: &sock_filter| {
            let [code, k] = [filter.code.to_ne_bytes().to_vec(), filter.k.to_ne_bytes().to_vec()];
            [code, vec![filter.jt, filter.jf], k].concat()
        };
        Some(program.iter().flat_map(instruction).collect())
    }

    /// Whether launches can share a [`crate::template::Template`].
    #[must_use]
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// Whether one template serves launches of both.
    #[must_use]
    pub fn shares_template_with(&self, other: &Self) -> bool {
        let build = |plan: &Self| plan.template.as_ref().map(|parts| Arc::as_ptr(&parts.build));
        build(self).is_some() && build(self) == build(other)
    }

    /// Whether a launch can have a [`crate::berth::Berth`].
    #[must_use]
    pub fn has_berth(&self) -> bool {
        self.template.as_ref().is_some_and(|parts| parts.berth.is_some())
    }

    /// Whether a launch can take its network namespace from a [`crate::netpool::NetworkPool`].
    #[must_use]
    pub fn takes_network(&self) -> bool {
        let made_by_clone = self.namespaces & u64::from(libc::CLONE_NEWNET.cast_unsigned()) != 0;
        made_by_clone && self.steps.iter().any(|step| matches!(step.op, Op::LoopbackUp))
    }

    /// How many rules on paths its Landlock ruleset has; `None` without a ruleset.
    #[must_use]
    pub fn landlock_path_rules(&self) -> Option<usize> {
        self.landlock.as_ref()?;
        Some(self.steps.iter().filter(|step| matches!(step.op, Op::LandlockPath { .. })).count())
    }

    /// How many rules on TCP ports its Landlock ruleset has; `None` without a ruleset.
    #[must_use]
    pub fn landlock_port_rules(&self) -> Option<usize> {
        let landlock = self.landlock.as_ref()?;
        let ports = |ports: &Option<Vec<u16>>| ports.as_ref().map_or(0, Vec::len);
        Some(ports(&landlock.bind_tcp) + ports(&landlock.connect_tcp))
    }

    /// The scopes of its Landlock ruleset, as policies call them; `None` without a ruleset.
    #[must_use]
    pub fn landlock_scopes(&self) -> Option<Vec<&'static str>> {
        let landlock = self.landlock.as_ref()?;
        let named = [
            (landlock::Scope::AbstractUnixSocket, "abstract-unix-socket"),
            (landlock::Scope::Signal, "signal"),
        ];
        Some(named.into_iter().filter(|(scope, _)| landlock.scope.contains(*scope)).map(|(_, n)| n).collect())
    }

    /// The ABI that its Landlock ruleset was compiled for; `None` without a ruleset.
    #[must_use]
    pub fn landlock_abi(&self) -> Option<u32> {
        self.landlock.as_ref().map(|landlock| landlock.abi as u32)
    }
}

/// The steps in order, one a line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "policy {}, uid {}, gid {}", self.policy, self.uid, self.gid)?;
        for (number, step) in self.steps.iter().enumerate() {
            write!(f, "{number:4} {} {}", step.op.name(), self.object(step))?;
            match &step.at {
                Some(at) => writeln!(f, "  ({})", self.sources.locate(at))?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl Op {
    /// What it is called in an error: the part of the sandbox, or the system call.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::NewSession => "setsid",
            Self::DefaultSignals => "sigaction",
            Self::UnblockSignals => "sigprocmask",
            Self::Rlimit { .. } => "rlimit",
            Self::Umask(_) => "umask",
            Self::Nice(_) => "nice",
            Self::Scheduler { .. } => "scheduler",
            Self::Affinity(_) => "cpu affinity",
            Self::MemoryPolicy { .. } => "numa policy",
            Self::IoPriority(_) => "io priority",
            Self::TimerSlack(_) => "timer slack",
            Self::DisableSpeculation(_) => "disable speculation",
            Self::OomScoreAdj(_) => "oom_score_adj",
            Self::Unshare(_) => "unshare",
            Self::Join(_) | Self::JoinNetwork | Self::Enter(_) => "setns",
            Self::LoopbackUp => "loopback up",
            Self::HostName(_) => "sethostname",
            Self::DomainName(_) => "setdomainname",
            Self::TimeOffsets(_) => "time offsets",
            Self::PrivateMounts => "make mounts private",
            Self::CloneTree { .. } => "open_tree",
            Self::Unpropagated(_) => "make private",
            Self::NoteTree { .. } | Self::NoteMount { .. } => "note",
            Self::EnterTemplate => "enter template",
            Self::EnterBerth => "enter berth",
            Self::StillMounted { .. } => "template",
            Self::NewFilesystem { .. } => "mount new",
            Self::Mkdir { .. } => "mkdir",
            Self::Chown { .. } => "chown",
            Self::WriteCredential { .. } => "credential",
            Self::Mknod { .. } => "mknod",
            Self::Symlink { .. } => "symlink",
            Self::SetAttributes { .. } => "mount_setattr",
            Self::IdMap { .. } => "mount_setattr idmap",
            Self::Mount { .. } | Self::Attach { .. } | Self::AttachStaged { .. } => "mount",
            Self::Stage(_) => "mount layers",
            Self::Unstage => "umount layers",
            Self::CheckNull(_) => "mask from",
            Self::Detach(_) => "umount",
            Self::MakeDirectory(_) => "make mount point",
            Self::MakeFile(_) => "make mount point",
            Self::PivotRoot { .. } => "pivot_root",
            Self::Chdir(_) => "working directory",
            Self::DropBounding(_) => "drop from the bounding set",
            Self::SetGroups(_) => "setgroups",
            Self::SetGid => "setgid",
            Self::SetUid { .. } => "setuid",
            Self::SetCapabilities { .. } => "capset",
            Self::RaiseAmbient(_) => "raise ambient",
            Self::Securebits(_) => "securebits",
            Self::NewKeyring => "session keyring",
            Self::NoNewPrivs => "no_new_privs",
            Self::Descriptors => "stdin, stdout, stderr",
            Self::LandlockPath { .. } => "landlock",
            Self::LandlockRestrict => "landlock_restrict_self",
            Self::Seccomp { .. } => "seccomp",
        }
    }
}

/// The lines of `/proc/PID/uid_map`.
fn lines(ranges: &[IdRange]) -> String {
    ranges.iter().map(|range| format!("{range}\n")).collect()
}
