//! Attacks on the building of the root: hostile trees, races, propagation, ways back out.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno::{self, EACCES, ENOENT, EPERM, EROFS};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::lab::Lab;
use super::{Verdict, attacks};
use crate::probe::Outcome;

attacks! {
    masked_path_through_dev_null_cve_2025_31133 [3]
        "masks are copies of the host's own node, taken before the root is entered, on a mount without devices";
    dev_symlink_in_root_cve_2026_41579 [4]
        "mount points are resolved inside the new root, after the old one is gone, and not through links in a given root";
    procfs_write_misdirection_cve_2019_16884 [5]
        "the host's /proc is written to before the root is entered; proc is mounted fresh over what was there";
    symlink_race_in_mount_targets_cve_2024_45310 [6]
        "pivot_root first: no target is resolved outside of the new root";
    mount_propagates_to_the_host [7]
        "propagation made private before the first mount; Landlock forbids mount(2)";
    rw_submount_beneath_a_read_only_bind [8]
        "mount_setattr, recursive, on the tree while it is detached";
    mount_churn_during_a_launch [8]
        "one open_tree copies a tree whole";
    old_root_after_pivot [9]
        "the old root is detached; no descriptor and no working directory of the host's is left";
    chroot_escape_with_cap_sys_chroot [10]
        "pivot_root, not chroot, is the boundary";
}

/// Sections with more lines for `[filesystem]`, which is their last table.
fn with(sections: &str, lines: &str) -> String {
    format!("{sections}{lines}")
}

fn masked_path_through_dev_null_cve_2025_31133(lab: &Lab) -> Result<Verdict> {
    let (root, sections) = lab.root("hostile")?;
    symlink("/proc/sys/kernel/core_pattern", root.join("dev/null"))?;
    let sections = with(&sections, "proc = \"full\"\n[process]\nuser = \"root\"\n");
    let refusals = &[EACCES, EROFS, ENOENT, EPERM];
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    let acts: &[(&str, &[Errno])] = &[
        ("write /proc/sys/kernel/core_pattern", refusals),
        ("write /proc/sysrq-trigger", refusals),
        ("open /proc/timer_list", refusals),
        ("open /proc/keys", refusals),
        ("open /proc/kcore", refusals),
    ];
    let verdict = lab.resists_what_works_here(&sections, acts, 2)?;
    ensure!(fs::read_to_string("/proc/sys/kernel/core_pattern")? == pattern, "core_pattern was changed");
    Ok(verdict)
}

fn dev_symlink_in_root_cve_2026_41579(lab: &Lab) -> Result<Verdict> {
    let decoy = lab.folder("decoy")?;
    for name in ["dev", "proc", "sys", "tmp", "run"] {
        let (root, sections) = lab.root(&format!("hostile-{name}"))?;
        fs::remove_dir(root.join(name))?;
        symlink(&decoy, root.join(name))?;
        // The same path inside: resolved there, it would be found.
        fs::create_dir_all(root.join(&decoy[1..]))?;
        let launched = lab.confined(&sections, &["show", "/proc/self/mountinfo"]);
        ensure!(launched.is_err(), "/{name} is a link, and it was launched: {launched:?}");
        ensure!(fs::read_dir(&decoy)?.next().is_none(), "something was made in {decoy} through /{name}");
        // What a launcher does that makes mount points by path.
        fs::create_dir(root.join(name).join("pts"))?;
        ensure!(Path::new(&decoy).join("pts").exists(), "control: a path leads there");
        fs::remove_dir(Path::new(&decoy).join("pts"))?;
    }
    let (_, sections) = lab.root("honest")?;
    lab.confined(&sections, &["show", "/proc/self/mountinfo"])?.ok().context("control: without links")?;
    Ok(Verdict::Resisted)
}

fn procfs_write_misdirection_cve_2019_16884(lab: &Lab) -> Result<Verdict> {
    let (root, sections) = lab.root("hostile")?;
    fs::create_dir_all(root.join("proc/self/attr"))?;
    let fakes = ["oom_score_adj", "uid_map", "setgroups", "attr/current", "timens_offsets"];
    for fake in fakes {
        fs::write(root.join("proc/self").join(fake), "fake")?;
    }
    let sections = with(&sections, "[process]\noom_score_adj = 321\n");
    let said = lab.confined(&sections, &["show", "/proc/self/oom_score_adj"])?.ok()?;
    ensure!(said.trim() == "321", "the real one has {said:?}");
    for fake in fakes {
        ensure!(fs::read_to_string(root.join("proc/self").join(fake))? == "fake", "{fake} was written to");
    }
    let plain = lab.unconfined(&["show", "/proc/self/oom_score_adj"])?.ok()?;
    ensure!(plain.trim() != "321", "control: it is the policy's");
    Ok(Verdict::Resisted)
}

/// How often a folder and a link change places during the launches, where that takes no longer than [`LONG`].
const SWAPS: u64 = 100_000;
/// How long a race is run; an emulated machine does less in it.
const LONG: Duration = Duration::from_secs(15);

fn symlink_race_in_mount_targets_cve_2024_45310(lab: &Lab) -> Result<Verdict> {
    let (root, sections) = lab.root("hostile")?;
    let decoy = lab.folder("decoy")?;
    let data = lab.folder("data")?;
    lab.file("data/mark", "data")?;
    fs::create_dir_all(root.join("target"))?;
    symlink(&decoy, root.join("link"))?;
    // Inside, the link leads to a folder as well.
    fs::create_dir_all(root.join(&decoy[1..]))?;
    let binds = format!("bind = [{{ from = \"{data}\", to = \"/target\" }}, ");
    let sections = sections.replacen("bind = [", &binds, 1);
    let (stop, swaps, through) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let (target, link) = (root.join("target"), root.join("link"));
    let launches = std::thread::scope(|scope| -> Result<(u32, u32)> {
        let swapper = scope.spawn(|| -> nix::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &target, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE)?;
                swaps.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let (mut ran, mut refused) = (0, 0);
        let mut wrong = None;
        let end = Instant::now() + LONG;
        let enough = |launches: u32| {
            (swaps.load(Ordering::Relaxed) >= SWAPS && launches >= 50) || Instant::now() > end
        };
        while wrong.is_none() && !enough(ran + refused) {
            match lab.confined(&sections, &["show", "/target/mark"]) {
                // Inside it is the bind, or the name leads to what is not it; in neither case to the host.
                Ok(_) => ran += 1,
                Err(_) => refused += 1,
            }
            match fs::read_dir(&decoy).map(|mut entries| entries.next().is_some()) {
                Ok(false) => {}
                other => wrong = Some(format!("{decoy} was written to: {other:?}")),
            }
            // The control: a launcher that works by path.
            if fs::write(target.join("naive"), "").is_ok()
                && fs::remove_file(Path::new(&decoy).join("naive")).is_ok()
            {
                through.fetch_add(1, Ordering::Relaxed);
            }
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().map_err(|_| anyhow::anyhow!("the swapper panicked"))??;
        match wrong {
            Some(wrong) => anyhow::bail!("{wrong}"),
            None => Ok((ran, refused)),
        }
    })?;
    ensure!(
        through.load(Ordering::Relaxed) > 0,
        "control: no path ever led to the decoy in {launches:?} launches"
    );
    ensure!(launches.0 > 0, "it never ran: {launches:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&decoy), "something is mounted at {decoy}");
    Ok(Verdict::Resisted)
}

/// A tmpfs at a folder of the lab, gone when it is dropped.
struct Tmpfs(String);

impl Tmpfs {
    fn new(path: String, propagation: MsFlags) -> Result<Self> {
        mount(Some("lab"), path.as_str(), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        mount(None::<&str>, path.as_str(), None::<&str>, propagation, None::<&str>)?;
        Ok(Self(path))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Err(errno) = umount2(self.0.as_str(), MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {errno}", self.0);
        }
    }
}

/// Everything that helps to mount, but for what forbids it.
const MOUNTER: &str = "[process]\nuser = \"root\"\n[capabilities]\nkeep = [\"CAP_SYS_ADMIN\"]\n\
    ambient = [\"CAP_SYS_ADMIN\"]\n[seccomp]\nallow = { add = [\"@mount\"] }\ndeny = { remove = [\"@mount\", \"@privileged\"] }\n";

fn mount_propagates_to_the_host(lab: &Lab) -> Result<Verdict> {
    let shared = Tmpfs::new(lab.folder("shared")?, MsFlags::MS_SHARED)?;
    fs::create_dir(Path::new(&shared.0).join("inner"))?;
    let act = format!("mount {}/inner", shared.0);
    let verdict = lab.resists(MOUNTER, &[(&act, &[EPERM])])?;
    let peers = |text: &str| -> Vec<String> {
        let optional = |line: &str| -> Option<String> {
            line.contains(&shared.0).then(|| line.split(" - ").next().unwrap_or_default().to_owned())
        };
        text.lines()
            .filter_map(optional)
            .filter(|line| line.contains("shared:") || line.contains("master:"))
            .collect()
    };
    let confined = lab.confined(MOUNTER, &["show", "/proc/self/mountinfo"])?.ok()?;
    ensure!(confined.contains(&shared.0), "the mount is in it: {confined}");
    ensure!(peers(&confined).is_empty(), "it has peers: {:?}", peers(&confined));
    let free = lab.unconfined(&["show", "/proc/self/mountinfo"])?.ok()?;
    ensure!(!peers(&free).is_empty(), "control: unconfined it has a peer: {free}");
    Ok(verdict)
}

fn rw_submount_beneath_a_read_only_bind(lab: &Lab) -> Result<Verdict> {
    let outer = lab.folder("outer")?;
    let _inner = Tmpfs::new(lab.folder("outer/inner")?, MsFlags::MS_PRIVATE)?;
    let sections = format!("[process]\nuser = \"root\"\n[landlock]\nwrite = {{ add = [\"{outer}\"] }}\n");
    let read_only = format!("[filesystem]\nread_only = {{ add = [\"{outer}\"] }}\n{sections}");
    let bound = format!("[filesystem]\nbind = [{{ from = \"{outer}\", to = \"{outer}\" }}]\n{sections}");
    let acts = [format!("create {outer}/x"), format!("create {outer}/inner/x")];
    for sections in [&read_only, &bound, &sections] {
        lab.resists(sections, &[(&acts[0], &[EROFS]), (&acts[1], &[EROFS])])?;
    }
    // Landlock lets it through: it is the mount that says no.
    let writable = format!("[filesystem]\nread_write = [\"{outer}\"]\n{sections}");
    let answer = lab.outcome(&writable, &acts[1])?;
    ensure!(answer == Outcome::Allowed, "control: where it is writable: {answer}");
    Ok(Verdict::Resisted)
}

fn mount_churn_during_a_launch(lab: &Lab) -> Result<Verdict> {
    let outer = lab.folder("outer")?;
    let inner = lab.folder("outer/churn")?;
    let sections = format!("[process]\nuser = \"root\"\n[landlock]\nwrite = {{ add = [\"{outer}\"] }}\n");
    let act = format!("create {inner}/x");
    let stop = AtomicBool::new(false);
    let (launches, churned) = std::thread::scope(|scope| -> Result<(u32, u32)> {
        let churner = scope.spawn(|| -> Result<u32> {
            let mut churned = 0;
            while !stop.load(Ordering::Relaxed) {
                drop(Tmpfs::new(inner.clone(), MsFlags::MS_PRIVATE)?);
                churned += 1;
            }
            Ok(churned)
        });
        let mut outcome = Ok(());
        let mut launches = 0;
        let end = Instant::now() + LONG;
        // On the slowest of machines a few are enough.
        while launches < 200 && outcome.is_ok() && (Instant::now() < end || launches < 3) {
            outcome = match lab.outcome(&sections, &act) {
                Ok(Outcome::Denied(EROFS)) => Ok(()),
                Ok(other) => Err(anyhow::anyhow!("launch {launches}: {act}: {other}")),
                Err(error) => Err(error.context(format!("launch {launches} failed"))),
            };
            launches += 1;
        }
        stop.store(true, Ordering::Relaxed);
        let churned = churner.join().map_err(|_| anyhow::anyhow!("the churner panicked"))??;
        outcome.map(|()| (launches, churned))
    })?;
    ensure!(launches >= 3 && churned > 10, "{launches} launches, {churned} mounts");
    let control = lab.control(&act)?;
    ensure!(control == Outcome::Allowed, "control: {control}");
    Ok(Verdict::Resisted)
}

/// An empty root with the host's programs in it, so that the lab's own files are not there.
fn elsewhere(lab: &Lab) -> String {
    let bin = lab.path("bin");
    let mut binds: Vec<String> =
        ["/usr", &bin].iter().map(|path| format!("{{ from = \"{path}\", to = \"{path}\" }}")).collect();
    binds.extend(
        ["/lib", "/lib64", "/bin"]
            .map(|path| format!("{{ from = \"{path}\", to = \"{path}\", optional = true }}")),
    );
    format!(
        "[filesystem]\nroot = \"empty\"\nhidden = []\nbind = [{}]\n[landlock]\nread = [\"/usr\", \"{bin}\", \"/proc\", \"/tmp\"]\n",
        binds.join(", ")
    )
}

fn old_root_after_pivot(lab: &Lab) -> Result<Verdict> {
    let marker = lab.file("marker", "of the host")?;
    let sections = elsewhere(lab);
    let act = format!("climb-to {marker}");
    let verdict = lab.resists(&sections, &[(&act, &[ENOENT])])?;
    let mounts = lab.confined(&sections, &["show", "/proc/self/mountinfo"])?.ok()?;
    for line in mounts.lines() {
        let point = line.split(' ').nth(4).unwrap_or_default();
        let known = ["/usr", "/proc", "/dev", "/sys", "/tmp", "/run", "/lib", "/bin"];
        let own =
            point == "/" || point == lab.path("bin") || known.iter().any(|known| point.starts_with(known));
        ensure!(own, "a mount of the host's: {line}");
    }
    Ok(verdict)
}

fn chroot_escape_with_cap_sys_chroot(lab: &Lab) -> Result<Verdict> {
    let marker = lab.file("marker", "of the host")?;
    let sections = format!(
        "{}write = [\"/tmp\"]\n[process]\nuser = \"root\"\n[capabilities]\nkeep = [\"CAP_SYS_CHROOT\"]\n\
         ambient = [\"CAP_SYS_CHROOT\"]\n[seccomp]\nallow = {{ add = [\"chroot\"] }}\n\
         deny = {{ remove = [\"@mount\", \"@privileged\"] }}\n",
        elsewhere(lab)
    );
    let confined = lab.outcome(&sections, &format!("leave-chroot-to {marker}"))?;
    ensure!(confined == Outcome::Denied(ENOENT), "it left, or could not even try: {confined}");
    let jail = lab.folder("jail")?;
    fs::create_dir_all(Path::new(&jail).join("tmp"))?;
    let control = lab.control(&format!("chroot-and-leave-to {jail} {marker}"))?;
    ensure!(control == Outcome::Allowed, "control: a plain chroot: {control}");
    Ok(Verdict::Resisted)
}
