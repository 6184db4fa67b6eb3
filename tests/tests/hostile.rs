//! Clients and services that flood, stall and say garbage: whoever else there is gets served, and nothing of them stays.
//! On this very host, as ordinary processes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::clients::{Clients, orders};
use e2e::hostile::{Attack, NOBODY};
use e2e::say;
use e2e::scratch::Scratch;

/// How much more memory an attack may have motherd use for good: what is allocated once and used again, not what each
/// attacker could add.
const GROWTH_KIB: u64 = 16 << 10;

/// A number of `/proc/PID/status`.
fn of_status(pid: i32, key: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    Ok(line.split_whitespace().next().context("no number")?.parse()?)
}

/// How many descriptors a process has of each kind: sockets, pipes and so on.
fn descriptors(pid: i32) -> Result<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that is closed meanwhile is none.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let kind = target.to_string_lossy().split('[').next().unwrap_or_default().to_owned();
        *found.entry(kind).or_default() += 1;
    }
    Ok(found)
}

fn sockets(pid: i32) -> Result<usize> {
    Ok(descriptors(pid)?.get("socket:").copied().unwrap_or_default())
}

/// The control socket, as one that everybody may connect to: where there is no group of readers it is root's alone.
fn open_control(scratch: &Scratch) -> Result<PathBuf> {
    let path = scratch.path("run/motherd/motherd.sock");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(path)
}

fn served(scratch: &Scratch, attack: &str) -> Result<Duration> {
    let began = Instant::now();
    for words in [
        &["list"][..],
        &["status", "web"],
        &["restart", "web"],
        &["start", "worker@x"],
        &["stop", "worker@x"],
    ] {
        let ran = scratch.motherctl(words)?;
        ensure!(ran.status == 0, "{attack}: {words:?}: {ran:?}\n{}", scratch.log()?);
    }
    Ok(began.elapsed())
}

#[test]
fn no_client_of_the_control_socket_keeps_root_from_being_served() -> Result<()> {
    let Some(mut scratch) = Scratch::new("no_client_of_the_control_socket")? else { return Ok(()) };
    let sleeper = "exec = [\"/bin/sleep\", \"1000\"]\n[stop]\nsignal = \"SIGKILL\"\n";
    scratch.service("web", sleeper)?;
    scratch.service("worker@", sleeper)?;
    scratch.service("system", "[dependencies]\nwants = [\"web\"]\n")?;
    scratch.start()?;
    scratch.running("web")?;
    served(&scratch, "none")?;
    let (motherd, path) = (scratch.motherd()?, open_control(&scratch)?);
    let (open, memory) = (sockets(motherd)?, of_status(motherd, "VmRSS:")?);
    let known = scratch.motherctl(&["list"])?.out.lines().count();
    let mut lines = Vec::new();
    for attack in Attack::ON_CONTROL {
        let mut attackers = Vec::new();
        for _ in 0..3 {
            attackers.push(attack.begin(NOBODY, &path)?);
        }
        let took = served(&scratch, attack.word())?;
        // The control: they are at work, and are let in as far as they may be.
        let during = sockets(motherd)?;
        drop(attackers);
        let gone = scratch
            .eventually("all that they held is let go", |_| Ok((sockets(motherd)? <= open).then_some(())));
        gone.with_context(|| format!("{}: {open} before, {:?}", attack.word(), descriptors(motherd)))?;
        lines.push(format!("{} {took:.1?} ({} held)", attack.word(), during.saturating_sub(open)));
    }
    // All at once, and root's own garbage with them.
    let mut attackers = Vec::new();
    for attack in Attack::ON_CONTROL {
        attackers.push(attack.begin(NOBODY, &path)?);
    }
    for attack in [Attack::Garbage, Attack::Long, Attack::Connects] {
        attackers.push(attack.begin(0, &path)?);
    }
    lines.push(format!("all at once {:.1?}", served(&scratch, "all at once")?));
    drop(attackers);
    ensure!(scratch.motherd()? == motherd, "it is the same motherd");
    ensure!(scratch.motherctl(&["list"])?.out.lines().count() == known, "nobody had anything made");
    let grown = of_status(motherd, "VmRSS:")?.saturating_sub(memory);
    ensure!(grown <= GROWTH_KIB, "motherd has grown by {grown} KiB");
    say(&format!("served beside: {}; motherd has grown by {grown} KiB", lines.join(", ")));
    scratch.stop()?;
    Ok(())
}

#[test]
fn a_readiness_socket_that_everybody_floods_still_hears_its_service() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_readiness_socket_that_everybody_floods")? else { return Ok(()) };
    let clients = Clients::new(&scratch)?;
    let client = &clients.all[3];
    // Its socket is there before it is, and is flooded before it says a word.
    scratch.service("web", &client.service(&[], "timeout = \"60s\"", &orders("web")))?;
    scratch.service("other", &client.service(&["READY=1"], "", &orders("other")))?;
    scratch.service("system", "[dependencies]\nwants = [\"web\"]\n")?;
    scratch.start()?;
    scratch.answers()?;
    scratch
        .eventually("it runs", |scratch| Ok((scratch.status("web")?["state"] == "starting").then_some(())))?;
    let (motherd, path) = (scratch.motherd()?, scratch.path("run/motherd/notify/web"));
    let open = sockets(motherd)?;
    let attackers: Vec<_> = (0..3).map(|_| Attack::Datagrams.begin(NOBODY, &path)).collect::<Result<_>>()?;
    ensure!(scratch.status("web")?["state"] == "starting", "nobody who is not of it is believed");
    let began = Instant::now();
    e2e::clients::order(&scratch, "web", "READY=1\tSTATUS=mine")?;
    scratch.eventually("it is heard in the noise", |scratch| {
        let status = scratch.status("web")?;
        Ok((status["state"] == "running" && status["says"] == "mine").then_some(()))
    })?;
    say(&format!(
        "a service was heard {:.1?} after its word, beside three floods of its socket",
        began.elapsed()
    ));
    // The socket of another service, and all others, are as they were.
    let started = scratch.motherctl(&["start", "other"])?;
    ensure!(started.status == 0, "{started:?}");
    ensure!(scratch.motherctl(&["stop", "other"])?.status == 0);
    drop(attackers);
    let log = scratch.log()?;
    let told = log.lines().filter(|line| line.contains("which is not in its cgroup")).count();
    ensure!((1..20).contains(&told), "it is said, and not once for each: {told} times");
    let gone =
        scratch.eventually("all that it held is let go", |_| Ok((sockets(motherd)? <= open).then_some(())));
    gone.with_context(|| format!("{open} before, {:?}", descriptors(motherd)))?;
    ensure!(scratch.motherd()? == motherd, "it is the same motherd");
    scratch.stop()?;
    Ok(())
}
