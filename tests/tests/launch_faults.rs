//! motherd's own part of a launch: each of its system calls (log pipe, readiness socket, cgroup, programs on it, what
//! initldr keeps, records, what is made ahead) fails once, by ptrace(2). Whatever comes of it, the service runs confined
//! or it does not run and says why, and nothing is left behind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::faults::Faults;
use e2e::say;
use e2e::scratch::{Ran, Scratch};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What a launch is made of; its event loop waits by others.
const CALLS: &[i64] = &[
    libc::SYS_bind,
    libc::SYS_bpf,
    libc::SYS_clone3,
    libc::SYS_dup3,
    libc::SYS_epoll_ctl,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_ioctl,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_listen,
    libc::SYS_memfd_create,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_pidfd_open,
    libc::SYS_pipe2,
    libc::SYS_read,
    libc::SYS_recvmsg,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_sendmsg,
    libc::SYS_setsockopt,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_statx,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_write,
];

const ERRNOS: [Errno; 4] = [Errno::EPERM, Errno::ENOSYS, Errno::EINVAL, Errno::ENOMEM];

const SERVICE: &str = "exec = [\"/bin/sleep\", \"1000\"]\npolicy = \"web\"\n[notify]\naccess = \"main\"\n\
                       [restart]\ndelay = \"50ms\"\nmax_delay = \"200ms\"\n\
                       [[socket]]\nlisten = \"unix:@PATH@\"\n";
const POLICY: &str = "extends = [\"base/default\"]\n[cgroup]\nip_allow = [\"localhost\"]\n";

/// A process of the service's, as the kernel knows it: a filter, and no new privileges.
fn is_confined(pid: u64) -> Result<()> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000"] {
        ensure!(text.contains(line), "{line}: {text}");
    }
    Ok(())
}

/// What a motherd says that comes up in safe mode.
const SAFE_MODE: &str = "safe mode: nothing is started";

/// Some of the calls motherd cannot do without, and ends; after three of them in a row it starts nothing until an
/// administrator does this.
fn leave_safe_mode(scratch: &Scratch, left: &mut usize) -> Result<()> {
    let times = scratch.log()?.matches(SAFE_MODE).count();
    if times > *left {
        // Where there is none just now, the next one comes out of it by itself or is seen the next time.
        let Ok(motherd) = scratch.motherd() else { return Ok(()) };
        *left = times;
        // Who is killed within 200 ms of its start counts as one that died by itself.
        std::thread::sleep(Duration::from_secs(1));
        kill(Pid::from_raw(motherd), Signal::SIGKILL)?;
    }
    Ok(())
}

/// What the service came to: running, or at rest with a cause.
fn settled(scratch: &Scratch, left: &mut usize) -> Result<Value> {
    scratch.eventually("it runs, or it does not", |scratch| {
        leave_safe_mode(scratch, left)?;
        let Ok(status) = scratch.status("web") else { return Ok(None) };
        let rests = ["running", "failed", "stopped"].iter().any(|state| status["state"] == *state);
        // One in safe mode tells of nothing.
        let is_safe = scratch.log()?.matches(SAFE_MODE).count() > *left;
        Ok((rests && !is_safe).then_some(status))
    })
}

fn stopped(scratch: &Scratch, left: &mut usize) -> Result<()> {
    scratch.eventually("it is stopped, and nothing of it is left", |scratch| {
        leave_safe_mode(scratch, left)?;
        let asked = scratch.motherctl(&["stop", "web"])?;
        let processes = fs::read_to_string(scratch.cgroup().join("services.slice/web.service/cgroup.procs"));
        Ok((asked.status == 0 && processes.unwrap_or_default().is_empty()).then_some(()))
    })
}

/// Starts it while one call fails, or none. Answers which call did, and what came of it.
fn attempt(scratch: &Scratch, left: &mut usize, nth: u64, errno: Errno) -> Result<(Option<i64>, Ran, Value)> {
    let motherd = scratch.eventually("there is a motherd", |scratch| Ok(scratch.motherd().ok()))?;
    let faults = Faults::inject_once(Pid::from_raw(motherd), CALLS, nth, errno);
    let asked = scratch.motherctl(&["start", "web"])?;
    let status = settled(scratch, left);
    // It may have ended by it, which the tracer tells as an error.
    let failed = faults.stop().unwrap_or_default().into_keys().next();
    let status = status.with_context(|| format!("call {nth}: {errno:?}: {asked:?}"))?;
    Ok((failed, asked, status))
}

/// The descriptors that motherd has open, by what they are, and how many of each.
fn descriptors(scratch: &Scratch) -> Result<BTreeMap<String, usize>> {
    let mut open = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", scratch.motherd()?))? {
        // That of this look is gone by now.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let kind = target.to_string_lossy().split(':').next().unwrap_or_default().to_owned();
        *open.entry(kind).or_default() += 1;
    }
    Ok(open)
}

/// Whether it came to something that is allowed; says what it was.
fn judged(asked: &Ran, status: &Value) -> Result<&'static str> {
    let state = status["state"].as_str().unwrap_or_default();
    match (state, status["main_pid"].as_u64()) {
        ("running", Some(pid)) => {
            is_confined(pid)?;
            Ok("running")
        }
        // It was the request that got lost, and who made it knows.
        ("stopped", None) if asked.status != 0 && !asked.errors.is_empty() => Ok("not asked"),
        ("failed", None) => {
            let cause = status["cause"]["words"].as_str().unwrap_or_default();
            // What the kernel said, by its name or in its words.
            let told = ERRNOS.iter().any(|errno| {
                cause.contains(&format!("{errno:?}"))
                    || cause.contains(&format!("os error {}", *errno as i32))
            });
            ensure!(told && asked.status != 0, "the cause does not tell: {cause:?}, {asked:?}");
            Ok("failed")
        }
        _ => bail!("neither runs nor rests: {asked:?}"),
    }
}

/// With `EVERY_CALL` in the environment every call fails in every way, which takes some minutes.
#[test]
fn each_call_of_motherds_in_a_launch_fails_once_and_nothing_is_left() -> Result<()> {
    /// So many in a row that were not made: the launch has no more.
    const BEYOND: u64 = 16;
    let Some(mut scratch) = Scratch::new("each_call_of_motherds")? else { return Ok(()) };
    let every = std::env::var_os("EVERY_CALL").is_some();
    scratch.policy("web", POLICY)?;
    let path = scratch.path("run/web.socket").display().to_string();
    scratch.service("web", &SERVICE.replace("@PATH@", &path))?;
    scratch.start()?;
    // The control: nothing fails, and it runs.
    let (mut open, mut left) = (0_usize, 0);
    for _ in 0..3 {
        is_confined(scratch.running_by_request("web")?)?;
        stopped(&scratch, &mut left)?;
        open = open.max(descriptors(&scratch)?.values().sum());
    }
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut nth, mut beyond) = (1, 0);
    while beyond < BEYOND {
        let errnos = if every { &ERRNOS[..] } else { &[ERRNOS[usize::try_from(nth)? % 4]] };
        let step = if every { 1 } else { 7 };
        beyond += step;
        for errno in errnos {
            let before = scratch.eventually("there is a motherd", |scratch| Ok(scratch.motherd().ok()))?;
            let (failed, asked, status) = attempt(&scratch, &mut left, nth, *errno)?;
            let says = || format!("call {nth} ({failed:?}): {errno:?}: {status:#}");
            let state = judged(&asked, &status).with_context(says)?;
            let ended = scratch.motherd().map_or(true, |now| now != before);
            if let Some(call) = failed {
                *calls.entry(sandbox::syscalls::name(u32::try_from(call)?).unwrap_or("?")).or_default() += 1;
            }
            if ended || failed.is_some() {
                let outcome = format!("{state}{}", if ended { ", by the next motherd" } else { "" });
                *outcomes.entry(outcome).or_default() += 1;
                beyond = 0;
            }
            stopped(&scratch, &mut left).with_context(says)?;
            let now = scratch.eventually("there is a motherd", |scratch| Ok(descriptors(scratch).ok()))?;
            ensure!(
                now.values().sum::<usize>() <= open + 10,
                "of {open} descriptors there are {now:?}: {}",
                says()
            );
        }
        nth += step;
    }
    let rescued = format!("{left} times out of safe mode");
    say(&format!("calls that failed: {calls:?}; what came of it: {outcomes:?}; {rescued}"));
    ensure!(calls.values().sum::<u64>() > 5, "too few calls failed: {calls:?}, {outcomes:?}");
    // Nothing is left that the same start would stumble over.
    is_confined(scratch.running_by_request("web")?)?;
    stopped(&scratch, &mut left)?;
    scratch.stop()?;
    ensure!(!scratch.cgroup().join("services.slice/web.service").exists(), "its cgroup is left");
    Ok(())
}

/// A motherd that ends by itself, since it cannot wait any more: what its services speak to it by stays where it is.
#[test]
fn what_services_speak_by_outlives_a_motherd_that_ends_by_itself() -> Result<()> {
    const WAITS: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
    let Some(mut scratch) = Scratch::new("what_services_speak_by")? else { return Ok(()) };
    scratch.policy("web", POLICY)?;
    let path = scratch.path("run/web.socket").display().to_string();
    scratch.service("web", &SERVICE.replace("@PATH@", &path))?;
    scratch.start()?;
    let pid = scratch.running_by_request("web")?;
    let socket = scratch.path("run/motherd/notify/web");
    let file = fs::metadata(&socket).with_context(|| socket.display().to_string())?.ino();
    let before = scratch.motherd()?;
    let faults = Faults::inject_once(Pid::from_raw(before), WAITS, 1, Errno::EINVAL);
    let next = scratch.eventually("there is another motherd", |scratch| {
        let another = scratch.motherd().ok().filter(|now| *now != before);
        Ok(another.filter(|_| scratch.motherctl(&["list"]).is_ok_and(|ran| ran.status == 0)))
    });
    drop(faults.stop()); // the process that it traced has ended
    next?;
    ensure!(scratch.log()?.contains("motherd: epoll_wait: Invalid argument"), "{}", scratch.log()?);
    ensure!(scratch.running("web")? == pid, "the service has run on");
    ensure!(fs::metadata(&socket).is_ok_and(|now| now.ino() == file), "{} is gone", socket.display());
    let restart = || -> Result<u64> {
        let restarted = scratch.motherctl(&["restart", "web"])?;
        ensure!(restarted.status == 0, "{restarted:?}; {}", scratch.log()?);
        scratch.running("web")
    };
    let again = restart()?;
    ensure!(again != pid, "it was restarted");
    // Nor is it the end of a service if somebody clears the folder.
    fs::remove_file(&socket)?;
    ensure!(restart()? != again && socket.exists(), "it is made again");
    ensure!(scratch.motherctl(&["stop", "web"])?.status == 0);
    scratch.eventually("its socket goes with it", |_| Ok((!socket.exists()).then_some(())))
}
