//! Conditions against the real kernel: each kind comes and goes, and motherd is woken by that and by nothing else.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::programs::Programs;
use e2e::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SLEEPER: &str = "exec = [\"/bin/sleep\", \"1000\"]\npolicy = \"unconfined\"\n";

fn state(scratch: &Scratch, service: &str) -> Result<(String, String)> {
    let status = scratch.status(service)?;
    let text = |pointer: &str| status.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default();
    Ok((text("/state").to_owned(), text("/cause/words").to_owned()))
}

fn comes_to_be(scratch: &Scratch, service: &str, wanted: &str) -> Result<String> {
    scratch.eventually(&format!("{service} is {wanted}"), |scratch| {
        let (state, words) = state(scratch, service)?;
        Ok((state == wanted).then_some(words))
    })
}

/// How often the kernel put it to sleep because it waited: a wake-up each.
fn waits(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.context("it has that line")?.trim().parse()?)
}

#[test]
fn a_path_is_waited_for_without_a_wake_up_and_its_loss_is_felt() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_path_is_waited_for")? else { return Ok(()) };
    let condition = |path: &str, on_loss: &str| {
        format!("{SLEEPER}[[condition]]\npath = \"{path}\"\non_loss = \"{on_loss}\"\n")
    };
    scratch.service("deep", &condition("/srv/link/deep/ready", "restart"))?;
    scratch.service("once", &condition("/srv/once", "stop"))?;
    scratch.service("needy", &format!("{SLEEPER}[dependencies]\nneeds = [\"deep\"]\n"))?;
    let noisy = scratch.path("srv/noisy");
    fs::create_dir_all(&noisy)?;
    scratch.start()?;
    scratch.answers()?;
    let refused = scratch.motherctl(&["start", "needy"])?;
    let blocked = "blocked: it needs deep, which is waiting for a condition";
    ensure!(refused.status == 1 && refused.errors.contains(blocked), "{refused:?}");
    ensure!(
        state(&scratch, "deep")? == ("waiting".into(), "blocked: /srv/link/deep/ready is not there".into())
    );

    // Whatever happens elsewhere, and while nothing happens, motherd sleeps: once it has dealt with us.
    let motherd = scratch.motherd()?;
    scratch.eventually("200 files that nobody waits for wake nobody", |_| {
        let before = waits(motherd)?;
        for number in 0..200 {
            fs::write(noisy.join(number.to_string()), "")?;
        }
        Ok((waits(motherd)? == before).then_some(()))
    })?;

    symlink("elsewhere", scratch.path("srv/link"))?;
    fs::create_dir_all(scratch.path("srv/elsewhere/deep"))?;
    fs::write(scratch.path("srv/elsewhere/deep/ready"), "")?;
    let first = scratch.running("deep")?;
    scratch.running("needy")?;

    // The whole folder goes, and comes back by another name.
    fs::rename(scratch.path("srv/elsewhere"), scratch.path("srv/away"))?;
    let words = comes_to_be(&scratch, "deep", "waiting")?;
    ensure!(words == "blocked: /srv/link/deep/ready is not there", "{words}");
    scratch.running("needy")?; // it tolerates that
    fs::rename(scratch.path("srv/away"), scratch.path("srv/elsewhere"))?;
    ensure!(scratch.running("deep")? != first);

    fs::write(scratch.path("srv/once"), "")?;
    ensure!(scratch.motherctl(&["start", "once"])?.status == 0);
    fs::remove_file(scratch.path("srv/once"))?;
    let words = comes_to_be(&scratch, "once", "stopped")?;
    ensure!(words == "stopped: /srv/once is not there", "{words}");

    // What goes while there is no motherd to see it.
    let motherd = Pid::from_raw(scratch.motherd()?);
    kill(motherd, Signal::SIGSTOP)?;
    fs::remove_file(scratch.path("srv/elsewhere/deep/ready"))?;
    kill(motherd, Signal::SIGKILL)?;
    scratch.eventually("the next motherd sees the loss", |scratch| {
        Ok(state(scratch, "deep").ok().filter(|(state, _)| state == "waiting"))
    })?;
    fs::write(scratch.path("srv/elsewhere/deep/ready"), "")?;
    scratch.running("deep")?;
    Ok(())
}

#[test]
fn a_socket_is_waited_for_until_somebody_listens() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_socket_is_waited_for")? else { return Ok(()) };
    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let at = tcp.local_addr()?;
    drop(tcp);
    let stale = scratch.path("run/stale.sock");
    drop(UnixListener::bind(&stale)?);
    scratch.service("tcp", &format!("{SLEEPER}[[condition]]\nsocket = \"tcp:{at}\"\n"))?;
    scratch.service("unix", &format!("{SLEEPER}[[condition]]\nsocket = \"unix:/run/stale.sock\"\n"))?;
    scratch.start()?;
    scratch.answers()?;
    for service in ["tcp", "unix"] {
        ensure!(scratch.motherctl(&["start", service])?.status == 1, "nobody listens");
    }
    ensure!(state(&scratch, "unix")?.1 == "blocked: nobody listens on unix:/run/stale.sock");
    ensure!(state(&scratch, "tcp")?.1 == format!("blocked: nobody listens on tcp:{at}"));
    let _tcp = TcpListener::bind(at)?;
    scratch.running("tcp")?;
    fs::remove_file(&stale)?;
    let _unix = UnixListener::bind(&stale)?;
    scratch.running("unix")?;
    Ok(())
}

/// A mount that ends with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path) -> Result<Self> {
        run("mount", &["-t", "tmpfs", "none", &path.display().to_string()])?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &[&self.0.display().to_string()]) {
            eprintln!("{error:#}");
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).status().with_context(|| format!("run {program}"))?;
    ensure!(status.success(), "{program} {arguments:?}: {status}");
    Ok(())
}

#[test]
fn a_mount_is_waited_for_and_its_loss_is_felt() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_mount_is_waited_for")? else { return Ok(()) };
    let point = scratch.path("srv/disk");
    fs::create_dir_all(&point)?;
    scratch.service(
        "disk",
        &format!("{SLEEPER}[[condition]]\nmount = \"/srv/disk\"\non_loss = \"restart\"\ntimeout = \"1h\"\n"),
    )?;
    scratch.service("system", "[dependencies]\nwants = [\"disk\"]\n")?;
    scratch.start()?;
    scratch.answers()?;
    scratch.eventually("it waits", |scratch| {
        Ok((state(scratch, "disk")? == ("waiting".into(), "waits: nothing is mounted on /srv/disk".into()))
            .then_some(()))
    })?;
    let mounted = Mounted::new(&point)?;
    scratch.running("disk")?;
    drop(mounted);
    comes_to_be(&scratch, "disk", "waiting")?;
    let _again = Mounted::new(&point)?;
    scratch.running("disk")?;
    Ok(())
}

#[test]
fn the_network_is_waited_for_and_its_loss_is_felt() -> Result<()> {
    let Some(mut scratch) = Scratch::new("the_network_is_waited_for")? else { return Ok(()) };
    for (name, network) in [("link", "link:x0"), ("address", "address"), ("route", "route")] {
        let condition = format!("[[condition]]\nnetwork = \"{network}\"\non_loss = \"restart\"\n");
        scratch.service(name, &format!("{SLEEPER}{condition}"))?;
    }
    scratch.service("system", "[dependencies]\nwants = [\"link\", \"address\", \"route\"]\n")?;
    // A network of their own, in which links can be made.
    let programs = Programs::built()?;
    let initldr = programs.initldr.display().to_string();
    scratch.start_as(Path::new("/usr/bin/unshare"), &programs.motherd, &["--net", &initldr])?;
    scratch.answers()?;
    let init = scratch.init()?.to_string();
    let ip = |words: &str| {
        let inside = ["-t", &init, "-n", "ip"];
        run("nsenter", &inside.into_iter().chain(words.split(' ')).collect::<Vec<_>>())
    };
    let waits_for = |service: &str, words: &str| -> Result<()> {
        let found = comes_to_be(&scratch, service, "waiting")?;
        ensure!(found == words, "{service}: {found}");
        Ok(())
    };
    waits_for("link", "blocked: the link x0 is not up")?;
    waits_for("address", "blocked: no network address is there")?;
    waits_for("route", "blocked: no default route is there")?;
    ip("link add x0 type veth peer name x1")?;
    ip("link set x0 up")?;
    waits_for("link", "blocked: the link x0 is not up")?; // it has no carrier
    ip("link set x1 up")?;
    scratch.running("link")?;
    waits_for("address", "blocked: no network address is there")?;
    ip("addr add 10.9.8.7/24 dev x0")?;
    scratch.running("address")?;
    waits_for("route", "blocked: no default route is there")?;
    ip("route add default via 10.9.8.1")?;
    scratch.running("route")?;
    ip("route del default")?;
    waits_for("route", "blocked: no default route is there")?;
    scratch.running("address")?;
    ip("link set x1 down")?;
    waits_for("link", "blocked: the link x0 is not up")?;
    waits_for("address", "blocked: no network address is there")
}
