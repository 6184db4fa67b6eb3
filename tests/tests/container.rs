//! MotherD as PID 1 of containers that this host makes: with and without a cgroup namespace, in a user namespace, under crun,
//! and in those that lack what it needs.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::container::{By, Container};
use e2e::faults::send_signal;
use nix::unistd::Pid;

const SYSTEM: (&str, &str) = ("system", "[dependencies]\nwants = [\"gentle\", \"boxed\", \"orphans\"]\n");
/// It says when it is asked to end.
const GENTLE: (&str, &str) = (
    "gentle",
    "exec = [\"/bin/sh\", \"-c\", \"trap 'echo x > /asked; exit 0' TERM; while :; do sleep 0.05; done\"]\n\
     policy = \"unconfined\"\n",
);
const BOXED: (&str, &str) = ("boxed", "exec = [\"/bin/sleep\", \"1000\"]\npolicy = \"base/default\"\n");
/// It leaves children behind that nobody waits for but PID 1.
const ORPHANS: (&str, &str) = (
    "orphans",
    "exec = [\"/bin/sh\", \"-c\", \"for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.1 &); done\"]\n\
     policy = \"unconfined\"\n[start]\ntype = \"oneshot\"\n",
);
const SERVICES: [(&str, &str); 4] = [SYSTEM, GENTLE, BOXED, ORPHANS];

const OWN_CGROUPS: By = By::Unshare("--cgroup", "");
const HOSTS_CGROUPS: By = By::Unshare("", "");

const SIGRTMIN: i32 = 34;

/// One that is up, and that has said so where somebody listens.
fn up(test: &str, by: By) -> Result<Option<Container>> {
    let Some(container) = Container::start(test, by, &SERVICES)? else { return Ok(None) };
    if matches!(by, By::Crun(_)) {
        container.eventually("system is up", |container| {
            Ok(state(container, "system").is_ok_and(|state| state == "done").then_some(()))
        })?;
    } else {
        ensure!(container.says()? == "READY=1", "{}", container.log());
    }
    Ok(Some(container))
}

fn state(container: &Container, service: &str) -> Result<String> {
    let ran = container.run(&["/opt/motherctl", "--json", "status", service])?;
    let status: serde_json::Value = serde_json::from_str(&ran.out).with_context(|| format!("{ran:?}"))?;
    Ok(status["services"][0]["state"].as_str().context("a state")?.to_owned())
}

fn no_zombie(container: &Container) -> Result<()> {
    container.eventually("everything that died is reaped", |container| {
        let dead = |pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
        };
        Ok((!container.processes()?.iter().any(dead)).then_some(()))
    })
}

fn stops_by(signal: i32, status: i32, stopped: bool) -> Result<()> {
    let Some(mut container) = up("container::stops_by", OWN_CGROUPS)? else { return Ok(()) };
    send_signal(container.initldr()?, signal)?;
    if stopped {
        ensure!(container.says()? == "STOPPING=1");
    }
    let found = container.ended()?;
    ensure!(found == status, "signal {signal}: {found}\n{}", container.log());
    let asked = container.path("asked").exists();
    ensure!(asked == stopped, "signal {signal}: services are asked first: {asked}\n{}", container.log());
    Ok(())
}

#[test]
fn signals_stop_it_and_it_exits_with_0() -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGPWR, SIGRTMIN + 3] {
        stops_by(signal, 0, true)?;
    }
    // At once: nothing is stopped first, and who runs the container is told so.
    stops_by(libc::SIGQUIT, 1, false)?;
    stops_by(SIGRTMIN + 14, 1, false)
}

/// Services run, each in a cgroup of its own below the container's, and outlive motherd.
fn whole(test: &str, by: By, boxed: &str) -> Result<()> {
    let Some(mut container) = up(test, by)? else { return Ok(()) };
    ensure!(
        state(&container, "gentle")? == "running" && state(&container, "boxed")? == boxed,
        "{}",
        container.log()
    );
    if boxed == "running" {
        let ran = container.run(&["/opt/motherctl", "--json", "status", "boxed"])?;
        let status: serde_json::Value = serde_json::from_str(&ran.out).with_context(|| format!("{ran:?}"))?;
        let attested = &status["services"][0]["isolation"]["attested"]["value"];
        ensure!(attested.is_object(), "another user's process is attested: {}", status["services"][0]);
    }
    let own = |leaf: &str| -> Result<Vec<i32>> {
        let procs = fs::read_to_string(container.cgroup().join(leaf).join("cgroup.procs"));
        let procs = procs.with_context(|| format!("{leaf}\n{}", container.log()))?;
        Ok(procs.lines().filter_map(|pid| pid.parse().ok()).collect())
    };
    let initldr = container.initldr()?;
    ensure!(own("initldr.scope")? == [initldr.as_raw()], "the container's own cgroup can have controllers");
    // What makes something ahead for it comes and goes beside it.
    let motherd = container.eventually("motherd is alone", |_| {
        Ok(Some(own("motherd.scope")?).filter(|motherd| motherd.len() == 1))
    })?;
    let gentle = own("system.slice/gentle.service")?;
    ensure!(!gentle.is_empty(), "{motherd:?} {gentle:?}");
    no_zombie(&container)?;
    // The shell of the service; what it waits for comes and goes.
    let shell = gentle[0];
    send_signal(Pid::from_raw(motherd[0]), libc::SIGKILL)?;
    container.eventually("another motherd is there", |container| {
        let now = fs::read_to_string(container.cgroup().join("motherd.scope/cgroup.procs"))?;
        let other = now.lines().any(|pid| pid.parse() != Ok(motherd[0]));
        Ok((other && container.run(&["/opt/motherctl", "list"])?.status == 0).then_some(()))
    })?;
    ensure!(own("system.slice/gentle.service")?.contains(&shell), "the service noticed");
    no_zombie(&container)?;
    let ran = container.run(&["/opt/motherctl", "exit", "42"])?;
    // It may be over before motherctl has had its turn, which is killed with all that is in there.
    ensure!(ran.out == "ending\n" || ran.status == 128 + libc::SIGKILL, "{ran:?}");
    let status = container.ended()?;
    ensure!(status == 42 && container.path("asked").exists(), "{status}\n{}", container.log());
    Ok(())
}

#[test]
fn in_a_cgroup_namespace() -> Result<()> {
    whole("container::cgroup_namespace", OWN_CGROUPS, "running")
}

#[test]
fn where_it_sees_the_hosts_cgroups() -> Result<()> {
    whole("container::hosts_cgroups", HOSTS_CGROUPS, "running")
}

/// Root is the only user that there is, and makes no device: what a policy cannot have is not left out.
#[test]
fn in_a_user_namespace() -> Result<()> {
    whole("container::user_namespace", By::Unshare("--user --map-root-user --cgroup --net", ""), "failed")
}

#[test]
fn under_crun() -> Result<()> {
    whole("container::crun", By::Crun("rw"), "running")
}

/// Without a cgroup tree that can be written nothing is started, and everything says why.
fn without_cgroups(test: &str, by: By, why: &str) -> Result<()> {
    let Some(mut container) = Container::start(test, by, &SERVICES)? else { return Ok(()) };
    let answers =
        |container: &Container| Ok((container.run(&["/opt/motherctl", "list"])?.status == 0).then_some(()));
    container.eventually("motherctl is answered", answers)?;
    for service in ["gentle", "boxed"] {
        container.eventually("it has failed", |container| {
            Ok((state(container, service)? == "failed").then_some(()))
        })?;
        let status = container.run(&["/opt/motherctl", "status", service])?;
        ensure!(status.out.contains("there is no cgroup2 tree to have services in: "), "{status:?}");
        ensure!(status.out.contains(why), "{why:?} is not in {status:?}");
    }
    send_signal(container.initldr()?, libc::SIGTERM)?;
    ensure!(container.ended()? == 0, "{}", container.log());
    Ok(())
}

#[test]
fn without_cgroups_it_says_so_and_starts_nothing() -> Result<()> {
    const READ_ONLY: By = By::Unshare("--cgroup", "mount -t cgroup2 -o ro none /sys/fs/cgroup;");
    const NONE: By = By::Unshare("", "mount -t tmpfs -o ro none /sys;");
    without_cgroups(
        "container::read_only",
        READ_ONLY,
        "make /sys/fs/cgroup/motherd.scope: Read-only file system",
    )?;
    without_cgroups("container::none", NONE, "none is mounted: mount -t cgroup2 none /sys/fs/cgroup")?;
    without_cgroups("container::crun_read_only", By::Crun("ro"), "Read-only file system")
}
