//! What the kernel's files say of many services, read by two processes where there are two processors.
//!
//! The kernel takes most of the time of such an answer: a dozen files of a cgroup, and of its main process the namespaces and what it may
//! do. A process beside the caller, which shares its memory, reads three of five services ahead; the caller reads the others,
//! and those that the other one has not come to. Nothing is read before it is asked for, and nothing is kept.
//!
//! What could not be had as planned (a file that is longer than the room for it, an error other than that there is none) is not
//! in a [`Sample`]: who wants it reads it by itself, and tells what is wrong with it.

use std::{
    borrow::Cow,
    ffi::{CStr, OsStr},
    fmt,
    os::{
        fd::{AsRawFd, RawFd},
        unix::ffi::OsStrExt,
    },
};

use nix::errno::Errno;

use crate::{
    attest::{self, NAMESPACE_KINDS, parse_namespace},
    cgroup::{Cgroup, Enabled},
    sys::{
        ahead::Ahead,
        raw::{self, Seat},
    },
};

/// A file of a cgroup that has figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum File {
    CpuStat,
    IoStat,
    MemoryEvents,
    MemoryCurrent,
    MemoryPeak,
    MemoryMax,
    MemorySwapCurrent,
    PidsCurrent,
    PidsMax,
    CpuPressure,
    MemoryPressure,
    IoPressure,
}

/// All of them, in the order of the enum.
const FILES: [(File, &CStr); 12] = [
    (File::CpuStat, c"cpu.stat"),
    (File::IoStat, c"io.stat"),
    (File::MemoryEvents, c"memory.events"),
    (File::MemoryCurrent, c"memory.current"),
    (File::MemoryPeak, c"memory.peak"),
    (File::MemoryMax, c"memory.max"),
    (File::MemorySwapCurrent, c"memory.swap.current"),
    (File::PidsCurrent, c"pids.current"),
    (File::PidsMax, c"pids.max"),
    (File::CpuPressure, c"cpu.pressure"),
    (File::MemoryPressure, c"memory.pressure"),
    (File::IoPressure, c"io.pressure"),
];

/// The names as texts, in the same order.
const NAMES: [&str; FILES.len()] = {
    let mut names = [""; FILES.len()];
    let mut number = 0;
    while number < names.len() {
        // All are ASCII.
        if let Ok(name) = FILES[number].1.to_str() {
            names[number] = name;
        }
        number += 1;
    }
    names
};

/// The names of all files of a cgroup that have figures.
pub fn figure_files() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter()
}

/// The kinds as names in `/proc/PID/ns`, in the order of [`NAMESPACE_KINDS`].
const KINDS: [&CStr; NAMESPACE_KINDS.len()] =
    [c"mnt", c"pid", c"net", c"ipc", c"uts", c"cgroup", c"user", c"time"];

/// Room for all that is read of one service: with some tens of mounts in a namespace of its own it is six kilobytes.
const ROOM: usize = 12 << 10;

/// So many services the other one reads ahead at most.
const PLACES: usize = 16;

/// So many of so many are for the other one.
const SHARE: (usize, usize) = (3, 5);

/// With fewer services than this nobody else is made for them.
const MANY: usize = 32;

/// Of these, what [`Own`] is compared with.
const MOUNTS: usize = 0;
const PIDS: usize = 1;
const _: () = assert!(matches!(NAMESPACE_KINDS[MOUNTS].as_bytes(), b"mnt"));
const _: () = assert!(matches!(NAMESPACE_KINDS[PIDS].as_bytes(), b"pid"));

/// What is to be read of a service.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    pid: Option<u32>,
    /// `/proc/PID/cgroup`, too.
    shows_cgroup: bool,
    /// With the files that it may have.
    cgroup: Option<(&'a Cgroup, Files)>,
}

/// The same as numbers.
#[derive(Debug, Clone, Copy)]
struct Target {
    pid: Option<u32>,
    shows_cgroup: bool,
    cgroup: Option<(RawFd, Files)>,
}

/// Reads subjects one after the other.
pub struct Survey {
    own: Own,
    ahead: Option<Ahead<Orders, Reading>>,
    reading: Box<Reading>,
}

/// Namespaces of this process, so far as one that is in them too needs less to be read of it.
#[derive(Debug, Clone, Copy, Default)]
struct Own {
    /// Its mount namespace: who is in it needs no `mountinfo` of its own.
    mounts: Option<u64>,
    /// Its pid namespace, if that is the one whose pids /proc has: who has but one pid there, by `NSpid`, is in it.
    pids: Option<u64>,
}

/// What was read of one, until the next is.
#[derive(Clone, Copy)]
pub struct Sample<'a>(&'a Reading);

struct Reading {
    pid: Option<u32>,
    namespaces: [Link; KINDS.len()],
    root: Option<Seat>,
    status: Found,
    mountinfo: Found,
    cgroup: Found,
    files: [Found; FILES.len()],
    used: usize,
    bytes: [u8; ROOM],
}

/// A file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is to be read.
    Not,
    /// There is none of this name.
    None,
    At {
        start: usize,
        end: usize,
    },
}

/// A namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// It is to be read.
    Not,
    /// This kernel has none of the kind.
    None,
    Inode(u64),
}

/// What both who read know.
struct Orders {
    /// Those of the subjects that are read ahead.
    targets: Vec<Target>,
    own: Own,
}

impl File {
    /// As it is called.
    pub(crate) fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// A set of it alone.
    fn bit(self) -> Files {
        Files(1 << self as u16)
    }
}

/// Some of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Files(u16);

impl Files {
    /// Those that a cgroup may have which is below one with this in its `cgroup.subtree_control`; all where that is not known.
    pub(crate) fn below(enabled: Option<&str>) -> Self {
        let may_be = |file: &File| {
            let name = file.name();
            // The core keeps the accounts of the cpu and the pressure without any controller.
            let of_core = *file == File::CpuStat || name.ends_with(".pressure");
            let controller = name.split('.').next();
            of_core
                || enabled
                    .is_none_or(|words| words.split_ascii_whitespace().any(|word| Some(word) == controller))
        };
        let files = FILES.iter().map(|(file, _)| *file).filter(may_be);
        files.fold(Self(0), |files, file| Self(files.0 | file.bit().0))
    }

    pub(crate) fn contains(self, file: File) -> bool {
        self.0 & file.bit().0 != 0
    }
}

impl<'a> Subject<'a> {
    /// A service with a main process, or a cgroup, or both.
    #[must_use]
    pub fn new(pid: Option<u32>, cgroup: Option<&'a Cgroup>, enabled: &mut Enabled) -> Self {
        Self { pid, shows_cgroup: false, cgroup: cgroup.map(|cgroup| (cgroup, enabled.files(cgroup))) }
    }

    /// The same, and of its main process how `/proc` shows the cgroup that it is in, for where the kernel tells that in no shorter
    /// way.
    #[must_use]
    pub fn with_shown_cgroup(self) -> Self {
        Self { shows_cgroup: true, ..self }
    }

    fn target(&self) -> Target {
        let directory = |(cgroup, files): (&Cgroup, Files)| (cgroup.directory().as_raw_fd(), files);
        Target { pid: self.pid, shows_cgroup: self.shows_cgroup, cgroup: self.cgroup.map(directory) }
    }
}

impl Survey {
    /// For these subjects, which are asked for in their order: begins to read them, if they are many.
    pub fn new<'a>(subjects: impl ExactSizeIterator<Item = Subject<'a>>) -> Self {
        let own = Own::read();
        let mut orders = Orders { targets: Vec::new(), own };
        let mut survey = Self { own, ahead: None, reading: Box::new(Reading::NOTHING) };
        // A second one on the same processor would only be in the way.
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        if subjects.len() < MANY || processors() < 2 {
            return survey;
        }
        let ahead = subjects.enumerate().filter(|(number, _)| place_ahead(*number).is_some());
        orders.targets = ahead.map(|(_, subject)| subject.target()).collect();
        let count = u32::try_from(orders.targets.len()).unwrap_or(u32::MAX);
        let places = std::iter::repeat_with(|| Reading::NOTHING).take(PLACES);
        match Ahead::new(orders, count, places, Orders::carry_out) {
            Ok(ahead) => survey.ahead = Some(ahead),
            Err(errno) => tracing::debug!(%errno, "nobody reads ahead"),
        }
        survey
    }

    /// What there is to say of the subject of this number. Numbers only grow from call to call.
    pub fn read(&mut self, number: usize, subject: &Subject<'_>) -> Sample<'_> {
        let read_ahead = self.ahead.as_mut().zip(place_ahead(number)).is_some_and(|(ahead, number)| {
            ahead.go_to(number) && ahead.current().is_some_and(|reading| reading.pid == subject.pid)
        });
        if !read_ahead {
            self.reading.take(&subject.target(), self.own);
        }
        let read_ahead = self.ahead.as_ref().filter(|_| read_ahead).and_then(Ahead::current);
        Sample(read_ahead.unwrap_or(&self.reading))
    }
}

/// Which one of those that are read ahead it is, if it is one.
fn place_ahead(number: usize) -> Option<u32> {
    let (before, within) = (number / SHARE.1, number % SHARE.1);
    let place = (within + SHARE.0).checked_sub(SHARE.1)?;
    u32::try_from(before * SHARE.0 + place).ok()
}

impl Own {
    /// Where something of it cannot be read, nothing follows from it.
    fn read() -> Self {
        let number = |kind| attest::namespace(std::process::id(), kind).ok().flatten();
        let status = std::fs::read("/proc/self/status").unwrap_or_default();
        Self { mounts: number("mnt"), pids: number("pid").filter(|_| has_one_pid(&status)) }
    }
}

impl Orders {
    fn carry_out(&self, number: u32, reading: &mut Reading) {
        if let Some(target) = self.targets.get(number as usize) {
            reading.take(target, self.own);
        }
    }
}

impl<'a> Sample<'a> {
    /// A file of the cgroup; an error if there is no such file, `None` if it was not read.
    pub(crate) fn figure(&self, file: File) -> Option<Result<Cow<'a, str>, Errno>> {
        match self.0.files[file as usize] {
            Found::Not => None,
            Found::None => Some(Err(Errno::ENOENT)),
            Found::At { .. } => self.text(self.0.files[file as usize]).map(Ok),
        }
    }

    /// A namespace of the main process; `Some(None)` if this kernel has none of the kind.
    pub(crate) fn namespace(&self, kind: &str) -> Option<Option<u64>> {
        let number = NAMESPACE_KINDS.iter().position(|known| *known == kind)?;
        match self.0.namespaces.get(number)? {
            Link::Not => None,
            Link::None => Some(None),
            Link::Inode(inode) => Some(Some(*inode)),
        }
    }

    /// Where the root of the main process is.
    pub(crate) fn root(&self) -> Option<Seat> {
        self.0.root
    }

    /// A file of the main process: `status`, `mountinfo` or `cgroup`.
    pub(crate) fn of_process(&self, name: &str) -> Option<Cow<'a, str>> {
        match name {
            "status" => self.text(self.0.status),
            "mountinfo" => self.text(self.0.mountinfo),
            "cgroup" => self.text(self.0.cgroup),
            _ => None,
        }
    }

    /// A name that is not UTF-8 (the process's own, a mount point) must not hide the rest.
    fn text(&self, found: Found) -> Option<Cow<'a, str>> {
        let Found::At { start, end } = found else { return None };
        let bytes = self.0.bytes.get(start..end)?;
        Some(str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed))
    }
}

impl fmt::Debug for Sample<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sample").field("pid", &self.0.pid).finish_non_exhaustive()
    }
}

/// What runs in the process beside, too: nothing here allocates or panics.
impl Reading {
    const NOTHING: Self = Self {
        pid: None,
        namespaces: [Link::Not; KINDS.len()],
        root: None,
        status: Found::Not,
        mountinfo: Found::Not,
        cgroup: Found::Not,
        files: [Found::Not; FILES.len()],
        used: 0,
        bytes: [0; ROOM],
    };

    fn take(&mut self, target: &Target, own: Own) {
        self.pid = target.pid;
        self.namespaces = [Link::Not; KINDS.len()];
        (self.root, self.status, self.mountinfo, self.cgroup) = (None, Found::Not, Found::Not, Found::Not);
        self.files = [Found::Not; FILES.len()];
        self.used = 0;
        if let Some(pid) = target.pid {
            self.look_at_process(pid, target.shows_cgroup, own);
        }
        if let Some((directory, files)) = target.cgroup {
            for (number, (file, name)) in FILES.iter().enumerate() {
                if files.contains(*file) {
                    self.files[number] = self.record(directory, name);
                }
            }
        }
    }

    fn look_at_process(&mut self, pid: u32, shows_cgroup: bool, own: Own) {
        let path = links_of(pid);
        // Most is looked up there; what is not is above.
        let Ok(links) = raw::open(libc::AT_FDCWD, until_nul(&path), libc::O_PATH | libc::O_DIRECTORY, 0)
        else {
            return;
        };
        self.status = self.record(links, c"../status");
        for (number, kind) in KINDS.iter().enumerate() {
            self.namespaces[number] = match own.pids {
                Some(inode) if number == PIDS && has_one_pid(self.bytes_of(self.status)) => {
                    Link::Inode(inode)
                }
                Some(_) | None => link(links, kind, NAMESPACE_KINDS[number]),
            };
        }
        match self.namespaces[MOUNTS] {
            Link::Inode(inode) if own.mounts == Some(inode) => {
                // Before Linux 5.8 there is no telling.
                self.root = raw::seat(links, c"../root").ok().flatten();
            }
            Link::Inode(_) | Link::None => self.mountinfo = self.whole(links, c"../mountinfo"),
            Link::Not => {}
        }
        if shows_cgroup {
            self.cgroup = self.record(links, c"../cgroup");
        }
        let _closed = raw::close(links);
    }

    fn bytes_of(&self, found: Found) -> &[u8] {
        let Found::At { start, end } = found else { return &[] };
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// A file that the kernel writes in one piece: a read that leaves room has had all of it.
    fn record(&mut self, directory: RawFd, name: &CStr) -> Found {
        self.read(directory, name, |_size, room| room > 0)
    }

    /// Any file.
    fn whole(&mut self, directory: RawFd, name: &CStr) -> Found {
        self.read(directory, name, |size, room| room > 0 && size == 0)
    }

    fn read(&mut self, directory: RawFd, name: &CStr, is_all: fn(usize, usize) -> bool) -> Found {
        let file = match raw::open(directory, name, libc::O_RDONLY | libc::O_NOFOLLOW, 0) {
            Ok(file) => file,
            Err(Errno::ENOENT) => return Found::None,
            Err(_) => return Found::Not,
        };
        let start = self.used;
        let mut end = start;
        let found = loop {
            let room = self.bytes.get_mut(end..).unwrap_or_default();
            let length = room.len();
            match raw::read(file, room) {
                Ok(size) if is_all(size, length.saturating_sub(size)) => {
                    break Found::At { start, end: end + size };
                }
                Ok(size) if size > 0 => end += size,
                Ok(_) | Err(_) => break Found::Not,
            }
        };
        let _closed = raw::close(file);
        if let Found::At { end, .. } = found {
            self.used = end;
        }
        found
    }
}

fn link(folder: RawFd, name: &CStr, kind: &str) -> Link {
    let mut bytes = [0; 64];
    match raw::readlink(folder, name, &mut bytes) {
        Ok(size) => {
            let link = bytes.get(..size).unwrap_or_default();
            parse_namespace(OsStr::from_bytes(link), kind).map_or(Link::Not, Link::Inode)
        }
        Err(Errno::ENOENT) => Link::None,
        Err(_) => Link::Not,
    }
}

/// Whether `/proc/PID/status` says that a process has one pid: `NSpid` has one for each pid namespace from that of /proc down to
/// its own. No name of a process can be such a line: its newlines are escaped.
fn has_one_pid(status: &[u8]) -> bool {
    const KEY: &[u8] = b"NSpid:";
    let mut lines = status.split(|byte| *byte == b'\n');
    let pids = lines.find_map(|line| line.strip_prefix(KEY));
    // A tab before each.
    pids.is_some_and(|pids| pids.len() > 1 && pids.iter().filter(|byte| **byte == b'\t').count() == 1)
}

/// `/proc/PID/ns` and zeroes.
fn links_of(pid: u32) -> [u8; 24] {
    const BEFORE: &[u8] = b"/proc/";
    const AFTER: &[u8] = b"/ns";
    let mut path = [0; 24];
    let digits = BEFORE.len()..BEFORE.len() + pid.checked_ilog10().unwrap_or(0) as usize + 1;
    path[..BEFORE.len()].copy_from_slice(BEFORE);
    path[digits.end..digits.end + AFTER.len()].copy_from_slice(AFTER);
    let mut rest = pid;
    for place in path[digits].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    path
}

fn until_nul(bytes: &[u8]) -> &CStr {
    CStr::from_bytes_until_nul(bytes).unwrap_or_default()
}

impl fmt::Debug for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survey").field("reads_ahead", &self.ahead.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        process::{Child, Command, Stdio},
    };

    use super::*;
    use crate::{cgroup::Figures, kernel::Kernel};

    #[test]
    fn a_path_has_all_digits() {
        for pid in [0, 1, 9, 10, 4711, u32::MAX] {
            assert_eq!(until_nul(&links_of(pid)).to_str(), Ok(format!("/proc/{pid}/ns").as_str()));
        }
    }

    #[test]
    fn who_has_one_pid_is_in_the_namespace_of_proc() {
        let check = |status: &str, expected| assert_eq!(has_one_pid(status.as_bytes()), expected, "{status}");
        check("Name:\tcat\nNSpid:\t4711\nNSpgid:\t4711\t3\n", true);
        check("Name:\tcat\nNSpid:\t4711\t1\nNSpgid:\t4711\n", false);
        check("Name:\tNSpid:\t1\nNSpid:\t4711\t20\t1\n", false);
        check("Name:\tcat\nPid:\t4711\n", false);
        check("NSpid:", false);
    }

    /// Where the number of its pid namespace was not read, it is the one that is read.
    #[test]
    fn the_pid_namespace_is_the_one_that_its_link_names() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED, 1: it needs root");
            return;
        }
        let of = |pid: u32| {
            let subject = Subject { pid: Some(pid), ..Subject::default() };
            let mut survey = Survey::new([subject].into_iter());
            survey.read(0, &subject).namespace("pid").flatten()
        };
        let told = |pid: u32| attest::namespace(pid, "pid").unwrap();
        let own = std::process::id();
        assert_eq!(of(own), told(own));
        assert!(Own::read().pids == told(own) && told(own).is_some(), "control: /proc is of this namespace");
        let mut unshare = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its answer says that it is there.
        unshare.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        unshare.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let cat: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        assert_eq!(of(cat), told(cat));
        assert_ne!(told(cat), told(own), "control: it has one of its own");
        assert_eq!(of(unshare.id()), told(own), "whose children have another is in this one");
        drop(unshare.stdin.take());
        unshare.wait().unwrap();
    }

    #[test]
    fn a_file_that_is_longer_than_the_room_is_left_to_who_wants_it() {
        let open = |path: &str| fs::File::open(path).unwrap();
        let folder = open("/proc/self");
        let whole = fs::read("/proc/self/mountinfo").unwrap();
        let mut reading = Box::new(Reading::NOTHING);
        assert!(
            matches!(reading.whole(folder.as_raw_fd(), c"mountinfo"), Found::At { start: 0, end } if end == whole.len())
        );
        assert_eq!(&reading.bytes[..whole.len()], whole);
        reading.used = ROOM - whole.len();
        assert_eq!(
            reading.whole(folder.as_raw_fd(), c"mountinfo"),
            Found::Not,
            "it cannot know that this was all"
        );
        assert_eq!(reading.record(folder.as_raw_fd(), c"mountinfo"), Found::Not);
        reading.used -= 1;
        assert!(matches!(reading.whole(folder.as_raw_fd(), c"mountinfo"), Found::At { .. }));
        assert_eq!(reading.whole(folder.as_raw_fd(), c"nothing"), Found::None);
        assert_eq!(reading.whole(folder.as_raw_fd(), c"fd"), Found::Not, "a folder");
    }

    #[test]
    fn an_unknown_set_of_controllers_rules_nothing_out() {
        let some = Files::below(Some("cpuset cpu pids"));
        let expected =
            [File::CpuStat, File::PidsCurrent, File::PidsMax, File::CpuPressure, File::MemoryPressure];
        assert!(expected.iter().all(|file| some.contains(*file)));
        assert!(
            [File::IoStat, File::MemoryMax, File::MemorySwapCurrent].iter().all(|file| !some.contains(*file))
        );
        assert!(FILES.iter().all(|(file, _)| Files::below(None).contains(*file)));
        assert!(FILES.iter().enumerate().all(|(number, (file, _))| *file as usize == number));
        assert!(FILES.iter().all(|(file, name)| name.to_str() == Ok(file.name())));
    }

    /// A process like no other: by a group of its own, and each third one in a mount namespace of its own.
    fn member(above: &std::path::Path, number: u32) -> (Child, Cgroup) {
        let folder = above.join(format!("member-{number}"));
        fs::create_dir(&folder).unwrap();
        let groups = format!("--groups={}", 4000 + number);
        let mut command = Command::new(if number.is_multiple_of(3) { "unshare" } else { "env" });
        command.args(number.is_multiple_of(3).then_some("--mount")).args(["setpriv", &groups, "cat"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        fs::write(folder.join("cgroup.procs"), child.id().to_string()).unwrap();
        // Its answer says that it is cat by now.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        (child, Cgroup::open(above, &format!("member-{number}")).unwrap().unwrap())
    }

    /// Each of many is said what is so of it, and not of another, whoever read it.
    #[test]
    fn what_is_read_ahead_is_of_the_one_that_was_asked_about() {
        let base = Kernel::probe(None).unwrap().cgroup_base;
        let Some(base) = base.filter(|_| nix::unistd::geteuid().is_root()) else {
            println!("SKIPPED, 1: it needs root and a cgroup2 tree");
            return;
        };
        let above = base.join(format!("survey-{}", std::process::id()));
        fs::create_dir(&above).unwrap();
        let members: Vec<(Child, Cgroup)> = (0..20).map(|number| member(&above, number)).collect();
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let witness = attest::Witness::new().unwrap();
        let mut enabled = Enabled::default();
        let mut subjects = Vec::new();
        for (child, cgroup) in &members {
            let subject = Subject::new(Some(child.id()), Some(cgroup), &mut enabled);
            subjects.push(if child.id() % 2 == 0 { subject.with_shown_cgroup() } else { subject });
            // One with nothing to read, and one that has ended.
            subjects.push(Subject::default());
            subjects.push(Subject::new(Some(gone.id()), None, &mut enabled));
        }
        assert!(subjects.len() > MANY);
        // Control: no two are alike.
        let groups = |(child, _): &(Child, Cgroup)| witness.attest(child.id()).unwrap().status.groups;
        assert_eq!(
            members.iter().map(groups).collect::<Vec<_>>(),
            (0..20).map(|number| [4000 + number]).collect::<Vec<_>>()
        );
        for round in 0..5 {
            let mut survey = Survey::new(subjects.iter().copied());
            if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
                assert!(survey.ahead.is_some(), "control: two read");
            }
            for (number, subject) in subjects.iter().enumerate() {
                let sample = survey.read(number, subject);
                let Some(pid) = subject.pid else { continue };
                let found = witness.attest_from(pid, &sample, attest::Whereabouts::Asked);
                let Some((cgroup, _)) = subject.cgroup else {
                    assert!(found.is_err(), "{found:?}");
                    continue;
                };
                let alone = witness.attest(pid).unwrap();
                assert_eq!(found.unwrap(), alone, "round {round}, number {number}");
                assert_eq!(sample.of_process("cgroup").is_some(), subject.shows_cgroup);
                let figures = Figures::from_sample(cgroup, &sample, &mut enabled);
                assert!(figures.cpu_usage_us.is_ok(), "{figures:?}");
            }
        }
        for (mut child, cgroup) in members {
            child.kill().unwrap();
            child.wait().unwrap();
            cgroup.remove().unwrap();
        }
        fs::remove_dir(above).unwrap();
    }
}
