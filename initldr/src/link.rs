//! The link between initldr and motherd: what they say to each other, as bytes.
//!
//! A `SOCK_SEQPACKET` socketpair carries it, so a message arrives whole or not at all. Every message is exactly
//! [`MESSAGE_SIZE`] bytes, little endian: magic `u32`, version `u16`, kind `u16`, eight words of 64 bits, a name of 64
//! bytes, zeroes to the end. The fields of a message but its name are its first words, in the order in which they are
//! declared here. A file descriptor travels beside [`ToManager::Stored`] and [`ToInit::Store`] by `SCM_RIGHTS`.
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
//!    | List -------------------------> |   answered by every Stored and ReplayEnd again
//!    | Retire -----------------------> |   it is about to end, for the next one to take over
//!    | Execute ----------------------> |   another initldr takes the place of this one; its answer is a StoreAnswer
//!    | End --------------------------> |   the last word
//! ```
//!
//! Whatever initldr says has to be answered: an exit by Acknowledge, a signal by anything (there is Alive for it), the
//! launch by Hello. Who owes an answer and says nothing for [`ANSWER_WITHIN_SECONDS`] hangs. Who owes none may be
//! silent for ever, so an idle machine has no heartbeat; but while the slot `watchdog` is filled, Alive is owed always.
//!
//! Invariant: there is one encoding for each message, and `decode` accepts that one alone: it encodes what it read
//! again, and compares. So unknown enum values, numbers out of range, bytes after the last field and odd names are all
//! refused, and a message that was read can be trusted to be one of ours in shape. It is never trusted in content.

use core::ffi::CStr;

/// The version of this encoding. The two programs are installed together; a motherd of another version is told so
/// by [`DecodeError::Header`] rather than guessed at. A kind that is only added needs no other version: who does not
/// know it says so.
pub const VERSION: u16 = 3;
/// Every message has this size: 8 bytes of header, 64 of words, 160 of name; the rest is room to grow.
pub const MESSAGE_SIZE: usize = 256;
/// The link in the motherd that initldr starts; `INITLDR_LINK` names it too.
pub const LINK_FD: i32 = 3;
/// The state memfd in the motherd that initldr starts; `INITLDR_STATE` names it too.
pub const STATE_FD: i32 = 4;
/// What initldr leaves to another one that it executes in its place. It is kept free, so it is always this number.
pub const RESUME_FD: i32 = 3;
/// The state memfd is this large from the start: 4 MiB. Its contents are opaque to initldr and survive motherd.
pub const STATE_SIZE: usize = 4 << 20;
/// A motherd that owes an answer and is silent for longer than this hangs: SIGABRT, SIGKILL, relaunch.
pub const ANSWER_WITHIN_SECONDS: u64 = 30;
/// The longest slot name, in bytes: a kind, a service of 56 and a name of its own.
pub const SLOT_NAME_SIZE: usize = 160;

/// Where the name is: after the header and the words.
const NAME_AT: usize = 8 + 8 * 8;
/// "MotD", little endian.
const MAGIC: u32 = u32::from_le_bytes(*b"MotD");

/// The name of a slot of the fd store: 1 to 160 bytes of UTF-8 without NUL, by construction. A hash of it comes first: of a
/// thousand names that begin alike all but one are told from another by one comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotName(u32, [u8; SLOT_NAME_SIZE]);

impl SlotName {
    /// `None` where `name` is empty, longer than 160 bytes, or contains a NUL.
    pub fn new(name: &str) -> Option<SlotName> {
        let mut bytes = [0; SLOT_NAME_SIZE];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        // FNV-1a (draft-eastlake-fnv)
        let mix = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let hash = name.bytes().fold(0x811c_9dc5, mix);
        (!name.is_empty() && !name.contains('\0')).then_some(SlotName(hash, bytes))
    }

    /// The name without its padding.
    pub fn as_str(&self) -> &str {
        let text = self.1.split(|&byte| byte == 0).next().unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default() // never the default: both constructors check
    }

    /// With a NUL at its end; `None` where all 160 bytes are used.
    pub fn as_c_str(&self) -> Option<&CStr> {
        CStr::from_bytes_until_nul(&self.1).ok()
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
    /// User space alone, and from the root file system that is mounted on /rootfs if there is one: this is how the
    /// initramfs hands over too. The kernel runs on.
    SoftReboot,
    /// As PowerOff, and where it is initldr alone that ends, it does so with this status.
    Exit(u8),
}

/// What initldr is and holds: the answer to [`ToInit::Hello`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// This is the nth motherd, from 1.
    pub generation: u32,
    /// Whether initldr is PID 1 (of its pid namespace).
    pub pid1: bool,
    /// What became of the motherd before.
    pub cause: Relaunch,
    /// So many exits fell out of the full ring, ever.
    pub lost_exits: u64,
    /// Since when there was no motherd, `CLOCK_BOOTTIME`; 0 for the first.
    pub down_since_boottime_ns: u64,
    /// The ones before died early, again and again: leave alone what runs, trust no record, start nothing.
    pub safe: bool,
}

/// A signal that initldr received and that is for motherd to act upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    pub number: u32,
    /// `ssi_pid`: who sent it; 0 for the kernel or a process outside the pid namespace.
    pub sender_pid: u32,
    /// `ssi_uid`.
    pub sender_uid: u32,
}

/// What initldr says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToManager {
    /// The first message, after [`ToInit::Hello`].
    Welcome(Welcome),
    /// A slot of the fd store; its descriptor comes with this message, and has this number in initldr.
    Stored(SlotName, i32),
    /// A process was reaped.
    Exit(ExitRecord),
    /// All stored descriptors and unacknowledged exits were sent.
    ReplayEnd,
    /// A [`ToInit::Store`] or [`ToInit::Drop`] failed, or what became of a [`ToInit::Execute`].
    StoreAnswer {
        /// The slot.
        name: SlotName,
        /// 0 where another initldr took over; `ENOSPC`: no slot is free; `EDQUOT`: a service has its share; `EBADF`: no descriptor
        /// came; `ENOENT`: no such slot.
        errno: i32,
    },
    /// A signal came.
    Signal(Signal),
    /// What one initldr leaves to another that takes its place, after the messages before; never said to motherd.
    Left([u64; 8]),
}

/// What motherd says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToInit {
    /// The first message: ready to be told everything.
    Hello,
    /// Exits up to and including the one of this [`ExitRecord::sequence`] are in motherd's state: they
    /// need not be replayed.
    Acknowledge(u64),
    /// Keep the descriptor that comes with this message; a slot of that name is replaced.
    Store(SlotName),
    /// Close and forget a slot.
    Drop(SlotName),
    /// motherd is not stuck: the answer to what has no other.
    Alive,
    /// Every service has stopped; end the machine in this way.
    End(End),
    /// What a signal asked for will not be done, but something else: initldr is to wait for no end.
    CarryOn,
    /// Say again what the store has.
    List,
    /// It ends on purpose, so that its next life, or its next version, takes over. Not an early death.
    Retire,
    /// Execute the program of this path, another initldr, in the place of this one, which leaves it everything. The
    /// answer is a [`ToManager::StoreAnswer`] with this name: 0 comes from the new one.
    Execute(SlotName),
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Not [`MESSAGE_SIZE`] bytes but so many.
    Size(usize),
    /// Another magic number, or another [`VERSION`].
    Header(u32, u16),
    /// No message of this direction has this kind and these fields.
    Malformed(u16),
}

impl ToManager {
    /// The one encoding of this message.
    pub fn encode(&self) -> [u8; MESSAGE_SIZE] {
        match *self {
            ToManager::Welcome(welcome) => {
                let (cause, status) = match welcome.cause {
                    Relaunch::First => (0, 0),
                    Relaunch::Exited(code) => (1, code),
                    Relaunch::Signaled(signal) => (2, signal),
                    Relaunch::Hung => (3, 0),
                };
                let [nth, pid1] = [welcome.generation, welcome.pid1.into()].map(u64::from);
                let (lost, down) = (welcome.lost_exits, welcome.down_since_boottime_ns);
                put(0x001, [nth, pid1, cause, bits(status), lost, down, welcome.safe.into()], None)
            }
            ToManager::Stored(name, number) => put(0x002, [bits(number)], Some(name)),
            ToManager::Exit(exit) => {
                let [pid, code, status] = [exit.pid.cast_signed(), exit.code, exit.status].map(bits);
                let [reaped, user, system] = [exit.boottime_ns, exit.user_time_us, exit.system_time_us];
                put(0x003, [exit.sequence, pid, code, status, reaped, user, system, exit.max_rss_kib], None)
            }
            ToManager::ReplayEnd => put(0x004, [], None),
            ToManager::StoreAnswer { name, errno } => put(0x005, [bits(errno)], Some(name)),
            ToManager::Signal(Signal { number, sender_pid, sender_uid }) => {
                put(0x006, [number, sender_pid, sender_uid].map(u64::from), None)
            }
            ToManager::Left(words) => put(0x007, words, None),
        }
    }

    /// Reads a message that initldr sent.
    ///
    /// # Errors
    /// Whatever is not exactly what `encode` writes.
    pub fn decode(bytes: &[u8]) -> Result<ToManager, DecodeError> {
        let (kind, words, name) = take(bytes)?;
        let [number, sender_pid, sender_uid, ..] = words.map(low);
        let message = match (kind, name) {
            (0x001, _) => ToManager::Welcome(welcome(words)),
            (0x002, Some(name)) => ToManager::Stored(name, signed(words[0])),
            (0x003, _) => ToManager::Exit(exit_record(words)),
            (0x004, _) => ToManager::ReplayEnd,
            (0x005, Some(name)) => ToManager::StoreAnswer { name, errno: signed(words[0]) },
            (0x006, _) => ToManager::Signal(Signal { number, sender_pid, sender_uid }),
            (0x007, _) => ToManager::Left(words),
            _ => return Err(DecodeError::Malformed(kind)),
        };
        if message.encode() == bytes { Ok(message) } else { Err(DecodeError::Malformed(kind)) }
    }
}

fn welcome(words: [u64; 8]) -> Welcome {
    let [generation, pid1, cause, status, lost_exits, down_since_boottime_ns, safe, ..] = words;
    let cause = match cause {
        0 => Relaunch::First,
        1 => Relaunch::Exited(signed(status)),
        2 => Relaunch::Signaled(signed(status)),
        _ => Relaunch::Hung,
    };
    let (generation, pid1, safe) = (low(generation), pid1 == 1, safe == 1);
    Welcome { generation, pid1, cause, lost_exits, down_since_boottime_ns, safe }
}

fn exit_record(words: [u64; 8]) -> ExitRecord {
    let [sequence, pid, code, status, boottime_ns, user_time_us, system_time_us, max_rss_kib] = words;
    let (pid, [code, status]) = (low(pid), [code, status].map(signed));
    ExitRecord { sequence, pid, code, status, boottime_ns, user_time_us, system_time_us, max_rss_kib }
}

/// The number of [`End::Exit`]; the next byte is the status.
const EXIT: u64 = 5;
/// The others, in the order of their numbers.
const ENDS: [End; 5] = [End::PowerOff, End::Reboot, End::Halt, End::Kexec, End::SoftReboot];

impl ToInit {
    /// The one encoding of this message. The kinds start at 0x101, so that an echo is never taken for one.
    pub fn encode(&self) -> [u8; MESSAGE_SIZE] {
        match *self {
            ToInit::Hello => put(0x101, [], None),
            ToInit::Acknowledge(sequence) => put(0x102, [sequence], None),
            ToInit::Store(name) => put(0x103, [], Some(name)),
            ToInit::Drop(name) => put(0x104, [], Some(name)),
            ToInit::Alive => put(0x105, [], None),
            ToInit::End(End::Exit(status)) => put(0x106, [EXIT | u64::from(status) << 8], None),
            ToInit::End(how) => {
                put(0x106, [ENDS.iter().position(|end| *end == how).unwrap_or_default() as u64], None)
            }
            ToInit::List => put(0x107, [], None),
            ToInit::Retire => put(0x108, [], None),
            ToInit::Execute(path) => put(0x109, [], Some(path)),
            ToInit::CarryOn => put(0x10a, [], None),
        }
    }

    /// Reads a message that motherd sent.
    ///
    /// # Errors
    /// Whatever is not exactly what `encode` writes.
    pub fn decode(bytes: &[u8]) -> Result<ToInit, DecodeError> {
        let (kind, [word, ..], name) = take(bytes)?;
        let message = match (kind, name, ENDS.get(low(word) as usize)) {
            (0x101, ..) => ToInit::Hello,
            (0x102, ..) => ToInit::Acknowledge(word),
            (0x103, Some(name), _) => ToInit::Store(name),
            (0x104, Some(name), _) => ToInit::Drop(name),
            (0x105, ..) => ToInit::Alive,
            (0x106, _, Some(how)) => ToInit::End(*how),
            (0x106, ..) => ToInit::End(End::Exit(word.to_le_bytes()[1])),
            (0x107, ..) => ToInit::List,
            (0x108, ..) => ToInit::Retire,
            (0x109, Some(path), _) => ToInit::Execute(path),
            (0x10a, ..) => ToInit::CarryOn,
            _ => return Err(DecodeError::Malformed(kind)),
        };
        if message.encode() == bytes { Ok(message) } else { Err(DecodeError::Malformed(kind)) }
    }
}

/// A word that is to be 32 bits. What does not fit becomes 0, and is found out by the comparison in `decode`.
fn low(word: u64) -> u32 {
    u32::try_from(word).unwrap_or_default()
}

fn signed(word: u64) -> i32 {
    low(word).cast_signed()
}

fn bits(number: i32) -> u64 {
    number.cast_unsigned().into()
}

fn put<const N: usize>(kind: u16, words: [u64; N], name: Option<SlotName>) -> [u8; MESSAGE_SIZE] {
    let header = u64::from(MAGIC) | u64::from(VERSION) << 32 | u64::from(kind) << 48;
    let words = [header].into_iter().chain(words).flat_map(u64::to_le_bytes);
    let mut message = [0; MESSAGE_SIZE];
    message.iter_mut().zip(words).for_each(|(place, byte)| *place = byte);
    message[NAME_AT..][..SLOT_NAME_SIZE].copy_from_slice(&name.map_or([0; SLOT_NAME_SIZE], |name| name.1));
    message
}

fn take(bytes: &[u8]) -> Result<(u16, [u64; 8], Option<SlotName>), DecodeError> {
    let message: &[u8; MESSAGE_SIZE] = bytes.try_into().map_err(|_| DecodeError::Size(bytes.len()))?;
    let mut words = message.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    let header = words.next().unwrap_or_default();
    let half = |at: u32| u16::try_from(header >> at & 0xffff).unwrap_or_default();
    let (magic, version, kind) = (low(header & 0xffff_ffff), half(32), half(48));
    if (magic, version) != (MAGIC, VERSION) {
        return Err(DecodeError::Header(magic, version));
    }
    let name = message[NAME_AT..][..SLOT_NAME_SIZE].split(|&byte| byte == 0).next().unwrap_or_default();
    let name = core::str::from_utf8(name).ok().and_then(SlotName::new);
    Ok((kind, core::array::from_fn(|_| words.next().unwrap_or_default()), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SlotName {
        SlotName::new(text).expect("a valid name")
    }

    fn all_to_manager() -> Vec<ToManager> {
        let mut all = vec![
            ToManager::Stored(name("web/socket"), 7),
            ToManager::Left([u64::MAX, 2, 3, 4, 5, 6, 7, 8]),
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
            ToManager::StoreAnswer { name: name(&"x".repeat(160)), errno: 28 },
            ToManager::Signal(Signal { number: 64, sender_pid: 1, sender_uid: 1000 }),
        ];
        for cause in [Relaunch::First, Relaunch::Exited(-3), Relaunch::Signaled(9), Relaunch::Hung] {
            all.push(ToManager::Welcome(Welcome {
                generation: 7,
                pid1: true,
                cause,
                lost_exits: 9,
                down_since_boottime_ns: 5,
                safe: true,
            }));
        }
        all
    }

    fn all_to_init() -> Vec<ToInit> {
        let mut all = vec![
            ToInit::Hello,
            ToInit::Acknowledge(1 << 40),
            ToInit::Store(name("notify")),
            ToInit::Drop(name("é")),
            ToInit::Alive,
            ToInit::List,
            ToInit::Retire,
            ToInit::Execute(name("/sbin/initldr")),
            ToInit::CarryOn,
        ];
        all.extend(ENDS.map(ToInit::End));
        all.extend([0, 1, 255].map(|status| ToInit::End(End::Exit(status))));
        all
    }

    #[test]
    fn every_message_comes_back_as_it_was_sent() {
        for message in all_to_manager() {
            assert_eq!(ToManager::decode(&message.encode()), Ok(message));
        }
        for message in all_to_init() {
            assert_eq!(ToInit::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let bytes = ToInit::Acknowledge(0x0102).encode();
        assert_eq!(bytes[..12], [b'M', b'o', b't', b'D', 3, 0, 2, 1, 2, 1, 0, 0]);
        assert!(bytes[12..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_message_of_another_size_is_refused() {
        let bytes = ToInit::Alive.encode();
        for size in [0, 1, 8, MESSAGE_SIZE - 1] {
            assert_eq!(ToInit::decode(&bytes[..size]), Err(DecodeError::Size(size)));
        }
        let long = [bytes.as_slice(), &[0]].concat();
        assert_eq!(ToInit::decode(&long), Err(DecodeError::Size(MESSAGE_SIZE + 1)));
    }

    #[test]
    fn a_foreign_header_is_refused() {
        let with = |at: usize, value: u8| {
            let mut bytes = ToInit::Alive.encode();
            bytes[at] = value;
            ToInit::decode(&bytes)
        };
        assert!(matches!(with(0, 0), Err(DecodeError::Header(_, VERSION))));
        assert_eq!(with(4, 1), Err(DecodeError::Header(MAGIC, 1)));
        assert_eq!(with(6, 0x7f), Err(DecodeError::Malformed(0x17f)));
        for after_the_header in 8..MESSAGE_SIZE {
            assert_eq!(with(after_the_header, 1), Err(DecodeError::Malformed(0x105)));
        }
    }

    #[test]
    fn a_message_of_the_other_direction_is_refused() {
        for message in all_to_init() {
            assert!(matches!(ToManager::decode(&message.encode()), Err(DecodeError::Malformed(_))));
        }
        for message in all_to_manager() {
            assert!(matches!(ToInit::decode(&message.encode()), Err(DecodeError::Malformed(_))));
        }
    }

    #[test]
    fn an_unknown_value_of_an_enum_is_refused() {
        for (byte, value) in [(8, 6), (9, 1), (10, 1), (15, 1)] {
            let mut end = ToInit::End(End::Kexec).encode();
            end[byte] = value;
            assert_eq!(ToInit::decode(&end), Err(DecodeError::Malformed(0x106)), "byte {byte} = {value}");
        }

        let welcome = all_to_manager().pop().expect("a Welcome").encode();
        for (byte, value) in
            [(12, 1), (16, 2), (24, 4), (28, 1), (32, 1), (36, 1), (56, 2), (64, 1), (72, b'x')]
        {
            let mut other = welcome; // `Hung` has no value, and nothing here fills its word
            other[byte] = value;
            assert_eq!(ToManager::decode(&other), Err(DecodeError::Malformed(1)), "byte {byte} = {value}");
        }
    }

    #[test]
    fn an_odd_name_is_refused() {
        for (at, value) in [(72, 0), (73, 0), (73, 0xff), (72 + SLOT_NAME_SIZE - 1, b'x')] {
            let mut store = ToInit::Store(name("abc")).encode();
            store[at] = value;
            assert_eq!(ToInit::decode(&store), Err(DecodeError::Malformed(0x103)), "byte {at} = {value}");
        }
    }

    #[test]
    fn a_name_is_one_to_a_hundred_and_sixty_bytes_without_nul() {
        assert_eq!(name("log/web").as_str(), "log/web");
        assert_eq!(name(&"é".repeat(80)).as_str().len(), 160);
        assert_eq!(SlotName::new(""), None);
        assert_eq!(SlotName::new(&"x".repeat(161)), None);
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
            let mut bytes = messages[random() % messages.len()].encode();
            for _ in 0..random() % 4 {
                bytes[random() % 80] = random().to_le_bytes()[0];
            }
            if let Ok(message) = ToInit::decode(&bytes) {
                assert_eq!(message.encode(), bytes);
                accepted += 1;
            }
        }
        assert!(accepted > 50_000, "only {accepted} were accepted: the mutation is too strong to tell");
    }
}
