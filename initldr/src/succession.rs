//! Another initldr in the place of this one: the same process, the same children, everything that is held.
//!
//! ```text
//! Execute(path) -> messages into a memfd -> what is held stays open -> execve -> the messages are read -> answer 0
//!                                                                        |
//!                                                                        '-> it fails: as before, answer errno
//! ```
//!
//! The messages are those that a motherd gets that asks for everything, and [`ToManager::Left`] with their checksum.
//!
//! Invariants: until the moment of execve(2) nothing is lost, so a failure changes nothing. Where what was left is not
//! whole, motherd is launched anew, and what of the descriptors and exits could be read is there for it.

use crate::init::Init;
use core::{mem::forget, time::Duration};
use initldr::link::{MESSAGE_SIZE, RESUME_FD, SlotName, ToManager};
use initldr::sys::{self, Errno, Fd, Result};
use initldr::{abi::*, store};

/// So many numbers from RESUME_FD on: initldr has no greater one, for they are given out from the lowest.
const NUMBERS: usize = store::CAPACITY + 64;

impl Init {
    /// Executes another initldr; where that cannot be, motherd is told why, and this one goes on.
    pub(crate) fn give_way(&mut self, path: SlotName) {
        let cursor = self.outbox.cursor();
        // Else whoever asked is gone, or everything is coming to its end.
        let able = self.held.link.is_some() && self.phase.stop_signal().is_none();
        let errno = if able { self.execute(path, cursor.0) } else { Err(Errno(EBUSY)) };
        let errno = errno.unwrap_or_else(|errno| errno);
        self.log.say(format_args!("execute {}: {errno}", path.as_str()));
        self.log.tried("close_range", sys::close_from(RESUME_FD, CLOSE_RANGE_CLOEXEC));
        self.outbox.go_on(cursor);
        self.outbox.answer(path, |_| Some(errno.0));
    }

    fn execute(&mut self, path: SlotName, told: u64) -> Result<Errno> {
        let memory = sys::memfd(c"initldr-resume", 0)?;
        let put = |sum, message: ToManager| match sys::write(memory.raw(), &message.encode())? {
            MESSAGE_SIZE => Ok(add(sum, &message)),
            _ => Err(Errno(ENOSPC)),
        };
        let mut sum = put(0, ToManager::StoreAnswer { name: path, errno: 0 })?;
        self.outbox.hello();
        while let Some((message, _)) = self.next() {
            sum = put(sum, message)?;
            self.outbox.sent(&message);
        }
        let fds = [&self.held.link, &self.held.state].map(|fd| fd.as_ref().map_or(-1, Fd::raw));
        let [link, state] = fds.map(|fd| fd.cast_unsigned().into());
        let [motherd, rescue] = [self.held.motherd, self.held.rescue].map(|pid| pid.map_or(0, u64::from));
        let since = u64::try_from(self.phase.since.as_nanos()).unwrap_or_default();
        let deaths = u64::from(self.phase.early_deaths) << 32 | u64::from(self.phase.faults);
        put(sum, ToManager::Left([motherd, rescue, link, state, told, since, deaths, sum]))?;
        sys::duplicate_onto(&memory, RESUME_FD)?;
        // All of them: what is not told of is closed there.
        (RESUME_FD..).take(NUMBERS).for_each(|fd| sys::set_descriptor_flags(fd, 0).unwrap_or_default());
        Ok(self.program.begin_anew(path.as_c_str().ok_or(Errno(EINVAL))?, true))
    }

    /// Goes on where the initldr before was.
    pub(crate) fn resume(&mut self) {
        let Some(memory) = sys::adopt(RESUME_FD) else { return };
        let (mut bytes, mut at, mut sum, mut launch) = ([0; MESSAGE_SIZE], 0, 0, self.phase.launch());
        while sys::read_at(&memory, &mut bytes, at) == Ok(MESSAGE_SIZE) {
            at += MESSAGE_SIZE;
            let Ok(message) = ToManager::decode(&bytes) else { continue };
            match message {
                ToManager::Welcome(welcome) => {
                    launch = (welcome.generation, welcome.cause);
                    self.held.down_since = welcome.down_since_boottime_ns;
                    self.outbox.ring.lost = welcome.lost_exits;
                }
                ToManager::Stored(name, fd) => {
                    self.outbox.store.put(name, sys::adopt(fd));
                    self.held.watchdog.look(name, &self.outbox.store);
                }
                ToManager::Exit(exit) => {
                    if exit.sequence != self.outbox.ring.last + 1 {
                        self.outbox.ring.count_from(exit.sequence.saturating_sub(1));
                    }
                    self.outbox.ring.push(exit);
                }
                ToManager::Signal(signal) => self.outbox.signal(signal),
                ToManager::StoreAnswer { name, errno } => self.outbox.answer(name, |_| Some(errno)),
                ToManager::ReplayEnd => {}
                ToManager::Left([pids @ .., told, since, deaths, expected]) if sum == expected => {
                    let [motherd, rescue, link, state] = pids.map(low);
                    let pid = |pid| Some(pid).filter(|&pid| pid != 0);
                    (self.held.motherd, self.held.rescue) = (pid(motherd), pid(rescue));
                    let fd = |fd: u32| sys::adopt(fd.cast_signed());
                    (self.held.link, self.held.state) = (fd(link), fd(state));
                    let (since, early, faults) =
                        (Duration::from_nanos(since), low(deaths >> 32), low(deaths));
                    self.phase = self.phase.resume(launch, since, early, faults);
                    if self.outbox.ring.last == 0 {
                        self.outbox.ring.count_from(told);
                    }
                    self.outbox.go_on((told, self.outbox.cursor().1));
                }
                ToManager::Left(_) => {}
            }
            sum = add(sum, &message);
        }
        // Nobody knows what these are. If one is the link, the motherd at its other end ends itself.
        let unknown = |number: &i32| sys::descriptor_flags(*number) == Ok(0);
        let closed = (RESUME_FD..).take(NUMBERS).filter(unknown).map(sys::let_go).count();
        forget(memory); // its number stays taken
        let what = if self.held.link.is_some() { "everything" } else { "not everything" };
        self.log.say(format_args!(
            "in the place of another initldr: {what} is there, {closed} descriptors are not"
        ));
    }
}

fn low(word: u64) -> u32 {
    u32::try_from(word & 0xffff_ffff).unwrap_or_default()
}

/// FNV-1a.
fn add(sum: u64, message: &ToManager) -> u64 {
    message.encode().iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
