//! Reads a process's isolation back from the kernel: what `status` says of a running service is this, never its policy.
//!
//! It is read under a descriptor of `/proc/PID`, which names that process and never its successor under the
//! same number (a read after its death is ESRCH), or was just before, in a [`Sample`]. Whether the process is the one meant is the caller's to know: its
//! pidfd is still alive *after* this. What no kernel tells (a Landlock domain, the text of a seccomp program) is not
//! here.

use std::{
    borrow::Cow,
    cell::{OnceCell, RefCell},
    collections::BTreeMap,
    ffi::OsStr,
    fmt,
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::LazyLock,
};

use caps::Capability;
use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat, readlinkat},
    sys::stat::Mode,
};

use crate::{cgroup::Cgroup, record, survey::Sample, sys::raw as sys};

/// What the kernel says of one process, at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// The process.
    pub pid: u32,
    /// Every kind that this kernel has, in the order of [`NAMESPACE_KINDS`].
    pub namespaces: Vec<Namespace>,
    /// `/proc/PID/status`
    pub status: Status,
    /// How many capabilities this kernel knows: those with numbers below it.
    pub known_capabilities: u8,
    /// Its cgroup in the cgroup2 tree, as this process's cgroup namespace shows it; `None` where nobody wanted to know.
    pub cgroup: Option<Result<String, Unreadable>>,
    /// `/proc/PID/mountinfo` in short.
    pub mounts: Result<Mounts, Unreadable>,
}

/// The kinds of namespaces(7), by their names in `/proc/PID/ns`.
pub const NAMESPACE_KINDS: [&str; 8] = ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time"];

/// One namespace of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// One of [`NAMESPACE_KINDS`].
    pub kind: &'static str,
    /// Its number.
    pub inode: u64,
    /// It is not the namespace that this process is in.
    pub private: bool,
}

/// The lines of `/proc/PID/status` that say what a process may do (proc_pid_status(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Real, effective, saved, file system.
    pub uids: [u32; 4],
    /// Real, effective, saved, file system.
    pub gids: [u32; 4],
    /// Supplementary.
    pub groups: Vec<u32>,
    /// CapInh
    pub inheritable: CapabilitySet,
    /// CapPrm
    pub permitted: CapabilitySet,
    /// CapEff
    pub effective: CapabilitySet,
    /// CapBnd
    pub bounding: CapabilitySet,
    /// CapAmb
    pub ambient: CapabilitySet,
    /// NoNewPrivs
    pub no_new_privs: bool,
    /// Seccomp
    pub seccomp: Seccomp,
    /// Seccomp_filters; `None` before Linux 5.9, which does not say.
    pub seccomp_filters: Option<u32>,
    /// SigBlk: of the main thread.
    pub blocked: SignalSet,
    /// SigIgn
    pub ignored: SignalSet,
    /// SigCgt
    pub caught: SignalSet,
}

/// A set of signals as the kernel's 64 bits, signal 1 the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalSet(pub u64);

impl SignalSet {
    /// Whether it holds this one; a number that is no signal is in no set.
    #[must_use]
    pub fn contains(self, signal: i32) -> bool {
        (1..=64).contains(&signal) && self.0 >> (signal - 1) & 1 == 1
    }
}

impl Status {
    /// Whether this signal would get its default action: it is neither caught, nor ignored, nor held back for
    /// sigwait(3) or a signalfd. To the init of a PID namespace the kernel does not even deliver it then, unless it is
    /// SIGKILL or SIGSTOP from outside (pid_namespaces(7)).
    #[must_use]
    pub fn takes_default_action(&self, signal: i32) -> bool {
        (1..=64).contains(&signal)
            && ![self.caught, self.ignored, self.blocked].iter().any(|set| set.contains(signal))
    }
}

/// A set of capabilities as the kernel's 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySet(pub u64);

/// How system calls are filtered (seccomp(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seccomp {
    /// Not at all.
    Disabled,
    /// read, write, exit and sigreturn.
    Strict,
    /// By programs.
    Filter,
}

/// A mount namespace in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mounts {
    /// How many mounts the process can reach.
    pub count: usize,
    /// The mount at `/`, or its file system, is read-only.
    pub root_read_only: bool,
}

/// A file that the kernel did not give, or that does not read as expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {why}")]
pub struct Unreadable {
    /// Its path.
    pub file: String,
    /// The errno, or what is not as expected.
    pub why: String,
}

/// Reads a process back.
///
/// # Errors
/// The process is gone, or this one may not look at it.
pub fn attest(pid: u32) -> Result<Attested, Unreadable> {
    Witness::new()?.attest(pid)
}

/// How it is found out in which cgroup a process is.
#[derive(Debug, Clone, Copy)]
pub enum Whereabouts<'a> {
    /// The kernel has just said that it is this one, by its number. How `/proc` shows that is read for the first of those that are
    /// below the same cgroup, and not for the others: no cgroup of the cgroup2 tree is ever renamed.
    In(&'a Cgroup),
    /// `/proc` is asked.
    Asked,
    /// It is not: nobody wants to know.
    Unasked,
}

/// What others are compared with: read once, where many are to be attested. It lives as long as one answer.
#[derive(Debug)]
pub struct Witness {
    namespaces: Vec<(&'static str, u64)>,
    known_capabilities: u8,
    /// What was read for one process of this process's mount namespace is what another one sees that has the same root.
    mounts: RefCell<BTreeMap<sys::Seat, Mounts>>,
    /// How `/proc/PID/cgroup` shows a cgroup, by its path: those above the cgroups that were asked about.
    shown: RefCell<BTreeMap<PathBuf, String>>,
}

impl Witness {
    /// Reads this process's own namespaces, and which capabilities this kernel knows.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn new() -> Result<Self, Unreadable> {
        let own = Process::open(std::process::id())?;
        let mut namespaces = Vec::new();
        for kind in NAMESPACE_KINDS {
            // A kind that this kernel lacks is one that both lack.
            namespaces.extend(own.namespace(kind)?.map(|inode| (kind, inode)));
        }
        let (mounts, shown) = Default::default();
        Ok(Self { namespaces, known_capabilities: known_capabilities()?, mounts, shown })
    }

    /// Reads a process back.
    ///
    /// # Errors
    /// As [`attest`].
    pub fn attest(&self, pid: u32) -> Result<Attested, Unreadable> {
        read_back(&Process::open(pid)?, self, Whereabouts::Asked)
    }

    /// The same of a process of which most was read just now.
    ///
    /// # Errors
    /// As [`attest`].
    pub fn attest_from(
        &self,
        pid: u32,
        sample: &Sample<'_>,
        cgroup: Whereabouts<'_>,
    ) -> Result<Attested, Unreadable> {
        read_back(&Process { sample: Some(*sample), ..Process::unopened(pid) }, self, cgroup)
    }

    fn shown_cgroup(
        &self,
        cgroup: &Cgroup,
        read: impl FnOnce() -> Result<String, Unreadable>,
    ) -> Result<String, Unreadable> {
        let path = cgroup.path();
        let parts = path.parent().and_then(|above| Some((above, path.file_name()?.to_str()?)));
        let Some((above, name)) = parts else { return read() };
        if let Some(above) = self.shown.borrow().get(above) {
            return Ok(format!("{above}/{name}"));
        }
        let found = read()?;
        if let Some(shown) = found.strip_suffix(name).and_then(|shown| shown.strip_suffix('/')) {
            self.shown.borrow_mut().insert(above.to_owned(), shown.to_owned());
        }
        Ok(found)
    }
}

fn read_back(
    process: &Process<'_>,
    witness: &Witness,
    cgroup: Whereabouts<'_>,
) -> Result<Attested, Unreadable> {
    let pid = process.pid;
    let mut namespaces = Vec::with_capacity(NAMESPACE_KINDS.len());
    for (kind, host) in &witness.namespaces {
        if let Some(inode) = process.namespace(kind)? {
            namespaces.push(Namespace { kind, inode, private: inode != *host });
        }
    }
    let read_cgroup = || {
        let text = process.read_record("cgroup")?;
        parse_cgroup(&text).ok_or_else(|| process.odd("cgroup", "no line of the cgroup2 tree (`0::`)"))
    };
    let cgroup = match cgroup {
        Whereabouts::In(cgroup) => Some(witness.shown_cgroup(cgroup, read_cgroup)),
        Whereabouts::Asked => Some(read_cgroup()),
        Whereabouts::Unasked => None,
    };
    let with_ours = namespaces.iter().any(|namespace| namespace.kind == "mnt" && !namespace.private);
    let mounts = process.mounts(with_ours.then_some(&witness.mounts));
    let status =
        parse_status(&process.read_record("status")?).map_err(|line| process.odd("status", &line))?;
    let known_capabilities = witness.known_capabilities;
    Ok(Attested { pid, namespaces, status, known_capabilities, cgroup, mounts })
}

/// The inode number of one namespace of a process (`net`, `mnt`, ...): two processes that have one number share it.
/// `None` where this kernel has no namespaces of the kind.
///
/// # Errors
/// The process is gone, or this one may not look at it.
pub fn namespace(pid: u32, kind: &str) -> Result<Option<u64>, Unreadable> {
    Process::open(pid)?.namespace(kind)
}

fn known_capabilities() -> Result<u8, Unreadable> {
    let file = "/proc/sys/kernel/cap_last_cap";
    let odd = |why: String| Unreadable { file: file.into(), why };
    let text = fs::read_to_string(file).map_err(|error| odd(describe(&error)))?;
    let last: u8 = text.trim().parse().map_err(|_| odd(format!("`{}` is no number", text.trim())))?;
    Ok(last.saturating_add(1))
}

/// More than any file of /proc that is read here has.
const FILE_MAX: u64 = 64 << 20;

/// A descriptor of `/proc/PID`, opened when something is read that was not read before.
struct Process<'a> {
    pid: u32,
    folder: OnceCell<OwnedFd>,
    sample: Option<Sample<'a>>,
}

impl<'a> Process<'a> {
    fn open(pid: u32) -> Result<Self, Unreadable> {
        let process = Self::unopened(pid);
        process.folder()?;
        Ok(process)
    }

    fn unopened(pid: u32) -> Self {
        Self { pid, folder: OnceCell::new(), sample: None }
    }

    fn folder(&self) -> Result<&OwnedFd, Unreadable> {
        if let Some(folder) = self.folder.get() {
            return Ok(folder);
        }
        let path = format!("/proc/{}", self.pid);
        match open(path.as_str(), OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(folder) => Ok(self.folder.get_or_init(|| folder)),
            Err(errno) => Err(Unreadable { file: path, why: describe(&errno.into()) }),
        }
    }

    fn odd(&self, name: &str, why: &str) -> Unreadable {
        Unreadable { file: format!("/proc/{}/{name}", self.pid), why: why.into() }
    }

    fn file(&self, name: &str) -> Result<File, Unreadable> {
        let opened = openat(self.folder()?, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        opened.map(File::from).map_err(|errno| self.odd(name, &describe(&errno.into())))
    }

    fn read(&self, name: &str) -> Result<Cow<'a, str>, Unreadable> {
        if let Some(text) = self.sample.and_then(|sample| sample.of_process(name)) {
            return Ok(text);
        }
        // Its size says nothing: with room for all of it, it is read in the two calls that it takes.
        let mut bytes = Vec::with_capacity(8192);
        match self.file(name)?.take(FILE_MAX).read_to_end(&mut bytes) {
            Ok(_) => Ok(text_of(bytes).into()),
            Err(error) => Err(self.odd(name, &describe(&error))),
        }
    }

    /// The same of a file that the kernel writes in one piece.
    fn read_record(&self, name: &str) -> Result<Cow<'a, str>, Unreadable> {
        if let Some(text) = self.sample.and_then(|sample| sample.of_process(name)) {
            return Ok(text);
        }
        let bytes = record::read(self.file(name)?, 4096, FILE_MAX);
        bytes.map(|bytes| text_of(bytes).into()).map_err(|error| self.odd(name, &describe(&error)))
    }

    /// `mountinfo` says the same to all who are in one mount namespace and have one root there: with `known`, which holds what
    /// was read of one namespace, it is read once for each root.
    fn mounts(&self, known: Option<&RefCell<BTreeMap<sys::Seat, Mounts>>>) -> Result<Mounts, Unreadable> {
        let read = || {
            let text = self.read("mountinfo")?;
            parse_mountinfo(&text).ok_or_else(|| self.odd("mountinfo", "no mount at /, or an odd line"))
        };
        let look = || sys::seat(self.folder().ok()?.as_raw_fd(), c"root").ok()?;
        // Before Linux 5.8 there is no telling.
        let root = || self.sample.and_then(|sample| sample.root()).or_else(look);
        let Some((known, root)) = known.and_then(|known| Some((known, root()?))) else { return read() };
        if let Some(mounts) = known.borrow().get(&root) {
            return Ok(*mounts);
        }
        let mounts = read()?;
        known.borrow_mut().insert(root, mounts);
        Ok(mounts)
    }

    fn namespace(&self, kind: &str) -> Result<Option<u64>, Unreadable> {
        if let Some(inode) = self.sample.and_then(|sample| sample.namespace(kind)) {
            return Ok(inode);
        }
        let name = format!("ns/{kind}");
        match readlinkat(self.folder()?, name.as_str()) {
            Ok(link) => match parse_namespace(&link, kind) {
                Some(inode) => Ok(Some(inode)),
                None => Err(self.odd(&name, &format!("links to {}", link.display()))),
            },
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.odd(&name, &describe(&errno.into()))),
        }
    }
}

/// A name that is not UTF-8 (the process's own, a mount point) must not hide the rest.
fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The errno's name where there is one: `EACCES: Permission denied`.
fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).to_string(),
        None => error.to_string(),
    }
}

/// What is read of `/proc/PID/status`: where its value is kept.
fn place_of(key: &str) -> Option<usize> {
    Some(match key {
        "Uid" => 0,
        "Gid" => 1,
        "Groups" => 2,
        "CapInh" => 3,
        "CapPrm" => 4,
        "CapEff" => 5,
        "CapBnd" => 6,
        "CapAmb" => 7,
        "NoNewPrivs" => 8,
        "Seccomp" => 9,
        "Seccomp_filters" => 10,
        "SigBlk" => 11,
        "SigIgn" => 12,
        "SigCgt" => 13,
        _ => return None,
    })
}

/// Reads `/proc/PID/status`; the error is what is missing or odd.
fn parse_status(text: &str) -> Result<Status, String> {
    let mut values = [None; 14];
    // Most lines are none of these, by their first letter.
    let may_be = |line: &&str| matches!(line.as_bytes(), [b'U' | b'G' | b'C' | b'N' | b'S', ..]);
    for (key, value) in text.lines().filter(may_be).filter_map(|line| line.split_once(':')) {
        if let Some(place) = place_of(key) {
            values[place].get_or_insert(value.trim_ascii());
        }
    }
    let find =
        |key: &str| place_of(key).and_then(|place| values[place]).ok_or_else(|| format!("no line `{key}:`"));
    let numbers = |key: &str| -> Result<Vec<u32>, String> {
        let line = find(key)?;
        let numbers: Result<_, _> = line.split_ascii_whitespace().map(str::parse).collect();
        numbers.map_err(|_| format!("{key}: {line}"))
    };
    let four = |key: &str| {
        let numbers = numbers(key)?;
        <[u32; 4]>::try_from(numbers).map_err(|numbers| format!("{key}: {} numbers, not 4", numbers.len()))
    };
    let bits = |key: &str| {
        let line = find(key)?;
        u64::from_str_radix(line, 16).map_err(|_| format!("{key}: {line}"))
    };
    let set = |key: &str| bits(key).map(CapabilitySet);
    let signals = |key: &str| bits(key).map(SignalSet);
    let number = |key: &str| -> Result<u32, String> {
        let line = find(key)?;
        line.parse().map_err(|_| format!("{key}: {line}"))
    };
    Ok(Status {
        uids: four("Uid")?,
        gids: four("Gid")?,
        groups: numbers("Groups")?,
        inheritable: set("CapInh")?,
        permitted: set("CapPrm")?,
        effective: set("CapEff")?,
        bounding: set("CapBnd")?,
        ambient: set("CapAmb")?,
        no_new_privs: match number("NoNewPrivs")? {
            0 => false,
            1 => true,
            other => return Err(format!("NoNewPrivs: {other}")),
        },
        seccomp: match number("Seccomp")? {
            0 => Seccomp::Disabled,
            1 => Seccomp::Strict,
            2 => Seccomp::Filter,
            other => return Err(format!("Seccomp: {other}")),
        },
        seccomp_filters: match find("Seccomp_filters") {
            Ok(_) => Some(number("Seccomp_filters")?),
            Err(_) => None,
        },
        blocked: signals("SigBlk")?,
        ignored: signals("SigIgn")?,
        caught: signals("SigCgt")?,
    })
}

/// `net:[4026531833]`
pub(crate) fn parse_namespace(link: &OsStr, kind: &str) -> Option<u64> {
    link.to_str()?.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

/// The path on the line `0::PATH` of `/proc/PID/cgroup`.
fn parse_cgroup(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Lines as `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn parse_mountinfo(text: &str) -> Option<Mounts> {
    let mut root_read_only = None;
    let mut count = 0;
    for line in text.lines() {
        count += 1;
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let (point, options) = (mount.next()?, mount.next()?);
        // The last one is on top.
        if point == "/" {
            let super_options = file_system.split(' ').nth(2)?;
            let read_only = |options: &str| options.split(',').any(|option| option == "ro");
            root_read_only = Some(read_only(options) || read_only(super_options));
        }
    }
    root_read_only.map(|root_read_only| Mounts { count, root_read_only })
}

/// The names of all capabilities that there can be, by their numbers; one that is newer than this program is `CAP_41`.
#[must_use]
pub fn capability_names() -> &'static [String; 64] {
    static NAMES: LazyLock<[String; 64]> = LazyLock::new(|| {
        let mut names = std::array::from_fn(|bit| format!("CAP_{bit}"));
        for capability in caps::all() {
            names[usize::from(capability.index())] = capability.to_string();
        }
        names
    });
    &NAMES
}

impl CapabilitySet {
    /// The names in the order of the numbers.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        self.each_name().collect()
    }

    /// The same, one after the other.
    pub fn each_name(self) -> impl Iterator<Item = &'static str> {
        let set = capability_names().iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 == 1);
        set.map(|(_, name)| name.as_str())
    }

    /// Whether it holds this one.
    #[must_use]
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & capability.bitmask() != 0
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caps::CapSet;

    /// Recorded on 6.18 from a process that setpriv(1) and a filter that allows everything had made; shortened.
    const CONFINED: &str = "\
Name:\tgrep
Umask:\t0022
State:\tR (running)
Tgid:\t17983
Pid:\t17983
Uid:\t61042\t61042\t61042\t61042
Gid:\t61042\t61042\t61042\t61042
FDSize:\t256
Groups:\t4 24 
SigBlk:\t0000000000000000
SigIgn:\t0000000000000000
SigCgt:\t0000000000000400
CapInh:\t0000000000000400
CapPrm:\t0000000000000400
CapEff:\t0000000000000400
CapBnd:\t0000000000000400
CapAmb:\t0000000000000400
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t1
Speculation_Store_Bypass:\tvulnerable
";

    #[test]
    fn a_confined_status_reads_as_it_stands() {
        let status = parse_status(CONFINED).unwrap();
        assert_eq!(status.uids, [61042; 4]);
        assert_eq!(status.groups, [4, 24]);
        assert_eq!(status.bounding.names(), ["CAP_NET_BIND_SERVICE"]);
        assert_eq!(status.bounding, status.ambient);
        assert!(status.no_new_privs);
        assert_eq!((status.seccomp, status.seccomp_filters), (Seccomp::Filter, Some(1)));
    }

    #[test]
    fn a_signal_that_is_neither_caught_ignored_nor_blocked_gets_its_default_action() {
        let text = CONFINED
            .replace("SigBlk:\t0000000000000000", "SigBlk:\t8000000000000001")
            .replace("SigIgn:\t0000000000000000", "SigIgn:\t0000000000001000");
        let status = parse_status(&text).unwrap();
        let not: Vec<i32> = (0..66).filter(|signal| !status.takes_default_action(*signal)).collect();
        assert_eq!(not, [0, 1, 11, 13, 64, 65]);
    }

    #[test]
    fn a_process_cannot_name_itself_into_another_line() {
        let liar = CONFINED.replace("Name:\tgrep", "Name:\tUid:\\nUid:\t0\t0\t0\t0");
        assert_eq!(parse_status(&liar).unwrap().uids, [61042; 4]);
    }

    #[test]
    fn a_kernel_without_the_filter_count_says_none_and_not_zero() {
        let old = CONFINED.replace("Seccomp_filters:\t1\n", "");
        assert_eq!(parse_status(&old).unwrap().seccomp_filters, None);
    }

    #[test]
    fn a_status_that_lacks_a_line_or_has_an_odd_one_is_no_status() {
        let check = |from: &str, to: &str, expected: &str| {
            assert_eq!(parse_status(&CONFINED.replace(from, to)).unwrap_err(), expected);
        };
        check("NoNewPrivs:\t1\n", "", "no line `NoNewPrivs:`");
        check("CapBnd:\t0000000000000400", "CapBnd:\tall", "CapBnd: all");
        check("Seccomp:\t2", "Seccomp:\t3", "Seccomp: 3");
        check("Gid:\t61042\t", "Gid:\t", "Gid: 3 numbers, not 4");
        check("Seccomp_filters:\t1", "Seccomp_filters:\tmany", "Seccomp_filters: many");
    }

    #[test]
    fn a_capability_newer_than_this_program_has_its_number_for_a_name() {
        assert_eq!(CapabilitySet(1 << 63 | 1).names(), ["CAP_CHOWN", "CAP_63"]);
        assert!(CapabilitySet(0).names().is_empty());
    }

    #[test]
    fn a_namespace_link_is_its_kind_and_number() {
        let check = |link: &str, expected| assert_eq!(parse_namespace(OsStr::new(link), "net"), expected);
        check("net:[4026531833]", Some(4_026_531_833));
        check("mnt:[4026531833]", None);
        check("net:[]", None);
        check("net:4026531833", None);
    }

    #[test]
    fn the_cgroup_is_the_line_of_the_cgroup2_tree() {
        let hybrid = "9:name=systemd:/\n4:memory:/jobs/7\n0::/web.slice/web.service\n";
        assert_eq!(parse_cgroup(hybrid).as_deref(), Some("/web.slice/web.service"));
        assert_eq!(parse_cgroup("4:memory:/jobs/7\n"), None);
    }

    #[test]
    fn the_root_is_read_only_by_its_topmost_mount_or_its_file_system() {
        let check = |text: &str, expected: Option<(usize, bool)>| {
            let found = parse_mountinfo(text).map(|mounts| (mounts.count, mounts.root_read_only));
            assert_eq!(found, expected, "{text}");
        };
        let writable = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro\n";
        let read_only = "90 27 254:0 / / ro,nosuid - ext4 /dev/vda rw\n";
        let proc = "22 27 0:21 / /proc ro,relatime - proc proc rw\n";
        check(&[writable, proc].concat(), Some((2, false)));
        check(&[writable, proc, read_only].concat(), Some((3, true)));
        check("27 1 254:0 / / rw,relatime - squashfs /dev/vda ro\n", Some((1, true)));
        check(proc, None);
        check("nonsense\n", None);
    }

    #[test]
    fn this_process_reads_as_the_caps_crate_and_the_system_calls_say() {
        let found = attest(std::process::id()).unwrap();
        let same = |set: CapabilitySet, which: CapSet| {
            let bits = caps::read(None, which).unwrap().iter().fold(0, |bits, one| bits | one.bitmask());
            assert_eq!(set, CapabilitySet(bits), "{which:?}");
        };
        same(found.status.effective, CapSet::Effective);
        same(found.status.permitted, CapSet::Permitted);
        same(found.status.inheritable, CapSet::Inheritable);
        same(found.status.bounding, CapSet::Bounding);
        same(found.status.ambient, CapSet::Ambient);
        assert_eq!(found.status.uids[1], nix::unistd::geteuid().as_raw());
        assert_eq!(found.status.gids[1], nix::unistd::getegid().as_raw());
        let groups: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert_eq!(found.status.groups, groups);
        assert_eq!(found.status.no_new_privs, nix::sys::prctl::get_no_new_privs().unwrap());
        assert!(found.namespaces.iter().all(|namespace| !namespace.private));
        assert!(found.namespaces.iter().any(|namespace| namespace.kind == "mnt"));
        assert!(found.mounts.unwrap().count > 0);
    }

    #[test]
    fn the_mounts_of_one_process_are_told_of_no_other_that_does_not_see_them() {
        use std::{
            io::Write,
            process::{Command, Stdio},
        };
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED, 1: it needs root");
            return;
        }
        let witness = Witness::new().unwrap();
        let found = |pid| witness.attest(pid).unwrap().mounts;
        let truth = found(std::process::id()).unwrap();
        // What was read of this root is told again: so what else is told was read.
        let known = Mounts { count: 4711, root_read_only: true };
        assert_eq!(witness.mounts.borrow().values().collect::<Vec<_>>(), [&truth]);
        witness.mounts.borrow_mut().values_mut().for_each(|mounts| *mounts = known);
        let behind = |command: &mut Command| {
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            // Its answer says that it is cat by now.
            let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            stdin.write_all(b"x").unwrap();
            stdout.read_exact(&mut [0]).unwrap();
            let mounts = found(child.id());
            drop(stdin);
            child.wait().unwrap();
            mounts
        };
        assert_eq!(
            behind(&mut Command::new("cat")),
            Ok(known),
            "control: the same namespace and the same root"
        );
        let another = behind(Command::new("unshare").args(["--mount", "cat"]));
        assert_eq!(another, Ok(truth), "a copy of the namespace");
        // No mount is at what is its root, so /proc has none to tell.
        let below = behind(Command::new("chroot").args(["/usr", "/bin/cat"]));
        assert!(below.is_err(), "{below:?}");
    }

    #[test]
    fn a_cgroup_that_is_known_by_its_number_is_shown_as_proc_shows_it() {
        use std::process::{Child, Command, Stdio};

        use crate::{
            cgroup::Enabled,
            survey::{Subject, Survey},
        };
        let base = crate::kernel::Kernel::probe(None).unwrap().cgroup_base;
        let Some(base) = base.filter(|_| nix::unistd::geteuid().is_root()) else {
            println!("SKIPPED, 1: it needs root and a cgroup2 tree");
            return;
        };
        let above = base.join(format!("attest-{}", std::process::id()));
        let folder = |name: &str| above.join(name);
        ["", "one", "two"].iter().for_each(|name| fs::create_dir(folder(name)).unwrap());
        let within = |name: &str| Cgroup::open(&above, name).unwrap().unwrap();
        let (one, two) = (within("one"), within("two"));
        let member = |name: &str| {
            let child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            fs::write(folder(name).join("cgroup.procs"), child.id().to_string()).unwrap();
            child
        };
        let children = ["one", "two"].map(member);
        let witness = Witness::new().unwrap();
        let told = |child: &Child, cgroup| {
            let subject = Subject::new(Some(child.id()), Some(cgroup), &mut Enabled::default());
            let mut survey = Survey::new([subject].into_iter());
            let sample = survey.read(0, &subject);
            witness.attest_from(child.id(), &sample, Whereabouts::In(cgroup)).unwrap().cgroup.unwrap()
        };
        let read = |child: &Child| witness.attest(child.id()).unwrap().cgroup.unwrap();
        let [first, second] = &children;
        assert!(read(first).unwrap().ends_with("/one"));
        assert_eq!(told(first, &one), read(first), "the first of those below the same cgroup");
        assert_eq!(told(second, &two), read(second), "another of them");
        witness.shown.borrow_mut().values_mut().for_each(|shown| *shown = "/told".to_owned());
        assert_eq!(told(second, &two).unwrap(), "/told/two", "control: it was not read");
        for mut child in children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        ["two", "one", ""].iter().for_each(|name| fs::remove_dir(folder(name)).unwrap());
    }

    #[test]
    fn a_namespace_of_its_own_is_private_and_the_others_are_not() {
        use std::{
            io::Write,
            process::{Command, Stdio},
        };
        // A user namespace as well where it takes one to make the other.
        let root = nix::unistd::geteuid().is_root();
        let mut child = Command::new("unshare")
            .args(if root { &["--uts", "cat"][..] } else { &["--user", "--uts", "cat"][..] })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Its answer says that it is cat by now.
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        stdin.write_all(b"x").unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        let found = attest(child.id());
        drop(stdin);
        child.wait().unwrap();
        let private = |kind: &str| {
            let found = found.as_ref().unwrap();
            found.namespaces.iter().find(|namespace| namespace.kind == kind).unwrap().private
        };
        assert!(private("uts"));
        assert!(!private("mnt") && !private("net") && private("user") != root);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error_that_names_the_file() {
        // Above any pid_max (proc(5): at most 2^22).
        let error = attest(1 << 23).unwrap_err();
        assert_eq!(error.to_string(), "/proc/8388608: ENOENT: No such file or directory");
    }
}
