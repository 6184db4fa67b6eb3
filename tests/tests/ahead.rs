//! What motherd has ready for launches, on this host: services are launched from it, see what they would see without it,
//! and see the host as it is now.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use e2e::scratch::Scratch;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a service can tell of its world, and of which network and which /dev it has: these two tell what it was made of.
const LOOK: &str = r#"
echo "net: $(readlink /proc/self/ns/net)" "dev: $(stat -c %d /dev)"
cut -d' ' -f4- /proc/self/mountinfo | sort
for name in / /dev /dev/pts /dev/shm /tmp /run /sys /sys/class/net /sys/fs/cgroup /home /root; do
    echo "$name: $(ls -A $name 2>&1 | tr '\n' ' ') $(stat -c '%a %u %g %F' $name)"
    if touch $name/x 2>/dev/null; then echo "$name can be written to"; fi
done
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|Seccomp_filters|SigBlk|SigIgn|SigCgt|Umask)' /proc/self/status
cat /proc/self/cgroup /proc/net/dev /proc/self/limits /proc/self/oom_score_adj; pwd; env | sort; ls /proc/self/fd
echo end of look
while :; do sleep 1000; done
"#;

/// This test, and all that it starts, in a mount namespace of its own: what others mount on this host meanwhile would make
/// motherd throw away what it has ready, and they would see what is mounted here.
fn alone() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    Ok(mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?)
}

fn looking(policy: &str) -> String {
    format!("exec = [\"/bin/sh\", \"-c\", '''{LOOK}''']\npolicy = \"{policy}\"\n")
}

/// What one start of a service has said.
#[derive(Debug)]
struct Look {
    /// Its network: `net:[4026532345]`.
    network: String,
    /// The number of the file system that its /dev is.
    dev: String,
    rest: String,
}

/// What the `count`th start of a service has said, once it has said all.
fn said(scratch: &Scratch, service: &str, count: usize) -> Result<Look> {
    let path = scratch.path(&format!("var/log/motherd/{service}/current"));
    scratch.eventually(&format!("{service} has looked {count} times"), |_| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        // After the time and a blank stand the service's own words.
        let words: Vec<&str> = text.lines().filter_map(|line| line.get(27..)?.strip_prefix(' ')).collect();
        let looks: Vec<&[&str]> = words.split(|line| *line == "end of look").collect();
        let Some(look) = looks.get(count - 1).filter(|_| looks.len() > count) else { return Ok(None) };
        let (made_of, rest) = look.split_first().context("an empty look")?;
        let [_, network, _, dev] = made_of.split(' ').collect::<Vec<_>>()[..] else {
            bail!("not what was asked for: {made_of}")
        };
        let (network, dev) = (network.to_owned(), dev.to_owned());
        Ok(Some(Look { network, dev, rest: rest.join("\n") }))
    })
}

fn restart(scratch: &Scratch, service: &str) -> Result<()> {
    let ran = scratch.motherctl(&["restart", service])?;
    ensure!(ran.status == 0, "{ran:?}; the log:\n{}", scratch.log()?);
    Ok(())
}

/// The namespaces of a kind that motherd holds as descriptors and that no service is in: what it has ready.
fn held(scratch: &Scratch, kind: &str) -> Result<BTreeSet<String>> {
    let folder = format!("/proc/{}/fd", scratch.motherd()?);
    let links = fs::read_dir(folder)?.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let mut held: BTreeSet<String> = links
        .map(|link| link.display().to_string())
        .filter(|link| link.starts_with(&format!("{kind}:[")))
        .collect();
    let listed = scratch.motherctl(&["--json", "list"])?;
    let listed: serde_json::Value =
        serde_json::from_str(&listed.out).with_context(|| format!("{listed:?}"))?;
    let services = listed["services"].as_array().context("no services")?;
    for name in services.iter().filter_map(|service| service["name"].as_str()) {
        if let Some(pid) = scratch.status(name)?["main_pid"].as_u64() {
            held.remove(&fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.display().to_string());
        }
    }
    Ok(held)
}

/// Until motherd has something of each kind ready.
fn ready(scratch: &Scratch) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    scratch.eventually("motherd has mounts and networks ready", |scratch| {
        let (mounts, networks) = (held(scratch, "mnt")?, held(scratch, "net")?);
        Ok((!mounts.is_empty() && networks.len() >= 4).then_some((mounts, networks)))
    })
}

#[test]
fn what_is_launched_from_what_was_ready_sees_what_it_would_see_without() -> Result<()> {
    let Some(mut scratch) = Scratch::new("what_is_launched_from_what_was_ready")? else { return Ok(()) };
    scratch.service("web", &looking("base/default"))?;
    // Another service of the same policy: what is ready for one is ready for both.
    scratch.service("db", &looking("base/default"))?;
    alone()?;
    scratch.start()?;
    scratch.running_by_request("web")?;
    // The first launch of all has nothing to be launched from.
    let inline = said(&scratch, "web", 1)?;

    let (_, networks) = ready(&scratch)?;
    restart(&scratch, "web")?;
    let first = said(&scratch, "web", 2)?;
    ensure!(networks.contains(&first.network), "{} is not of {networks:?}", first.network);
    ensure!(first.dev != inline.dev, "the first launch made its own");
    ensure!(first.rest == inline.rest, "{}\n\nis not\n\n{}", first.rest, inline.rest);

    let (_, networks) = ready(&scratch)?;
    ensure!(!networks.contains(&first.network), "each is used once");
    restart(&scratch, "web")?;
    let second = said(&scratch, "web", 3)?;
    ensure!(networks.contains(&second.network) && second.dev == first.dev, "{second:?} {first:?}");
    ensure!(second.rest == inline.rest);

    ensure!(scratch.motherctl(&["start", "db"])?.status == 0);
    let other = said(&scratch, "db", 1)?;
    ensure!(other.dev == first.dev, "from the same: {} {}", other.dev, first.dev);

    // The next motherd has nothing ready, launches all the same, and makes it anew.
    let killed = scratch.motherd()?;
    kill(Pid::from_raw(killed), Signal::SIGKILL)?;
    scratch.eventually("there is another motherd", |scratch| {
        let another = scratch.motherd().is_ok_and(|pid| pid != killed);
        Ok((another && scratch.motherctl(&["list"])?.status == 0).then_some(()))
    })?;
    ensure!(
        held(&scratch, "mnt")?.is_empty() && held(&scratch, "net")?.is_empty(),
        "nobody has launched yet"
    );
    restart(&scratch, "web")?;
    let alone = said(&scratch, "web", 4)?;
    ensure!(alone.dev != first.dev && alone.rest == inline.rest, "{alone:?}");
    ready(&scratch)?;
    Ok(())
}

/// A file system on a folder of a test's own.
struct Mounted(PathBuf);

impl Mounted {
    fn on(folder: PathBuf) -> Result<Self> {
        mount(Some("motherd-test"), &folder, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        fs::write(folder.join("file"), "mounted\n")?;
        Ok(Self(folder))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("umount {}: {error}", self.0.display());
        }
    }
}

#[test]
fn what_the_host_mounts_and_unmounts_the_next_launch_shows() -> Result<()> {
    let Some(mut scratch) = Scratch::new("what_the_host_mounts")? else { return Ok(()) };
    let folder = scratch.path("shown");
    fs::create_dir(&folder)?;
    fs::write(folder.join("file"), "bare\n")?;
    let shown = folder.display();
    scratch.policy(
        "reads",
        &format!("extends = [\"base/default\"]\n[landlock]\nread = {{ add = [\"{shown}\"] }}\n"),
    )?;
    let look = format!("cat {shown}/file; echo end of look; sleep 1000");
    let script = format!("echo net: $(readlink /proc/self/ns/net) dev: $(stat -c %d /dev); {look}");
    scratch.service("web", &format!("exec = [\"/bin/sh\", \"-c\", '''{script}''']\npolicy = \"reads\"\n"))?;
    alone()?;
    scratch.start()?;
    scratch.running_by_request("web")?;
    ensure!(said(&scratch, "web", 1)?.rest == "bare");
    ready(&scratch)?;
    restart(&scratch, "web")?;
    let before = said(&scratch, "web", 2)?;
    ensure!(before.rest == "bare", "{before:?}");

    let (mounts, _) = ready(&scratch)?;
    let mounted = Mounted::on(folder)?;
    restart(&scratch, "web")?;
    let at_once = said(&scratch, "web", 3)?;
    ensure!(at_once.rest == "mounted" && at_once.dev != before.dev, "{at_once:?} after {before:?}");
    scratch.eventually("what was ready goes, and is made anew", |scratch| {
        let now = held(scratch, "mnt")?;
        Ok((!now.is_empty() && now.is_disjoint(&mounts)).then_some(()))
    })?;
    restart(&scratch, "web")?;
    let again = said(&scratch, "web", 4)?;
    ensure!(again.rest == "mounted", "{again:?}");

    let (mounts, _) = ready(&scratch)?;
    drop(mounted);
    restart(&scratch, "web")?;
    ensure!(said(&scratch, "web", 5)?.rest == "bare");
    scratch.eventually("nothing that was unmounted is kept busy", |scratch| {
        Ok(held(scratch, "mnt")?.is_disjoint(&mounts).then_some(()))
    })
}
