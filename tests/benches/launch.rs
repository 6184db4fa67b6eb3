//! What a sandboxed launch costs: `cargo bench -p e2e --bench launch [-- ROUNDS]`, as root; with `--steps` where the time of
//! one goes, with `--rest` each after 5 ms of rest. docs/performance.md says how to read it.
//!
//! Every contender starts the same program and waits for its end. Printed are medians and their ratio to the floor: a bare
//! vfork and exec into the same namespaces, without any sandbox.

use std::{
    cell::RefCell,
    fs::{self, File},
    io::Seek,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::arena::{self, Candidate, Confined, PROGRAM};
use e2e::programs::Programs;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use sandbox::{
    Plan,
    berth::Berth,
    compile::{Subject, compile},
    kernel::Kernel,
    launch::Ahead,
    netpool::{NetworkPool, PooledNetwork},
    policy::Store,
    template::{Template, TemplateMeanwhile},
    timings::Timings,
};

/// bubblewrap with the namespaces and mounts of `base/default`, and its capabilities; its filter comes before these. It has no
/// Landlock, no limits and no cgroup.
const BUBBLEWRAP: [&str; 25] = [
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
];

/// crun with the namespaces of `base/default`, its capabilities and the like mounts over an empty root; it has no
/// Landlock, no cgroup and, here, no filter.
const CRUN: &str = r#"{ "ociVersion": "1.0.2",
"process": { "user": { "uid": 65534, "gid": 65534 }, "args": ["PROGRAM"], "cwd": "/", "env": ["PATH=/usr/bin"],
  "capabilities": { "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] },
  "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1024 }], "noNewPrivileges": true },
"root": { "path": "root", "readonly": true },
"hostname": "bench",
"mounts": [
  { "destination": "/usr", "type": "none", "source": "/usr", "options": ["rbind", "ro", "nosuid", "nodev"] },
  { "destination": "/etc", "type": "none", "source": "/etc", "options": ["rbind", "ro", "nosuid", "nodev"] },
  { "destination": "/proc", "type": "proc", "source": "proc" },
  { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"] },
  { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] },
  { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev"] },
  { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
  { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"] },
  { "destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"] } ],
"linux": { "namespaces": [ { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
  { "type": "cgroup" }, { "type": "mount" } ] } }"#;

fn main() -> Result<()> {
    let rounds: usize = match std::env::args().skip(1).find(|argument| !argument.starts_with('-')) {
        Some(rounds) => rounds.parse().context("ROUNDS is a number")?,
        None => 200,
    };
    if std::env::args().any(|argument| argument == "--steps") {
        arena::enter()?;
        return steps(rounds);
    }
    // Asked before the arena: what is unpacked lies under target/.
    let (bwrap, crun) = (bwrap(), crun());
    let motherctl = &Programs::built()?.motherctl;
    arena::enter()?;
    let rests = std::env::args().any(|argument| argument == "--rest");
    let rest = Duration::from_millis(if rests { 5 } else { 0 });
    launches(rounds, rest, motherctl, bwrap.as_deref(), crun)?;
    compiling(rounds)?;
    growth(rounds)
}

fn launches(
    rounds: usize,
    rest: Duration,
    motherctl: &Path,
    bwrap: Option<&Path>,
    crun: Option<Command>,
) -> Result<()> {
    let confined = &Confined::new("base/default")?;
    let template = Template::build(&confined.plan)?.context("base/default has a template")?;
    let pool = RefCell::new(NetworkPool::new(1));
    let refill = RefCell::new(Vec::new());
    let add = || {
        let started = Instant::now();
        pool.borrow_mut().add()?;
        refill.borrow_mut().push(started.elapsed());
        anyhow::Ok(())
    };
    let pooled = || pool.borrow_mut().take();
    // The time that this takes counts.
    let meanwhile = || anyhow::Ok(Some(PooledNetwork::begin()?));
    let (berth, left) = (RefCell::new(None), RefCell::new(None));
    let (berths, taken_down) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let make_ready = || {
        let started = Instant::now();
        drop(left.take());
        taken_down.borrow_mut().push(started.elapsed());
        let started = Instant::now();
        berth.replace(Berth::make(&confined.plan, &template)?);
        berths.borrow_mut().push(started.elapsed());
        anyhow::Ok(())
    };
    let from_berth = || {
        left.replace(confined.run_from(Ahead { berth: Some(&berth), ..Ahead::default() }, None)?);
        Ok(())
    };
    let policy = e2e::workspace().join("policies/base/default.toml");
    let cold = || {
        let mut command = Command::new(motherctl);
        // What this machine lacks and the policy calls optional is said each time.
        spawn(
            command
                .args(["run", "--policy"])
                .arg(&policy)
                .args(["--", PROGRAM.to_str()?])
                .stderr(Stdio::null()),
        )
    };
    let net = libc::CLONE_NEWNET;
    let filter = Filter::of(&confined.plan)?;
    let mut candidates = vec![
        Candidate::new("floor: vfork + exec, same namespaces", || arena::bare(arena::namespaces())),
        Candidate::new("floor without the network namespace", || arena::bare(arena::namespaces() & !net)),
        Candidate::new("vfork + exec, no namespaces", || arena::bare(0)),
        Candidate::new("base/default, everything inline", || confined.run(None, None)),
        Candidate::new("inline, network meanwhile", || confined.run(None, meanwhile()?)),
        Candidate::new("inline, network and template meanwhile", || both_meanwhile(confined)),
        Candidate::new("base/default, pool", || confined.run(None, pooled())).after(add),
        Candidate::new("base/default, template", || confined.run(Some(&template), None)),
        Candidate::new("template, network meanwhile", || confined.run(Some(&template), meanwhile()?)),
        Candidate::new("base/default, template and pool", || confined.run(Some(&template), pooled()))
            .after(add),
        Candidate::new("base/default, berth", from_berth).after(make_ready),
        Candidate::new("motherctl run, cold", cold),
    ];
    if let Some(program) = bwrap {
        let filter = &filter;
        let bwrap = move || {
            let mut command = Command::new(program);
            spawn(command.args(["--seccomp", &filter.number()]).args(BUBBLEWRAP).arg(PROGRAM.to_str()?))
        };
        filter.rewind()?;
        match bwrap() {
            Ok(()) => candidates.push(Candidate::new("bwrap", bwrap).after(|| filter.rewind())),
            Err(error) => eprintln!("not compared with bwrap: {error:#}"),
        }
    }
    if let Some(mut crun) = crun {
        match spawn(&mut crun) {
            Ok(()) => candidates.push(Candidate::new("crun run", move || spawn(&mut crun))),
            Err(error) => eprintln!("not compared with crun: {error:#}"),
        }
    }
    arena::interleave(rounds, rest, &mut candidates)?;
    let [floor, low_floor, _] = candidates[0].figures();
    println!(
        "{rounds} rounds, us from start to reaped: median, 10th and 90th percentile; median and 10th percentile by the \
         floor's"
    );
    for candidate in &mut candidates {
        let [median, low, high] = candidate.figures();
        let (by_median, by_low) = (median / floor, low / low_floor);
        println!("{:40} {median:9.1} {low:9.1} {high:9.1}  x{by_median:6.2} x{by_low:6.2}", candidate.name);
    }
    for (name, times) in [
        ("off the path: one namespace for the pool", &refill),
        ("off the path: one berth", &berths),
        ("off the path: its mounts taken down", &taken_down),
    ] {
        let median = median(&mut times.take());
        println!("{name:40} {median:9.1} {:19}  x{:6.2}", "", median / floor);
    }
    Ok(())
}

/// Two other processes begin and end within this: nothing was made before.
fn both_meanwhile(confined: &Confined) -> Result<()> {
    let network = Some(PooledNetwork::begin()?).into();
    let template = TemplateMeanwhile::begin(&confined.plan)?.into();
    let ahead = Ahead { network: Some(&network), meanwhile: Some(&template), ..Ahead::default() };
    confined.run_from(ahead, None).map(drop)
}

/// What each call of the parent and each step of the child takes: inline and with a template, also with the network made
/// meanwhile, with template and pool, and with a berth.
fn steps(rounds: usize) -> Result<()> {
    let confined = Confined::new("base/default")?;
    let template = Template::build(&confined.plan)?.context("base/default has a template")?;
    let mut pool = NetworkPool::new(1);
    timed("everything inline", rounds, || {
        let timings = Timings::start();
        confined.run_from(Ahead::default(), Some(&timings))?;
        Ok(timings)
    })?;
    timed("everything inline, network meanwhile", rounds, || {
        let timings = Timings::start();
        let network = Some(PooledNetwork::begin()?).into();
        timings.mark("network begun");
        confined.run_from(Ahead { network: Some(&network), ..Ahead::default() }, Some(&timings))?;
        Ok(timings)
    })?;
    timed("template, network meanwhile", rounds, || {
        let timings = Timings::start();
        let network = Some(PooledNetwork::begin()?).into();
        timings.mark("network begun");
        let ahead = Ahead { template: Some(&template), network: Some(&network), ..Ahead::default() };
        confined.run_from(ahead, Some(&timings))?;
        Ok(timings)
    })?;
    timed("template and pool", rounds, || {
        pool.add()?;
        let network = pool.take().into();
        let ahead = Ahead { template: Some(&template), network: Some(&network), ..Ahead::default() };
        let timings = Timings::start();
        confined.run_from(ahead, Some(&timings))?;
        Ok(timings)
    })?;
    timed("berth", rounds, || {
        let berth = Berth::make(&confined.plan, &template)?.into();
        let timings = Timings::start();
        confined.run_from(Ahead { berth: Some(&berth), ..Ahead::default() }, Some(&timings))?;
        Ok(timings)
    })
}

fn timed(title: &str, rounds: usize, mut launch: impl FnMut() -> Result<Timings>) -> Result<()> {
    // How many ticks of the counter a microsecond has.
    let (started, pause) = (Instant::now(), Timings::start());
    while started.elapsed() < Duration::from_millis(20) {}
    pause.mark("waited");
    let ticks: u64 = pause.parts().iter().map(|part| part.ticks).sum();
    let rate = 20_000.0 / ticks as f64;
    let mut parts: Vec<(String, Vec<f64>)> = Vec::new();
    let mut wholes = Vec::new();
    for _ in 0..rounds {
        let timed = launch()?.parts();
        wholes.push(timed.iter().map(|part| part.ticks).sum::<u64>() as f64 * rate);
        parts.resize_with(timed.len(), Default::default);
        for ((what, times), part) in parts.iter_mut().zip(timed) {
            *what = part.what;
            times.push(part.ticks as f64 * rate);
        }
    }
    println!("base/default, {title}: {rounds} launches, us: median and 10th percentile");
    let of = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        [50, 10].map(|percent| times.get(times.len() * percent / 100).copied().unwrap_or(f64::NAN))
    };
    for (what, times) in &mut parts {
        let [median, low] = of(times);
        println!("{median:9.1} {low:9.1}  {what}");
    }
    let [median, low] = of(&mut wholes);
    println!("{median:9.1} {low:9.1}  the whole");
    Ok(())
}

/// From the text to the plan, and its two halves.
fn compiling(rounds: usize) -> Result<()> {
    let kernel = Kernel::probe(None)?;
    let store = Store::new(vec![e2e::workspace().join("policies")]);
    for name in ["base/default", "nginx", "redis"] {
        let subject = Subject { name: "bench".to_owned(), root: "/".into(), sockets: vec![] };
        let (mut reading, mut planning) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let started = Instant::now();
            let policy = store.load(name)?;
            reading.push(started.elapsed());
            let started = Instant::now();
            // What a policy needs of the host may be missing here; what it takes to find that out counts as well.
            drop(compile(&policy, &subject, &kernel));
            planning.push(started.elapsed());
        }
        let [reading, planning] = [&mut reading, &mut planning].map(|times| median(times));
        println!("{:40} {:9.1} = {reading:.1} read + {planning:.1} compiled", name, reading + planning);
    }
    Ok(())
}

/// A launch by a manager with 10 MB of memory and with 500, in turns.
fn growth(rounds: usize) -> Result<()> {
    let confined = Confined::new("base/default")?;
    let template = Template::build(&confined.plan)?.context("base/default has a template")?;
    let mut pool = NetworkPool::new(1);
    let sizes = [10_usize, 500];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        for (size, times) in sizes.iter().zip(&mut times) {
            let ballast = vec![1_u8; size << 20];
            for _ in 0..rounds / 5 {
                pool.add()?;
                let started = Instant::now();
                confined.run(Some(&template), pool.take())?;
                times.push(started.elapsed());
            }
            std::hint::black_box(&ballast);
        }
    }
    let [small, large] = times.each_mut().map(|times| median(times));
    println!("manager of 10 MB {small:.1} us, of 500 MB {large:.1} us: x{:.2}", large / small);
    Ok(())
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// A filter for bubblewrap: a file that it inherits and reads to its end.
struct Filter(File);

impl Filter {
    fn of(plan: &Plan) -> Result<Self> {
        let path = arena::folder("filter")?.join("program");
        fs::write(&path, plan.filter().context("base/default has a filter")?)?;
        let file = File::open(path)?;
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(Self(file))
    }

    fn number(&self) -> String {
        self.0.as_raw_fd().to_string()
    }

    fn rewind(&self) -> Result<()> {
        Ok((&self.0).rewind()?)
    }
}

fn bwrap() -> Option<PathBuf> {
    let found = e2e::fetch::Cache::open().and_then(|cache| cache.bwrap());
    found.inspect_err(|error| eprintln!("not compared with bwrap: {error:#}")).ok()
}

/// The command that runs the bundle; `None` where there is no crun, which is said.
fn crun() -> Option<Command> {
    let made = e2e::fetch::Cache::open().and_then(|cache| cache.crun()).map(|(program, libraries)| {
        let mut command = Command::new(program);
        if let Some(libraries) = libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.args(["--cgroup-manager=disabled", "run", "--bundle", "/usr/local/bin/bundle", "bench"]);
        command
    });
    made.inspect_err(|error| eprintln!("not compared with crun: {error:#}")).ok()
}

fn spawn(command: &mut Command) -> Result<()> {
    if !fs::exists("/usr/local/bin/bundle")? {
        let bundle = arena::folder("bundle")?;
        fs::create_dir(bundle.join("root"))?;
        fs::write(bundle.join("config.json"), CRUN.replace("PROGRAM", PROGRAM.to_str()?))?;
    }
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
