//! The wrong process signalled, its pid having been given anew: while motherd is stopped a service's process ends, another
//! one gets its pid, and what motherd was asked meanwhile is done when it goes on. On this host and on both kernels.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::initramfs::{Image, SharedImage};
use e2e::machine::Machine;
use e2e::on_both_kernels;
use e2e::programs::Programs;
use e2e::scratch::{Scratch, skip};
use e2e::system::{running, status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A main process that is no PID 1, so that it is sent the signals of its file.
const POLICY: &str =
    "extends = [\"base/default\"]\n[namespaces]\npid = \"host\"\n[filesystem]\nproc = \"self\"\n";
const SERVICE: &str = "exec = [\"/bin/sleep\", \"1000\"]\npolicy = \"web\"\n\
                       [reload]\nsignal = \"SIGHUP\"\n[restart]\nwhen = \"never\"\n";

/// What is asked while its process ends.
const REQUESTS: [[&str; 2]; 4] = [["stop", "web"], ["restart", "web"], ["reload", "web"], ["stop", "web"]];

const LAST: &str = "/proc/sys/kernel/ns_last_pid";

/// A process that has this pid; `None` where others were always faster.
fn with_pid(wanted: u64) -> Result<Option<Child>> {
    for _ in 0..300 {
        fs::write(LAST, (wanted - 1).to_string())?;
        let mut child = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn()?;
        if u64::from(child.id()) == wanted {
            return Ok(Some(child));
        }
        child.kill()?;
        child.wait()?;
    }
    Ok(None)
}

mod host {
    use super::*;

    #[test]
    fn a_pid_that_was_given_anew_is_signalled_by_nobody() -> Result<()> {
        const NAME: &str = "host::a_pid_that_was_given_anew_is_signalled_by_nobody";
        let Some(mut scratch) = Scratch::new("a_pid_that_was_given_anew")? else { return Ok(()) };
        match fs::write(LAST, fs::read_to_string(LAST)?.trim()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                return skip(NAME, "/proc/sys is read-only here");
            }
            Err(error) => return Err(error).context(LAST),
        }
        scratch.policy("web", POLICY)?;
        scratch.service("web", SERVICE)?;
        scratch.start()?;
        for words in REQUESTS {
            let mut tried = 0;
            while !round(&scratch, words)? {
                tried += 1;
                ensure!(tried < 10, "others always got the pid");
            }
        }
        Ok(())
    }
}

/// Answers whether a process got the pid of another.
fn round(scratch: &Scratch, words: [&str; 2]) -> Result<bool> {
    let pid = scratch.running_by_request("web")?;
    let number = Pid::from_raw(i32::try_from(pid)?);
    let motherd = Pid::from_raw(scratch.motherd()?);
    kill(motherd, Signal::SIGSTOP)?;
    let mut asked = Command::new(&Programs::built()?.motherctl);
    asked.arg("--root").arg(scratch.path("")).args(words);
    let mut asked = asked.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    kill(number, Signal::SIGKILL)?;
    // initldr reaps it, whatever motherd does.
    let gone =
        scratch.eventually("its pid is free", |_| Ok((!fs::exists(format!("/proc/{pid}"))?).then_some(())));
    let victim = gone.and_then(|()| with_pid(pid));
    kill(motherd, Signal::SIGCONT)?;
    asked.wait()?;
    let Some(mut victim) = victim? else { return Ok(false) };
    scratch.eventually("motherd knows how it ended", |scratch| {
        let status = scratch.status("web")?;
        Ok((status["main_pid"].as_u64() != Some(pid)).then_some(()))
    })?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let pending = status.lines().filter(|line| line.starts_with("ShdPnd") || line.starts_with("SigPnd"));
    ensure!(victim.try_wait()?.is_none(), "{words:?}: the other process was ended");
    ensure!(pending.clone().all(|line| line.ends_with("\t0000000000000000")), "{words:?}: {status}");
    ensure!(pending.count() == 2, "{status}");
    // The control: who goes by the number hits it.
    kill(number, Signal::SIGTERM)?;
    let ended = std::os::unix::process::ExitStatusExt::signal(&victim.wait()?);
    ensure!(ended == Some(libc::SIGTERM), "{words:?}: {ended:?}");
    Ok(true)
}

static IMAGE: SharedImage = SharedImage::new("pids", || {
    let mut image = Image::system()?;
    image.file("/etc/motherd/policies/web.toml", 0o644, POLICY)?;
    image.file("/etc/motherd/services/web.toml", 0o644, SERVICE)?;
    Ok(image)
});

on_both_kernels! {
    IMAGE:
    a_pid_that_was_given_anew_is_signalled_by_nobody
}

fn a_pid_that_was_given_anew_is_signalled_by_nobody(machine: &mut Machine) -> Result<()> {
    for [verb, name] in REQUESTS {
        let mut tried = 0;
        while !round_in_guest(machine, verb, name)? {
            tried += 1;
            ensure!(tried < 10, "others always got the pid");
        }
    }
    Ok(())
}

/// Answers whether a process got the pid of another.
fn round_in_guest(machine: &mut Machine, verb: &str, name: &str) -> Result<bool> {
    machine.ok(&format!("motherctl start {name}"))?;
    let pid = running(machine, name)?;
    let script = format!(
        "motherd=$(pidof motherd); kill -STOP $motherd; motherctl {verb} {name} >/dev/null 2>&1 & asked=$!; \
         kill -KILL {pid}; while [ -d /proc/{pid} ]; do :; done; \
         tried=0; until [ \"$new\" = {pid} ] || [ $tried = 300 ]; do \
         [ -z \"$new\" ] || kill -KILL $new; echo {} >{LAST}; sleep 1000 & new=$!; tried=$((tried+1)); done; \
         kill -CONT $motherd; wait $asked; echo it is $new",
        pid - 1
    );
    let said = machine.ok(&script)?;
    let Some(new) = said.lines().find_map(|line| line.strip_prefix("it is ")) else { bail!("{said}") };
    if new.trim() != pid.to_string() {
        machine.ok(&format!("kill -KILL {new}"))?;
        return Ok(false);
    }
    machine.eventually("motherd knows how it ended", Duration::from_secs(60), |machine| {
        let status = status(machine, name)?;
        Ok((status["main_pid"].as_u64() != Some(pid)).then_some(()))
    })?;
    let victim = machine.run(&format!("grep -E '^(ShdPnd|SigPnd|State)' /proc/{pid}/status"))?.output;
    let silent = victim.lines().filter(|line| line.ends_with("\t0000000000000000")).count();
    ensure!(
        silent == 2 && victim.contains("(sleeping)"),
        "{verb}: the other process was signalled: {victim}"
    );
    // The control: who goes by the number hits it.
    machine.ok(&format!("kill -TERM {pid}"))?;
    machine.eventually("it is ended by its number", Duration::from_secs(60), |machine| {
        Ok((machine.run(&format!("kill -0 {pid}"))?.status != 0).then_some(true))
    })
}
