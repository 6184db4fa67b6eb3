//! Triggers on pressure, on this very host: two processes on one processor make it, one that sleeps is the control. That the
//! same holds of memory, on kernels with its controller, is shown in `limits.rs`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::scratch::{Ran, Scratch, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Two that want one processor.
const BUSY: &str = "(while :; do :; done) & while :; do :; done";

fn policy(scratch: &Scratch, name: &str, action: &str) -> Result<String> {
    // A window that everybody may have.
    let trigger =
        format!("{{ resource = \"cpu\", stall = \"100ms\", window = \"2s\", action = \"{action}\" }}");
    let path = scratch.policy(
        name,
        &format!(
            "extends = [\"base/default\"]\n[process]\ncpu_affinity = [0]\n[cgroup]\npressure = [{trigger}]\n"
        ),
    )?;
    Ok(path.display().to_string())
}

fn scratch(test: &str) -> Result<Option<Scratch>> {
    let Some(scratch) = Scratch::new(test)? else { return Ok(None) };
    if !Path::new("/proc/pressure/cpu").exists() {
        skip(test, "this kernel does not account pressure")?;
        return Ok(None);
    }
    Ok(Some(scratch))
}

#[test]
fn a_command_is_told_of_or_killed() -> Result<()> {
    let Some(scratch) = scratch("a_command_is_told_of_or_killed")? else { return Ok(()) };
    let run = |policy: &str, script: &str| -> Result<Ran> {
        scratch.motherctl(&["run", "--policy", policy, "--", "/bin/sh", "-c", script])
    };
    for action in ["kill", "restart"] {
        let path = policy(&scratch, action, action)?;
        let killed = run(&path, BUSY)?;
        ensure!(killed.status == 137, "{killed:?}");
        ensure!(killed.errors.contains("motherctl: pressure: cpu some: 100ms in 2s: killed\n"), "{killed:?}");
        let control = run(&path, "sleep 3; echo slept")?;
        ensure!(control.status == 0 && control.out == "slept\n", "control: {control:?}");
        ensure!(!control.errors.contains("pressure:"), "control: {control:?}");
    }
    let path = policy(&scratch, "report", "report")?;
    let told = run(&path, &format!("timeout 5 /bin/sh -c \"{BUSY}\"; echo survived"))?;
    ensure!(told.out == "survived\n" && told.errors.matches("pressure: cpu some").count() == 1, "{told:?}");
    Ok(())
}

/// What the events say of a service's pressure.
fn events(scratch: &Scratch, service: &str) -> Result<Vec<String>> {
    let ran = scratch.motherctl(&["--json", "events", service])?;
    let all: serde_json::Value = serde_json::from_str(&ran.out).with_context(|| format!("{ran:?}"))?;
    let events = all["events"].as_array().with_context(|| format!("{ran:?}"))?;
    let of_pressure = events.iter().filter(|event| event["kind"] == "pressure");
    Ok(of_pressure.filter_map(|event| event["words"].as_str().map(str::to_owned)).collect())
}

#[test]
fn a_service_is_reported_or_started_again_and_the_next_motherd_goes_on_with_that() -> Result<()> {
    let test = "a_service_is_reported_or_started_again_and_the_next_motherd_goes_on_with_that";
    let Some(mut scratch) = scratch(test)? else { return Ok(()) };
    for action in ["report", "restart", "kill"] {
        policy(&scratch, action, action)?;
    }
    let service = |name: &str, policy: &str, script: &str| {
        let exec = format!("exec = [\"/bin/sh\", \"-c\", \"{script}\"]\npolicy = \"{policy}\"\n");
        scratch.service(name, &format!("{exec}[stop]\ntimeout = \"1s\"\n[restart]\ndelay = \"100ms\"\n"))
    };
    service("reported", "report", BUSY)?;
    service("restarted", "restart", BUSY)?;
    service("killed", "kill", BUSY)?;
    service("calm", "kill", "sleep 600")?;
    scratch.start()?;
    let pids = ["reported", "calm"].map(|service| scratch.running_by_request(service));
    let [reported, calm] = pids;
    let (reported, calm) = (reported?, calm?);
    for service in ["restarted", "killed"] {
        // It may be ended before its start is answered: then the answer says why.
        let start = scratch.motherctl(&["start", service])?;
        ensure!(start.status == 0 || start.errors.contains("pressure: cpu some: 100ms in 2s"), "{start:?}");
        let again = scratch.eventually(&format!("{service} is started again"), |scratch| {
            let status = scratch.status(service)?;
            // A restart is counted when it is decided, and how the process ended is known a moment later.
            let ended = !status["last_exit"].is_null();
            Ok((status["restarts"].as_u64() > Some(0) && ended).then_some(status))
        })?;
        let cause = again["cause"]["words"].as_str().unwrap_or_default();
        ensure!(cause.contains("pressure: cpu some: 100ms in 2s"), "{again}");
        let action = if service == "killed" { "kill" } else { "restart" };
        let said = events(&scratch, service)?;
        ensure!(said.contains(&format!("pressure: cpu some: 100ms in 2s: {action}")), "{said:?}");
        let ended = &again["last_exit"];
        ensure!(service != "killed" || ended["how"] == "killed" && ended["status"] == 9, "{ended}");
        scratch.motherctl(&["stop", service])?;
    }
    let told = |scratch: &Scratch| {
        scratch.eventually("the pressure is told of", |scratch| {
            let status = scratch.status("reported")?;
            let line = status["pressure"][0].as_str().unwrap_or_default().to_owned();
            Ok((line.starts_with("cpu some: 100ms in 2s: report; ") && line.ends_with(" s ago"))
                .then_some(line))
        })
    };
    told(&scratch)?;
    let before = events(&scratch, "reported")?.len();
    ensure!(before == 1, "{before} reports within a minute");
    let first = scratch.motherd()?;
    kill(Pid::from_raw(first), Signal::SIGKILL)?;
    scratch.eventually("another motherd is there", |scratch| {
        Ok(scratch.motherd().is_ok_and(|motherd| motherd != first).then_some(()))
    })?;
    scratch.running("reported")?;
    told(&scratch)?;
    ensure!(events(&scratch, "reported")?.len() == before + 1, "the next motherd tells of it anew");
    for (service, pid) in [("reported", reported), ("calm", calm)] {
        let status = scratch.status(service)?;
        ensure!(status["main_pid"].as_u64() == Some(pid) && status["restarts"] == 0, "{status}");
    }
    let line = &scratch.status("calm")?["pressure"][0];
    ensure!(line == "cpu some: 100ms in 2s: kill; never yet", "control: {line}");
    scratch.stop()?;
    Ok(())
}
