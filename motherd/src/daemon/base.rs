//! The cgroup below which services get theirs, and motherd's own place in it.
//!
//! On a machine that is the root of the cgroup2 tree. In a container it is the cgroup that initldr was put in, whether the
//! container has a cgroup namespace or sees the host's whole tree. A container that cannot write there has no services: a
//! service's cgroup is how its processes are known, and a motherd that guesses would leave some behind and kill others.
//! motherd runs nevertheless, and says why nothing does.

use std::{
    fs,
    os::unix::process::parent_id,
    path::{Path, PathBuf},
};

use sandbox::kernel::Kernel;

use super::{Fatal, phase};

/// Where initldr goes, and motherd: a cgroup that hands controllers down must have no processes.
const INITLDR: &str = "initldr.scope";
const MOTHERD: &str = "motherd.scope";

/// See the module.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) path: PathBuf,
    /// Why no service can have a cgroup below it.
    pub(super) unusable: Option<String>,
}

impl Base {
    /// The one that was named, made if it is missing; else see the module.
    pub(super) fn find(given: Option<&Path>) -> Result<Self, Fatal> {
        if let Some(base) = given {
            fs::create_dir_all(base).map_err(Fatal::system(format!("make {}", base.display())))?;
            return Ok(Self { path: base.to_owned(), unusable: None });
        }
        let root = Kernel::probe(None)?.cgroup_root;
        let in_container = !phase::of_the_machine() && parent_id() == 1;
        let found = match root {
            Some(root) if !in_container => return Ok(Self { path: root, unusable: None }),
            Some(root) => own(&root).and_then(|base| writable(&base).map(|()| base)),
            None => Err("none is mounted: mount -t cgroup2 none /sys/fs/cgroup".to_owned()),
        };
        match found {
            Ok(path) => Ok(Self { path, unusable: None }),
            Err(why) if in_container => Ok(Self {
                path: "/sys/fs/cgroup".into(),
                unusable: Some(format!("there is no cgroup2 tree to have services in: {why}")),
            }),
            Err(why) => Err(Fatal::System {
                what: "find the cgroup2 tree".to_owned(),
                source: std::io::Error::other(why),
            }),
        }
    }

    /// motherd, and initldr where it sits in the base itself, go into leaves of their own; the root of the machine's tree
    /// is exempt.
    pub(super) fn leave(&self) {
        if self.unusable.is_some() {
            return;
        }
        let into = |leaf: &str, pid: u32| {
            if let Err(error) = sandbox::cgroup::move_into_leaf(&self.path, leaf, pid) {
                tracing::warn!("{error}");
            }
        };
        into(MOTHERD, std::process::id());
        let init = parent_id();
        let procs = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        let in_base = procs.lines().any(|line| line.parse() == Ok(init));
        // Every cgroup has this file but the root of all, of which a namespace's root is none.
        if in_base && self.path.join("cgroup.type").exists() {
            into(INITLDR, init);
        }
    }
}

/// The cgroup that initldr was started in.
fn own(root: &Path) -> Result<PathBuf, String> {
    let read = |path: String| fs::read_to_string(&path).map_err(|error| format!("read {path}: {error}"));
    let cgroup = read(format!("/proc/{}/cgroup", parent_id()))?;
    let mounts = read("/proc/self/mountinfo".to_owned())?;
    below(root, mount_root(&mounts, root), &cgroup).ok_or_else(|| {
        format!("{} does not show the cgroup of initldr: {}", root.display(), cgroup.trim_end())
    })
}

/// What part of the tree is mounted on `point` (proc_pid_mountinfo(5), the fourth field); the last mount is on top.
fn mount_root<'a>(mountinfo: &'a str, point: &Path) -> &'a str {
    let fields = |line: &'a str| {
        let mut fields = line.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    };
    let found = mountinfo.lines().rev().filter_map(fields).find(|(_, at)| Path::new(at) == point);
    found.map_or("/", |(root, _)| root)
}

/// Where the cgroup of a line `0::/PATH` is seen; `None`: nowhere below `point`.
fn below(point: &Path, mounted: &str, cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let path = Path::new(path).strip_prefix(mounted).ok()?;
    let path = if path.ends_with(INITLDR) { path.parent()? } else { path };
    let up = path.components().any(|part| part == std::path::Component::ParentDir);
    // Joined with nothing it would end in a slash.
    (!up).then(|| if path == Path::new("") { point.to_owned() } else { point.join(path) })
}

/// Whether a cgroup can be made there: the one that motherd is in.
fn writable(base: &Path) -> Result<(), String> {
    let leaf = base.join(MOTHERD);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(format!("make {}: {error}", leaf.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_a_container_is_found_in_what_it_sees() {
        let check = |mounted: &str, cgroup: &str, expected: Option<&str>| {
            let found = below(Path::new("/sys/fs/cgroup"), mounted, cgroup);
            assert_eq!(found.as_deref(), expected.map(Path::new), "{mounted} {cgroup}");
        };
        // With a cgroup namespace.
        check("/", "0::/\n", Some("/sys/fs/cgroup"));
        check("/", "0::/initldr.scope\n", Some("/sys/fs/cgroup"));
        // Without one: the host's whole tree, or a part of it.
        check("/", "9:pids:/x\n0::/pod/box\n", Some("/sys/fs/cgroup/pod/box"));
        check("/", "0::/pod/box/initldr.scope\n", Some("/sys/fs/cgroup/pod/box"));
        check("/pod/box", "0::/pod/box\n", Some("/sys/fs/cgroup"));
        // Elsewhere.
        check("/pod/box", "0::/pod/other\n", None);
        check("/", "0::/../other\n", None);
        check("/", "9:pids:/\n", None);
    }

    #[test]
    fn the_mount_on_top_tells_which_part_it_shows() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - tmpfs t rw\n\
                      31 30 0:27 /pod/box /sys/fs/cgroup ro - cgroup2 c rw\n";
        assert_eq!(mount_root(mounts, Path::new("/sys/fs/cgroup")), "/pod/box");
        assert_eq!(mount_root(mounts, Path::new("/elsewhere")), "/");
    }
}
