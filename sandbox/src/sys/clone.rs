//! clone3(2) with `CLONE_VM | CLONE_VFORK`: a child that borrows the parent's memory until it execs or exits.

#![allow(clippy::cast_possible_truncation, reason = "x86_64 alone gets here: long and isize are the same")]

use std::{
    arch::asm,
    cell::Cell,
    ffi::c_void,
    mem::ManuallyDrop,
    os::fd::{AsFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, sigprocmask},
        wait::{Id, WaitPidFlag, waitid},
    },
};

use crate::sys::raw;

/// `struct clone_args` up to `cgroup` (clone(2), CLONE_ARGS_SIZE_VER2).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}
const _: () = assert!(size_of::<CloneArgs>() == 88);

/// CLONE_CLEAR_SIGHAND (linux/sched.h): caught signals are reset to their default.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// CLONE_INTO_CGROUP (linux/sched.h).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Bytes of stack for the child. It calls no deeper than a page table walk of `apply`; its largest frame is one PATH_MAX
/// buffer. A debug build's frames fit many times over.
const STACK_SIZE: usize = 256 << 10;

/// Whose child a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    /// The caller's.
    Caller,
    /// The caller's parent's (CLONE_PARENT).
    CallersParent,
    /// The caller's, without a signal at its end: whoever waits for children of its own does not hear of it.
    Helper,
}

/// How to make the child.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// CLONE_NEW*.
    pub(crate) namespaces: u64,
    /// Born into this cgroup (a directory of cgroup2).
    pub(crate) cgroup: Option<RawFd>,
    /// Whose child it is.
    pub(crate) relation: Relation,
    /// The kernel writes the pid here before the child's first instruction.
    pub(crate) pid_cell: &'a AtomicU32,
    /// The child begins in this process's table of descriptors and takes copies of those that it needs, instead of
    /// copies of all: [`raw::own_descriptors_below`] has to be the first that it does.
    pub(crate) shares_descriptors: bool,
}

/// What the child runs: `body` with a reference to `context`, and never returns.
struct Start<'a, C> {
    context: &'a C,
    body: fn(&C) -> !,
}

extern "C" fn enter<C>(start: *const c_void) -> ! {
    // SAFETY: `vfork_into` passes a pointer to a `Start` with this very `C`, which lives in its frame, and it is
    // suspended (CLONE_VFORK) until this process execs or exits, so the reference stays good for all of `body`.
    let start = unsafe { &*start.cast::<Start<'_, C>>() };
    (start.body)(start.context)
}

/// Makes a child that runs `body(context)`, and waits until it has exec'd or ended. Answers a pidfd of it.
///
/// `body` runs in this process's memory, on a stack of its own, with all signals blocked. It must not allocate, lock
/// or unwind.
///
/// # Errors
/// What clone3(2) says.
pub(crate) fn vfork_into<C>(request: &Request<'_>, context: &C, body: fn(&C) -> !) -> Result<OwnedFd, Errno> {
    let stack = Stack::spare()?;
    let mut pidfd: RawFd = -1;
    let arguments = CloneArgs {
        flags: request.flags() | libc::CLONE_VFORK as u64,
        ..request.arguments(&mut pidfd, &stack)
    };
    let start = Start { context, body };
    // SAFETY: the arguments point at a full `clone_args` whose pidfd and parent_tid fields point at memory that
    // outlives the call; the stack is a fresh mapping used by nobody else; `enter::<C>` gets a `Start<C>` that lives
    // in this frame, which CLONE_VFORK keeps suspended while the child runs.
    let result = unsafe { clone3_masked(&arguments, enter::<C>, ptr::from_ref(&start).cast()) };
    // CLONE_VFORK held this process until the child had exec'd or ended, if there was one: nobody is on the stack any more.
    SPARE.set(Some(stack));
    result?;
    // SAFETY: clone3 succeeded with CLONE_PIDFD, so it stored a descriptor that is new and that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

impl Request<'_> {
    fn flags(&self) -> u64 {
        let mut flags = libc::CLONE_VM as u64
            | libc::CLONE_PIDFD as u64
            | libc::CLONE_PARENT_SETTID as u64
            | CLONE_CLEAR_SIGHAND
            | self.namespaces;
        if self.shares_descriptors {
            flags |= libc::CLONE_FILES as u64;
        }
        if self.relation == Relation::CallersParent {
            flags |= libc::CLONE_PARENT as u64;
        }
        if self.cgroup.is_some() {
            flags |= CLONE_INTO_CGROUP;
        }
        flags
    }

    /// All but its flags.
    fn arguments(&self, pidfd: &mut RawFd, stack: &Stack) -> CloneArgs {
        CloneArgs {
            pidfd: ptr::from_mut(pidfd) as u64,
            parent_tid: self.pid_cell.as_ptr() as u64,
            exit_signal: match self.relation {
                Relation::Caller => libc::SIGCHLD as u64,
                // The kernel insists on 0 for the first and uses the caller's own exit signal.
                Relation::CallersParent | Relation::Helper => 0,
            },
            stack: stack.base as u64,
            stack_size: STACK_SIZE as u64,
            cgroup: self.cgroup.map_or(0, |directory| u64::from(directory.cast_unsigned())),
            ..CloneArgs::default()
        }
    }
}

/// [`clone3`] with all signals blocked, so that no handler of this process can run on the child's stack.
///
/// # Safety
/// As for [`clone3`].
unsafe fn clone3_masked(
    arguments: &CloneArgs,
    entry: extern "C" fn(*const c_void) -> !,
    argument: *const c_void,
) -> Result<(), Errno> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: the caller's.
    let result = unsafe { clone3(arguments, entry, argument) };
    // Whoever goes on with a child there is no word of would let go of what that child uses.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None).expect("a mask that was there just now");
    if result < 0 {
        return Err(Errno::from_raw(i32::try_from(-result).unwrap_or(libc::EINVAL)));
    }
    Ok(())
}

/// A child on its way to exec in this process's memory, while this process runs on: [`vfork_into`], but for its waiting.
///
/// What the child uses is its alone until it is gone from this memory: it goes along, and comes back ([`Flight::landed`]).
#[derive(Debug)]
pub(crate) struct Flight<C: Send + 'static> {
    pidfd: Option<OwnedFd>,
    aboard: ManuallyDrop<Box<Aboard<C>>>,
    stack: Option<Stack>,
}

#[derive(Debug)]
struct Aboard<C> {
    context: C,
    body: fn(&C) -> !,
    /// Not 0 until the child has exec'd or ended: the kernel clears it then, and wakes who waits (CLONE_CHILD_CLEARTID).
    here: AtomicU32,
}

extern "C" fn enter_aboard<C>(aboard: *const c_void) -> ! {
    // SAFETY: `Flight::begin` passes a pointer to a boxed `Aboard` with this very `C`, which the `Flight` neither reaches nor
    // lets go of, but for `here`, until the kernel has said by that word that this process is gone from this memory.
    let aboard = unsafe { &*aboard.cast::<Aboard<C>>() };
    (aboard.body)(&aboard.context)
}

/// So long between two looks whether the child has ended without a word: no kernel is known where it would.
const LOOK: Duration = Duration::from_secs(1);

impl<C: Send + 'static> Flight<C> {
    /// Makes a child that runs `body(context)`, as [`vfork_into`] does. `body` must not allocate, lock, unwind or touch
    /// thread-local storage: all of these are this process's too, which goes on.
    ///
    /// # Errors
    /// What clone3(2) says.
    pub(crate) fn begin(request: &Request<'_>, context: C, body: fn(&C) -> !) -> Result<Self, Errno> {
        let stack = Stack::spare()?;
        let aboard = Box::new(Aboard { context, body, here: AtomicU32::new(1) });
        let mut pidfd: RawFd = -1;
        let arguments = CloneArgs {
            flags: request.flags() | libc::CLONE_CHILD_CLEARTID as u64,
            child_tid: aboard.here.as_ptr() as u64,
            ..request.arguments(&mut pidfd, &stack)
        };
        // SAFETY: the arguments point at a full `clone_args`; the kernel stores the pidfd and the pid before the call returns,
        // while `pidfd` is in this frame and the cell is borrowed. The stack and `aboard` are kept in the `Flight` until the
        // child is gone from this memory, and what `body` may do does not meet what this process does meanwhile.
        let result = unsafe { clone3_masked(&arguments, enter_aboard::<C>, ptr::from_ref(&*aboard).cast()) };
        if let Err(errno) = result {
            SPARE.set(Some(stack));
            return Err(errno);
        }
        // SAFETY: clone3 succeeded with CLONE_PIDFD, so it stored a descriptor that is new and that nobody else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self { pidfd: Some(pidfd), aboard: ManuallyDrop::new(aboard), stack: Some(stack) })
    }

    /// Waits until the child has exec'd or ended. Answers a pidfd of it, and what went along.
    pub(crate) fn landed(mut self) -> (OwnedFd, C) {
        self.wait();
        let mut this = ManuallyDrop::new(self);
        SPARE.set(this.stack.take());
        let pidfd = this.pidfd.take().expect("it is there until this");
        // SAFETY: `this` is never dropped, and nothing reaches the field after it; the child, who had a reference, is gone.
        let aboard = unsafe { ManuallyDrop::take(&mut this.aboard) };
        (pidfd, aboard.context)
    }

    fn wait(&mut self) {
        while self.aboard.here.load(Ordering::Acquire) != 0 {
            // Woken, or cleared by now, or interrupted, or it is time to look: it looks again in any case.
            let _woken = raw::futex_wait_for_kernel(&self.aboard.here, 1, LOOK);
            if self.aboard.here.load(Ordering::Acquire) != 0 && self.has_ended() {
                return;
            }
        }
    }

    /// A pidfd is readable from the end of its process on (pidfd_open(2)).
    fn has_ended(&self) -> bool {
        let mut polled = self.pidfd.iter().map(|pidfd| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
        polled.next().is_some_and(|polled| {
            let mut fds = [polled];
            poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        })
    }
}

impl<C: Send + 'static> Drop for Flight<C> {
    fn drop(&mut self) {
        self.wait();
        SPARE.set(self.stack.take());
        // SAFETY: this is the owner's drop, which runs once (`landed` forgets it), and nothing reads the field after it; the
        // child, who had a reference, is gone.
        unsafe { ManuallyDrop::drop(&mut self.aboard) };
    }
}

thread_local! {
    /// The stack of this thread's last child, for its next: a new one is mapped and faulted in each time.
    static SPARE: Cell<Option<Stack>> = const { Cell::new(None) };
}

/// The call itself: the parent gets the answer, the child calls `entry(argument)` on its new stack.
///
/// # Safety
/// `arguments` must be valid for clone3(2), with a stack of its own that is large enough, and `entry` must not return.
unsafe fn clone3(
    arguments: &CloneArgs,
    entry: extern "C" fn(*const c_void) -> !,
    argument: *const c_void,
) -> isize {
    let result: isize;
    // SAFETY: the syscall convention of x86_64 as in `raw`. In the child rax is 0 and rsp the top of the new stack:
    // it jumps away for ever, so none of the parent's frame is used after; r12 and r13 survive the call. The parent
    // falls through with rax != 0 and every other register as it was.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") ptr::from_ref(arguments),
            in("rsi") size_of::<CloneArgs>(),
            in("r12") entry,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// A process that does nothing but hold namespaces for this one to open, until it is dropped.
///
/// It shares this process's memory, like a child on its way to exec, but this process runs on: it has to write the id
/// maps meanwhile. So it gets nothing of this process's but a number; nor does it keep copies of its descriptors.
#[derive(Debug)]
pub(crate) struct Holder {
    pid: nix::unistd::Pid,
    pidfd: OwnedFd,
    life: Life,
    /// `None` once it may not be unmapped, because the process could still be on it.
    stack: Option<Stack>,
}

/// How far a [`Holder`] is.
#[derive(Debug, PartialEq, Eq)]
enum Life {
    /// It was not ended.
    On,
    /// It is gone: its pid may be another's.
    Over,
    /// It could not be ended, or waited for.
    Unknown,
}

/// What a [`Holder`] runs. `parent` is a pid, dressed as a pointer.
extern "C" fn hold_namespaces(parent: *const c_void) -> ! {
    // It ends with its parent; a parent that ended before this call is no parent any more.
    let ends_with_parent = raw::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize, 0);
    if ends_with_parent.is_err() || raw::getppid() != Ok(parent.addr()) {
        raw::exit_group(1);
    }
    loop {
        // All signals are blocked but SIGKILL, so only a tracer could wake it; it sleeps again.
        if raw::pause().is_ok() {
            raw::exit_group(1);
        }
    }
}

/// What makes a network namespace for who reads the other end of `socket`, a number dressed as a pointer.
extern "C" fn make_network(socket: *const c_void) -> ! {
    let made = RawFd::try_from(socket.addr()).map_err(|_| Errno::EBADF).and_then(|socket| {
        raw::unshare(libc::CLONE_NEWNET)?;
        let made = raw::open(libc::AT_FDCWD, c"/proc/thread-self/ns/net", libc::O_RDONLY, 0)?;
        raw::send_descriptors(socket, &[made])?;
        raw::loopback_up()?;
        raw::send_word(socket)
    });
    // Who reads makes one of its own where none comes, or brings loopback up itself, and tells what the kernel has against it.
    raw::exit_group(i32::from(made.is_err()))
}

/// Makes a process in these new namespaces (CLONE_NEW*).
///
/// # Errors
/// What clone3(2) says.
pub(crate) fn hold(namespaces: u64) -> Result<Holder, Errno> {
    let me = ptr::without_provenance(usize::try_from(nix::unistd::getpid().as_raw()).unwrap_or(0));
    meanwhile(namespaces | libc::CLONE_FILES as u64, Body { entry: hold_namespaces, argument: me })
}

/// Makes a process that makes a network namespace, sends it as a descriptor over `socket`, brings its loopback up, sends a word
/// of that and ends. It has copies of this process's descriptors: only so is the socket's other end at its end if that process
/// is killed.
///
/// # Errors
/// What clone3(2) says.
pub(crate) fn network_maker(socket: RawFd) -> Result<Holder, Errno> {
    let socket = ptr::without_provenance(usize::try_from(socket).map_err(|_| Errno::EBADF)?);
    meanwhile(0, Body { entry: make_network, argument: socket })
}

/// What a process does while this one runs on: a function of this file that reaches nothing of this process's through its
/// argument, a number, and makes system calls that touch nothing but its own stack and literals; or [`work_beside`].
struct Body {
    entry: extern "C" fn(*const c_void) -> !,
    argument: *const c_void,
}

fn meanwhile(flags: u64, body: Body) -> Result<Holder, Errno> {
    let stack = Stack::spare()?;
    let (mut pidfd, pid): (RawFd, AtomicU32) = (-1, AtomicU32::new(0));
    let arguments = CloneArgs {
        flags: libc::CLONE_VM as u64
            | libc::CLONE_PIDFD as u64
            | libc::CLONE_PARENT_SETTID as u64
            | CLONE_CLEAR_SIGHAND
            | flags,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        parent_tid: pid.as_ptr() as u64,
        // No signal: whoever waits for children of its own does not hear of this one.
        exit_signal: 0,
        stack: stack.base as u64,
        stack_size: STACK_SIZE as u64,
        ..CloneArgs::default()
    };
    // SAFETY: the arguments point at a full `clone_args`; the kernel stores the pidfd and the pid before the call
    // returns, while both are in this frame. The stack is nobody else's, kept in the `Holder` until the process is
    // gone. The entry is one that a `Body` may have: it reaches nothing through its argument but what was made for two,
    // and writes to nothing else but that stack; it has all signals blocked, so this process's memory is otherwise only
    // read, as code and literals.
    unsafe { clone3_masked(&arguments, body.entry, body.argument) }?;
    let pid = nix::unistd::Pid::from_raw(pid.into_inner().cast_signed());
    // SAFETY: clone3 succeeded with CLONE_PIDFD, so it stored a descriptor that is new and that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Holder { pid, pidfd, life: Life::On, stack: Some(stack) })
}

impl Holder {
    /// Its pid, which is its own until it is dropped, since nobody else can reap it.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        self.pid
    }
}

impl Holder {
    /// Ends it, if it was not ended before.
    fn end(&mut self) -> &Life {
        if self.life != Life::On {
            return &self.life;
        }
        let ended = nix::sys::signal::kill(self.pid, nix::sys::signal::Signal::SIGKILL)
            .and_then(|()| waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::__WALL));
        if let Err(errno) = ended {
            // Better a stack that stays than one that is taken from under a process.
            std::mem::forget(self.stack.take());
            tracing::warn!(?errno, pid = self.pid.as_raw(), "ending a process that shares this one's memory");
        }
        SPARE.set(self.stack.take());
        self.life = if ended.is_ok() { Life::Over } else { Life::Unknown };
        &self.life
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

/// A process that runs a function beside this one, in this one's memory and with copies of its descriptors, until this is dropped.
#[derive(Debug)]
pub(crate) struct Beside<C: Sync> {
    process: Holder,
    work: ManuallyDrop<Box<Work<C>>>,
}

/// What it is given.
#[derive(Debug)]
struct Work<C> {
    parent: usize,
    body: fn(&C),
    context: C,
}

extern "C" fn work_beside<C: Sync>(work: *const c_void) -> ! {
    // SAFETY: `Beside::new` passes a pointer to a boxed `Work` with this very `C`, which `Beside` keeps until this process has
    // ended. Nobody has a `&mut` to it meanwhile, and what both reach through `&C` may be reached so (`C: Sync`).
    let work = unsafe { &*work.cast::<Work<C>>() };
    // It ends with its parent; a parent that ended before this call is no parent any more.
    let ends_with_parent = raw::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as usize, 0);
    if ends_with_parent.is_ok() && raw::getppid() == Ok(work.parent) {
        (work.body)(&work.context);
    }
    raw::exit_group(0)
}

impl<C: Sync> Beside<C> {
    /// Makes a process that runs `body(context)`, on a stack of its own and with all signals blocked, and ends. `body` must not
    /// allocate, lock, unwind or touch thread-local storage: all of these are this process's too.
    ///
    /// # Errors
    /// What clone3(2) says.
    pub(crate) fn new(context: C, body: fn(&C)) -> Result<Self, Errno> {
        let parent = usize::try_from(nix::unistd::getpid().as_raw()).unwrap_or(0);
        let work = Box::new(Work { parent, body, context });
        let argument = ptr::from_ref::<Work<C>>(&work).cast();
        let process = meanwhile(0, Body { entry: work_beside::<C>, argument })?;
        Ok(Self { process, work: ManuallyDrop::new(work) })
    }

    #[cfg(test)]
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        self.process.pid
    }

    /// What both see.
    pub(crate) fn context(&self) -> &C {
        &self.work.context
    }
}

impl<C: Sync> Drop for Beside<C> {
    fn drop(&mut self) {
        if *self.process.end() == Life::Over {
            // SAFETY: this is the owner's drop, which runs once, and nothing reads the field after it; the process that had a
            // reference is gone. Where it may not be, the memory stays.
            unsafe { ManuallyDrop::drop(&mut self.work) };
        }
    }
}

/// A private mapping with a guard page below it.
#[derive(Debug)]
struct Stack {
    mapping: *mut c_void,
    base: *mut c_void,
}

const GUARD: usize = 4096;

impl Stack {
    /// The one of this thread's last child, or a new one.
    fn spare() -> Result<Self, Errno> {
        SPARE.take().map_or_else(Self::map, Ok)
    }

    fn map() -> Result<Self, Errno> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that exists.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                STACK_SIZE + GUARD,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // SAFETY: GUARD is within the mapping of STACK_SIZE + GUARD bytes just made.
        let base = unsafe { mapping.byte_add(GUARD) };
        let stack = Self { mapping, base };
        // SAFETY: the range is the mapping above the guard, and nobody else knows of it.
        if unsafe { libc::mprotect(base, STACK_SIZE, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(Errno::last());
        }
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: this is the very mapping that `map` made, and the child that used it has exec'd or ended: nobody lets go of
        // a stack before.
        if unsafe { libc::munmap(self.mapping, STACK_SIZE + GUARD) } != 0 {
            tracing::warn!(errno = ?Errno::last(), "munmap of a child's stack");
        }
    }
}
