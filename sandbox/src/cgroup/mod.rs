//! A service's cgroup: made, limited and read back before the service exists; watched, killed and removed after.
//!
//! By hand, over a directory descriptor, and not by cgroups-rs: that crate drops write errors (`enable_controllers`, the
//! `update!` macro), knows no cgroup2 tree but /sys/fs/cgroup, and has no cgroup.events, no PSI and no descriptor for
//! CLONE_INTO_CGROUP. It tells the layout of the host (`kernel::probe`) and is the oracle of the figures in the tests.
//!
//! Source: Documentation/admin-guide/cgroup-v2.rst.

mod figures;
mod pressure;
mod programs;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::{Mode, fstat, mkdirat},
};

pub use figures::{Enabled, Figure, Figures, Missing, NOT_ENABLED, Pressure};
pub use programs::AttachedProgram;

use crate::{
    descriptors::far_up,
    plan::Plan,
    record,
    survey::{Subject, Survey},
};

/// No file of a cgroup is longer: cgroup.procs with 100,000 processes.
const FILE_MAX: u64 = 1 << 20;

/// What went wrong with a cgroup: what was being done, to which file, and what the kernel said.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
pub struct CgroupError {
    action: String,
    path: PathBuf,
    source: io::Error,
}

impl CgroupError {
    fn new(action: impl Into<String>, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self { action: action.into(), path: path.into(), source: source.into() }
    }

    /// What a caller did with a cgroup, and what the kernel said.
    #[must_use]
    pub fn of(cgroup: &Cgroup, action: &str, source: io::Error) -> Self {
        Self::new(action, &cgroup.path, source)
    }

    /// The errno behind it, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.source.raw_os_error().map(Errno::from_raw)
    }
}

/// One cgroup, held by its directory: it stays this one even if another takes its path.
#[derive(Debug)]
pub struct Cgroup {
    directory: OwnedFd,
    path: PathBuf,
    id: u64,
}

impl Cgroup {
    /// Makes the cgroup `relative` below `base` (`web.slice/web.service`), enables the plan's controllers on the way
    /// down, writes the plan's limits, attaches its programs, and reads each back. A cgroup that is there already is used if it
    /// is empty.
    ///
    /// # Errors
    /// The first write that failed or did not take. The cgroup is removed again then.
    pub fn create(base: &Path, relative: &str, plan: &Plan) -> Result<Self, CgroupError> {
        Self::make(base, relative, plan, Self::populated)
    }

    /// The same among many that are made by one decision: the way down to each is opened, and looked at for its controllers,
    /// once for all of them. What does not succeed so is tried the whole way.
    ///
    /// # Errors
    /// As for [`Cgroup::create`].
    pub fn create_among(
        base: &Path,
        relative: &str,
        plan: &Plan,
        slices: &mut Slices,
    ) -> Result<Self, CgroupError> {
        let path = base.join(relative);
        if let Some(cgroup) = slices.make(base, &path, plan) {
            return Ok(cgroup);
        }
        let cgroup = Self::create(base, relative, plan)?;
        slices.learn(&path, plan);
        Ok(cgroup)
    }

    /// The same for one whose processes are in cgroups below it ([`Cgroup::new_child`]), and whose limits are those of all of
    /// them: it has to have none itself.
    ///
    /// # Errors
    /// As for [`Cgroup::create`].
    pub fn create_above(base: &Path, relative: &str, plan: &Plan) -> Result<Self, CgroupError> {
        Self::make(base, relative, plan, |cgroup| Ok(!pids(&cgroup.read("cgroup.procs")?).is_empty()))
    }

    fn make(
        base: &Path,
        relative: &str,
        plan: &Plan,
        in_use: fn(&Self) -> Result<bool, CgroupError>,
    ) -> Result<Self, CgroupError> {
        // A base that is not there yet is made on the way, like a slice.
        let missing = |error: &CgroupError| error.errno() == Some(Errno::ENOENT);
        let (existing, mut directory) = match open_directory(base) {
            Err(error) if missing(&error) => {
                let existing = base.ancestors().find(|path| path.exists()).unwrap_or(base);
                (existing, open_directory(existing)?)
            }
            answer => (base, answer?),
        };
        let below = base.strip_prefix(existing).unwrap_or(Path::new("")).join(relative);
        let mut path = existing.to_owned();
        let mut is_new = false;
        for name in below.iter().filter_map(|name| name.to_str()) {
            enable_controllers(&directory, &path, &plan.controllers)?;
            path.push(name);
            is_new = match mkdirat(&directory, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => true,
                Err(Errno::EEXIST) => false,
                Err(errno) => return Err(CgroupError::new("make", path, errno)),
            };
            directory = open_below(&directory, &path, name)?;
        }
        let cgroup = Self::held(directory, path)?;
        if !is_new && in_use(&cgroup)? {
            return Err(CgroupError::new("use", &cgroup.path, io::Error::other("it has processes already")));
        }
        cgroup.prepared(base, plan, is_new)
    }

    /// With limits and programs, or gone again.
    fn prepared(self, base: &Path, plan: &Plan, is_new: bool) -> Result<Self, CgroupError> {
        let limited = self.limit(plan).and_then(|()| protect_from_above(base, &self.path, plan));
        match limited.and_then(|()| self.attach(plan, is_new)) {
            Ok(()) => Ok(self),
            Err(error) => {
                self.remove()?;
                Err(error)
            }
        }
    }

    /// Makes a new cgroup below this one, without limits of its own: `name-1`, or the first after it that is not there.
    ///
    /// # Errors
    /// mkdirat(2), openat(2)
    pub fn new_child(&self, name: &str) -> Result<Self, CgroupError> {
        for number in 1..=u32::MAX {
            let child = format!("{name}-{number}");
            let path = self.path.join(&child);
            match mkdirat(&self.directory, child.as_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    let directory = open_below(&self.directory, &path, &child)?;
                    return Self::held(directory, path);
                }
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(CgroupError::new("make", path, errno)),
            }
        }
        Err(CgroupError::new("make", self.path.join(name), Errno::EEXIST))
    }

    /// The cgroups right below it.
    ///
    /// # Errors
    /// It is gone.
    pub fn children(&self) -> Result<Vec<Self>, CgroupError> {
        let mut found = Vec::new();
        for name in children(&self.directory, &self.path)? {
            // One that went away meanwhile is none.
            found.extend(Self::open(&self.path, &name)?);
        }
        Ok(found)
    }

    /// Opens a cgroup that is there; `None` where it is not.
    ///
    /// # Errors
    /// Whatever else openat(2) says.
    pub fn open(base: &Path, relative: &str) -> Result<Option<Self>, CgroupError> {
        let path = base.join(relative);
        match open_directory(&path) {
            Ok(directory) => Self::held(directory, path).map(Some),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn held(directory: OwnedFd, path: PathBuf) -> Result<Self, CgroupError> {
        let directory = far_up(directory);
        let status = fstat(&directory).map_err(|errno| CgroupError::new("stat", &path, errno))?;
        Ok(Self { directory, path, id: status.st_ino })
    }

    /// The kernel's 64-bit id of it, not reused in a boot: the inode of the directory.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it was made.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory, for CLONE_INTO_CGROUP.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Reads a file of it.
    ///
    /// # Errors
    /// Absent where the controller is not enabled.
    pub fn read(&self, file: &str) -> Result<String, CgroupError> {
        // Its size says nothing: with room for all of it, it is read in the two calls that it takes.
        let mut text = String::with_capacity(1024);
        self.open_file(file)?
            .take(FILE_MAX)
            .read_to_string(&mut text)
            .map_err(|error| CgroupError::new("read", self.path.join(file), error))?;
        Ok(text)
    }

    /// The same of a file that the kernel writes in one piece, as those of figures are.
    fn read_record(&self, file: &str) -> Result<String, CgroupError> {
        read_record_at(&self.directory, &self.path, file)
    }

    fn open_file(&self, file: &str) -> Result<File, CgroupError> {
        open_file_at(&self.directory, &self.path, file)
    }

    fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        write_at(&self.directory, &self.path, file, value)
    }

    /// The same, and what the kernel says then: read from its beginning, a file of a cgroup is made anew, whoever wrote it.
    fn write_and_read(&self, file: &str, value: &str) -> Result<String, CgroupError> {
        let mut opened = open_to_write(&self.directory, &self.path, file, value, OFlag::O_RDWR)?;
        let blame = |error| CgroupError::new("read", self.path.join(file), error);
        opened.rewind().map_err(blame)?;
        text_of(record::read(opened, 1024, FILE_MAX).map_err(blame)?).map_err(blame)
    }

    /// Whether a process lives in it or below it.
    ///
    /// # Errors
    /// It is gone, or `cgroup.events` cannot be read.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        Ok(self.read("cgroup.events")?.lines().any(|line| line == "populated 1"))
    }

    /// `cgroup.events`, to be polled for POLLPRI: woken when `populated` changes.
    ///
    /// # Errors
    /// It is gone.
    pub fn events_fd(&self) -> Result<OwnedFd, CgroupError> {
        let file = "cgroup.events";
        openat(&self.directory, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| CgroupError::new("open", self.path.join(file), errno))
    }

    /// The processes in it and below it.
    ///
    /// # Errors
    /// It is gone.
    pub fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = pids(&self.read("cgroup.procs")?);
        for name in children(&self.directory, &self.path)? {
            // A child that went away meanwhile has no processes.
            if let Some(child) = Self::open(&self.path, &name)? {
                pids.extend(child.procs()?);
            }
        }
        Ok(pids)
    }

    /// Whether this process lives in it or below it.
    ///
    /// # Errors
    /// It is gone.
    pub fn holds(&self, pid: u32) -> Result<bool, CgroupError> {
        // What is below it is looked at only where that is needed: most services have nothing there.
        Ok(pids(&self.read("cgroup.procs")?).contains(&pid) || self.procs()?.contains(&pid))
    }

    /// SIGKILL to everything in it and below it, at once (`cgroup.kill`, since 5.14).
    ///
    /// # Errors
    /// It is gone.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.write("cgroup.kill", "1")
    }

    /// Removes it and the empty cgroups below it. One that is gone already is no error.
    ///
    /// # Errors
    /// EBUSY while a process lives in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        // Most have nothing below them. One that does says so, as one that a process lives in does.
        match fs::remove_dir(&self.path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => {}
        }
        let children = match children(&self.directory, &self.path) {
            Ok(children) => children,
            // A removed cgroup answers ENODEV or ENOENT.
            Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV)) => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in children {
            if let Some(child) = Self::open(&self.path, &name)? {
                child.remove()?;
            }
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(CgroupError::new("remove", &self.path, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The figures of it. Each says for itself if it cannot be had.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut enabled = Enabled::default();
        let subject = Subject::new(None, Some(self), &mut enabled);
        Figures::from_sample(self, &Survey::new([subject].into_iter()).read(0, &subject), &mut enabled)
    }

    /// Writes the plan's limits and reads each back: a limit that did not take is an error.
    fn limit(&self, plan: &Plan) -> Result<(), CgroupError> {
        for setting in plan.cgroup.iter() {
            let blame = |error: CgroupError| {
                let action = format!("{}: {}", plan.sources.locate(&setting.at), error.action);
                CgroupError { action, ..error }
            };
            let file = setting.file.as_str();
            let found = self.write_and_read(file, &setting.value).map_err(blame)?;
            if !took(file, &setting.value, found.trim()) {
                let source = io::Error::other(format!("wrote {}, reads {}", setting.value, found.trim()));
                return Err(blame(CgroupError::new("set", self.path.join(file), source)));
            }
            // A set of which the cgroups above have a part is cut down to that part, and one of which they have nothing
            // is left out of account: only what is effective counts.
            if setting.controller == "cpuset" {
                let file = format!("{file}.effective");
                let found = self.read(&file).map_err(blame)?;
                if found.trim() != setting.value {
                    let why = format!("asked for {}, the cgroups above have {}", setting.value, found.trim());
                    return Err(blame(CgroupError::new("set", self.path.join(file), io::Error::other(why))));
                }
            }
        }
        Ok(())
    }
}

/// Cgroups in which others were made by the decision that is being executed: each open, with the controllers that it is known
/// to enable.
#[derive(Debug, Default)]
pub struct Slices(BTreeMap<PathBuf, (OwnedFd, Arc<[String]>)>);

impl Slices {
    /// A new cgroup in one of these; `None`, and nothing is there, where it takes the whole way.
    fn make(&mut self, base: &Path, path: &Path, plan: &Plan) -> Option<Cgroup> {
        let (slice, name) = (path.parent()?, path.file_name()?.to_str()?);
        let (directory, enabled) = self.0.get(slice)?;
        if !plan.controllers.iter().all(|wanted| enabled.contains(wanted)) {
            return None;
        }
        let made = match mkdirat(directory, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => open_below(directory, path, name)
                .and_then(|directory| Cgroup::held(directory, path.to_owned()))
                .and_then(|cgroup| cgroup.prepared(base, plan, true)),
            Err(errno) => Err(CgroupError::new("make", path, errno)),
        };
        match made {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                tracing::debug!("{error}: tried the whole way");
                self.0.remove(slice);
                None
            }
        }
    }

    /// A cgroup of this plan was made there.
    fn learn(&mut self, path: &Path, plan: &Plan) {
        let Some(slice) = path.parent() else { return };
        match open_directory(slice) {
            Ok(directory) => {
                self.0.insert(slice.to_owned(), (far_up(directory), plan.controllers.clone()));
            }
            Err(error) => tracing::debug!("{error}: the next one takes the whole way"),
        }
    }
}

/// Protection goes down from above: a cgroup has no more of it than the one that it is in (cgroup-v2.rst, `memory.min`).
/// So each slice on the way from `path` up to `base` gets as much as all that is directly in it has.
fn protect_from_above(base: &Path, path: &Path, plan: &Plan) -> Result<(), CgroupError> {
    for file in ["memory.min", "memory.low"] {
        if !plan.cgroup.iter().any(|setting| setting.file == file) {
            continue;
        }
        for slice in path.ancestors().skip(1).take_while(|slice| *slice != base) {
            let directory = open_directory(slice)?;
            let mut sum = Some(0_u64);
            for name in children(&directory, slice)? {
                // A child that went away meanwhile has no protection.
                let Some(child) = Cgroup::open(slice, &name)? else { continue };
                let text = child.read(file)?;
                let own: Option<u64> = text.trim().parse().ok();
                sum = sum.zip(own).and_then(|(sum, own)| sum.checked_add(own));
            }
            let wanted = sum.map_or_else(|| "max".to_owned(), |sum| sum.to_string());
            write_at(&directory, slice, file, &wanted)?;
            let found = Cgroup::held(directory, slice.to_owned())?.read(file)?;
            if !took(file, &wanted, found.trim()) {
                let source = io::Error::other(format!("wrote {wanted}, reads {}", found.trim()));
                return Err(CgroupError::new("set", slice.join(file), source));
            }
        }
    }
    Ok(())
}

/// Whether what a file says after a write is what was written, in the ways in which the kernel writes it back.
fn took(file: &str, written: &str, found: &str) -> bool {
    const PAGE: u64 = 4096;
    if written == found {
        return true;
    }
    match file {
        // One line for each device or resource, with every limit that it has.
        "io.max" | "io.latency" | "rdma.max" | "misc.max" => line_took(written, found),
        // Before the lines of single devices.
        "io.weight" => found.lines().next() == Some(&format!("default {written}")),
        // Bytes are rounded down to pages.
        _ if file.starts_with("memory.") => match (written.parse::<u64>(), found.parse::<u64>()) {
            (Ok(written), Ok(found)) => found == written / PAGE * PAGE,
            _ => false,
        },
        _ => false,
    }
}

/// `8:0 rbps=1048576` of `8:0 rbps=1048576 wbps=max riops=max wiops=max`. A device without any limit has no line.
fn line_took(written: &str, found: &str) -> bool {
    let Some((key, limits)) = written.split_once(' ') else { return false };
    let line = found.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    limits.split(' ').all(|limit| match line {
        Some(line) => line.split_whitespace().any(|found| found == limit),
        None => limit.ends_with("=max"),
    })
}

/// Every `NAME.service` below a base, as paths relative to it: the ground truth of what runs.
///
/// # Errors
/// A folder of the tree cannot be read.
pub fn walk(base: &Path) -> Result<Vec<String>, CgroupError> {
    let mut found = Vec::new();
    let mut queue = vec![String::new()];
    while let Some(relative) = queue.pop() {
        let path = base.join(&relative);
        let directory = match open_directory(&path) {
            Ok(directory) => directory,
            Err(error) if error.errno() == Some(Errno::ENOENT) && !relative.is_empty() => continue,
            Err(error) => return Err(error),
        };
        for name in children(&directory, &path)? {
            let below = if relative.is_empty() { name.clone() } else { format!("{relative}/{name}") };
            if name.ends_with(".service") {
                found.push(below);
            } else if name.ends_with(".slice") {
                queue.push(below);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Moves a process into a leaf of its own below `base`, made if it is missing.
///
/// # Errors
/// The leaf cannot be made or the kernel refuses the move.
pub fn move_into_leaf(base: &Path, leaf: &str, pid: u32) -> Result<(), CgroupError> {
    let path = base.join(leaf);
    match fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(CgroupError::new("make", path, error));
        }
        Ok(()) | Err(_) => {}
    }
    let directory = open_directory(&path)?;
    write_at(&directory, &path, "cgroup.procs", &pid.to_string())
}

fn open_directory(path: &Path) -> Result<OwnedFd, CgroupError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| CgroupError::new("open", path, errno))
}

fn open_below(directory: &OwnedFd, path: &Path, name: &str) -> Result<OwnedFd, CgroupError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    openat(directory, name, flags, Mode::empty()).map_err(|errno| CgroupError::new("open", path, errno))
}

fn open_file_at(directory: &OwnedFd, path: &Path, file: &str) -> Result<File, CgroupError> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let opened = openat(directory, file, flags, Mode::empty());
    opened.map(File::from).map_err(|errno| CgroupError::new("open", path.join(file), errno))
}

/// A file that the kernel writes in one piece.
fn read_record_at(directory: &OwnedFd, path: &Path, file: &str) -> Result<String, CgroupError> {
    let blame = |error| CgroupError::new("read", path.join(file), error);
    text_of(record::read(open_file_at(directory, path, file)?, 1024, FILE_MAX).map_err(blame)?).map_err(blame)
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn write_at(directory: &OwnedFd, path: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    open_to_write(directory, path, file, value, OFlag::O_WRONLY).map(drop)
}

/// The file, after the value was written to it.
fn open_to_write(
    directory: &OwnedFd,
    path: &Path,
    file: &str,
    value: &str,
    access: OFlag,
) -> Result<File, CgroupError> {
    let action = || format!("write {value} to");
    let mut opened = openat(directory, file, access | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
        .map(File::from)
        .map_err(|errno| CgroupError::new(action(), path.join(file), errno))?;
    // One write: a cgroup file takes its value whole or not at all.
    opened.write_all(value.as_bytes()).map_err(|error| CgroupError::new(action(), path.join(file), error))?;
    Ok(opened)
}

/// `+memory` for each controller that is wanted and not enabled yet, each checked on its own.
fn enable_controllers(directory: &OwnedFd, path: &Path, controllers: &[String]) -> Result<(), CgroupError> {
    if controllers.is_empty() {
        return Ok(());
    }
    let file = "cgroup.subtree_control";
    let enabled = read_record_at(directory, path, file)?;
    for controller in controllers {
        if !enabled.split_whitespace().any(|name| name == controller) {
            write_at(directory, path, file, &format!("+{controller}"))?;
        }
    }
    Ok(())
}

fn pids(text: &str) -> Vec<u32> {
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The names of the cgroups directly below.
fn children(directory: &OwnedFd, path: &Path) -> Result<Vec<String>, CgroupError> {
    let fail = |errno| CgroupError::new("list", path, errno);
    let mut listing =
        Dir::openat(directory, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(fail)?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy();
        if entry.file_type() == Some(nix::dir::Type::Directory) && name != "." && name != ".." {
            names.push(name.into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::took;

    #[test]
    fn a_limit_took_if_it_reads_as_written_or_rounded_down_to_a_page() {
        assert!(took("memory.max", "max", "max"));
        assert!(took("pids.max", "64", "64"));
        assert!(took("io.weight", "100", "default 100"));
        assert!(took("io.weight", "100", "default 100\n8:0 200"));
        assert!(took("memory.max", "536870912", "536870912"));
        assert!(took("memory.high", "536870915", "536870912"));
        assert!(took("cpu.max", "150000 100000", "150000 100000"));
        assert!(took("cpuset.cpus", "0-3,8", "0-3,8"));
        assert!(took(
            "io.max",
            "8:0 rbps=1048576",
            "8:16 rbps=1 wbps=1 riops=1 wiops=1\n8:0 rbps=1048576 wbps=max riops=max wiops=max"
        ));
        assert!(took("io.max", "8:0 rbps=max wiops=max", ""));
        assert!(took("io.latency", "8:0 target=10000", "8:0 target=10000"));
        assert!(took("rdma.max", "mlx5_0 hca_object=7", "mlx5_0 hca_handle=max hca_object=7"));
        assert!(took("misc.max", "sev 4", "sev 4\nsev_es max"));
    }

    #[test]
    fn a_limit_that_reads_otherwise_did_not_take() {
        assert!(!took("pids.max", "64", "max"));
        assert!(!took("pids.max", "64", "0"));
        assert!(!took("memory.max", "536870912", "max"));
        assert!(!took("memory.max", "8192", "4096"));
        assert!(!took("memory.max", "max", "100"));
        assert!(!took("hugetlb.2MB.max", "4194304", "2097152"));
        assert!(!took("io.weight", "100", "default 200\n8:0 100"));
        assert!(!took("io.max", "8:0 rbps=1048576", ""));
        assert!(!took("io.max", "8:0 rbps=1048576", "8:01 rbps=1048576 wbps=max riops=max wiops=max"));
        assert!(!took("io.max", "8:0 rbps=1 wiops=2", "8:0 rbps=1 wbps=max riops=max wiops=max"));
        assert!(!took("io.latency", "8:0 target=10000", "8:0 target=5000"));
        assert!(!took("misc.max", "sev 4", "sev max"));
        assert!(!took("cpuset.cpus", "0-3", "0-1"));
    }
}
