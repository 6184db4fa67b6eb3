//! The root file system: found by what the kernel command line says, waited for, and mounted.
//!
//! The words are the kernel's own (`root=`, `rootfstype=`, `rootflags=`, `ro`, `rw`, `rootwait`, `rootdelay=`), and so is
//! their meaning, with UUID= and LABEL= besides, which the kernel leaves to an initramfs.

use std::{
    fmt, fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::MsFlags,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
    unistd::{AccessFlags, faccessat},
};
use std::os::fd::AsFd;

use super::{Failure, cmdline::CommandLine, superblock};

/// A device that is not there by then will not come: what `rootwait=SECONDS` and `rootdelay=SECONDS` change.
const WAIT: Duration = Duration::from_secs(30);
/// What is executed on it.
const INIT: &str = "sbin/initldr";
/// Every block device and partition that the kernel knows.
const DEVICES: &str = "/sys/class/block";

/// What `root=` means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Root {
    Path(PathBuf),
    Uuid(String),
    Label(String),
    PartUuid(String),
    PartLabel(String),
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Uuid(uuid) => write!(f, "UUID={uuid}"),
            Self::Label(label) => write!(f, "LABEL={label}"),
            Self::PartUuid(uuid) => write!(f, "PARTUUID={uuid}"),
            Self::PartLabel(label) => write!(f, "PARTLABEL={label}"),
        }
    }
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    root: Root,
    /// To be tried in this order; empty: what the superblock says.
    kinds: Vec<String>,
    flags: MsFlags,
    data: Option<String>,
    /// `None`: as long as it takes.
    wait: Option<Duration>,
}

/// Finds it, mounts it at `to`, and sees to it that an initldr lies there.
pub(super) fn mount(to: &Path) -> Result<(), Failure> {
    let wanted = wanted(&CommandLine::read(Path::new("/")).map_err(Failure::of("/proc/cmdline"))?)?;
    fs::create_dir_all(to).map_err(Failure::of(to.display()))?;
    if is_mounted(to).map_err(Failure::of(to.display()))? {
        println!("{} is mounted already", to.display());
        return has_init(to);
    }
    let device = wait_for(&wanted)?;
    let kinds = if wanted.kinds.is_empty() {
        let found = superblock::read(&device).map_err(Failure::of(device.display()))?;
        let found = found.ok_or_else(|| {
            Failure(format!(
                "{}: no file system that is known here; rootfstype= names its kind",
                device.display()
            ))
        })?;
        vec![found.kind.to_owned()]
    } else {
        wanted.kinds.clone()
    };
    let mut tried = Vec::new();
    for kind in &kinds {
        let (kind, data) = (kind.as_str(), wanted.data.as_deref());
        match nix::mount::mount(Some(&device), to, Some(kind), wanted.flags, data) {
            Ok(()) => {
                let how = if wanted.flags.contains(MsFlags::MS_RDONLY) { "read-only" } else { "read-write" };
                println!("{} ({kind}) is mounted {how} at {}", device.display(), to.display());
                return has_init(to);
            }
            Err(errno) => tried.push(format!("as {kind}: {errno}")),
        }
    }
    let data = wanted.data.map(|data| format!(" with {data}")).unwrap_or_default();
    Err(Failure(format!("mount {} at {}{data}: {}", device.display(), to.display(), tried.join("; "))))
}

fn wanted(line: &CommandLine) -> Result<Wanted, Failure> {
    let root = line.value("root").ok_or_else(|| {
        Failure(
            "the kernel command line has no root=: /dev/NAME, UUID=, LABEL=, PARTUUID= or PARTLABEL="
                .to_owned(),
        )
    })?;
    let by = |label: &str| root.strip_prefix(label).map(str::to_owned);
    let root = match (by("UUID="), by("LABEL="), by("PARTUUID="), by("PARTLABEL=")) {
        (Some(uuid), ..) => Root::Uuid(uuid.to_lowercase()),
        (_, Some(label), ..) => Root::Label(label),
        (.., Some(uuid), _) => Root::PartUuid(uuid.to_lowercase()),
        (.., Some(label)) => Root::PartLabel(label),
        _ if root.starts_with('/') => Root::Path(root.into()),
        _ => {
            let allowed = "/dev/NAME, UUID=, LABEL=, PARTUUID= and PARTLABEL=";
            return Err(Failure(format!("root={root} is not understood: there are {allowed}")));
        }
    };
    let (mut flags, data) = options(line.value("rootflags").unwrap_or_default());
    // As for the kernel: read-only unless `rw` is said, after which /etc/fstab has its say.
    flags.set(MsFlags::MS_RDONLY, line.last_of(&["ro", "rw"]) != Some("rw"));
    let seconds = line.value("rootwait").or(line.value("rootdelay"));
    let wait = match (seconds.map(str::parse), line.has("rootwait")) {
        (Some(Ok(seconds)), _) => Some(Duration::from_secs(seconds)),
        (Some(Err(_)), _) => return Err(Failure("rootwait= and rootdelay= take seconds".to_owned())),
        (None, true) => None,
        (None, false) => Some(WAIT),
    };
    let kinds = line.value("rootfstype").unwrap_or_default();
    let kinds = kinds.split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
    Ok(Wanted { root, kinds, flags, data, wait })
}

/// Options as mount(8) takes them: flags of mount(2), and the rest for the file system.
fn options(text: &str) -> (MsFlags, Option<String>) {
    let mut flags = MsFlags::empty();
    let mut rest = Vec::new();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        match word {
            "defaults" | "rw" | "ro" => {}
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "nodiratime" => flags |= MsFlags::MS_NODIRATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "strictatime" => flags |= MsFlags::MS_STRICTATIME,
            "lazytime" => flags |= MsFlags::MS_LAZYTIME,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            "dirsync" => flags |= MsFlags::MS_DIRSYNC,
            other => rest.push(other),
        }
    }
    (flags, (!rest.is_empty()).then(|| rest.join(",")))
}

/// The device, as soon as it is there. What appears in /dev is told by inotify, so nothing is polled.
fn wait_for(wanted: &Wanted) -> Result<PathBuf, Failure> {
    let inotify =
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(Failure::of("inotify"))?;
    // Before the first look, so that what comes after it is told.
    let changes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ATTRIB;
    inotify.add_watch("/dev", changes).map_err(Failure::of("watch /dev"))?;
    let deadline = wanted.wait.map(|wait| Instant::now() + wait);
    let mut said = false;
    loop {
        if let Some(device) = find(&wanted.root)? {
            return Ok(device);
        }
        if !said {
            println!("root={} is not there yet: waiting", wanted.root);
            said = true;
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            let seconds = wanted.wait.unwrap_or_default().as_secs();
            let there = names()?.join(" ");
            return Err(Failure(format!(
                "root={} did not come within {seconds} s; there are: {there}",
                wanted.root
            )));
        }
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], timeout).map_err(Failure::of("poll"))?;
        // What happened is told by looking; the events are only read away.
        while inotify.read_events().is_ok() {}
    }
}

/// The names of all block devices.
fn names() -> Result<Vec<String>, Failure> {
    let entries = match fs::read_dir(DEVICES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        other => other.map_err(Failure::of(DEVICES))?,
    };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// `None`: not there yet. Two devices of one UUID or label are an error: which of them is meant cannot be known.
fn find(root: &Root) -> Result<Option<PathBuf>, Failure> {
    if let Root::Path(path) = root {
        let there = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device());
        return Ok(there.then(|| path.clone()));
    }
    let mut found = Vec::new();
    for name in names()? {
        let device = Path::new("/dev").join(&name);
        let says = |key: &str| {
            let text = fs::read_to_string(Path::new(DEVICES).join(&name).join("uevent")).unwrap_or_default();
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
        };
        // A drive without a medium, a loop device without a file: nothing to read, and no match.
        let block = || superblock::read(&device).ok().flatten();
        let matches = match root {
            Root::Uuid(uuid) => block().and_then(|block| block.uuid).as_ref() == Some(uuid),
            Root::Label(label) => block().and_then(|block| block.label).as_ref() == Some(label),
            Root::PartUuid(uuid) => says("PARTUUID").map(|text| text.to_lowercase()).as_ref() == Some(uuid),
            Root::PartLabel(label) => says("PARTNAME").as_ref() == Some(label),
            Root::Path(_) => false,
        };
        if matches {
            found.push(device);
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [device] => Ok(Some(device.clone())),
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(Failure(format!("root={root} is on {}: name the one that is meant", names.join(" and on "))))
        }
    }
}

/// Whether something is mounted at a directory: it is another device's than its parent.
fn is_mounted(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.dev() != fs::metadata(path.join(".."))?.dev())
}

/// Looked up inside the new root: a link there that begins with `/` means the new root's.
fn has_init(root: &Path) -> Result<(), Failure> {
    let folder = fs::File::open(root).map_err(Failure::of(root.display()))?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let what = root.join(INIT);
    let file = openat2(&folder, INIT, how).map_err(Failure::of(what.display()))?;
    let executable = faccessat(&file, "", AccessFlags::X_OK, nix::fcntl::AtFlags::AT_EMPTY_PATH);
    executable.map_err(Failure::of(format!("{} cannot be executed", what.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<Wanted, String> {
        wanted(&CommandLine::for_test(line)).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_words_mean_what_they_mean_to_the_kernel() {
        let found =
            check("root=UUID=AB-CD rootfstype=ext4,xfs rootflags=noatime,data=journal,nodev rw rootwait")
                .unwrap();
        assert_eq!(found.root, Root::Uuid("ab-cd".to_owned()));
        assert_eq!(found.kinds, ["ext4", "xfs"]);
        assert_eq!(found.flags, MsFlags::MS_NOATIME | MsFlags::MS_NODEV);
        assert_eq!((found.data.as_deref(), found.wait), (Some("data=journal"), None));

        let found = check("root=/dev/vda1 rw ro rootdelay=5").unwrap();
        assert_eq!(found.root, Root::Path("/dev/vda1".into()));
        assert_eq!((found.flags, found.wait), (MsFlags::MS_RDONLY, Some(Duration::from_secs(5))));
        assert_eq!(check("root=LABEL=box").unwrap().wait, Some(WAIT));
    }

    #[test]
    fn what_is_missing_or_not_understood_is_said() {
        assert!(check("quiet").unwrap_err().contains("no root="));
        assert!(check("root=802").unwrap_err().contains("root=802 is not understood"));
        assert!(check("root=/dev/a rootwait=soon").unwrap_err().contains("seconds"));
    }

    #[test]
    fn a_root_without_an_initldr_is_none() {
        let scratch = crate::scratch::Scratch::new();
        let says = |root: &Path| has_init(root).map_err(|failure| failure.to_string());
        assert!(says(scratch.path()).unwrap_err().contains("sbin/initldr: "));
        fs::create_dir_all(scratch.path().join("usr/sbin")).unwrap();
        fs::write(scratch.path().join("usr/sbin/initldr"), "").unwrap();
        // A link that begins with `/` means the new root's, where it leads somewhere.
        std::os::unix::fs::symlink("/usr/sbin", scratch.path().join("sbin")).unwrap();
        assert!(says(scratch.path()).unwrap_err().contains("cannot be executed"));
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(scratch.path().join("usr/sbin/initldr"), executable).unwrap();
        assert_eq!(says(scratch.path()), Ok(()));
    }
}
