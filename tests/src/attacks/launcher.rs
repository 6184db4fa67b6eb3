//! Attacks on what launches: its program, its descriptors, what it leaves to the launched.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno::{EACCES, ENOENT, EPERM, EROFS};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use sandbox::launch::LaunchError;

use super::lab::Lab;
use super::{Verdict, attacks, sys};
use crate::probe::Outcome;

attacks! {
    proc_self_exe_overwrite_cve_2019_5736 [1]
        "no program of ours is ever executed inside; read-only root, Landlock, capabilities of one's own";
    leaked_cwd_fd_cve_2024_21626 [2]
        "close_range over all but 0, 1, 2; a working directory is no path through /proc";
    inherited_state_of_the_launcher [43]
        "signals, mask, limits, session and environment set by the plan; nothing left to inheritance";
    environment_of_the_caller_reaches_the_loader [45]
        "the whole environment is the policy's";
    groups_and_inheritable_capabilities_kept_cve_2022_29162 [24]
        "setgroups to the policy's, capset with an empty inheritable set";
    program_exchanged_before_execve [44]
        "execve resolves the path inside the finished sandbox, as the service: what is there then runs confined, or may not run";
}

/// A service of root's, with the host's pid namespace and the whole of /proc: as near to its launcher as it gets.
const NEAR: &str =
    "[namespaces]\npid = \"host\"\n[filesystem]\nproc = \"full\"\n[process]\nuser = \"root\"\n";

fn proc_self_exe_overwrite_cve_2019_5736(lab: &Lab) -> Result<Verdict> {
    let launcher = std::process::id();
    let own = fs::read("/proc/self/exe")?;
    let refusals = &[EACCES, EPERM, EROFS, ENOENT];
    let of_launcher = format!("overwrite-program-of {launcher}");
    // Of what it runs itself a copy is tried that nobody runs: the other is busy for everybody.
    let copy = lab.path("bin/copy");
    fs::copy(lab.program(), &copy)?;
    let of_itself = format!("write {copy}");
    let verdict = lab.resists(NEAR, &[(&of_launcher, refusals), (&of_itself, refusals)])?;
    // Inside its own pid namespace the launcher has no number at all.
    let inside = "[process]\nuser = \"root\"\n";
    let answer = lab.outcome(inside, &of_launcher)?;
    ensure!(answer == Outcome::Denied(ENOENT), "{of_launcher}, in a pid namespace: {answer}");
    ensure!(fs::read("/proc/self/exe")? == own, "the launcher's program was changed");
    Ok(verdict)
}

fn leaked_cwd_fd_cve_2024_21626(lab: &Lab) -> Result<Verdict> {
    let folders: Vec<File> = (0..200).map(|_| File::open("/")).collect::<std::io::Result<_>>()?;
    // The standard library opens with close-on-exec: every other one is leaked.
    for folder in folders.iter().step_by(2) {
        nix::fcntl::fcntl(folder, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    }
    let numbers = |output: &str| -> Vec<String> {
        output.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
    };
    let confined = numbers(&lab.confined("", &["descriptors"])?.ok()?);
    ensure!(confined == ["0", "1", "2"], "it inherited {confined:?}");
    let free = numbers(&lab.unconfined(&["descriptors"])?.ok()?);
    ensure!(free.len() >= 100, "control: unconfined it inherits only {free:?}");

    // The folder of a descriptor as the working directory: the path of the attack.
    let leaked = folders[0].as_raw_fd();
    for path in
        [format!("/proc/self/fd/{leaked}"), format!("/proc/self/fd/{leaked}/etc"), "/proc/self/cwd".into()]
    {
        let sections = format!("[process]\nworking_directory = \"{path}\"\n");
        let Err(error) = lab.confined(&sections, &["descriptors"]) else {
            anyhow::bail!("{path} became the working directory");
        };
        let told = format!("{error:#}");
        ensure!(told.contains("working directory") || told.contains("unsafe-path"), "{path}: {told}");
    }
    ensure!(
        lab.confined("[process]\nworking_directory = \"/usr\"\n", &["descriptors"]).is_ok(),
        "control: /usr"
    );
    Ok(Verdict::Resisted)
}

/// What a launched process has, whatever its launcher had. `Uid` and the like are the policy's, and tested elsewhere.
const GOLDEN: &str = "Umask: 0077
TracerPid: 0
Groups:
SigPnd: 0000000000000000
ShdPnd: 0000000000000000
SigBlk: 0000000000000000
CapInh: 0000000000000000
CapPrm: 0000000000000000
CapEff: 0000000000000000
CapBnd: 0000000000000000
CapAmb: 0000000000000000
NoNewPrivs: 1
Seccomp: 2
fd 0
fd 1
fd 2
variable PATH
folder /
leads its session true
terminal false
nice Some(20)
oom_score_adj 0
dies with its parent Some(0)
Max core file size 1 1
Max open files 1024 4096";

fn inherited_state_of_the_launcher(lab: &Lab) -> Result<Verdict> {
    // A launcher that ignores, blocks, and has umask, variables and a nice value of its own.
    for signal in [libc::SIGUSR1, libc::SIGHUP, libc::SIGPIPE, libc::SIGRTMIN()] {
        sys::ignore(signal)?;
    }
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTERM);
    blocked.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None)?;
    let own_mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o002));
    let lines = |output: String| -> Vec<String> { output.lines().map(str::to_owned).collect() };
    let confined = lab.confined("", &["state"]);
    let free = lab.unconfined(&["state"]);
    nix::sys::stat::umask(own_mask);
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&blocked), None)?;
    let (confined, free) = (lines(confined?.ok()?), lines(free?.ok()?));
    // Rust's own start-up has SIGPIPE ignored and two signals caught, in this program as in any.
    let (runtime, golden): (Vec<_>, Vec<_>) = confined.iter().partition(|line| {
        line.starts_with("SigIgn") || line.starts_with("SigCgt") || line.contains("nonblocking")
    });
    let golden: Vec<&str> = golden.iter().map(|line| line.as_str()).collect();
    let wanted: Vec<&str> = GOLDEN.lines().collect();
    ensure!(golden == wanted, "it has\n{}\nand not\n{GOLDEN}", golden.join("\n"));
    let ignored = runtime.iter().find(|line| line.starts_with("SigIgn")).context("no SigIgn")?;
    ensure!(ignored.as_str() == "SigIgn: 0000000000001000", "it ignores {ignored}: SIGPIPE is Rust's own");
    let inherits = |line: &str| free.iter().any(|other| other.starts_with(line));
    ensure!(!free.contains(&"SigBlk: 0000000000000000".to_owned()), "control: {free:?}");
    ensure!(!inherits("SigIgn: 0000000000001000") && inherits("Umask: 0002"), "control: {free:?}");
    Ok(Verdict::Resisted)
}

fn environment_of_the_caller_reaches_the_loader(lab: &Lab) -> Result<Verdict> {
    let program = lab.program().to_owned();
    // A launcher whose own environment has them: this program again, as the launcher of the environment's printing.
    let variables = ["LD_LIBRARY_PATH=/nowhere", "GCONV_PATH=/nowhere", "LD_BIND_NOW=1"];
    let mut words = variables.to_vec();
    words.extend([program.as_str(), "environment"]);
    let free = lab.plain("/usr/bin/env", &{
        let mut free = variables.to_vec();
        free.extend([program.as_str(), "act", "environment"]);
        free
    })?;
    let free = free.ok()?;
    ensure!(variables.iter().all(|variable| free.contains(variable)), "control: {free}");
    let confined = lab.plain("/usr/bin/env", &words)?.ok()?;
    ensure!(confined.lines().all(|line| line.starts_with("PATH=")), "{confined}");
    ensure!(confined.lines().count() == 1, "{confined}");
    Ok(Verdict::Resisted)
}

fn groups_and_inheritable_capabilities_kept_cve_2022_29162(lab: &Lab) -> Result<Verdict> {
    let own = nix::unistd::getgroups()?;
    nix::unistd::setgroups(&[4, 24, 27].map(nix::unistd::Gid::from_raw))?;
    let confined = lab.confined("[process]\nuser = \"root\"\n", &["show", "/proc/self/status"]);
    let free = lab.unconfined(&["show", "/proc/self/status"]);
    nix::unistd::setgroups(&own)?;
    let (confined, free) = (confined?.ok()?, free?.ok()?);
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|line| line.trim().to_owned()).unwrap_or_default()
    };
    ensure!(field(&confined, "Groups").is_empty(), "it kept {:?}", field(&confined, "Groups"));
    ensure!(field(&free, "Groups") == "4 24 27", "control: {:?}", field(&free, "Groups"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        ensure!(field(&confined, set) == "0000000000000000", "{set} {}", field(&confined, set));
    }
    ensure!(field(&free, "CapBnd") != "0000000000000000", "control: {free}");
    Ok(Verdict::Resisted)
}

/// Runs for [`environment_of_the_caller_reaches_the_loader`]: launches what prints its environment.
pub fn print_confined_environment() -> Result<String> {
    Lab::new()?.confined("", &["environment"])?.ok()
}

/// While services are launched, their program is exchanged for a link to one that no rule lets them execute.
fn program_exchanged_before_execve(lab: &Lab) -> Result<Verdict> {
    const LAUNCHES: u32 = 100;
    const LONG: Duration = Duration::from_secs(15);
    let plan = lab.plan("")?;
    lab.folder("outside")?;
    let (current, link, outside) =
        (lab.path("bin/current"), lab.path("bin/link"), lab.path("outside/attacks"));
    for copy in [&current, &outside] {
        fs::copy(lab.program(), copy)?;
    }
    lab.mode("bin/current", 0o755)?;
    lab.mode("outside/attacks", 0o755)?;
    symlink(&outside, &link)?;
    let words = ["show", "/proc/self/status"];
    let free = lab.plain(&link, &["act", words[0], words[1]])?.ok()?;
    ensure!(
        free.contains("Seccomp:\t0") && free.contains("NoNewPrivs:\t0"),
        "control: unconfined it runs: {free}"
    );
    let stop = AtomicBool::new(false);
    let (ran, refused) = std::thread::scope(|scope| -> Result<(u32, u32)> {
        let exchanger = scope.spawn(|| -> nix::Result<()> {
            while !stop.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &*current, AT_FDCWD, &*link, RenameFlags::RENAME_EXCHANGE)?;
            }
            Ok(())
        });
        let end = Instant::now() + LONG;
        let mut told = Ok((0, 0));
        while let Ok((ran, refused)) = &mut told
            && (*ran == 0 || *refused == 0 || (*ran + *refused < LAUNCHES && Instant::now() < end))
            && Instant::now() < end + 3 * LONG
        {
            match lab.start_program(&current, &plan, &words, None, None) {
                Ok(service) => {
                    let status = service.end()?.ok()?;
                    let confined = status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1");
                    if confined && !status.contains("Uid:\t0") {
                        *ran += 1;
                    } else {
                        told = Err(anyhow::anyhow!("it ran unconfined: {status}"));
                    }
                }
                Err(error) => match error.downcast_ref::<LaunchError>() {
                    Some(error) if error.errno() == EACCES => *refused += 1,
                    _ => told = Err(error),
                },
            }
        }
        stop.store(true, Ordering::Relaxed);
        exchanger.join().map_err(|_| anyhow::anyhow!("the exchanger panicked"))??;
        told
    })?;
    ensure!(ran > 0 && refused > 0, "control: it was exchanged meanwhile: {ran} ran, {refused} were refused");
    Ok(Verdict::Resisted)
}
