//! The programs on this very host, as ordinary processes beside another init: `motherctl run` alone, and the pair of
//! initldr and motherd under a root directory of their own. Hosts differ in which cgroup controllers their cgroup2
//! tree has, if any; what is expected here is read from the host itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::{fs::PermissionsExt, process::ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::programs::Programs;
use e2e::say;
use e2e::scratch::{Ran, Scratch, cgroup2, skip};
use e2e::system::BAD_POLICIES;
use serde_json::Value;

/// The controllers that `base/default` uses and this host's cgroup2 tree lacks.
fn lacking() -> Result<BTreeSet<&'static str>> {
    let has = fs::read_to_string(cgroup2()?.join("cgroup.controllers"))?;
    Ok(["cpu", "memory", "pids"]
        .into_iter()
        .filter(|name| !has.split_whitespace().any(|had| had == *name))
        .collect())
}

#[test]
fn base_default_runs_id_and_says_in_one_line_what_was_left_out() -> Result<()> {
    let Some(scratch) = Scratch::new("base_default_runs_id")? else { return Ok(()) };
    let ran = scratch.motherctl(&["run", "--policy", "base/default", "--", "/usr/bin/id"])?;
    ensure!(ran.status == 0 && ran.out.starts_with("uid="), "{ran:?}");
    ensure!(!ran.out.contains("uid=0"), "a user of its own: {}", ran.out);
    let lacking = lacking()?;
    let about: Vec<&str> = ran.errors.lines().filter(|line| line.contains("cgroup")).collect();
    if lacking.is_empty() {
        ensure!(about.is_empty(), "this host has all controllers: {about:?}");
        return Ok(());
    }
    ensure!(about.len() == 1, "one line: {}", ran.errors);
    for controller in ["cpu", "memory", "pids"] {
        let named = about[0].contains(controller);
        ensure!(named == lacking.contains(controller), "{controller}, lacking {lacking:?}: {}", about[0]);
    }
    Ok(())
}

#[test]
fn the_exit_status_of_run_is_the_commands_or_says_what_failed() -> Result<()> {
    let Some(scratch) = Scratch::new("the_exit_status_of_run")? else { return Ok(()) };
    let check = |policy: &str, arguments: &[&str], expected: i32| -> Result<()> {
        let ran = scratch.motherctl(&[&["run", "--policy", policy, "--"], arguments].concat())?;
        ensure!(ran.status == expected, "{arguments:?}: {ran:?}");
        Ok(())
    };
    check("base/default", &["/bin/sh", "-c", "exit 7"], 7)?;
    // As PID 1 of its own namespace it would not get the signal.
    check("unconfined", &["/bin/sh", "-c", "kill -TERM $$"], 128 + 15)?;
    check("base/default", &["/usr/bin/no-such-program"], 127)?;
    check("base/default", &["/etc/passwd"], 126)?;
    // Along PATH, in the folder that has it; and in none.
    check("base/default", &["sh", "-c", "exit 9"], 9)?;
    check("base/default", &["no-such-program"], 127)?;
    let ran = scratch.motherctl(&["run", "--policy", "no/such", "--", "/bin/true"])?;
    ensure!(ran.status == 125 && ran.errors.contains("no/such"), "{ran:?}");
    Ok(())
}

/// timeout(1) sends the signal, to motherctl alone: the command has a session of its own.
#[test]
fn a_signal_to_run_is_the_commands_and_ends_one_that_the_kernel_would_not_tell() -> Result<()> {
    let Some(scratch) = Scratch::new("a_signal_to_run")? else { return Ok(()) };
    let check = |policy: &str, signal: &str, script: &str, expected: i32| -> Result<()> {
        let status = Command::new("timeout")
            .args(["--preserve-status", "--signal", signal, "1"])
            .arg(&Programs::built()?.motherctl)
            .arg("--root")
            .arg(scratch.path(""))
            .args(["run", "--policy", policy, "--", "/bin/sh", "-c", script])
            .status()?;
        ensure!(status.code() == Some(expected), "{signal} to {script:?} under {policy}: {status}");
        Ok(())
    };
    let wait = "while :; do sleep 0.1; done";
    // As PID 1 of its own namespace the shell is not told of a signal that it does not catch.
    check("base/default", "INT", wait, 128 + 2)?;
    check("base/default", "TERM", &format!("trap 'exit 9' TERM; {wait}"), 9)?;
    check("unconfined", "TERM", wait, 128 + 15)?;
    Ok(())
}

/// The standard library sees to both where a program begins; motherctl begins without it.
#[test]
fn motherctl_finds_its_descriptors_open_and_outlives_its_reader() -> Result<()> {
    let Some(scratch) = Scratch::new("motherctl_finds_its_descriptors")? else { return Ok(()) };
    let motherctl = &Programs::built()?.motherctl;
    let answer = |script: &str| -> Result<String> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).arg(motherctl).arg(scratch.path("")).stderr(Stdio::null());
        Ok(String::from_utf8(shell.output()?.stdout)?)
    };
    let of = "/usr/bin/readlink /proc/self/fd/0 /proc/self/fd/2 <&- 2>&-";
    let open = answer(&format!("exec \"$0\" --root \"$1\" run --policy unconfined -- {of}"))?;
    ensure!(open == "/dev/null\n/dev/null\n", "{open:?}");
    ensure!(answer(&format!("exec {of}"))?.is_empty(), "control: they are closed");
    let without_reader = |command: &mut Command| -> Result<ExitStatus> {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        Ok(command.stdout(writer).status()?)
    };
    let told = without_reader(Command::new(motherctl).args(["policy", "groups"]))?;
    ensure!(told.success(), "who has seen enough is no failure: {told}");
    let ended = without_reader(Command::new("/bin/echo").arg("hello"))?;
    ensure!(ended.signal() == Some(13), "control: SIGPIPE ends others: {ended}");
    Ok(())
}

#[test]
fn a_run_leaves_no_cgroup_and_no_process() -> Result<()> {
    let Some(scratch) = Scratch::new("a_run_leaves_no_cgroup")? else { return Ok(()) };
    let script = "sleep 1000 >/dev/null & echo $!; sed -n s/^0:://p /proc/self/cgroup";
    let ran = scratch.motherctl(&["run", "--policy", "unconfined", "--", "/bin/sh", "-c", script])?;
    let (sleeper, cgroup) = ran.out.split_once('\n').with_context(|| format!("{ran:?}"))?;
    ensure!(ran.status == 0 && cgroup.starts_with("/run.slice/run-"), "{ran:?}");
    ensure!(!cgroup2()?.join(&cgroup.trim()[1..]).exists(), "{cgroup} is still there");
    // Whether its new parent has reaped it yet is not ours.
    let status = fs::read_to_string(format!("/proc/{sleeper}/status")).unwrap_or_default();
    ensure!(status.is_empty() || status.contains("State:\tZ"), "{sleeper} is still running: {status}");
    Ok(())
}

#[test]
fn a_limit_that_the_host_cannot_hold_is_refused_unless_it_is_optional() -> Result<()> {
    let Some(scratch) = Scratch::new("a_limit_that_the_host_cannot_hold")? else { return Ok(()) };
    if !lacking()?.contains("memory") {
        return skip(
            "a_limit_that_the_host_cannot_hold",
            "the cgroup2 tree of this host has the memory controller",
        );
    }
    let text =
        "extends = [\"base/default\"]\n[cgroup]\nmemory_max = \"64M\"\noptional = [\"cpu\", \"pids\"]\n";
    let policy = scratch.policy("strict", text)?.display().to_string();
    let ran = scratch.motherctl(&["run", "--policy", &policy, "--", "/bin/echo", "started"])?;
    ensure!(ran.status == 125 && ran.out.is_empty(), "{ran:?}");
    let tree = cgroup2()?.display().to_string();
    for words in ["strict.toml:3:", "memory controller is not available in the cgroup2 tree at", &tree] {
        ensure!(ran.errors.contains(words), "{words:?} is not in: {}", ran.errors);
    }
    Ok(())
}

#[test]
fn bad_policies_are_diagnosed_at_their_place_and_nothing_starts() -> Result<()> {
    let Some(scratch) = Scratch::new("bad_policies_are_diagnosed")? else { return Ok(()) };
    scratch.policy("loop/a", "extends = [\"loop/b\"]\n")?;
    scratch.policy("loop/b", "extends = [\"loop/a\"]\n")?;
    let run = |policy: &Path| -> Result<Ran> {
        let policy = policy.display().to_string();
        scratch.motherctl(&["run", "--policy", &policy, "--", "/bin/echo", "started"])
    };
    for (text, expected) in BAD_POLICIES {
        let ran = run(&scratch.policy("bad", text)?)?;
        for word in *expected {
            ensure!(
                ran.errors.contains(word),
                "{word:?} is not in the diagnostic of {text:?}:\n{}",
                ran.errors
            );
        }
        ensure!(ran.status == 125 && ran.out.is_empty(), "{text:?}: {ran:?}");
    }
    let open = scratch.policy("open", "unconfined = true\n")?;
    ensure!(run(&open)?.out == "started\n", "control: it starts while only root may write the file");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666))?;
    let ran = run(&open)?;
    ensure!(ran.status == 125 && ran.out.is_empty(), "{ran:?}");
    ensure!(ran.errors.contains("open.toml") && ran.errors.contains("writable"), "{}", ran.errors);
    Ok(())
}

const SLEEPER: &str =
    "exec = [\"/usr/bin/sleep\", \"infinity\"]\n[restart]\nwhen = \"always\"\n[stop]\ntimeout = \"2s\"\n";

#[test]
fn the_pair_supervises_beside_another_init() -> Result<()> {
    let Some(mut scratch) = Scratch::new("the_pair_supervises")? else { return Ok(()) };
    scratch.service("sleeper", SLEEPER)?;
    scratch.service("open", &format!("policy = \"unconfined\"\n{SLEEPER}"))?;
    scratch.service("system", "[dependencies]\nwants = [\"sleeper\", \"open\"]\n")?;
    scratch.start()?;
    let sleeper = scratch.running("sleeper")?;
    let open = scratch.running("open")?;

    let status = scratch.status("sleeper")?;
    ensure!(status["policy"] == "base/default", "the default is strict: {status:#}");
    let attested = &status["isolation"]["attested"]["value"];
    ensure!(attested["no_new_privs"] == true && attested["seccomp_mode"] == "filter", "{status:#}");
    ensure!(attested["capabilities"]["bounding"].as_array().is_some_and(Vec::is_empty), "{status:#}");
    figures_are_told_or_missing_with_a_reason(&status)?;
    let unconfined = scratch.status("open")?;
    ensure!(
        unconfined["isolation"]["attested"]["value"]["seccomp_mode"] == "disabled",
        "control: {unconfined:#}"
    );
    for (pid, service) in [(sleeper, "sleeper"), (open, "open")] {
        ensure!(parent(pid)? == scratch.init()?.as_raw().to_string(), "{service} is initldr's child");
        let cgroup = scratch.cgroup().join(format!("system.slice/{service}.service"));
        let procs = fs::read_to_string(cgroup.join("cgroup.procs"))?;
        ensure!(procs.trim() == pid.to_string(), "{} has {procs}", cgroup.display());
    }

    scratch.motherctl(&["stop", "open"])?;
    ensure!(
        !scratch.cgroup().join("system.slice/open.service").exists(),
        "a stopped service leaves no cgroup"
    );
    ensure!(scratch.motherctl(&["status", "open"])?.status == 3);
    let memory = fs::read_to_string(format!("/proc/{}/status", scratch.init()?))?;
    let resident = memory.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    say(&format!(
        "initldr as an ordinary process: {}",
        resident.split_whitespace().collect::<Vec<_>>().join(" ")
    ));

    let ended = scratch.stop()?;
    ensure!(ended.success(), "initldr ended with {ended}; the log:\n{}", scratch.log()?);
    ensure!(!Path::new(&format!("/proc/{sleeper}")).exists(), "nothing is left running");
    Ok(())
}

#[test]
fn a_killed_motherd_is_replaced_and_its_services_go_on() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_killed_motherd")? else { return Ok(()) };
    scratch.service("sleeper", SLEEPER)?;
    scratch.service("system", "[dependencies]\nwants = [\"sleeper\"]\n")?;
    scratch.start()?;
    let sleeper = scratch.running("sleeper")?;
    let first = scratch.motherd()?;
    for _ in 0..3 {
        let before = scratch.motherd()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(before), nix::sys::signal::Signal::SIGKILL)?;
        scratch.eventually("another motherd is there", |scratch| {
            Ok(scratch.motherd().ok().filter(|pid| *pid != before))
        })?;
        ensure!(scratch.running("sleeper")? == sleeper, "the same process");
    }
    ensure!(scratch.motherd()? != first);
    ensure!(scratch.status("sleeper")?["restarts"] == 0);
    // What the old one started, the new one restarts; also when it dies by itself.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(sleeper)?),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    let next = scratch.eventually("a new sleeper", |scratch| {
        Ok(Some(scratch.running("sleeper")?).filter(|pid| *pid != sleeper))
    })?;
    ensure!(scratch.motherctl(&["restart", "sleeper"])?.status == 0);
    ensure!(scratch.running("sleeper")? != next);
    Ok(())
}

#[test]
fn a_bad_service_file_is_diagnosed_and_the_others_run() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_bad_service_file")? else { return Ok(()) };
    let started = scratch.path("bad-started");
    let touch = format!("exec = [\"/usr/bin/touch\", \"{}\"]\npolicy = \"unconfined\"\n", started.display());
    scratch.service("misspelt", &format!("{touch}[restart]\nwen = \"always\"\n"))?;
    scratch.service("mistyped", &format!("{touch}slice = 7\n"))?;
    scratch.service("unpoliced", &touch.replace("unconfined", "unconfind"))?;
    let open = scratch.service("open", &touch)?;
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666))?;
    scratch.service("good", &format!("policy = \"unconfined\"\n{SLEEPER}"))?;
    let bad = "\"misspelt\", \"mistyped\", \"unpoliced\", \"open\"";
    scratch.service("system", &format!("[dependencies]\nwants = [{bad}, \"good\"]\n"))?;
    scratch.start()?;
    scratch.running("good")?;
    let log = scratch.log()?;
    for place in ["misspelt.toml:4:1", "mistyped.toml:3:9", "unpoliced.toml:2:10", "open.toml"] {
        ensure!(log.contains(place), "{place} is not in the log:\n{log}");
    }
    ensure!(!started.exists(), "a bad file was started:\n{log}");
    Ok(())
}

/// Each figure is a value, or says which file does not have it and why; none is a zero that stands for unknown.
fn figures_are_told_or_missing_with_a_reason(status: &Value) -> Result<()> {
    let lacking = lacking()?;
    for (controller, figure) in [("memory", "/memory/current_bytes"), ("pids", "/pids/current")] {
        let told =
            status.pointer(&format!("/figures{figure}")).with_context(|| format!("{figure}: {status:#}"))?;
        if lacking.contains(controller) {
            ensure!(told["missing"]["file"].as_str().is_some_and(|file| file.contains(controller)), "{told}");
            ensure!(told["missing"]["why"].as_str().is_some_and(|why| !why.is_empty()), "{told}");
        } else {
            ensure!(told["value"].as_u64() > Some(0), "{figure}: {told}");
        }
    }
    // cpu.stat has its times without the controller.
    ensure!(status.pointer("/figures/cpu/usage_usec/value").and_then(Value::as_u64) > Some(0), "{status:#}");
    Ok(())
}

/// The parent of a process.
fn parent(pid: u64) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no PPid")?;
    Ok(line.trim().to_owned())
}
