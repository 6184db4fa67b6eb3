//! The event log and what is told of it: causes, streams, and that it outlives motherd.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::programs::Programs;
use e2e::scratch::Scratch;
use serde_json::{Value, json};

const SLEEPER: &str = "exec = [\"/usr/bin/sleep\", \"infinity\"]\npolicy = \"unconfined\"\n";

/// What `events --json` says of these services.
fn events(scratch: &Scratch, services: &[&str]) -> Result<Vec<Value>> {
    let ran = scratch.motherctl(&[&["--json", "events"], services].concat())?;
    let reply: Value = serde_json::from_str(&ran.out).with_context(|| format!("{ran:?}"))?;
    ensure!(reply["version"] == 1 && reply["lost"] == 0, "{reply}");
    Ok(reply["events"].as_array().context("no events")?.clone())
}

/// What `why --json` says of a service.
fn why(scratch: &Scratch, service: &str) -> Result<Value> {
    let ran = scratch.motherctl(&["--json", "why", service])?;
    let reply: Value = serde_json::from_str(&ran.out).with_context(|| format!("{ran:?}"))?;
    ensure!(ran.status == 0 && reply["version"] == 1, "{ran:?}");
    Ok(reply["why"].clone())
}

#[test]
fn each_change_has_its_cause_and_the_log_outlives_motherd() -> Result<()> {
    let Some(mut scratch) = Scratch::new("each_change_has_its_cause")? else { return Ok(()) };
    scratch.service("db", SLEEPER)?;
    scratch.service("web", &format!("{SLEEPER}[dependencies]\nneeds = [\"db\"]\n"))?;
    scratch.start()?;
    scratch.answers()?;
    ensure!(scratch.motherctl(&["start", "web"])?.status == 0);
    scratch.kill_motherd()?;
    let told = why(&scratch, "db")?;
    let root = &told["roots"][0];
    ensure!(told["state"] == "running" && root["service"] == "web" && root["time"].is_string(), "{told:#}");
    ensure!(root["over"] == json!([{ "by": "web", "as": "needs" }]), "{told:#}");
    ensure!(root["cause"]["request"]["uid"] == 0 && told["unknown"] == json!([]), "{told:#}");
    ensure!(scratch.motherctl(&["stop", "--force", "db"])?.status == 0);
    let stopped = scratch.motherctl(&["why", "web"])?;
    ensure!(stopped.out.contains("stopped: it needs db, stopped by uid 0 (pid "), "{stopped:?}");
    let unknown = scratch.motherctl(&["why", "wbe"])?;
    ensure!(unknown.status == 4 && unknown.errors.contains("did you mean `web`?"), "{unknown:?}");

    let found = events(&scratch, &["web"])?;
    let told: Vec<(&str, &str)> = found
        .iter()
        .map(|event| (event["state"].as_str().unwrap_or("-"), event["words"].as_str().unwrap_or("-")))
        .collect();
    let states: Vec<&str> = told.iter().map(|(state, _)| *state).collect();
    ensure!(states == ["-", "waiting", "running", "stopping", "stopped"], "{told:#?}");
    ensure!(told[0].1.starts_with("start requested by uid 0 (pid "), "{told:#?}");
    ensure!(told[2].1.starts_with("started by uid 0 (pid "), "{told:#?}");
    ensure!(told[3].1.contains("it needs db, stopped by uid 0 (pid "), "{told:#?}");
    let all = events(&scratch, &[])?;
    let sequences: Vec<u64> = all.iter().filter_map(|event| event["sequence"].as_u64()).collect();
    ensure!(sequences == (1..=u64::try_from(all.len())?).collect::<Vec<_>>(), "{sequences:?}");
    let relaunch = all.iter().filter(|event| event["kind"] == "manager");
    ensure!(
        relaunch.clone().any(|event| event["words"].as_str().is_some_and(|words| words.contains("SIGKILL"))),
        "{:#?}",
        relaunch.collect::<Vec<_>>()
    );
    ensure!(scratch.motherctl(&["events", "wbe"])?.status == 4, "a name that nothing has");
    Ok(())
}

#[test]
fn a_follower_is_told_as_it_happens() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_follower_is_told")? else { return Ok(()) };
    scratch.service("web", SLEEPER)?;
    scratch.start()?;
    scratch.answers()?;
    let mut follower = Command::new(&Programs::built()?.motherctl)
        .arg("--root")
        .arg(scratch.path(""))
        .args(["--json", "events", "--follow", "--lines", "0", "web"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(follower.stdout.take().context("no output")?).lines();
    let mut next = || -> Result<Value> {
        let line = lines.next().context("the stream ended")??;
        Ok(serde_json::from_str(&line)?)
    };
    // One event is said before the stream begins or after it; the follower has to have both orders right.
    ensure!(scratch.motherctl(&["start", "web"])?.status == 0);
    ensure!(scratch.motherctl(&["stop", "web"])?.status == 0);
    let mut last = 0;
    loop {
        let event = next()?;
        ensure!(event["service"] == "web" && event["sequence"].as_u64() > Some(last), "{event} after {last}");
        last = event["sequence"].as_u64().unwrap_or_default();
        if event["state"] == "stopped" {
            break;
        }
    }
    follower.kill()?;
    follower.wait()?;
    Ok(())
}
