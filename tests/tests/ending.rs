//! The end of everything as somebody asks for it: with a status, by force, at a time, under other names, and without what
//! holds it up. On this host, where initldr is an ordinary process; `disk.rs` ends machines.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::programs::Programs;
use e2e::scratch::Scratch;
use serde_json::Value;

/// It hears no SIGTERM, and has more time for it than any of these tests.
const STUBBORN: &str = r#"
exec   = ["/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1000; done"]
policy = "unconfined"
[stop]
timeout = "10m"
"#;
/// It says when it is asked to end.
const GENTLE: &str = r#"
exec   = ["/bin/sh", "-c", "trap 'touch \"$0\"; exit 0' TERM; echo up; while :; do sleep 0.05; done", "FILE"]
policy = "unconfined"
[dependencies]
before = ["stubborn"]
"#;

/// A motherd with the two of them, both up; and the file that the gentle one leaves.
fn start(test: &str) -> Result<Option<(Scratch, std::path::PathBuf)>> {
    let Some(mut scratch) = Scratch::new(test)? else { return Ok(None) };
    let file = scratch.path("run/asked");
    scratch.service("stubborn", STUBBORN)?;
    scratch.service("gentle", &GENTLE.replace("FILE", &file.display().to_string()))?;
    scratch.start()?;
    for (service, says) in [("stubborn", "deaf"), ("gentle", "up")] {
        scratch.running_by_request(service)?;
        // The trap is set by then.
        scratch.eventually("it is up", |scratch| {
            Ok(scratch.motherctl(&["logs", service])?.out.contains(says).then_some(()))
        })?;
    }
    Ok(Some((scratch, file)))
}

fn ending(scratch: &Scratch) -> Result<Value> {
    let ran = scratch.motherctl(&["--json", "ending"])?;
    serde_json::from_str(&ran.out).with_context(|| format!("{ran:?}"))
}

#[test]
fn what_holds_the_end_up_is_shown_and_can_be_skipped() -> Result<()> {
    let Some((mut scratch, file)) = start("ending::skip")? else { return Ok(()) };
    ensure!(scratch.motherctl(&["ending"])?.out == "nothing is being stopped\n");
    let refused = scratch.motherctl(&["skip", "stubborn"])?;
    ensure!(refused.status == 1 && refused.errors.contains("it is not being stopped"), "{refused:?}");
    let begun = Instant::now();
    ensure!(scratch.motherctl(&["exit", "42"])?.out == "ending\n");
    let held = scratch.eventually("stubborn holds it up", |scratch| {
        let ending = ending(scratch)?;
        Ok((ending["awaited"][0]["service"] == "stubborn").then_some(ending))
    })?;
    ensure!(held["how"] == "exit" && held["remaining_usec"].as_u64() > Some(500_000_000), "{held}");
    ensure!(
        held["later"] == serde_json::json!(["gentle"]),
        "it comes before it, so it ends after it: {held}"
    );
    let service = &held["awaited"][0];
    ensure!(service["doing"] == "SIGTERM was sent, SIGKILL follows", "{held}");
    ensure!(service["remaining_usec"].as_u64() > Some(500_000_000), "{held}");
    let commands = service["processes"].as_array().context("processes")?;
    let command = |text: &str| {
        commands.iter().any(|process| process["command"].as_str().unwrap_or_default().contains(text))
    };
    ensure!(command("trap") && command("sleep 1000"), "{held}");
    let text = scratch.motherctl(&["ending"])?.out;
    ensure!(
        text.contains("stubborn: SIGTERM was sent, SIGKILL follows in ")
            && text.contains("after that: gentle"),
        "{text}"
    );
    // The same is on the console after a while.
    scratch.eventually("it is said", |scratch| {
        let log = scratch.log()?;
        Ok((log.contains("it waits for:") && log.contains("  stubborn: SIGTERM was sent")).then_some(()))
    })?;
    ensure!(!file.exists(), "control: the other one was not asked yet");
    let skipped = scratch.motherctl(&["skip", "stubborn"])?;
    ensure!(skipped.status == 0 && skipped.out.contains("stubborn: stopping"), "{skipped:?}");
    let status = scratch.ended()?;
    ensure!(status.code() == Some(42), "{status}");
    ensure!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    ensure!(file.exists(), "the other one was stopped, not killed");
    Ok(())
}

#[test]
fn a_stop_that_takes_long_can_be_skipped_too() -> Result<()> {
    let Some((scratch, _)) = start("ending::skip-stop")? else { return Ok(()) };
    let mut stop = Command::new(&Programs::built()?.motherctl)
        .arg("--root")
        .arg(scratch.path(""))
        .args(["stop", "stubborn"])
        .spawn()?;
    scratch.eventually("it is being stopped", |scratch| {
        Ok((ending(scratch)?["awaited"][0]["service"] == "stubborn").then_some(()))
    })?;
    ensure!(scratch.motherctl(&["skip", "stubborn"])?.status == 0);
    ensure!(stop.wait()?.success(), "whoever asked for the stop is answered");
    let status = scratch.status("stubborn")?;
    ensure!(status["state"] == "stopped", "{status}");
    Ok(())
}

#[test]
fn by_force_nothing_is_stopped_first() -> Result<()> {
    let Some((mut scratch, file)) = start("ending::force")? else { return Ok(()) };
    let ran = scratch.motherctl(&["exit", "--force", "7"])?;
    ensure!(ran.status == 0, "{ran:?}");
    let status = scratch.ended()?;
    ensure!(status.code() == Some(7) && !file.exists(), "{status}, {}", file.exists());
    Ok(())
}

#[test]
fn an_end_is_arranged_kept_and_called_off() -> Result<()> {
    let Some((mut scratch, _)) = start("ending::schedule")? else { return Ok(()) };
    for name in ["shutdown", "reboot", "telinit"] {
        symlink(&Programs::built()?.motherctl, scratch.path(name))?;
    }
    let run = |scratch: &Scratch, name: &str, words: &[&str]| -> Result<(Option<i32>, String)> {
        let output = Command::new(scratch.path(name)).args(words).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    };
    let root = scratch.path("").display().to_string();
    let (status, said) = run(&scratch, "shutdown", &["--root", &root, "-r", "+10", "a", "new", "kernel"])?;
    ensure!(
        status == Some(0) && said.starts_with("reboot at ") && said.ends_with(": a new kernel\n"),
        "{said}"
    );
    let nologin = scratch.path("run/nologin");
    ensure!(!nologin.exists(), "ten minutes are left");
    // The next motherd knows of it.
    let motherd = scratch.motherd()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(motherd), nix::sys::signal::Signal::SIGKILL)?;
    let kept = scratch.eventually("another motherd answers", |scratch| {
        Ok(ending(scratch).ok().filter(|_| scratch.motherd().is_ok_and(|now| now != motherd)))
    })?;
    let plan = &kept["scheduled"];
    ensure!(plan["how"] == "reboot" && plan["message"] == "a new kernel", "{kept}");
    ensure!((500_000_000..=600_000_000).contains(&plan["in_usec"].as_u64().context("a time")?), "{kept}");
    // Another takes its place; less than five minutes are left, so nobody logs in any more.
    let (status, said) = run(&scratch, "shutdown", &["--root", &root, "+4"])?;
    ensure!(status == Some(0) && said.starts_with("power-off at "), "{said}");
    ensure!(std::fs::read_to_string(&nologin)?.contains("going down for power-off in 4 minutes"));
    let (status, said) = run(&scratch, "shutdown", &["--root", &root, "-c"])?;
    ensure!(status == Some(0) && said.starts_with("power-off at "), "what would have come: {said}");
    ensure!(!nologin.exists() && ending(&scratch)?["scheduled"].is_null());
    let (status, said) = run(&scratch, "shutdown", &["--root", &root, "-c"])?;
    ensure!(status == Some(0) && said == "nothing is to come\n", "{said}");
    let (status, said) = run(&scratch, "shutdown", &["--root", &root, "25:00"])?;
    ensure!(status == Some(2) && said.contains("25:00 is no time: now, +MINUTES or HH:MM"), "{said}");
    let (status, said) = run(&scratch, "telinit", &["9"])?;
    ensure!(status == Some(2) && said.contains("telinit 0, 1, 2 to 5, 6, S, q and u"), "{said}");
    let (status, said) = run(&scratch, "reboot", &["now"])?;
    ensure!(status == Some(2) && said.contains("now is not understood"), "{said}");
    scratch.motherctl(&["stop", "gentle"])?;
    scratch.motherctl(&["kill", "-s", "KILL", "stubborn"])?;
    let (status, _) = run(&scratch, "shutdown", &["--root", &root, "now"])?;
    ensure!(status == Some(0) && scratch.ended()?.code() == Some(0));
    Ok(())
}
