//! The event log and what is told of it: causes, streams, and that it outlives motherd; who waits by it; and what boots start.

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

/// What `list` and `status` say has the next boot start a service.
fn boot(scratch: &Scratch, service: &str) -> Result<Value> {
    let list: Value = serde_json::from_str(&scratch.motherctl(&["--json", "list"])?.out)?;
    let listed =
        list["services"].as_array().context("no services")?.iter().find(|one| one["name"] == service);
    let listed = listed.map(|one| one["boot"].clone()).unwrap_or_default();
    ensure!(scratch.status(service)?["boot"] == listed, "{service}: {listed}");
    Ok(listed)
}

#[test]
fn what_is_enabled_is_started_by_the_next_boot_and_what_is_disabled_is_not() -> Result<()> {
    let Some(mut scratch) = Scratch::new("what_is_enabled")? else { return Ok(()) };
    scratch.service("system", "[dependencies]\nwants = [\"own\"]\n")?;
    for name in ["own", "web", "db"] {
        scratch.service(name, SLEEPER)?;
    }
    scratch.service("job@", SLEEPER)?;
    scratch.service("ring", &format!("{SLEEPER}[dependencies]\nneeds = [\"system\"]\n"))?;
    let ran = |scratch: &Scratch, words: &[&str], status: i32, says: &str| -> Result<()> {
        let ran = scratch.motherctl(words)?;
        let said = format!("{}{}", ran.out, ran.errors);
        ensure!(ran.status == status && said.contains(says), "{words:?}: {ran:?}");
        Ok(())
    };
    // Without a motherd.
    ran(&scratch, &["enable", "web", "wbe"], 4, "did you mean `web`?")?;
    ensure!(!scratch.path("etc/motherd/enabled/web").exists(), "one name is wrong: nothing is changed");
    ran(&scratch, &["enable", "web", "job@night"], 0, "web: enabled\njob@night: enabled\n")?;
    ran(&scratch, &["enable", "web"], 0, "web: already enabled\n")?;
    ran(&scratch, &["enable", "own"], 0, "own: already enabled by ")?;
    ran(&scratch, &["disable", "own"], 1, "system.toml:2:10 has it started: change that file")?;
    ran(&scratch, &["enable", "job@"], 1, "is a template: name an instance of it")?;
    ran(&scratch, &["enable", "ring"], 1, "the boot would not start them; nothing was changed")?;
    ensure!(!scratch.path("etc/motherd/enabled/ring").exists());
    ran(&scratch, &["check"], 0, "0 errors")?;

    scratch.start()?;
    scratch.answers()?;
    ran(&scratch, &["wait", "--timeout", "60s", "web", "own", "job@night"], 0, "web: running\n")?;
    for (name, reason) in [("web", "enabled"), ("job@night", "enabled"), ("own", "system")] {
        ensure!(boot(&scratch, name)? == reason, "{name}");
    }
    ensure!(boot(&scratch, "db")?.is_null() && scratch.status("db")?["state"] == "stopped");
    // What is changed now is for the next boot, unless it is to be done at once.
    ran(&scratch, &["disable", "web"], 0, "web: disabled\n")?;
    ensure!(boot(&scratch, "web")?.is_null() && scratch.status("web")?["state"] == "running");
    ran(&scratch, &["enable", "--now", "db"], 0, "db: running")?;
    ran(&scratch, &["disable", "--now", "job@night"], 0, "job@night: stopped")?;
    scratch.kill_motherd()?;
    ensure!(scratch.status("web")?["state"] == "running" && boot(&scratch, "db")? == "enabled");
    let tree = scratch.motherctl(&["tree", "system"])?;
    ensure!(tree.out.contains("`- wants db: running, asked for by name\n"), "{tree:?}");
    scratch.stop()?;
    scratch.start()?;
    scratch.answers()?;
    ran(&scratch, &["wait", "--timeout", "60s", "db", "own"], 0, "db: running\n")?;
    ensure!(scratch.status("web")?["state"] == "stopped", "it was disabled");
    scratch.stop()?;
    Ok(())
}

#[test]
fn who_waits_for_a_state_is_told_of_it_over_the_death_of_motherd() -> Result<()> {
    let Some(mut scratch) = Scratch::new("who_waits_for_a_state")? else { return Ok(()) };
    scratch.service("web", SLEEPER)?;
    scratch.service(
        "bad",
        "exec = [\"/usr/bin/false\"]\npolicy = \"unconfined\"\n[restart]\nwhen = \"never\"\n",
    )?;
    scratch.start()?;
    scratch.answers()?;
    let begin = |words: &[&str]| -> Result<std::process::Child> {
        let mut command = Command::new(&Programs::built()?.motherctl);
        command.arg("--root").arg(scratch.path("")).args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command.spawn()?)
    };
    let up = begin(&["wait", "web"])?;
    ensure!(scratch.motherctl(&["start", "web"])?.status == 0);
    ensure!(up.wait_with_output()?.status.code() == Some(0), "it came up");
    // Whoever waits is there before motherd dies, or after: both have to do.
    let down = begin(&["--json", "wait", "--state", "stopped", "web"])?;
    scratch.kill_motherd()?;
    scratch.kill_motherd()?;
    ensure!(scratch.motherctl(&["stop", "web"])?.status == 0);
    let down = down.wait_with_output()?;
    let told: Value = serde_json::from_slice(&down.stdout)?;
    ensure!(down.status.code() == Some(0) && told["services"][0]["reached"] == true, "{down:?}");
    ensure!(scratch.motherctl(&["start", "bad"])?.status == 0 || scratch.status("bad")?["state"] == "failed");
    let failed = scratch.motherctl(&["wait", "bad"])?;
    ensure!(
        failed.status == 1 && failed.errors.contains("bad is failed: exited with status 1"),
        "{failed:?}"
    );
    let over = scratch.motherctl(&["wait", "--timeout", "50ms", "web"])?;
    ensure!(over.status == 1 && over.errors.contains("the time is over: web is stopped"), "{over:?}");
    ensure!(scratch.motherctl(&["wait", "wbe"])?.status == 4);
    let usage = scratch.motherctl(&["wait", "--state", "runing", "web"])?;
    ensure!(usage.status == 2 && usage.errors.contains("did you mean `running`?"), "{usage:?}");
    scratch.stop()?;
    Ok(())
}
