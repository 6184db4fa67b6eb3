//! A thousand services: what motherd adds to the bare launches, and what it costs while they run. For `bench_scale`.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::time::{ClockId, clock_gettime};
use sandbox::Plan;
use sandbox::cgroup::Cgroup;
use sandbox::compile::{Subject, compile};
use sandbox::kernel::Kernel;
use sandbox::launch::{Launch, launch};
use sandbox::policy::Store;

use crate::peers::native::compiled;
use crate::peers::report::median;
use crate::programs::PeersPrograms;
use crate::scratch::Scratch;

/// How long all services may take to come up.
const LIMIT: Duration = Duration::from_secs(120);
/// So often each question is asked.
const QUESTIONS: usize = 7;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Scale {
    /// How many services.
    pub services: usize,
    /// Their policy: a shipped one.
    pub policy: String,
    /// How often motherd and the bare loop take turns.
    pub rounds: usize,
    /// Seconds in which nothing is to happen.
    pub idle: u64,
}

/// Everything on this host; prints what it finds.
pub fn measure(scale: &Scale) -> Result<()> {
    let programs = PeersPrograms::built()?;
    let service = compiled("service", None, "service")?;
    let (mut bare, mut whole, mut from_first) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=scale.rounds {
        bare.push(bare_loop(scale, &service)?);
        let mut house = House::new(scale, &service, scale.services)?;
        let [first, last] = house.start(&programs)?;
        whole.push(last);
        from_first.push(last - first);
        if round == scale.rounds {
            house.questions(&programs)?;
            house.memory(scale, &programs, &service)?;
            house.idle(scale.idle)?;
        }
    }
    let line = |what: &str, times: &[f64]| {
        let middle = median(times).unwrap_or(f64::NAN);
        println!(
            "{what}: {:.0} ms, {:.2} by the bare loop's",
            middle,
            middle / median(&bare).unwrap_or(f64::NAN)
        );
    };
    println!("{} services under {}, {} rounds, medians", scale.services, scale.policy, scale.rounds);
    line("a bare loop of the launches, to the last exec", &bare);
    line("motherd, from its first exec to its last", &from_first);
    line("motherd, from the exec of initldr to the last exec", &whole);
    Ok(())
}

/// CLOCK_MONOTONIC in milliseconds, as the services stamp it.
fn now() -> Result<f64> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?).as_secs_f64() * 1e3)
}

/// The services' first instructions, on the same clock, once all of them began.
fn stamps(path: &Path, services: usize) -> Result<Vec<f64>> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let bytes = fs::read(path)?;
        if bytes.len() >= services * 16 {
            let time =
                |stamp: &[u8]| stamp[8..].iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
            return Ok(bytes.chunks_exact(16).map(|stamp| time(stamp) as f64 / 1e6).collect());
        }
        ensure!(Instant::now() < deadline, "{} of {services} services began", bytes.len() / 16);
        sleep(Duration::from_millis(50));
    }
}

fn latest(stamps: &[f64]) -> f64 {
    stamps.iter().copied().fold(0.0, f64::max)
}

/// A file that every service can write to, whoever it runs as.
fn stamp_file(path: &Path) -> Result<()> {
    File::create(path)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o666))?)
}

/// The same launches with nobody who looks after them: a cgroup each, its limits, the sandbox, the exec.
fn bare_loop(scale: &Scale, service: &Path) -> Result<f64> {
    let scratch = Scratch::new("the bare loop")?.context("it needs root")?;
    let kernel = Kernel::probe(None)?;
    let policy = Store::new(vec![crate::workspace().join("policies")]).load(&scale.policy)?;
    let file = scratch.path("stamps");
    stamp_file(&file)?;
    let subject = |id| Subject { name: format!("svc-{id}"), root: "/".into(), sockets: vec![] };
    let plans: Vec<Arc<Plan>> =
        (0..scale.services).map(|id| compile(&policy, &subject(id), &kernel)).collect::<Result<_, _>>()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let mut running: Vec<(OwnedFd, Cgroup)> = Vec::new();
    let begin = now()?;
    for (id, plan) in plans.iter().enumerate() {
        let argv = arguments(service, id, &file)?;
        let cgroup = Cgroup::create(scratch.cgroup(), &format!("system.slice/svc-{id}.service"), plan)?;
        let stdio = [null.as_fd(), null.as_fd(), null.as_fd()];
        let launched = launch(&Launch { cgroup: Some(&cgroup), ..Launch::new(plan, &argv, stdio) })?;
        running.push((launched.pidfd, cgroup));
    }
    let last = latest(&stamps(&file, scale.services)?);
    for (pidfd, cgroup) in running {
        cgroup.kill()?;
        waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        cgroup.remove()?;
    }
    Ok(last - begin)
}

fn arguments(service: &Path, id: usize, stamps: &Path) -> Result<Vec<String>> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is text");
    Ok(vec![text(service)?, id.to_string(), text(stamps)?])
}

/// A scratch root with services, and the pair once it is started.
struct House {
    scratch: Scratch,
    services: usize,
    stamps: PathBuf,
}

impl House {
    fn new(scale: &Scale, service: &Path, services: usize) -> Result<Self> {
        let scratch = Scratch::new("a thousand services")?.context("it needs root")?;
        let stamps = scratch.path("stamps");
        stamp_file(&stamps)?;
        let mut wants = Vec::new();
        for id in 0..services {
            let argv = arguments(service, id, &stamps)?;
            let text =
                format!("description = \"service {id}\"\nexec = {argv:?}\npolicy = \"{}\"\n", scale.policy);
            scratch.service(&format!("svc-{id}"), &text)?;
            wants.push(format!("\"svc-{id}\""));
        }
        scratch.service("system", &format!("[dependencies]\nwants = [{}]\n", wants.join(", ")))?;
        Ok(Self { scratch, services, stamps })
    }

    /// When the first and the last service began, counted from the exec of initldr.
    fn start(&mut self, programs: &PeersPrograms) -> Result<[f64; 2]> {
        let begin = now()?;
        self.scratch.start_as(&programs.initldr, &programs.motherd, &[])?;
        let stamps = stamps(&self.stamps, self.services)
            .with_context(|| format!("the log: {}", self.scratch.log().unwrap_or_default()))?;
        Ok([stamps.iter().copied().fold(f64::INFINITY, f64::min) - begin, latest(&stamps) - begin])
    }

    fn questions(&self, programs: &PeersPrograms) -> Result<()> {
        for words in [&["list"][..], &["status", "svc-7"], &["status"]] {
            let mut times = Vec::new();
            let mut bytes = 0;
            for _ in 0..QUESTIONS {
                let begin = Instant::now();
                let mut command = Command::new(&programs.motherctl);
                let output = command.arg("--root").arg(self.scratch.path("")).args(words).output()?;
                times.push(begin.elapsed().as_secs_f64() * 1e3);
                ensure!(output.status.success(), "motherctl {words:?}: {output:?}");
                bytes = output.stdout.len();
            }
            let time = median(&times).unwrap_or(f64::NAN);
            println!(
                "motherctl {}, {} services: {time:.1} ms, {bytes} bytes",
                words.join(" "),
                self.services
            );
        }
        Ok(())
    }

    /// The pids of initldr and of its motherd.
    fn pids(&self) -> Result<[i32; 2]> {
        let init = self.scratch.init()?.as_raw();
        let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"))?;
        let named = |pid: &&str| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "motherd\n")
        };
        let motherd = children.split_whitespace().find(named).context("initldr has no motherd")?;
        Ok([init, motherd.parse()?])
    }

    /// What motherd holds by itself, in kB.
    fn anonymous(&self) -> Result<[f64; 2]> {
        let [_, motherd] = self.pids()?;
        Ok([field(motherd, "smaps_rollup", "Pss_Anon")?, field(motherd, "smaps_rollup", "Pss")?])
    }

    fn memory(&self, scale: &Scale, programs: &PeersPrograms, service: &Path) -> Result<()> {
        let mut small = House::new(scale, service, 1)?;
        small.start(programs)?;
        sleep(Duration::from_secs(1));
        let ([base, whole_base], [all, whole]) = (small.anonymous()?, self.anonymous()?);
        let each = (all - base) / (self.services - 1) as f64;
        println!(
            "memory of motherd: PSS {whole_base:.0} kB with one service, {whole:.0} kB with {}; of it anonymous {base:.0} and \
             {all:.0} kB: {each:.2} kB a service",
            self.services
        );
        let [init, _] = self.pids()?;
        println!("memory of initldr: PSS {:.0} kB", field(init, "smaps_rollup", "Pss")?);
        Ok(())
    }

    /// Context switches of both while nothing happens.
    fn idle(&self, seconds: u64) -> Result<()> {
        let pids = self.pids()?;
        let switches = || -> Result<f64> {
            let kinds = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];
            let each = pids.iter().flat_map(|pid| kinds.map(|kind| field(*pid, "status", kind)));
            each.sum()
        };
        let before = switches()?;
        sleep(Duration::from_secs(seconds));
        println!("context switches of initldr and motherd in {seconds} s: {}", switches()? - before);
        Ok(())
    }
}

/// A number of `/proc/PID/FILE`.
fn field(pid: i32, file: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.with_context(|| format!("{file} has no {name}"))?;
    Ok(value.split_whitespace().next().context("no value")?.parse()?)
}

/// Reading and checking a file of motherd's against a unit of systemd's.
pub fn files() -> Result<()> {
    const FILES: usize = 10_000;
    /// Each takes systemd long.
    const UNITS: usize = 200;
    let dir = std::env::temp_dir().join(format!("bench-scale-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let measured = (|| -> Result<()> {
        for id in 0..FILES {
            let path = dir.join(format!("s{id}.toml"));
            let text = format!(
                "description = \"service {id}\"\nexec = [\"/usr/bin/true\", \"{id}\"]\npolicy = \"base/default\"\n[dependencies]\n\
                 after = [\"s{}\"]\n[restart]\nwhen = \"always\"\ndelay = \"200ms\"\n[stop]\ntimeout = \"5s\"\n",
                (id + 1).min(FILES - 1)
            );
            if id + 1 == FILES {
                fs::write(&path, "exec = [\"/usr/bin/true\"]\n")?;
            } else {
                fs::write(&path, text)?;
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        let begin = Instant::now();
        let catalog = motherd::service::load_dirs(std::slice::from_ref(&dir));
        ensure!(catalog.broken.is_empty() && catalog.services.len() == FILES, "the files are good");
        let built =
            motherd::graph::Graph::build(catalog.services.values().cloned().collect(), &Default::default());
        let ours = begin.elapsed().as_secs_f64() * 1e3 / FILES as f64;
        ensure!(built.graph.len() + built.refused.len() == FILES);
        println!("{FILES} service files read and checked: {ours:.4} ms a file");
        let mut units = Vec::new();
        for id in 0..UNITS {
            let path = dir.join(format!("s{id}.service"));
            let text = format!(
                "[Unit]\nDescription=service {id}\nAfter=s{}.service\n[Service]\nExecStart=/usr/bin/true {id}\nRestart=always\n\
                 RestartSec=200ms\nTimeoutStopSec=5s\n",
                id + 1
            );
            fs::write(&path, text)?;
            units.push(path);
        }
        let begin = Instant::now();
        let verify = Command::new("systemd-analyze")
            .arg("verify")
            .args(&units)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match verify {
            Ok(status) => {
                let theirs = begin.elapsed().as_secs_f64() * 1e3 / UNITS as f64;
                println!(
                    "systemd-analyze verify of {UNITS} units in one run ({status}): {theirs:.4} ms a file, {:.1} by ours",
                    theirs / ours
                );
            }
            Err(error) => println!("SKIPPED, 1: systemd-analyze verify: {error}"),
        }
        Ok(())
    })();
    fs::remove_dir_all(&dir)?;
    measured
}
