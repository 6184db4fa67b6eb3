//! Two pairs with the same paths, and a link that somebody else holds: there is one motherd, and it is initldr's.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    programs::Programs,
    scratch::{Scratch, descriptor_of},
};
use initldr::link::{End, SlotName, ToInit};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        socket::{MsgFlags, send},
    },
    unistd::Pid,
};

const WEB: &str = "exec = [\"/usr/bin/sleep\", \"100000\"]\npolicy = \"unconfined\"\n";

fn with_web(test: &str) -> Result<Option<Scratch>> {
    let Some(scratch) = Scratch::new(test)? else { return Ok(None) };
    scratch.service("web", WEB)?;
    scratch.service("system", "[dependencies]\nwants = [\"web\"]\n")?;
    Ok(Some(scratch))
}

/// An initldr beside that of the scratch, ended with the test.
struct Second(Child);

impl Second {
    fn start(scratch: &Scratch, log: &str) -> Result<Self> {
        let programs = Programs::built()?;
        let log = File::create(scratch.path(log))?;
        let child = Command::new(&programs.initldr)
            .arg("--motherd")
            .arg(&programs.motherd)
            .args(["--", "--root"])
            .arg(scratch.path(""))
            .arg("--cgroup")
            .arg(scratch.cgroup())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0.id().cast_signed());
        if kill(pid, Signal::SIGTERM).is_ok() && self.0.wait().is_err() {
            eprintln!("the second initldr did not end");
        }
    }
}

#[test]
fn a_second_pair_with_the_same_paths_is_kept_out_until_the_first_has_ended() -> Result<()> {
    let Some(mut scratch) = with_web("a_second_pair")? else { return Ok(()) };
    scratch.start()?;
    let (pid, motherd) = (scratch.running("web")?, scratch.motherd()?);
    let second = Second::start(&scratch, "second")?;
    let says =
        |words: &str| -> Result<bool> { Ok(fs::read_to_string(scratch.path("second"))?.contains(words)) };
    scratch.eventually("the second motherd says why", |_| {
        Ok(says("is managed by another motherd")?.then_some(()))
    })?;
    let why = format!("(locked by process {motherd})");
    ensure!(says(&why)?, "{why}: {}", fs::read_to_string(scratch.path("second"))?);
    ensure!(scratch.running("web")? == pid && scratch.motherd()? == motherd);
    // The lock is initldr's: the death of motherd is no gap in it.
    kill(Pid::from_raw(motherd), Signal::SIGKILL)?;
    scratch.eventually("the next motherd", |scratch| {
        Ok(scratch.motherd().ok().filter(|next| *next != motherd))
    })?;
    ensure!(scratch.running("web")? == pid);
    // When the first has ended, the second does what it was started for.
    scratch.stop()?;
    let first_web = pid;
    let other = scratch.running("web")?;
    ensure!(other != first_web, "it was stopped with the first pair");
    drop(second);
    Ok(())
}

/// The link of a motherd that is dead, in the hands of another process.
#[test]
fn who_holds_the_link_of_a_dead_motherd_is_not_heard() -> Result<()> {
    let Some(mut scratch) = with_web("the_link_of_a_dead_motherd")? else { return Ok(()) };
    scratch.start()?;
    let (pid, motherd) = (scratch.running("web")?, scratch.motherd()?);
    let link = descriptor_of(motherd, initldr::link::LINK_FD)?;
    // While that motherd lives it is its link, and initldr listens. A word that nobody is to understand is counted.
    send(link.as_raw_fd(), &[0xa5; 256], MsgFlags::MSG_NOSIGNAL)?;
    scratch.eventually("control: what is said on it is heard", |scratch| {
        Ok(scratch.log()?.contains("bad message number 1").then_some(()))
    })?;
    kill(Pid::from_raw(motherd), Signal::SIGKILL)?;
    let next = scratch.eventually("the next motherd", |scratch| {
        Ok(scratch.motherd().ok().filter(|next| *next != motherd))
    })?;
    ensure!(scratch.running("web")? == pid);
    let slot = SlotName::new("process/web").context("a name")?;
    for message in [ToInit::End(End::PowerOff), ToInit::Drop(slot), ToInit::Acknowledge(1), ToInit::Retire] {
        let sent = send(link.as_raw_fd(), &message.encode(), MsgFlags::MSG_NOSIGNAL);
        ensure!(sent == Err(Errno::EPIPE), "{message:?}: {sent:?}");
    }
    // Longer than initldr would need to end.
    std::thread::sleep(Duration::from_millis(300));
    ensure!(scratch.motherd()? == next && scratch.running("web")? == pid);
    let kept = scratch.motherctl(&["fdstore", "web"])?;
    ensure!(kept.out.contains("process"), "{kept:?}");
    Ok(())
}

/// By hand motherd does not start at all.
#[test]
fn a_motherd_that_initldr_did_not_start_says_so_and_ends() -> Result<()> {
    let motherd = &Programs::built()?.motherd;
    let began = Instant::now();
    let output = Command::new(motherd).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1) && said.contains("not started by initldr"), "{said}");
    ensure!(began.elapsed() < Duration::from_secs(20));
    Ok(())
}
