//! The link to initldr, and what it says first.
//!
//! initldr reads nothing while an answer of its waits to be sent, so whoever only sends and does not read would come to
//! wait for it, and it for us. So while there is no room to send, what there is to receive is received, and kept.
//!
//! Invariant: a message is acted upon only if it is exactly one of `initldr::link`; another is said and passed over.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use initldr::{
    link::{
        DecodeError, End, ExitRecord, MESSAGE_SIZE, Relaunch, SlotName, ToInit, ToManager, VERSION, Welcome,
    },
    store::CAPACITY,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use sandbox::descriptors::far_up;

use super::now;
use crate::{failpoint, service::signal_name, sys};

/// How long nothing new is asked to be kept after initldr could not keep something.
const FULL: Duration = Duration::from_secs(10);

/// initldr's other end is gone, or the socket fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// It has ended.
    #[error("initldr has closed the link")]
    Closed,
    /// Something else.
    #[error("link to initldr: {0}")]
    Failed(#[from] Errno),
}

/// This side of the link.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    /// Received, and to be dealt with later.
    kept: RefCell<VecDeque<(ToManager, Option<OwnedFd>)>>,
    /// The names of the slots in use, as far as is known: their hashes, since two more texts for each service are much.
    slots: RefCell<BTreeSet<u64>>,
    /// Why something was not kept, and when that was.
    full: Cell<Option<(Errno, Duration)>>,
}

/// Everything that initldr says before it is up to date.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// This is the nth motherd.
    pub(crate) generation: u32,
    /// initldr is PID 1.
    pub(crate) pid1: bool,
    /// What became of the one before, for people; `None` for the first.
    pub(crate) cause: Option<String>,
    /// Start nothing, and trust no record: the ones before died early, again and again.
    pub(crate) safe: bool,
    /// How many exits initldr could not keep, ever.
    pub(crate) lost_exits: u64,
    /// Since when there was none.
    pub(crate) down_since: Option<Duration>,
    /// The descriptors that it kept.
    pub(crate) stored: BTreeMap<String, OwnedFd>,
    /// The exits that nobody acknowledged.
    pub(crate) exits: Vec<ExitRecord>,
}

impl Link {
    /// Over a connected socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, kept: RefCell::default(), slots: RefCell::default(), full: Cell::new(None) }
    }

    /// For epoll.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Says hello, and waits for everything that happened before.
    pub(crate) fn hello(&self) -> Result<Replay, LinkError> {
        self.send(&ToInit::Hello, None)?;
        let mut replay = Replay::default();
        loop {
            failpoint::hit("replay.message");
            match self.receive(true)? {
                Some((ToManager::ReplayEnd, _)) => break,
                Some((message, fd)) => replay.take(message, fd),
                None => {}
            }
        }
        self.slots.borrow_mut().extend(replay.stored.keys().map(|name| slot(name)));
        Ok(replay)
    }

    /// Has everything said once more that was reaped until now and not yet told: those exits. What else comes with it is
    /// kept for [`Link::receive`].
    pub(crate) fn catch_up(&mut self) -> Result<Vec<ExitRecord>, LinkError> {
        self.send(&ToInit::List, None)?;
        let mut exits = Vec::new();
        let mut others = Vec::new();
        loop {
            match self.receive(true)? {
                Some((ToManager::ReplayEnd, _)) => break,
                Some((ToManager::Exit(exit), _)) => exits.push(exit),
                Some((ToManager::Signal(signal), _)) => others.push((ToManager::Signal(signal), None)),
                Some(_) | None => {}
            }
        }
        self.kept.get_mut().extend(others);
        Ok(exits)
    }

    /// Every slot of initldr's with its number there. What else comes meanwhile is kept for [`Link::receive`].
    pub(crate) fn stored(&self) -> Result<Vec<(String, i32, Option<OwnedFd>)>, LinkError> {
        self.send(&ToInit::List, None)?;
        let mut stored = Vec::new();
        loop {
            match self.take(true)? {
                Some((ToManager::ReplayEnd, _)) => return Ok(stored),
                Some((ToManager::Stored(name, number), fd)) => {
                    stored.push((name.as_str().to_owned(), number, fd));
                }
                other => self.kept.borrow_mut().extend(other),
            }
        }
    }

    /// The next message; `None` where there is none now, or where it was none of ours.
    pub(crate) fn receive(&self, wait: bool) -> Result<Option<(ToManager, Option<OwnedFd>)>, LinkError> {
        match self.kept.borrow_mut().pop_front() {
            Some(message) => Ok(Some(message)),
            None => self.take(wait),
        }
    }

    /// Whether messages were received that nobody has asked for yet.
    pub(crate) fn has_kept(&self) -> bool {
        !self.kept.borrow().is_empty()
    }

    fn take(&self, wait: bool) -> Result<Option<(ToManager, Option<OwnedFd>)>, LinkError> {
        let mut bytes = [0; MESSAGE_SIZE];
        match sys::link::receive(self.fd(), &mut bytes, wait) {
            Ok((0, _)) => Err(LinkError::Closed),
            Ok((size, fd)) => match ToManager::decode(&bytes[..size]) {
                Ok(message) => Ok(Some((message, fd))),
                Err(error) => {
                    tracing::error!("a message of initldr's is not understood: {}", in_words(error));
                    Ok(None)
                }
            },
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(Errno::ECONNRESET) => Err(LinkError::Closed),
            Err(errno) => Err(errno.into()),
        }
    }

    fn send(&self, message: &ToInit, fd: Option<BorrowedFd<'_>>) -> Result<(), LinkError> {
        loop {
            match sys::link::send(self.fd(), &message.encode(), fd) {
                Ok(()) => return Ok(()),
                Err(Errno::EAGAIN) => self.make_room()?,
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(LinkError::Closed),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits until something can be sent, or received, which is then kept.
    fn make_room(&self) -> Result<(), LinkError> {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let message = self.take(false)?;
        self.kept.borrow_mut().extend(message);
        Ok(())
    }

    /// Exits up to and including this one need not be told again.
    pub(crate) fn acknowledge(&self, sequence: u64) -> Result<(), LinkError> {
        self.send(&ToInit::Acknowledge(sequence), None)
    }

    /// Has a descriptor kept. Only a refusal is answered, by a StoreAnswer: see [`Link::refused`].
    pub(crate) fn store(&self, name: &str, fd: BorrowedFd<'_>) -> Result<(), LinkError> {
        self.slots.borrow_mut().insert(slot(name));
        match SlotName::new(name) {
            Some(name) => self.send(&ToInit::Store(name), Some(fd)),
            None => Err(LinkError::Failed(Errno::ENAMETOOLONG)),
        }
    }

    /// Has a descriptor no longer kept.
    pub(crate) fn forget(&self, name: &str) -> Result<(), LinkError> {
        self.slots.borrow_mut().remove(&slot(name));
        self.full.set(None);
        match SlotName::new(name) {
            Some(name) => self.send(&ToInit::Drop(name), None),
            None => Err(LinkError::Failed(Errno::ENAMETOOLONG)),
        }
    }

    /// initldr did not keep what this slot was to have. `true` where that is for want of room.
    pub(crate) fn refused(&self, name: &str, errno: Errno) -> bool {
        self.slots.borrow_mut().remove(&slot(name));
        // EBADF: it has no number left for the descriptor, but those that a launch of motherd takes.
        let is_full = matches!(errno, Errno::ENOSPC | Errno::EBADF);
        if is_full {
            self.full.set(Some((errno, now())));
        }
        is_full
    }

    /// Whether initldr has room for what of these is not there yet; if not, why.
    pub(crate) fn has_room_for<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let slots = self.slots.borrow();
        let new = names.filter(|name| !slots.contains(&slot(name))).count();
        if new == 0 {
            return Ok(());
        }
        match self.full.get().filter(|(_, since)| now().saturating_sub(*since) < FULL) {
            _ if slots.len() + new > CAPACITY => {
                Err(format!("initldr keeps {CAPACITY} descriptors at most, and has {}", slots.len()))
            }
            Some((Errno::EBADF, _)) => {
                Err("initldr has no file descriptor left (its limit on open files, RLIMIT_NOFILE)".to_owned())
            }
            Some((errno, _)) => Err(format!("initldr cannot keep more descriptors: {errno}")),
            None => Ok(()),
        }
    }

    /// The answer to a signal: this motherd is not stuck.
    pub(crate) fn alive(&self) -> Result<(), LinkError> {
        self.send(&ToInit::Alive, None)
    }

    /// What a signal asked for is not the end.
    pub(crate) fn carry_on(&self) -> Result<(), LinkError> {
        self.send(&ToInit::CarryOn, None)
    }

    /// This motherd ends on purpose, for another to take over.
    pub(crate) fn retire(&self) -> Result<(), LinkError> {
        self.send(&ToInit::Retire, None)
    }

    /// Has another initldr executed; its answer is a StoreAnswer of this name.
    pub(crate) fn execute(&self, path: SlotName) -> Result<(), LinkError> {
        self.send(&ToInit::Execute(path), None)
    }

    /// The last word.
    pub(crate) fn end(&self, how: End) -> Result<(), LinkError> {
        self.send(&ToInit::End(how), None)
    }
}

/// What a slot is known by here.
fn slot(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Why a message is none.
fn in_words(error: DecodeError) -> String {
    match error {
        DecodeError::Size(size) => format!("it has {size} bytes, not {MESSAGE_SIZE}"),
        DecodeError::Header(_, version) if version != VERSION => {
            format!("it is of link version {version}, not {VERSION}: initldr is of another release")
        }
        DecodeError::Header(magic, _) => format!("it begins with {magic:#010x}"),
        DecodeError::Malformed(kind) => format!("it is of kind {kind:#x}, and none of that kind"),
    }
}

impl Replay {
    fn take(&mut self, message: ToManager, fd: Option<OwnedFd>) {
        match message {
            ToManager::Welcome(Welcome {
                generation,
                pid1,
                cause,
                lost_exits,
                down_since_boottime_ns,
                safe,
            }) => {
                (self.generation, self.safe, self.lost_exits) = (generation, safe, lost_exits);
                self.pid1 = pid1;
                self.cause = match cause {
                    Relaunch::First => None,
                    Relaunch::Exited(status) => Some(format!("exited with status {status}")),
                    Relaunch::Signaled(signal) => Some(format!("ended by {}", signal_name(signal))),
                    Relaunch::Hung => Some("said nothing for too long".to_owned()),
                };
                self.down_since =
                    (down_since_boottime_ns > 0).then(|| Duration::from_nanos(down_since_boottime_ns));
                if lost_exits > 0 {
                    tracing::warn!("initldr could not keep {lost_exits} exits: some services may be `lost`");
                }
            }
            ToManager::Stored(name, _) => match fd {
                Some(fd) => {
                    self.stored.insert(name.as_str().to_owned(), far_up(fd));
                }
                None => {
                    tracing::error!("initldr says that it keeps {}, and sent no descriptor", name.as_str())
                }
            },
            ToManager::Exit(exit) => self.exits.push(exit),
            ToManager::ReplayEnd
            | ToManager::StoreAnswer { .. }
            | ToManager::Signal(_)
            | ToManager::Left(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    /// The other side reads nothing as long as its last answer was not taken, as initldr does.
    #[test]
    fn two_thousand_requests_in_a_row_do_not_wait_for_their_own_answers() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let initldr = std::thread::spawn(move || {
            let name = SlotName::new("x").unwrap();
            let answer = ToManager::StoreAnswer { name, errno: 0 }.encode();
            for _ in 0..2000 {
                let mut bytes = [0; MESSAGE_SIZE];
                sys::link::receive(theirs.as_fd(), &mut bytes, true).unwrap();
                while sys::link::send(theirs.as_fd(), &answer, None) == Err(Errno::EAGAIN) {
                    poll(&mut [PollFd::new(theirs.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE).unwrap();
                }
            }
        });
        let link = Link::new(ours);
        (0..2000).for_each(|_| link.forget("x").unwrap());
        assert!(link.has_kept(), "control: the answers did not fit into the socket");
        let answers = (0..2000).filter(|_| link.receive(true).unwrap().is_some()).count();
        assert_eq!(answers, 2000, "and none is lost");
        initldr.join().unwrap();
    }

    #[test]
    fn a_full_store_has_no_room_until_something_is_let_go() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let initldr = std::thread::spawn(move || {
            let mut bytes = [0; MESSAGE_SIZE];
            while !matches!(sys::link::receive(theirs.as_fd(), &mut bytes, true), Ok((0, _)) | Err(_)) {}
        });
        let link = Link::new(ours);
        let room = |names: &[&str]| link.has_room_for(names.iter().copied());
        let null = std::fs::File::open("/dev/null").unwrap();
        for number in 0..CAPACITY - 1 {
            link.store(&format!("log/{number}"), null.as_fd()).unwrap();
        }
        assert_eq!(room(&["one"]), Ok(()), "control: one slot is free");
        let full = "initldr keeps 4096 descriptors at most, and has 4095".to_owned();
        assert_eq!(room(&["one", "another"]), Err(full));
        assert_eq!(room(&["log/0", "log/1"]), Ok(()), "what is there takes no room");
        assert!(!link.refused("log/0", Errno::EDQUOT), "a quota is not the end of all room");
        assert_eq!(room(&["one", "another"]), Ok(()), "and what was refused takes none");
        assert!(link.refused("log/1", Errno::EBADF));
        assert!(room(&["one"]).unwrap_err().contains("RLIMIT_NOFILE"));
        link.forget("log/2").unwrap();
        assert_eq!(room(&["one"]), Ok(()));
        drop(link);
        initldr.join().unwrap();
    }
}
