//! What a sandboxed launch costs, against a bare one and against bubblewrap, in one run: `cargo run --release -p e2e
//! --bin bench_launch [ROUNDS]`, as root.
//!
//! Every candidate starts /usr/bin/true and waits for its end, one after the other in each round, so that what the
//! machine does meanwhile meets them all alike. Printed are medians and their ratio to the bare launch.

use std::{
    fs::File,
    os::fd::AsFd,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use sandbox::{
    Plan,
    cgroup::Cgroup,
    compile::{Subject, compile},
    kernel::Kernel,
    launch::{Handed, Launch, Parent, launch},
    policy::Store,
};

const PROGRAM: &str = "/usr/bin/true";

/// bubblewrap with the namespaces and mounts of `base/default`; it has no Landlock, no cgroup and, here, no filter.
const BUBBLEWRAP: [&str; 26] = [
    "--unshare-pid",
    "--unshare-net",
    "--unshare-ipc",
    "--unshare-uts",
    "--unshare-cgroup",
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
    "--tmpfs",
    "/tmp",
    "--tmpfs",
    "/run",
    "--tmpfs",
    "/root",
    "--tmpfs",
    "/home",
    "--cap-drop",
    "ALL",
    "--new-session",
    "--die-with-parent",
    "--",
    PROGRAM,
];

struct Candidate {
    name: &'static str,
    run: Box<dyn FnMut() -> Result<()>>,
    times: Vec<Duration>,
}

fn main() -> Result<()> {
    let rounds: usize = match std::env::args().nth(1) {
        Some(rounds) => rounds.parse().context("ROUNDS is a number")?,
        None => 200,
    };
    ensure!(nix::unistd::geteuid().is_root(), "run as root: mounts and cgroups are made");
    let mut candidates = candidates()?;
    for _ in 0..rounds {
        for candidate in &mut candidates {
            let started = Instant::now();
            (candidate.run)().with_context(|| candidate.name)?;
            candidate.times.push(started.elapsed());
        }
    }
    let medians: Vec<f64> = candidates.iter_mut().map(|candidate| median(&mut candidate.times)).collect();
    println!("{rounds} rounds, median us from start to reaped");
    for (candidate, time) in candidates.iter().zip(&medians) {
        println!("{:44} {time:9.1}  x{:5.2}", candidate.name, time / medians[0]);
    }
    Ok(())
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

fn candidates() -> Result<Vec<Candidate>> {
    let kernel = Kernel::probe(None)?;
    let policies = e2e::workspace().join("policies");
    let plan = plan("base/default", &kernel, policies.clone())?;
    let unconfined = self::plan("unconfined", &kernel, policies)?;
    let base = kernel.cgroup_base.clone().context("no cgroup2 tree is mounted")?;
    let again = plan.clone();
    let mut candidates = vec![
        candidate("vfork + exec (posix_spawn)", || spawn(&mut Command::new(PROGRAM))),
        candidate("policy unconfined", move || run(&unconfined, None)),
        candidate("policy base/default", move || run(&plan, None)),
        candidate("policy base/default, in its own cgroup", move || {
            let cgroup = Cgroup::create(&base, "bench.slice/bench.service", &again)?;
            run(&again, Some(&cgroup))?;
            Ok(cgroup.remove()?)
        }),
    ];
    if Command::new("bwrap")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        candidates.push(candidate("bwrap, same mounts and namespaces", || {
            spawn(Command::new("bwrap").args(BUBBLEWRAP))
        }));
    } else {
        eprintln!("bwrap is not installed (apt-get install bubblewrap): not compared");
    }
    Ok(candidates)
}

fn candidate(name: &'static str, run: impl FnMut() -> Result<()> + 'static) -> Candidate {
    Candidate { name, run: Box::new(run), times: Vec::new() }
}

fn plan(policy: &str, kernel: &Kernel, policies: PathBuf) -> Result<Plan> {
    let policy = Store::new(vec![policies]).load(policy)?;
    let subject = Subject { name: "bench".to_owned(), root: "/".into(), sockets: vec![] };
    Ok(compile(&policy, &subject, kernel)?)
}

fn spawn(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn run(plan: &Plan, cgroup: Option<&Cgroup>) -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let launched = launch(&Launch {
        plan,
        argv: &[PROGRAM.to_owned()],
        environment: &[],
        stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
        handed: Handed::default(),
        cgroup,
        network: None,
        parent: Parent::Caller,
        pid_cell: None,
    })?;
    let ended = waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
    ensure!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
    Ok(())
}
