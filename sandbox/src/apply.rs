//! What the child does between clone3 and execve: walks the plan's steps, and execs only if every one succeeded.
//!
//! The child shares the parent's memory (`CLONE_VM`) while the parent waits (`CLONE_VFORK`), or does something else and leaves
//! alone what the child uses. So here nothing allocates, locks, formats or decides: each step's data was prepared in the parent,
//! each act is a system call of `sys::raw`.
//! The first failure is written to [`Outcome`], which is the parent's memory, and ends the child.

use std::{
    ffi::{CStr, CString},
    os::fd::RawFd,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering},
    },
};

use nix::errno::Errno;

use crate::{
    credentials::Secret,
    inherited,
    making::MOST,
    netpool::Network,
    plan::{Joined, Op, Owner, SLOTS, Slot, Step},
    sys::raw::{self, Answer, PointerArray},
    timings::Timings,
    userns::UserNamespace,
};

/// The step that stands for execve itself.
pub(crate) const EXEC: u32 = u32::MAX - 1;
/// From here on the steps that stand for execve of other programs that are meant.
pub(crate) const OTHER: u32 = 1 << 31;
/// The step that stands for passing a new namespace on.
const HAND_OVER: u32 = u32::MAX - 2;
/// The step that comes before all others.
pub(crate) const OWN_DESCRIPTORS: u32 = u32::MAX - 3;
/// No step failed.
const NONE: u32 = u32::MAX;
/// More than the longest options of mount(2) that a plan has: three numbers, and two ids.
const OPTIONS: usize = 256;
/// The child's exit status where it never ran the program. The parent goes by [`Outcome`], not by this.
const EXIT_NOT_CONFINED: i32 = 125;

/// Where the child says what failed. It lives in the parent, which reads it after clone3 has returned.
#[derive(Debug)]
pub(crate) struct Outcome {
    step: AtomicU32,
    errno: AtomicI32,
}

impl Outcome {
    pub(crate) const fn new() -> Self {
        Self { step: AtomicU32::new(NONE), errno: AtomicI32::new(0) }
    }

    /// The step that failed and why; `None` means that execve took place.
    pub(crate) fn failure(&self) -> Option<(u32, Errno)> {
        match self.step.load(Ordering::Acquire) {
            NONE => None,
            step => Some((step, Errno::from_raw(self.errno.load(Ordering::Acquire)))),
        }
    }

    fn fail(&self, step: u32, errno: Errno) -> ! {
        self.errno.store(errno as i32, Ordering::Release);
        self.step.store(step, Ordering::Release);
        raw::exit_group(EXIT_NOT_CONFINED)
    }
}

/// Which file stands somewhere: the device of its file system and its inode there, noted by a child.
#[derive(Debug, Default)]
pub(crate) struct Note {
    device: AtomicU64,
    inode: AtomicU64,
}

impl Note {
    fn note(&self, (device, inode): (u64, u64)) {
        self.device.store(device, Ordering::Release);
        self.inode.store(inode, Ordering::Release);
    }

    /// Whether it was this. One that was never noted is nothing: no file has inode 0.
    pub(crate) fn is(&self, (device, inode): (u64, u64)) -> bool {
        inode != 0
            && self.device.load(Ordering::Acquire) == device
            && self.inode.load(Ordering::Acquire) == inode
    }
}

/// What is noted while a template is built.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) trees: Box<[Note]>,
    pub(crate) mount_points: Box<[Note]>,
}

impl Notes {
    /// No notes: what a launch without a template needs.
    pub(crate) fn none() -> &'static Arc<Self> {
        static NONE: LazyLock<Arc<Notes>> = LazyLock::new(Arc::default);
        &NONE
    }

    pub(crate) fn blank(trees: usize, mount_points: usize) -> Self {
        let blank = |count| std::iter::repeat_with(Note::default).take(count).collect();
        Self { trees: blank(trees), mount_points: blank(mount_points) }
    }
}

/// Everything the child uses.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) steps: &'a [Step],
    /// What becomes 0, 1 and 2; each is 3 or more.
    pub(crate) stdio: [RawFd; 3],
    /// What is handed on beside them: from where, to where. Each source is above each target.
    pub(crate) handed: &'a [(RawFd, RawFd)],
    /// The pidfd of the process whose namespaces are entered.
    pub(crate) beside: Option<RawFd>,
    pub(crate) ruleset: Option<RawFd>,
    /// The launcher's own, as the child begins with it; `None` if it is not known.
    pub(crate) oom_score_adj: Option<&'a [u8]>,
    pub(crate) credentials: &'a [Option<Secret>],
    /// Who the service is; `None` where what is made is for more than one.
    pub(crate) owner: Option<&'a Owner>,
    pub(crate) namespaces: Option<&'a UserNamespace>,
    /// A pidfd: the process whose network is joined.
    pub(crate) network: Option<RawFd>,
    /// A network namespace from a pool, loopback up, where clone3 made none.
    pub(crate) pooled: Option<Network>,
    /// The mount namespace of a template.
    pub(crate) template: Option<Mounts>,
    /// The namespaces of a berth, by CLONE_NEW*.
    pub(crate) berth: [(i32, Option<RawFd>); 3],
    /// What was noted of the template or the berth.
    pub(crate) notes: &'a Notes,
    /// What is noted now.
    pub(crate) noted: &'a Notes,
    pub(crate) id_maps: &'a [UserNamespace],
    /// The open file that is executed, where it is not the one that argv names.
    pub(crate) program: Option<RawFd>,
    pub(crate) argv: &'a PointerArray,
    /// What is executed where that is not there.
    pub(crate) others: &'a [PointerArray],
    pub(crate) envp: &'a PointerArray,
    pub(crate) outcome: &'a Outcome,
    pub(crate) timings: Option<&'a Timings>,
    /// In tests: this step is made to fail with this errno.
    #[cfg(test)]
    pub(crate) fault: Option<(u32, Errno)>,
}

impl<'a> Context<'a> {
    /// For a child that makes a namespace and executes nothing: `none` is its empty argv and environment.
    pub(crate) fn of_steps(
        steps: &'a [Step],
        noted: &'a Notes,
        outcome: &'a Outcome,
        none: &'a PointerArray,
        fault: crate::launch::Fault,
    ) -> Self {
        #[cfg(not(test))]
        let crate::launch::Fault {} = fault;
        Self {
            steps,
            stdio: [-1; 3],
            handed: &[],
            ruleset: None,
            oom_score_adj: None,
            credentials: &[],
            owner: None,
            namespaces: None,
            network: None,
            beside: None,
            pooled: None,
            template: None,
            berth: [(0, None); 3],
            notes: Notes::none(),
            noted,
            id_maps: &[],
            program: None,
            argv: none,
            others: &[],
            envp: none,
            outcome,
            timings: None,
            #[cfg(test)]
            fault: fault.at,
        }
    }
}

impl Context<'_> {
    /// Who the service is, as far as there is one.
    fn owner(&self) -> Answer<&Owner> {
        self.owner.ok_or(Errno::EINVAL)
    }

    /// The highest number that a step uses. What lies above is not even copied: a launcher that has thousands of
    /// descriptors, and has most of them far up, launches as fast as one that has ten.
    fn highest_descriptor(&self) -> RawFd {
        let user_namespaces = self.namespaces.into_iter().chain(self.id_maps);
        let pooled = self.pooled.map(Network::descriptor);
        let template = self.template.map(Mounts::descriptor);
        let single = [self.beside, self.ruleset, self.network, pooled, template, self.program];
        let all = self.stdio.into_iter().chain(self.handed.iter().map(|(from, _)| *from));
        let berth = self.berth.iter().filter_map(|(_, namespace)| *namespace);
        let all = all.chain(single.into_iter().flatten()).chain(berth);
        all.chain(user_namespaces.flat_map(UserNamespace::descriptors)).max().unwrap_or(2)
    }

    /// What a test makes of a step: nothing, outside tests.
    fn injected(&self, step: u32) -> Answer<()> {
        #[cfg(test)]
        if let Some((at, errno)) = self.fault
            && at == step
        {
            return Err(errno);
        }
        // Outside tests the number is not looked at.
        let _: u32 = step;
        Ok(())
    }
}

/// What a child has of a template's mounts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mounts {
    /// The namespace, of which it makes a copy: others make theirs.
    OfAll(RawFd),
    /// A socket where it arrives, or the end of what is sent if it cannot be made. It is this child's alone.
    Arrive(RawFd),
}

impl Mounts {
    fn descriptor(self) -> RawFd {
        match self {
            Self::OfAll(fd) | Self::Arrive(fd) => fd,
        }
    }
}

/// The body of the child.
pub(crate) fn run(context: &Context<'_>) -> ! {
    if let Some(timings) = context.timings {
        timings.born();
    }
    let own = raw::own_descriptors_below(context.highest_descriptor().saturating_add(1));
    if let Err(errno) = own.and_then(|()| context.injected(OWN_DESCRIPTORS)) {
        context.outcome.fail(OWN_DESCRIPTORS, errno);
    }
    walk(context);
    if let Err(errno) = context.envp.write_own_pid() {
        context.outcome.fail(EXEC, errno);
    }
    let Some(program) = context.program else { execute_first(context) };
    context.outcome.fail(EXEC, raw::execute_open(program, context.argv, context.envp))
}

/// The first of the programs that is there. One that cannot be executed is told of only if there is no other.
fn execute_first(context: &Context<'_>) -> ! {
    let mut refused = None;
    let others = (OTHER..).zip(context.others);
    for (step, argv) in std::iter::once((EXEC, context.argv)).chain(others) {
        let errno = argv.first().map_or(Errno::ENOENT, |program| raw::execve(program, argv, context.envp));
        if errno != Errno::ENOENT {
            refused = refused.or(Some((step, errno)));
        }
    }
    let (step, errno) = refused.unwrap_or((EXEC, Errno::ENOENT));
    context.outcome.fail(step, errno)
}

/// The body of a child that makes namespaces: its last act is to pass them on as descriptors.
pub(crate) fn hand_over(making: &Making<'_>) -> ! {
    let context = making.context;
    // Before the steps: they may take /proc away. What is in it is what this process is in when it is opened.
    let folder = raw::open(libc::AT_FDCWD, c"/proc/self/ns", libc::O_PATH | libc::O_DIRECTORY, 0);
    walk(context);
    match folder.and_then(|folder| pass_on(making, folder)) {
        Ok(()) => raw::exit_group(0),
        Err(errno) => context.outcome.fail(HAND_OVER, errno),
    }
}

fn pass_on(making: &Making<'_>, folder: RawFd) -> Answer<()> {
    let mut opened = [-1; MOST];
    for (place, name) in opened.iter_mut().zip(making.names) {
        *place = raw::open(folder, name, libc::O_RDONLY, 0)?;
    }
    raw::send_descriptors(making.socket, opened.get(..making.names.len()).ok_or(Errno::E2BIG)?)
}

/// What [`hand_over`] uses.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    pub(crate) context: &'a Context<'a>,
    /// Of this process, as in `/proc/self/ns`.
    pub(crate) names: &'a [&'a CStr],
    /// Where their descriptors go.
    pub(crate) socket: RawFd,
}

/// Every step in order; the first that fails ends this process.
fn walk(context: &Context<'_>) {
    let mut slots = Slots([-1; SLOTS]);
    for (number, step) in (0_u32..).zip(context.steps) {
        if let Some(Network::Arrives { socket, before, up_before, stands_for }) = context.pooled {
            let entered = if before == number { enter_arriving(socket) } else { Ok(()) };
            let up = entered.and_then(|()| if up_before == number { up_by_now(socket) } else { Ok(()) });
            if let Err(errno) = up {
                context.outcome.fail(stands_for, errno);
            }
        }
        let answer = apply(&step.op, context, &mut slots).and_then(|()| context.injected(number));
        if let Err(errno) = answer {
            context.outcome.fail(number, errno);
        }
        if let Some(timings) = context.timings {
            timings.stepped(number);
        }
    }
}

/// The descriptors that steps hand to one another.
struct Slots([RawFd; SLOTS]);

impl Slots {
    fn get(&self, slot: Slot) -> Answer<RawFd> {
        self.0.get(slot.0).copied().filter(|fd| *fd >= 0).ok_or(Errno::EBADF)
    }

    fn put(&mut self, slot: Slot, fd: RawFd) -> Answer<()> {
        *self.0.get_mut(slot.0).ok_or(Errno::EMFILE)? = fd;
        Ok(())
    }
}

fn apply(op: &Op, context: &Context<'_>, slots: &mut Slots) -> Answer<()> {
    match op {
        Op::NewSession => raw::setsid(),
        Op::DefaultSignals => default_signals(),
        Op::UnblockSignals => raw::unblock_signals(),
        Op::Rlimit { resource, soft, hard } => raw::set_rlimit(*resource, *soft, *hard),
        Op::Umask(mask) => raw::umask(*mask),
        Op::Nice(nice) => raw::set_nice(*nice),
        Op::Scheduler { policy, priority } => {
            // To ask is ten times as fast as to set what is set already. Only without priorities is that all there is to it.
            if *priority == 0 && raw::sched_getscheduler()? == *policy {
                return Ok(());
            }
            raw::sched_setscheduler(*policy, *priority)
        }
        Op::Affinity(processors) => {
            raw::sched_setaffinity(processors)?;
            if raw::affinity_is(processors)? { Ok(()) } else { Err(Errno::ENXIO) }
        }
        Op::MemoryPolicy { mode, nodes } => {
            raw::set_mempolicy(*mode, nodes)?;
            if raw::mempolicy_is(*mode, nodes)? { Ok(()) } else { Err(Errno::ENXIO) }
        }
        Op::IoPriority(priority) => raw::ioprio_set(*priority),
        Op::TimerSlack(nanoseconds) => raw::prctl(libc::PR_SET_TIMERSLACK, *nanoseconds, 0),
        Op::DisableSpeculation(kind) => {
            raw::prctl(libc::PR_SET_SPECULATION_CTRL, *kind, raw::FORCE_DISABLE)?;
            if raw::speculation(*kind)? & raw::FORCE_DISABLE != 0 { Ok(()) } else { Err(Errno::ENXIO) }
        }
        // What the child has inherited need not be written.
        Op::OomScoreAdj(text) if context.oom_score_adj == Some(&**text) => Ok(()),
        Op::OomScoreAdj(text) => write_file(c"/proc/self/oom_score_adj", text),
        Op::Unshare(flags) => raw::unshare(*flags),
        Op::Join(kind) => {
            let namespace = context.namespaces.and_then(|made| made.get(*kind)).ok_or(Errno::EBADF)?;
            raw::setns(namespace, kind.flag())
        }
        // A pidfd stands for the namespaces of its process, and for no other's once that has ended (setns(2)).
        Op::JoinNetwork => raw::setns(context.network.ok_or(Errno::EBADF)?, libc::CLONE_NEWNET),
        Op::Enter(kinds) => raw::setns(context.beside.ok_or(Errno::EBADF)?, *kinds),
        Op::LoopbackUp => match context.pooled {
            Some(Network::Ready(network)) => raw::setns(network, libc::CLONE_NEWNET),
            // Later: `walk`.
            Some(Network::Arrives { .. }) => Ok(()),
            None => raw::loopback_up(),
        },
        Op::HostName(name) => raw::sethostname(name),
        Op::DomainName(name) => raw::setdomainname(name),
        Op::TimeOffsets(text) => write_file(c"/proc/self/timens_offsets", text),
        Op::PrivateMounts => raw::make_mounts_private(),
        Op::CloneTree { path, into } => slots.put(*into, raw::clone_tree(path)?),
        Op::Unpropagated(slot) => raw::make_tree_private(slots.get(*slot)?),
        Op::NoteTree { of, index } => {
            let found = raw::identity(slots.get(*of)?, c"")?;
            context.noted.trees.get(*index).ok_or(Errno::EBADF)?.note(found);
            Ok(())
        }
        Op::NoteMount { path, index } => {
            let found = raw::identity(libc::AT_FDCWD, path)?;
            context.noted.mount_points.get(*index).ok_or(Errno::EBADF)?.note(found);
            Ok(())
        }
        Op::EnterTemplate => match context.template.ok_or(Errno::EBADF)? {
            Mounts::OfAll(namespace) => {
                raw::setns(namespace, libc::CLONE_NEWNS)?;
                raw::unshare(libc::CLONE_NEWNS)
            }
            Mounts::Arrive(socket) => {
                let namespace = raw::receive_descriptor(socket)?.ok_or(Errno::ESTALE)?;
                raw::setns(namespace, libc::CLONE_NEWNS)?;
                raw::close(namespace)
            }
        },
        Op::EnterBerth => {
            for (kind, namespace) in &context.berth {
                if let Some(namespace) = namespace {
                    raw::setns(*namespace, *kind)?;
                }
            }
            Ok(())
        }
        Op::StillMounted { path, index } => {
            let noted = context.notes.mount_points.get(*index).ok_or(Errno::EBADF)?;
            if noted.is(raw::identity(libc::AT_FDCWD, path)?) { Ok(()) } else { Err(Errno::ESTALE) }
        }
        Op::NewFilesystem { kind, options, owned, attributes, into } => {
            let filesystem = raw::fsopen(kind)?;
            for (key, value) in options {
                raw::fsconfig(filesystem, key, value)?;
            }
            if *owned {
                for (key, value) in &context.owner()?.options {
                    raw::fsconfig(filesystem, key, value)?;
                }
            }
            raw::fscreate(filesystem)?;
            let mount = raw::fsmount(filesystem, *attributes)?;
            raw::close(filesystem)?;
            slots.put(*into, mount)
        }
        Op::Mkdir { at, name, mode } => raw::mkdir(slots.get(*at)?, name, *mode),
        Op::Chown { at, name, uid, gid } => raw::chown(slots.get(*at)?, name, *uid, *gid),
        Op::WriteCredential { at, index, name, uid, gid } => {
            match context.credentials.get(*index).ok_or(Errno::EBADF)? {
                Some(secret) => write_credential(slots.get(*at)?, name, secret.bytes(), (*uid, *gid)),
                None => Ok(()),
            }
        }
        Op::Mknod { at, name, mode, device } => raw::mknod(slots.get(*at)?, name, *mode, *device),
        Op::Symlink { at, name, target } => raw::symlink(target, slots.get(*at)?, name),
        Op::SetAttributes { of, set, recursive } => {
            raw::set_mount_attributes(slots.get(*of)?, *set, *recursive)
        }
        Op::IdMap { of, map } => {
            let made = context.id_maps.get(*map).and_then(|made| made.get(Joined::User));
            raw::set_mount_id_map(slots.get(*of)?, made.ok_or(Errno::EBADF)?)
        }
        Op::CheckNull(slot) => {
            const NULL: u64 = libc::makedev(1, 3); // Documentation/admin-guide/devices.txt
            if raw::is_character_device(slots.get(*slot)?, NULL)? { Ok(()) } else { Err(Errno::ENXIO) }
        }
        Op::Attach { from, target, through_links } => {
            let target = raw::open_target(target, *through_links)?;
            raw::move_mount(slots.get(*from)?, target)?;
            raw::close(target)
        }
        Op::Stage(slot) => {
            let root = raw::open(libc::AT_FDCWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
            raw::move_mount(slots.get(*slot)?, root)?;
            raw::close(root)?;
            raw::fchdir(slots.get(*slot)?)
        }
        Op::AttachStaged { from, name } => {
            let folder = raw::open(libc::AT_FDCWD, name, libc::O_PATH | libc::O_DIRECTORY, 0)?;
            raw::move_mount(slots.get(*from)?, folder)?;
            raw::close(folder)
        }
        Op::Unstage => {
            raw::detach_here()?;
            raw::chdir(c"/")
        }
        Op::Detach(path) => detach(path),
        Op::MakeDirectory(path) => match raw::mkdir(libc::AT_FDCWD, path, 0o755) {
            Err(Errno::EEXIST) => Ok(()),
            answer => answer,
        },
        Op::MakeFile(path) => {
            raw::close(raw::open(libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY, 0o644)?)
        }
        Op::PivotRoot { tree, shed } => pivot_into(slots.get(*tree)?, shed),
        Op::Mount { kind, target, through_links, attributes: _, flags, options, owned, like } => {
            // By way of the working directory, since mount(2) takes a path and would follow a magic link in it.
            let target = raw::open_target(target, *through_links)?;
            raw::fchdir(target)?;
            match like {
                Some(path) => raw::bind_here(path)?,
                None if *owned => {
                    let mut room = [0; OPTIONS];
                    raw::mount_here(kind, *flags, joined(&mut room, options, &context.owner()?.joined)?)?;
                }
                None => raw::mount_here(kind, *flags, options)?,
            }
            raw::close(target)
        }
        Op::Chdir(path) => {
            raw::chdir(path)?;
            if raw::working_directory_is_reachable()? { Ok(()) } else { Err(Errno::ENOENT) }
        }
        Op::DropBounding(capability) => raw::prctl(libc::PR_CAPBSET_DROP, usize::from(*capability), 0),
        Op::SetGroups(groups) => raw::setgroups(groups),
        Op::SetGid => raw::setresgid(context.owner()?.inside[1]),
        Op::SetUid { keep_capabilities } => {
            let [uid, _] = context.owner()?.inside;
            raw::prctl(libc::PR_SET_KEEPCAPS, usize::from(*keep_capabilities), 0)?;
            raw::setresuid(uid)
        }
        Op::SetCapabilities { permitted, effective, inheritable } => {
            raw::capset(*permitted, *effective, *inheritable)
        }
        Op::RaiseAmbient(capability) => {
            raw::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as usize, usize::from(*capability))
        }
        Op::Securebits(bits) => raw::prctl(libc::PR_SET_SECUREBITS, *bits as usize, 0),
        Op::NewKeyring => raw::join_session_keyring(),
        Op::NoNewPrivs => raw::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0),
        Op::Descriptors => place_descriptors(context.stdio, context.handed),
        Op::LandlockPath { path, directory, file, optional } => {
            let ruleset = context.ruleset.ok_or(Errno::EBADF)?;
            add_landlock_path(ruleset, path, *directory, *file, *optional)
        }
        Op::LandlockRestrict => raw::landlock_restrict_self(context.ruleset.ok_or(Errno::EBADF)?),
        Op::Seccomp { program, log } => raw::seccomp_set_filter(program, *log),
    }
}

/// Into the network that another process makes meanwhile, or, where it made none, into one that this process makes.
fn enter_arriving(socket: RawFd) -> Answer<()> {
    match raw::receive_descriptor(socket)? {
        Some(network) => {
            raw::setns(network, libc::CLONE_NEWNET)?;
            raw::close(network)
        }
        None => {
            raw::unshare(libc::CLONE_NEWNET)?;
            raw::loopback_up()
        }
    }
}

/// The loopback of that network is up: its maker says so, or does not live to, and then this process does it.
fn up_by_now(socket: RawFd) -> Answer<()> {
    if raw::receive_word(socket)? { Ok(()) } else { raw::loopback_up() }
}

/// An ignored signal stays ignored over exec, and Rust's start-up ignores SIGPIPE: a service must not inherit that.
fn default_signals() -> Answer<()> {
    inherited::signals_to_reset().try_for_each(raw::default_disposition)
}

/// Both with a comma in between, in `room`.
fn joined<'a>(room: &'a mut [u8; OPTIONS], options: &CStr, more: &CStr) -> Answer<&'a CStr> {
    let mut end = 0;
    for part in [options.to_bytes(), b",", more.to_bytes_with_nul()] {
        let place = room.get_mut(end..end + part.len()).ok_or(Errno::E2BIG)?;
        place.copy_from_slice(part);
        end += part.len();
    }
    CStr::from_bytes_until_nul(room).map_err(|_| Errno::E2BIG)
}

fn write_file(path: &std::ffi::CStr, text: &[u8]) -> Answer<()> {
    let file = raw::open(libc::AT_FDCWD, path, libc::O_WRONLY, 0)?;
    raw::write_all(file, text)?;
    raw::close(file)
}

fn write_credential(folder: RawFd, name: &std::ffi::CStr, bytes: &[u8], ids: (u32, u32)) -> Answer<()> {
    let file = raw::open(folder, name, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o400)?;
    raw::write_all(file, bytes)?;
    raw::close(file)?;
    raw::chown(folder, name, ids.0, ids.1)
}

/// The tree goes on top of `/` and becomes the working directory; pivot_root(".", ".") makes it the root and leaves
/// the old root mounted over it, which is then detached (pivot_root(2), NOTES). What the tree is to shed is moved onto
/// the old root before that.
fn pivot_into(tree: RawFd, shed: &[CString]) -> Answer<()> {
    let root = raw::open(libc::AT_FDCWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    raw::move_mount(tree, root)?;
    raw::fchdir(tree)?;
    raw::pivot_root_here()?;
    if !shed.is_empty() {
        // Beneath the old root, not onto it: what is on it would be what is detached.
        let beneath = raw::open(root, c"proc", libc::O_PATH | libc::O_DIRECTORY, 0)?;
        for path in shed {
            shed_onto(beneath, path)?;
        }
        raw::close(beneath)?;
    }
    raw::close(root)?;
    raw::detach_here()?;
    raw::chdir(c"/")
}

fn shed_onto(beneath: RawFd, path: &CStr) -> Answer<()> {
    let mounted = match raw::open(libc::AT_FDCWD, path, libc::O_PATH | libc::O_NOFOLLOW, 0) {
        // Nothing is there at all: mounting says so if it matters.
        Err(Errno::ENOENT) => return Ok(()),
        answer => answer?,
    };
    let moved = raw::move_mount(mounted, beneath);
    raw::close(mounted)?;
    match moved {
        // Nothing is mounted there, or it is a file.
        Err(Errno::EINVAL) => detach(path),
        answer => answer,
    }
}

fn detach(path: &CStr) -> Answer<()> {
    match raw::detach(path) {
        // Nothing is mounted there, or nothing is there at all: mounting says so if it matters.
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        answer => answer,
    }
}

fn place_descriptors(stdio: [RawFd; 3], handed: &[(RawFd, RawFd)]) -> Answer<()> {
    for (from, to) in stdio.into_iter().zip(0..) {
        raw::dup_onto(from, to)?;
    }
    raw::cloexec_from(3)?;
    for (from, to) in handed {
        raw::dup_onto(*from, *to)?;
    }
    Ok(())
}

/// Rights that only make sense on a directory are EINVAL on a file, so each kind has its own mask.
fn add_landlock_path(
    ruleset: RawFd,
    path: &std::ffi::CStr,
    directory: u64,
    file: u64,
    optional: bool,
) -> Answer<()> {
    let node = match raw::open(libc::AT_FDCWD, path, libc::O_PATH, 0) {
        Err(Errno::ENOENT) if optional => return Ok(()),
        answer => answer?,
    };
    // Most are directories, and the kernel says which are not, so nobody has to ask beforehand.
    match raw::landlock_add_path(ruleset, node, directory) {
        Err(Errno::EINVAL) if file != directory => raw::landlock_add_path(ruleset, node, file),
        answer => answer,
    }?;
    raw::close(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_joined_as_far_as_there_is_room() {
        let mut room = [0; OPTIONS];
        let both = joined(&mut room, c"size=1,mode=755", c"uid=7,gid=8");
        assert_eq!(both, Ok(c"size=1,mode=755,uid=7,gid=8"));
        let text = |length: usize| CString::new("x".repeat(length)).unwrap();
        // The comma and the NUL are in it.
        let fits = text(OPTIONS - 2 - 3);
        assert_eq!(joined(&mut room, &fits, c"yyy").map(|both| both.to_bytes().len()), Ok(OPTIONS - 1));
        assert_eq!(joined(&mut room, &text(OPTIONS - 2 - 2), c"yyy"), Err(Errno::E2BIG));
    }

    #[test]
    fn what_is_the_services_own_is_made_for_no_template() {
        let (none, outcome) = (PointerArray::new(Vec::new()), Outcome::new());
        let context = Context::of_steps(&[], Notes::none(), &outcome, &none, crate::launch::Fault::default());
        let mut slots = Slots([-1; SLOTS]);
        for op in [Op::SetUid { keep_capabilities: false }, Op::SetGid] {
            assert_eq!(apply(&op, &context, &mut slots), Err(Errno::EINVAL), "{op:?}");
        }
    }
}
