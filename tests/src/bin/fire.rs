//! Puts PID 1 of the machine that it runs on under fire: a guest of `tests/fire.rs`, for it leaves nothing unharmed that is
//! not initldr. `fire [ORPHANS]`; it says what it did, and fails where services noticed any of it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use e2e::faults::{EXHAUSTION, Faults, limit_files, send_signal};
use nix::unistd::Pid;

const PID_1: Pid = Pid::from_raw(1);
const SIGRTMIN: i32 = 34;
/// At once and without a question: they end the machine.
const ENDS: [i32; 6] =
    [libc::SIGQUIT, SIGRTMIN + 13, SIGRTMIN + 14, SIGRTMIN + 15, SIGRTMIN + 16, SIGRTMIN + 17];
/// These ask for an end, and no service deals with them.
const REQUESTS: [i32; 5] = [SIGRTMIN + 3, SIGRTMIN + 4, SIGRTMIN + 5, SIGRTMIN + 6, SIGRTMIN + 7];
const SOON: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let orphans = env::args().nth(1).map(|text| text.parse()).transpose()?.unwrap_or(1000);
    ensure!(fs::read_to_string("/proc/1/comm")?.trim() == "init", "PID 1 is initldr, as `init`");
    let redis = pid_of("redis-server")?;
    signals()?;
    println!("every signal but {ENDS:?} and {REQUESTS:?} was borne");
    let begun = Instant::now();
    storm(orphans)?;
    println!("{orphans} orphans were made and reaped in {:?}", begun.elapsed());
    no_descriptors()?;
    println!("without a descriptor to spare motherd came back when there was one");
    let failed = no_memory()?;
    println!("calls of PID 1 that failed, by number: {failed}");
    works()?;
    ensure!(pid_of("redis-server")? == redis, "redis is another process");
    Ok(())
}

/// A program that runs once; what it has forked may be of its name for a moment, until it is another program.
fn pid_of(name: &str) -> Result<i32> {
    eventually(name, || only(name))
}

fn only(name: &str) -> Result<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name();
        let Some(pid) = pid.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // One that ended meanwhile is none.
        if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name) {
            found.push(pid);
        }
    }
    ensure!(found.len() == 1, "{name} runs as {found:?}");
    Ok(found[0])
}

fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + SOON;
    loop {
        match check() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > end => return Err(error.context(format!("not in time: {what}"))),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// motherd answers, and PID 1 has no zombie that it leaves.
fn works() -> Result<()> {
    eventually("motherd answers", || {
        let status =
            Command::new("motherctl").arg("list").stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "motherctl list: {status}");
        Ok(())
    })?;
    eventually("the dead are reaped", || {
        for child in fs::read_to_string("/proc/1/task/1/children")?.split_whitespace() {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            ensure!(!stat.contains(") Z "), "a zombie: {stat}");
        }
        Ok(())
    })
}

fn another_motherd(than: i32) -> Result<i32> {
    eventually("another motherd is there", || {
        let found = only("motherd")?;
        ensure!(found != than, "it is still {than}");
        Ok(found)
    })
}

fn signals() -> Result<()> {
    for number in (1..=64).filter(|number| !ENDS.contains(number) && !REQUESTS.contains(number)) {
        let motherd = pid_of("motherd")?;
        send_signal(PID_1, number).with_context(|| format!("kill -{number} 1"))?;
        if number == libc::SIGUSR1 {
            another_motherd(motherd)?;
            works()?;
        }
    }
    // The two that were requests, had not services of their names dealt with them.
    for service in ["ctrl-alt-del", "powerfail"] {
        eventually(service, || Ok(fs::metadata(format!("/run/{service}"))?)).context("the service ran")?;
    }
    works()
}

fn storm(count: usize) -> Result<()> {
    let script = format!("i=0; while [ $i -lt {count} ]; do (true & ); i=$((i+1)); done");
    let status = Command::new("/bin/sh").args(["-c", &script]).status()?;
    ensure!(status.success(), "{status}");
    works()
}

fn no_descriptors() -> Result<()> {
    let motherd = pid_of("motherd")?;
    // No number from three on, and so no descriptor, however many of those below are closed meanwhile.
    let before = limit_files(PID_1, 3)?;
    send_signal(Pid::from_raw(motherd), libc::SIGKILL)?;
    let said = eventually("initldr says that it cannot", || {
        let log = Command::new("/bin/dmesg").output()?.stdout;
        ensure!(String::from_utf8_lossy(&log).contains("launch motherd: errno 24"), "not yet");
        Ok(())
    });
    limit_files(PID_1, before)?;
    said?;
    another_motherd(motherd)?;
    works()
}

fn no_memory() -> Result<String> {
    let faults = Faults::inject(PID_1, &EXHAUSTION, 0x2545_f491_4f6c_dd1d);
    for _ in 0..3 {
        let motherd = pid_of("motherd")?;
        let status =
            Command::new("/bin/sh").args(["-c", "for i in 1 2 3 4 5 6 7 8; do (true & ); done"]).status()?;
        ensure!(status.success(), "{status}");
        send_signal(Pid::from_raw(motherd), libc::SIGKILL)?;
        another_motherd(motherd)?;
        works()?;
    }
    let failed = faults.stop()?;
    if failed.is_empty() {
        bail!("control: no call failed");
    }
    Ok(format!("{failed:?}"))
}
