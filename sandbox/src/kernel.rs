//! What this kernel and host offer, as a value: probed once, printed by `motherctl doctor`, and given to `compile`,
//! which asks nothing else. So every kernel can be described in a test without booting it.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use nix::sys::resource::{Resource, getrlimit};

use crate::{
    ordinary::OrdinaryUser,
    sys::{bpf, raw},
};

/// The Landlock ABI: 0 where the kernel has none (Documentation/userspace-api/landlock.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LandlockAbi(pub u32);

/// The first two numbers of a release: what can be asked by nothing but the version is compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    fn of(release: &str) -> Self {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        Self(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

/// What a machine offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// The Landlock ABI.
    pub landlock: LandlockAbi,
    /// `/proc/sys/kernel/cap_last_cap`: the highest capability number.
    pub last_capability: u8,
    /// Where the cgroup2 file system is mounted, if it is.
    pub cgroup_root: Option<PathBuf>,
    /// The cgroup below which services get theirs (an absolute path under `cgroup_root`).
    pub cgroup_base: Option<PathBuf>,
    /// The controllers that can be enabled for services there: `cgroup.controllers` of `cgroup_base`.
    pub controllers: BTreeSet<String>,
    /// Whether programs can be attached to cgroups: CONFIG_CGROUP_BPF; `None` where the asking process may not.
    pub cgroup_bpf: Option<bool>,
    /// The windows of triggers on pressure that the asking process may have.
    pub pressure: PressureWindows,
    /// Whether user namespaces can be made: CONFIG_USER_NS, and `user.max_user_namespaces` is not 0.
    pub user_namespaces: bool,
    /// The processors that are online; none where /sys is not mounted.
    pub processors: BTreeSet<u32>,
    /// The NUMA nodes that have memory; none where /sys is not mounted or the kernel knows no nodes.
    pub memory_nodes: BTreeSet<u32>,
    /// The sizes of huge pages, as cgroup files are named after them: `2MB`.
    pub huge_pages: BTreeSet<String>,
    /// Speculative store bypass.
    pub store_bypass: Mitigation,
    /// Indirect branch speculation.
    pub indirect_branch: Mitigation,
    /// The hard RLIMIT_NOFILE that services have unless their policy says otherwise: that of the asking process. A launcher
    /// that has raised its own puts the one of before here.
    pub open_files: u64,
    /// Who launches, if that is an ordinary user, who is root of a user namespace of its own alone. Nobody probes that:
    /// policies are compiled for root unless a launcher says otherwise.
    pub ordinary_user: Option<OrdinaryUser>,
}

/// What triggers on pressure (Documentation/accounting/psi.rst) may be armed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PressureWindows {
    /// None: CONFIG_PSI is not there, or off.
    None,
    /// Windows of whole 2 s: since 6.4 anything else takes CAP_SYS_RESOURCE.
    Whole,
    /// From 500 ms to 10 s.
    Any,
}

impl PressureWindows {
    fn probe(version: Version) -> Self {
        let may = || caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE);
        if !Path::new("/proc/pressure/memory").exists() {
            Self::None
        } else if version < Version(6, 4) || may().unwrap_or(false) {
            Self::Any
        } else {
            Self::Whole
        }
    }
}

/// What can be done about a kind of speculation (Documentation/userspace-api/spec_ctrl.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mitigation {
    /// The processor does not have the flaw.
    NotAffected,
    /// It is disabled for every process.
    Always,
    /// A process can disable it for itself.
    PerProcess,
    /// It is enabled, and no process can change that; or the kernel does not know.
    Unavailable,
}

impl Mitigation {
    /// What PR_GET_SPECULATION_CTRL of this process means.
    fn probe(option: usize) -> Self {
        const PRCTL: usize = 1 << 0; // PR_SPEC_PRCTL
        const DISABLE: usize = 1 << 2; // PR_SPEC_DISABLE
        match raw::speculation(option) {
            Ok(0) => Self::NotAffected,
            Ok(bits) if bits & PRCTL != 0 => Self::PerProcess,
            Ok(bits) if bits & DISABLE != 0 => Self::Always,
            Ok(_) | Err(_) => Self::Unavailable,
        }
    }
}

/// A machine that could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct ProbeError {
    what: String,
    source: std::io::Error,
}

impl Kernel {
    /// The same machine, as far as it serves an ordinary user: without cgroups, which are root's to give.
    #[must_use]
    pub fn for_ordinary_user(self, user: OrdinaryUser) -> Self {
        let (cgroup_base, controllers, cgroup_bpf) = (None, BTreeSet::new(), None);
        let pressure = PressureWindows::None;
        Self { ordinary_user: Some(user), cgroup_base, controllers, cgroup_bpf, pressure, ..self }
    }

    /// The version that `release` begins with; one that begins otherwise is older than any.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::of(&self.release)
    }

    /// Asks this machine. `base` is the cgroup below which services get theirs; without one it is the root of the
    /// cgroup2 tree, wherever that is mounted.
    ///
    /// # Errors
    /// /proc cannot be read, or `base` is given and is no cgroup.
    pub fn probe(base: Option<&Path>) -> Result<Self, ProbeError> {
        let read = |path: &str| {
            read_small(path).map_err(|source| ProbeError { what: format!("read {path}"), source })
        };
        // Where it is on a unified host is known without the list of mounts, which may be long.
        let cgroup_root = if cgroups_rs::hierarchies::is_cgroup2_unified_mode() {
            Some(PathBuf::from("/sys/fs/cgroup"))
        } else {
            cgroup2_mount(&read("/proc/self/mountinfo")?)
        };
        let cgroup_base = base.map(Path::to_owned).or_else(|| cgroup_root.clone());
        let controllers = match &cgroup_base {
            Some(base) => controllers(base)?,
            None => BTreeSet::new(),
        };
        let last_capability = read("/proc/sys/kernel/cap_last_cap")?;
        let last_capability = last_capability.trim().parse().map_err(|_| ProbeError {
            what: "/proc/sys/kernel/cap_last_cap".to_owned(),
            source: std::io::Error::other(format!("reads {last_capability:?}")),
        })?;
        let (_, open_files) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|errno| ProbeError {
            what: "getrlimit RLIMIT_NOFILE".to_owned(),
            source: errno.into(),
        })?;
        let release = read("/proc/sys/kernel/osrelease")?.trim().to_owned();
        Ok(Self {
            open_files,
            ordinary_user: None,
            pressure: PressureWindows::probe(Version::of(&release)),
            release,
            // A kernel without CONFIG_USER_NS has no such file.
            user_namespaces: read_small("/proc/sys/user/max_user_namespaces")
                .is_ok_and(|limit| limit.trim() != "0"),
            // ENOSYS: built without; EOPNOTSUPP: not among the enabled LSMs (landlock_create_ruleset(2)).
            landlock: LandlockAbi(raw::landlock_abi().unwrap_or(0)),
            last_capability,
            cgroup_bpf: cgroup_root.as_deref().and_then(bpf::is_supported),
            cgroup_root,
            cgroup_base,
            controllers,
            processors: numbered("/sys/devices/system/cpu/online"),
            memory_nodes: numbered("/sys/devices/system/node/has_memory"),
            huge_pages: huge_pages(),
            store_bypass: Mitigation::probe(0),
            indirect_branch: Mitigation::probe(1),
        })
    }
}

/// A file of the kernel's, of which the size says nothing: with room for all of it, it is read in two calls.
fn read_small(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::with_capacity(8 << 10);
    // All of it, and yet not by what a `File` knows of its size.
    fs::File::open(path)?.take(u64::MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The numbers in a file of ranges; none where it cannot be read, which whoever needs one of them is told.
fn numbered(path: &str) -> BTreeSet<u32> {
    read_small(path).map(|text| ranges(&text)).unwrap_or_default()
}

/// The folders of /sys/kernel/mm/hugepages, `hugepages-2048kB`, in the words of `hugetlb_cgroup_file_init`.
fn huge_pages() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            Some(match size {
                size if size >= 1 << 20 => format!("{}GB", size >> 20),
                size if size >= 1 << 10 => format!("{}MB", size >> 10),
                size => format!("{size}KB"),
            })
        })
        .collect()
}

/// `0-3,8` (Documentation/admin-guide/cputopology.rst).
pub(crate) fn ranges(text: &str) -> BTreeSet<u32> {
    text.trim()
        .split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .collect()
}

/// Where cgroup2 is mounted on a hybrid host, a folder such as /sys/fs/cgroup/unified.
fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    // proc_pid_mountinfo(5): the fifth field is the mount point; after a lone `-` comes the type. Only a mount of the
    // hierarchy's own root will do, which the fourth field tells.
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (kind.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
    })
}

/// The controllers that the children of `base` can have. A base that does not exist yet gets what its nearest existing
/// ancestor has.
fn controllers(base: &Path) -> Result<BTreeSet<String>, ProbeError> {
    let existing = base.ancestors().find(|path| path.join("cgroup.controllers").exists()).unwrap_or(base);
    let file = existing.join("cgroup.controllers");
    let text = read_small(&file)
        .map_err(|source| ProbeError { what: format!("read {}", file.display()), source })?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_kernel_writes_them() {
        for (text, expected) in
            [("0-3,8\n", &[0, 1, 2, 3, 8][..]), ("0\n", &[0]), ("\n", &[]), ("2,4-5", &[2, 4, 5])]
        {
            assert_eq!(ranges(text).into_iter().collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        let version = |release: &str| {
            let kernel = Kernel { release: release.to_owned(), ..crate::compile::described::kernel(0) };
            kernel.version()
        };
        assert_eq!(version("6.18.44-fc-v669"), Version(6, 18));
        assert_eq!(version("7.0-rc1"), Version(7, 0));
        assert!(version("6.1.0-40-amd64") < Version(6, 3) && version("6.12") > Version(6, 3));
        assert_eq!(version("unknown"), Version(0, 0));
    }

    #[test]
    fn a_hybrid_hosts_cgroup2_tree_is_found_where_it_is_mounted() {
        let mountinfo = "30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                         31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw\n\
                         32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(cgroup2_mount(mountinfo), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount("30 23 0:26 / / ro - tmpfs tmpfs ro\n"), None);
    }
}
