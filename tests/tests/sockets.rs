//! Sockets that listen before their service runs, and timers, over the death of motherd.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use anyhow::{Result, ensure};
use e2e::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn shell(script: &str) -> String {
    format!(
        "exec = [\"/bin/sh\", \"-c\", '''{script}''']\npolicy = \"unconfined\"\n[restart]\nwhen = \"never\"\n"
    )
}

fn answers(scratch: &Scratch) -> Result<()> {
    scratch.eventually("motherd answers", |scratch| {
        Ok((scratch.motherctl(&["list"])?.status == 0).then_some(()))
    })
}

fn kill_motherd(scratch: &Scratch) -> Result<()> {
    let before = scratch.motherd()?;
    kill(Pid::from_raw(before), Signal::SIGKILL)?;
    scratch.eventually("another motherd is there", |scratch| {
        Ok(scratch.motherd().ok().filter(|pid| *pid != before))
    })?;
    answers(scratch)
}

fn state(scratch: &Scratch, service: &str) -> Result<Value> {
    Ok(scratch.status(service)?["state"].clone())
}

#[test]
fn a_connection_starts_a_lazy_service_and_none_is_ever_refused() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_connection_starts_a_lazy_service")? else { return Ok(()) };
    let tell = "echo fds $LISTEN_FDS names $LISTEN_FDNAMES; [ $LISTEN_PID = $$ ] && echo mine; \
                for fd in 3 4 5; do [ -S /proc/self/fd/$fd ] && echo socket $fd; done; exec sleep 1000";
    let sockets = "[[socket]]\nname = \"main\"\nlisten = \"unix:/run/lazy.sock\"\nlazy = true\n\
                   [[socket]]\nname = \"log\"\nlisten = \"unix-dgram:/run/lazy.dgram\"\n";
    scratch.service("lazy", &format!("{}{sockets}", shell(tell)))?;
    scratch.start()?;
    answers(&scratch)?;
    let path = scratch.path("run/lazy.sock");
    let connect = || UnixStream::connect(&path);
    ensure!(state(&scratch, "lazy")? == "stopped", "nobody has connected");
    kill_motherd(&scratch)?;
    ensure!(state(&scratch, "lazy")? == "stopped");

    let mut kept = vec![connect()?];
    let first = scratch.running("lazy")?;
    let output = scratch.eventually("it has told", |scratch| {
        let out = scratch.motherctl(&["logs", "lazy"])?.out;
        Ok(out.contains("socket 4").then_some(out))
    })?;
    for expected in [" fds 2 names main:log\n", " mine\n", " socket 3\n", " socket 4\n"] {
        ensure!(output.contains(expected), "{expected:?} is not in {output}");
    }
    ensure!(!output.contains("socket 5"), "{output}");
    kill_motherd(&scratch)?;
    kept.push(connect()?);
    ensure!(scratch.running("lazy")? == first, "it runs on");
    ensure!(scratch.motherctl(&["restart", "lazy"])?.status == 0);
    kept.push(connect()?);
    let why = scratch.motherctl(&["events", "lazy"])?.out;
    ensure!(why.contains("a connection to unix:/run/lazy.sock"), "{why}");

    // A stop keeps the lazy socket: what waits starts it again.
    ensure!(scratch.motherctl(&["stop", "lazy"])?.status == 0);
    kept.push(connect()?);
    scratch.running("lazy")?;
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_told_with_its_place_and_freed_after_a_stop() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_port_that_is_taken")? else { return Ok(()) };
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let at = taken.local_addr()?;
    let text = format!("{}[[socket]]\nlisten = \"tcp:{at}\"\n", shell("exec sleep 1000"));
    scratch.service("web", &text)?;
    scratch.start()?;
    answers(&scratch)?;
    let ran = scratch.motherctl(&["start", "web"])?;
    let expected = format!("web.toml:6:10: listen on tcp:{at}: ");
    ensure!(ran.status == 1 && ran.errors.contains(&expected), "{expected} is not in {ran:?}");
    drop(taken);
    ensure!(scratch.motherctl(&["start", "web"])?.status == 0);
    ensure!(std::net::TcpStream::connect(at).is_ok(), "it listens");
    ensure!(scratch.status("web")?["sockets"][0]["listening"] == true);
    ensure!(scratch.motherctl(&["stop", "web"])?.status == 0);
    // initldr lets go of it a moment after the answer.
    scratch.eventually("nobody listens for a service that is down", |_| {
        Ok(std::net::TcpStream::connect(at).is_err().then_some(()))
    })
}

#[test]
fn a_timer_starts_its_service_again_and_again_also_under_another_motherd() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_timer_starts_its_service")? else { return Ok(()) };
    let oneshot = "[start]\ntype = \"oneshot\"\n";
    scratch.service("tick", &format!("{}{oneshot}[[timer]]\nevery = \"1s\"\n", shell("echo tick")))?;
    scratch
        .service("second", &format!("{}{oneshot}[[timer]]\ncalendar = \"*:*:*\"\n", shell("echo second")))?;
    scratch.start()?;
    answers(&scratch)?;
    let ticks = |scratch: &Scratch, service: &str| -> Result<usize> {
        Ok(scratch.motherctl(&["logs", service]).map(|ran| ran.out.lines().count()).unwrap_or(0))
    };
    for service in ["tick", "second"] {
        scratch.eventually("it ran twice", |scratch| Ok((ticks(scratch, service)? >= 2).then_some(())))?;
    }
    kill_motherd(&scratch)?;
    let before = ticks(&scratch, "tick")?;
    scratch.eventually("it runs on", |scratch| Ok((ticks(scratch, "tick")? > before + 1).then_some(())))?;
    let timers = scratch.motherctl(&["--json", "timers"])?;
    let reply: Value = serde_json::from_str(&timers.out)?;
    ensure!(reply["timers"].as_array().is_some_and(|timers| timers.len() == 2), "{reply:#}");
    ensure!(
        reply["timers"][0]["last"].is_string() && reply["timers"][0]["next_in_usec"].is_u64(),
        "{reply:#}"
    );
    ensure!(scratch.motherctl(&["events", "tick"])?.out.contains("timer: every 1s"));
    Ok(())
}
