//! The link between initldr and motherd: what they say to each other, as bytes.
//!
//! A `SOCK_SEQPACKET` socketpair carries it, so a message arrives whole or not at all. Every message is exactly
//! [`MESSAGE_SIZE`] bytes: magic `u32`, version `u16`, kind `u16`, the fields of that kind in the order in which
//! they are declared here, zeroes to the end; all little endian. A file descriptor travels beside [`ToManager::Stored`]
//! and [`ToInit::Store`] by `SCM_RIGHTS`.
//!
//! ```text
//! motherd                          initldr
//!    | Hello ------------------------> |
//!    | <---------------------- Welcome |   why it was started, what it will be sent
//!    | <--------------- Stored + fd  n |   every slot of the store
//!    | <----------------------- Exit n |   every exit that nobody acknowledged
//!    | <-------------------- ReplayEnd |
//!    | <----------------- Exit, Signal |   live from here on
//!    | Acknowledge, Store, Drop, Alive > |
//!    | End --------------------------> |   the last word
//! ```
//!
//! Invariant: there is one encoding for each message, and `decode` accepts that one alone (unknown enum values, bytes
//! after the last field and odd names are refused), so a message that was read can be trusted to be one of ours
//! in shape. It is never trusted in content.

use core::fmt;

/// The version of this encoding. The two programs are installed together; a motherd of another version is told so
/// by [`DecodeError::Version`] rather than guessed at.
pub const VERSION: u16 = 1;
/// Every message has this size: the largest (an exit record) needs 64 bytes, a slot name 64; the rest is room to grow.
pub const MESSAGE_SIZE: usize = 256;
/// The link in the motherd that initldr starts; `INITLDR_LINK` names it too.
pub const LINK_FD: i32 = 3;
/// The state memfd in the motherd that initldr starts; `INITLDR_STATE` names it too.
pub const STATE_FD: i32 = 4;
/// The state memfd is this large from the start: 4 MiB. Its contents are opaque to initldr and survive motherd.
pub const STATE_SIZE: usize = 4 << 20;
/// Once motherd has said [`ToInit::Alive`], silence for longer than this is taken for a hang: SIGABRT, SIGKILL, relaunch.
pub const ALIVE_WITHIN_SECONDS: u64 = 30;
/// The longest slot name, in bytes.
pub const SLOT_NAME_SIZE: usize = 64;

/// "MotD", little endian.
const MAGIC: u32 = u32::from_le_bytes(*b"MotD");

/// The name of a slot of the fd store: 1 to 64 bytes of UTF-8 without NUL, by construction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotName([u8; SLOT_NAME_SIZE]);

impl SlotName {
    /// `None` where `name` is empty, longer than 64 bytes, or contains a NUL.
    #[must_use]
    pub fn new(name: &str) -> Option<SlotName> {
        let mut bytes = [0; SLOT_NAME_SIZE];
        if name.is_empty() || name.as_bytes().contains(&0) {
            return None;
        }
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(SlotName(bytes))
    }

    /// The name without its padding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.0.split(|&byte| byte == 0).next().unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default() // never the default: both constructors check
    }

    /// The name out of a message: what `new` would have made, or nothing.
    fn from_padded(bytes: [u8; SLOT_NAME_SIZE]) -> Option<SlotName> {
        let text = bytes.split(|&byte| byte == 0).next()?;
        let name = SlotName::new(core::str::from_utf8(text).ok()?)?;
        (name.0 == bytes).then_some(name)
    }
}

impl fmt::Debug for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One process that initldr reaped, with what `waitid(2)` said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitRecord {
    /// Counts from 1 over the whole life of initldr; where one is missing, the full ring lost it.
    pub sequence: u64,
    /// The pid it had; the kernel may have given it away again by now.
    pub pid: u32,
    /// `CLD_EXITED`, `CLD_KILLED` or `CLD_DUMPED`.
    pub code: i32,
    /// The exit code, or the signal that ended it.
    pub status: i32,
    /// When it was reaped, `CLOCK_BOOTTIME`.
    pub boottime_ns: u64,
    /// `ru_utime`, of it and the descendants it waited for.
    pub user_time_us: u64,
    /// `ru_stime`, likewise.
    pub system_time_us: u64,
    /// `ru_maxrss`: the largest of them.
    pub max_rss_kib: u64,
}

/// Why this motherd was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relaunch {
    /// It is the first.
    First,
    /// The one before ended with this exit code.
    Exited(i32),
    /// The one before was ended by this signal.
    Signaled(i32),
    /// The one before said nothing for too long, and was ended for it.
    Hung,
}

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `LINUX_REBOOT_CMD_POWER_OFF`.
    PowerOff,
    /// `LINUX_REBOOT_CMD_RESTART`.
    Reboot,
    /// `LINUX_REBOOT_CMD_HALT`.
    Halt,
    /// `LINUX_REBOOT_CMD_KEXEC`: into the kernel that `kexec_load(2)` left; a plain reboot where there is none.
    Kexec,
}

/// What initldr says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToManager {
    /// The answer to [`ToInit::Hello`].
    Welcome {
        /// This is the nth motherd, from 1.
        generation: u32,
        /// Whether initldr is PID 1 (of its pid namespace).
        pid1: bool,
        /// What became of the motherd before.
        cause: Relaunch,
        /// So many [`ToManager::Stored`] follow.
        stored: u16,
        /// So many [`ToManager::Exit`] follow those, or fewer if the ring overflows meanwhile; [`ToManager::ReplayEnd`]
        /// is what ends them.
        unacknowledged: u32,
        /// So many exits fell out of the full ring, ever.
        lost_exits: u64,
        /// Since when there was no motherd, `CLOCK_BOOTTIME`; 0 for the first.
        down_since_boottime_ns: u64,
    },
    /// A slot of the fd store; its descriptor comes with this message.
    Stored {
        /// The name it was stored under.
        name: SlotName,
    },
    /// A process was reaped.
    Exit(ExitRecord),
    /// All stored descriptors and unacknowledged exits were sent.
    ReplayEnd,
    /// What became of a [`ToInit::Store`] or [`ToInit::Drop`].
    StoreAnswer {
        /// The slot.
        name: SlotName,
        /// 0 where it was done; `ENOSPC`: no slot is free; `EBADF`: no descriptor came; `ENOENT`: no such slot.
        errno: i32,
    },
    /// initldr received a signal that is for motherd to act upon.
    Signal {
        /// Its number.
        number: u32,
        /// `ssi_pid`: who sent it; 0 for the kernel or a process outside the pid namespace.
        sender_pid: u32,
        /// `ssi_uid`.
        sender_uid: u32,
    },
}

/// What motherd says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToInit {
    /// The first message: ready to be told everything.
    Hello {
        /// Its own pid.
        pid: u32,
    },
    /// Exits up to and including this one are in motherd's state: they need not be replayed.
    Acknowledge {
        /// [`ExitRecord::sequence`].
        sequence: u64,
    },
    /// Keep the descriptor that comes with this message; a slot of that name is replaced.
    Store {
        /// The slot.
        name: SlotName,
    },
    /// Close and forget a slot.
    Drop {
        /// The slot.
        name: SlotName,
    },
    /// motherd is not stuck. The first one asks initldr to watch for the next: see [`ALIVE_WITHIN_SECONDS`].
    Alive,
    /// Every service has stopped; end the machine.
    End {
        /// In this way.
        how: End,
    },
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Not [`MESSAGE_SIZE`] bytes but so many.
    Size(usize),
    /// Another magic number.
    Magic(u32),
    /// Another [`VERSION`].
    Version(u16),
    /// No message of this direction has this kind.
    Kind(u16),
    /// The named field has a value that its type does not have.
    Field(&'static str),
    /// Something follows the last field.
    Padding,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            DecodeError::Size(size) => write!(f, "a message of {size} bytes, not {MESSAGE_SIZE}"),
            DecodeError::Magic(magic) => write!(f, "magic number {magic:#010x}, not {MAGIC:#010x}"),
            DecodeError::Version(version) => write!(f, "link version {version}, not {VERSION}"),
            DecodeError::Kind(kind) => write!(f, "unknown message kind {kind:#x}"),
            DecodeError::Field(name) => write!(f, "field `{name}` has an impossible value"),
            DecodeError::Padding => f.write_str("bytes after the last field"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// The kinds. Those of motherd start at 0x101, so that an echo is never taken for a message.
mod kind {
    pub(super) const WELCOME: u16 = 0x001;
    pub(super) const STORED: u16 = 0x002;
    pub(super) const EXIT: u16 = 0x003;
    pub(super) const REPLAY_END: u16 = 0x004;
    pub(super) const STORE_ANSWER: u16 = 0x005;
    pub(super) const SIGNAL: u16 = 0x006;
    pub(super) const HELLO: u16 = 0x101;
    pub(super) const ACKNOWLEDGE: u16 = 0x102;
    pub(super) const STORE: u16 = 0x103;
    pub(super) const DROP: u16 = 0x104;
    pub(super) const ALIVE: u16 = 0x105;
    pub(super) const END: u16 = 0x106;
}

impl ToManager {
    /// Writes the one encoding of this message.
    pub fn encode(&self, message: &mut [u8; MESSAGE_SIZE]) {
        match *self {
            ToManager::Welcome {
                generation,
                pid1,
                cause,
                stored,
                unacknowledged,
                lost_exits,
                down_since_boottime_ns,
            } => {
                let (tag, value) = match cause {
                    Relaunch::First => (0, 0),
                    Relaunch::Exited(code) => (1, code),
                    Relaunch::Signaled(signal) => (2, signal),
                    Relaunch::Hung => (3, 0),
                };
                let mut out = Writer::new(message, kind::WELCOME);
                out.u32(generation).u32(pid1.into()).u32(tag).i32(value).u16(stored);
                out.u32(unacknowledged).u64(lost_exits).u64(down_since_boottime_ns);
            }
            ToManager::Stored { name } => Writer::new(message, kind::STORED).name(name),
            ToManager::Exit(exit) => {
                let mut out = Writer::new(message, kind::EXIT);
                out.u64(exit.sequence).u32(exit.pid).i32(exit.code).i32(exit.status).u64(exit.boottime_ns);
                out.u64(exit.user_time_us).u64(exit.system_time_us).u64(exit.max_rss_kib);
            }
            ToManager::ReplayEnd => drop(Writer::new(message, kind::REPLAY_END)),
            ToManager::StoreAnswer { name, errno } => {
                Writer::new(message, kind::STORE_ANSWER).i32(errno).name(name);
            }
            ToManager::Signal { number, sender_pid, sender_uid } => {
                Writer::new(message, kind::SIGNAL).u32(number).u32(sender_pid).u32(sender_uid);
            }
        }
    }

    /// Reads a message that initldr sent.
    ///
    /// # Errors
    /// Whatever is not exactly what `encode` writes.
    pub fn decode(bytes: &[u8]) -> Result<ToManager, DecodeError> {
        let mut from = Reader::new(bytes)?;
        let message = match from.kind {
            kind::WELCOME => ToManager::Welcome {
                generation: from.u32(),
                pid1: match from.u32() {
                    0 => false,
                    1 => true,
                    _ => return Err(DecodeError::Field("pid1")),
                },
                cause: match (from.u32(), from.i32()) {
                    (0, 0) => Relaunch::First,
                    (1, code) => Relaunch::Exited(code),
                    (2, signal) => Relaunch::Signaled(signal),
                    (3, 0) => Relaunch::Hung,
                    _ => return Err(DecodeError::Field("cause")),
                },
                stored: from.u16(),
                unacknowledged: from.u32(),
                lost_exits: from.u64(),
                down_since_boottime_ns: from.u64(),
            },
            kind::STORED => ToManager::Stored { name: from.name()? },
            kind::EXIT => ToManager::Exit(ExitRecord {
                sequence: from.u64(),
                pid: from.u32(),
                code: from.i32(),
                status: from.i32(),
                boottime_ns: from.u64(),
                user_time_us: from.u64(),
                system_time_us: from.u64(),
                max_rss_kib: from.u64(),
            }),
            kind::REPLAY_END => ToManager::ReplayEnd,
            kind::STORE_ANSWER => {
                let errno = from.i32();
                ToManager::StoreAnswer { name: from.name()?, errno }
            }
            kind::SIGNAL => {
                ToManager::Signal { number: from.u32(), sender_pid: from.u32(), sender_uid: from.u32() }
            }
            unknown => return Err(DecodeError::Kind(unknown)),
        };
        from.end().map(|()| message)
    }
}

impl ToInit {
    /// Writes the one encoding of this message.
    pub fn encode(&self, message: &mut [u8; MESSAGE_SIZE]) {
        match *self {
            ToInit::Hello { pid } => drop(Writer::new(message, kind::HELLO).u32(pid)),
            ToInit::Acknowledge { sequence } => drop(Writer::new(message, kind::ACKNOWLEDGE).u64(sequence)),
            ToInit::Store { name } => Writer::new(message, kind::STORE).name(name),
            ToInit::Drop { name } => Writer::new(message, kind::DROP).name(name),
            ToInit::Alive => drop(Writer::new(message, kind::ALIVE)),
            ToInit::End { how } => {
                let how = match how {
                    End::PowerOff => 0,
                    End::Reboot => 1,
                    End::Halt => 2,
                    End::Kexec => 3,
                };
                Writer::new(message, kind::END).u32(how);
            }
        }
    }

    /// Reads a message that motherd sent.
    ///
    /// # Errors
    /// Whatever is not exactly what `encode` writes.
    pub fn decode(bytes: &[u8]) -> Result<ToInit, DecodeError> {
        let mut from = Reader::new(bytes)?;
        let message = match from.kind {
            kind::HELLO => ToInit::Hello { pid: from.u32() },
            kind::ACKNOWLEDGE => ToInit::Acknowledge { sequence: from.u64() },
            kind::STORE => ToInit::Store { name: from.name()? },
            kind::DROP => ToInit::Drop { name: from.name()? },
            kind::ALIVE => ToInit::Alive,
            kind::END => ToInit::End {
                how: match from.u32() {
                    0 => End::PowerOff,
                    1 => End::Reboot,
                    2 => End::Halt,
                    3 => End::Kexec,
                    _ => return Err(DecodeError::Field("how")),
                },
            },
            unknown => return Err(DecodeError::Kind(unknown)),
        };
        from.end().map(|()| message)
    }
}

/// Writes fields one after the other into a message that starts out as zeroes.
struct Writer<'a> {
    message: &'a mut [u8; MESSAGE_SIZE],
    at: usize,
}

impl<'a> Writer<'a> {
    fn new(message: &'a mut [u8; MESSAGE_SIZE], kind: u16) -> Writer<'a> {
        message.fill(0);
        let mut writer = Writer { message, at: 0 };
        writer.u32(MAGIC).u16(VERSION).u16(kind);
        writer
    }

    /// Every message fits by a factor of two (a test encodes each), so nothing is ever cut off here.
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        if let Some(place) = self.message.get_mut(self.at..self.at + bytes.len()) {
            place.copy_from_slice(bytes);
            self.at += bytes.len();
        }
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn name(&mut self, name: SlotName) {
        self.bytes(&name.0);
    }
}

/// Reads fields one after the other out of a message whose size and header were checked.
struct Reader<'a> {
    kind: u16,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Reader<'a>, DecodeError> {
        if bytes.len() != MESSAGE_SIZE {
            return Err(DecodeError::Size(bytes.len()));
        }
        let mut reader = Reader { kind: 0, rest: bytes };
        match reader.u32() {
            MAGIC => {}
            magic => return Err(DecodeError::Magic(magic)),
        }
        match reader.u16() {
            VERSION => {}
            version => return Err(DecodeError::Version(version)),
        }
        reader.kind = reader.u16();
        Ok(reader)
    }

    /// The next `N` bytes. No kind has fields for more than half of a message, so they are always there.
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk::<N>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                *bytes
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    fn name(&mut self) -> Result<SlotName, DecodeError> {
        SlotName::from_padded(self.bytes()).ok_or(DecodeError::Field("name"))
    }

    fn end(self) -> Result<(), DecodeError> {
        if self.rest.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(DecodeError::Padding) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SlotName {
        SlotName::new(text).expect("a valid name")
    }

    fn all_to_manager() -> Vec<ToManager> {
        let mut all = vec![
            ToManager::Stored { name: name("web/socket") },
            ToManager::Exit(ExitRecord {
                sequence: u64::MAX,
                pid: 4711,
                code: 1,
                status: -1,
                boottime_ns: 1 << 60,
                user_time_us: 2,
                system_time_us: 3,
                max_rss_kib: 4,
            }),
            ToManager::ReplayEnd,
            ToManager::StoreAnswer { name: name(&"x".repeat(64)), errno: 28 },
            ToManager::Signal { number: 64, sender_pid: 1, sender_uid: 1000 },
        ];
        for cause in [Relaunch::First, Relaunch::Exited(-3), Relaunch::Signaled(9), Relaunch::Hung] {
            all.push(ToManager::Welcome {
                generation: 7,
                pid1: true,
                cause,
                stored: 1024,
                unacknowledged: 3,
                lost_exits: 9,
                down_since_boottime_ns: 5,
            });
        }
        all
    }

    fn all_to_init() -> Vec<ToInit> {
        let mut all = vec![
            ToInit::Hello { pid: 17 },
            ToInit::Acknowledge { sequence: 1 << 40 },
            ToInit::Store { name: name("notify") },
            ToInit::Drop { name: name("é") },
            ToInit::Alive,
        ];
        all.extend([End::PowerOff, End::Reboot, End::Halt, End::Kexec].map(|how| ToInit::End { how }));
        all
    }

    fn bytes_of(message: ToInit) -> [u8; MESSAGE_SIZE] {
        let mut bytes = [0xff; MESSAGE_SIZE];
        message.encode(&mut bytes);
        bytes
    }

    #[test]
    fn every_message_comes_back_as_it_was_sent() {
        for message in all_to_manager() {
            let mut bytes = [0xff; MESSAGE_SIZE];
            message.encode(&mut bytes);
            assert_eq!(ToManager::decode(&bytes), Ok(message));
        }
        for message in all_to_init() {
            assert_eq!(ToInit::decode(&bytes_of(message)), Ok(message));
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let bytes = bytes_of(ToInit::Hello { pid: 0x0102 });
        assert_eq!(bytes[..12], [b'M', b'o', b't', b'D', 1, 0, 1, 1, 2, 1, 0, 0]);
        assert!(bytes[12..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_message_of_another_size_is_refused() {
        let bytes = bytes_of(ToInit::Alive);
        for size in [0, 1, 8, MESSAGE_SIZE - 1] {
            assert_eq!(ToInit::decode(&bytes[..size]), Err(DecodeError::Size(size)));
        }
        let long = [bytes.as_slice(), &[0]].concat();
        assert_eq!(ToInit::decode(&long), Err(DecodeError::Size(MESSAGE_SIZE + 1)));
    }

    #[test]
    fn a_foreign_header_is_refused() {
        let with = |at: usize, value: u8| {
            let mut bytes = bytes_of(ToInit::Alive);
            bytes[at] = value;
            ToInit::decode(&bytes)
        };
        assert!(matches!(with(0, 0), Err(DecodeError::Magic(_))));
        assert_eq!(with(4, 2), Err(DecodeError::Version(2)));
        assert_eq!(with(6, 0x7f), Err(DecodeError::Kind(0x17f)));
        assert_eq!(with(8, 1), Err(DecodeError::Padding));
        assert_eq!(with(MESSAGE_SIZE - 1, 1), Err(DecodeError::Padding));
    }

    #[test]
    fn a_message_of_the_other_direction_is_refused() {
        for message in all_to_init() {
            assert!(matches!(ToManager::decode(&bytes_of(message)), Err(DecodeError::Kind(_))));
        }
        for message in all_to_manager() {
            let mut bytes = [0; MESSAGE_SIZE];
            message.encode(&mut bytes);
            assert!(matches!(ToInit::decode(&bytes), Err(DecodeError::Kind(_))));
        }
    }

    #[test]
    fn an_unknown_value_of_an_enum_is_refused() {
        let mut end = bytes_of(ToInit::End { how: End::Kexec });
        end[8] = 4;
        assert_eq!(ToInit::decode(&end), Err(DecodeError::Field("how")));

        let mut welcome = [0; MESSAGE_SIZE];
        all_to_manager().pop().expect("a Welcome").encode(&mut welcome);
        let mut other = welcome;
        other[12] = 2;
        assert_eq!(ToManager::decode(&other), Err(DecodeError::Field("pid1")));
        other = welcome;
        other[16] = 4;
        assert_eq!(ToManager::decode(&other), Err(DecodeError::Field("cause")));
        other = welcome;
        other[20] = 1; // `Hung` has no value
        assert_eq!(ToManager::decode(&other), Err(DecodeError::Field("cause")));
    }

    #[test]
    fn an_odd_name_is_refused() {
        for (at, value) in [(8, 0), (9, 0), (9, 0xff), (8 + SLOT_NAME_SIZE - 1, b'x')] {
            let mut store = bytes_of(ToInit::Store { name: name("abc") });
            store[at] = value;
            assert_eq!(ToInit::decode(&store), Err(DecodeError::Field("name")), "byte {at} = {value}");
        }
    }

    #[test]
    fn a_name_is_one_to_sixty_four_bytes_without_nul() {
        assert_eq!(name("log/web").as_str(), "log/web");
        assert_eq!(name(&"é".repeat(32)).as_str().len(), 64);
        assert_eq!(SlotName::new(""), None);
        assert_eq!(SlotName::new(&"x".repeat(65)), None);
        assert_eq!(SlotName::new("a\0b"), None);
    }

    /// Whatever is accepted encodes to the very bytes that were accepted: there is no second spelling.
    #[test]
    fn hostile_bytes_never_decode_to_something_else() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_usize;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let messages = all_to_init();
        let mut accepted = 0;
        for _ in 0..200_000 {
            let mut bytes = bytes_of(messages[random() % messages.len()]);
            for _ in 0..random() % 4 {
                bytes[random() % 80] = random().to_le_bytes()[0];
            }
            if let Ok(message) = ToInit::decode(&bytes) {
                assert_eq!(bytes_of(message), bytes);
                accepted += 1;
            }
        }
        assert!(accepted > 50_000, "only {accepted} were accepted: the mutation is too strong to tell");
    }
}
