//! The killing: random instants, and named points.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sandbox::template::MountWatch;
use serde_json::json;

use super::{
    audit::{self, Counts, Descriptors, Places, Seen, motherd_of},
    client::{Clients, call},
    load::{Kind, Load, Place, Scale},
    modes::{FULL_LOG, SmallFs},
};
use crate::{
    programs::SoakPrograms,
    scratch::{Scratch, write_program},
};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(120);
/// From one look to the next: whoever looks without a pause takes the processor from who is to act.
const LOOK: Duration = Duration::from_millis(2);

/// A pair of initldr and motherd with its load.
#[derive(Debug)]
pub struct Pair {
    /// Where everything is.
    pub places: Places,
    /// initldr.
    pub init: i32,
    /// What may run as motherd: the installed program, and the previous one.
    pub motherds: Vec<PathBuf>,
    /// The load.
    pub load: Load,
    /// The command line of a second pair with the same paths.
    pub second: Vec<String>,
    quiets: usize,
    seed: u64,
    /// Unmounted with the pair.
    _mounts: Vec<SmallFs>,
}

/// What the killing came to.
#[derive(Debug, Default)]
pub struct Report {
    /// What must not happen.
    pub counts: Counts,
    /// So many kills.
    pub kills: usize,
    /// From a kill to the first answer of the next motherd, where it was left to come up.
    pub recoveries: Vec<Duration>,
    /// From a hang to the first answer of the next motherd.
    pub hangs: Vec<Duration>,
    /// What a mode has to say beside the counts.
    pub notes: Vec<String>,
    /// Services that crashed, by their own account.
    pub crashes: u64,
    /// Lines that were logged.
    pub lines: u64,
    /// Right answers of the services.
    pub answers: u64,
    /// Requests to motherd that were answered, and that a kill broke off.
    pub requests: (u64, u64),
}

impl Report {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut times = self.recoveries.clone();
        times.sort();
        let milliseconds = |time: Option<&Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
        let (median, worst) = (milliseconds(times.get(times.len() / 2)), milliseconds(times.last()));
        let mut text = format!(
            "{} kills; {} crashes of services, {} lines logged, {} answers of services, {} requests answered and {} \
             broken off\n{}\nrecovery, from the kill to an answer: median {median:.1} ms, worst {worst:.1} ms, of {}\n",
            self.kills,
            self.crashes,
            self.lines,
            self.answers,
            self.requests.0,
            self.requests.1,
            self.counts.line(),
            times.len()
        );
        if let (Some(first), Some(worst)) = (self.hangs.iter().min(), self.hangs.iter().max()) {
            let (first, worst) = (first.as_secs_f64(), worst.as_secs_f64());
            text.push_str(&format!(
                "{} hangs, replaced after {first:.1} to {worst:.1} s\n",
                self.hangs.len()
            ));
        }
        for note in &self.notes {
            text.push_str(&format!("{note}\n"));
        }
        for detail in &self.counts.details {
            text.push_str(&format!("  {detail}\n"));
        }
        text
    }

    /// Takes in what the clients of the services saw since then; what they have seen by now.
    pub fn answered_since(&mut self, clients: &Clients, before: [u64; 3]) -> [u64; 3] {
        let answers = &clients.answers;
        let counters = [&answers.right, &answers.refused, &answers.wrong];
        let now = counters.map(|counter| counter.load(Ordering::Relaxed));
        let troubles = || answers.troubles.lock().map(|troubles| troubles.join("; ")).unwrap_or_default();
        self.answers += now[0] - before[0];
        self.counts.add(|counts| &mut counts.refused, now[1] - before[1], troubles);
        self.counts.add(|counts| &mut counts.wrong_answers, now[2] - before[2], troubles);
        now
    }
}

impl Pair {
    /// Started below `scratch`, with the files of its load in place; what they describe is still to come up.
    pub fn start(scratch: &mut Scratch, programs: &SoakPrograms, scale: Scale) -> Result<Self> {
        let folder = scratch.path("soak");
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        let load = Load::new(Place::host(&folder, &programs.service)?, scale);
        for (name, text) in load.policies() {
            scratch.policy(name, &text)?;
        }
        for (name, text) in load.files("system") {
            scratch.service(&name, &text)?;
        }
        for (path, text) in load.configuration() {
            fs::write(path, text)?;
        }
        let mounts = vec![
            SmallFs::mount(&scratch.path("run"), "size=4M,nr_inodes=2000,mode=755")?,
            SmallFs::mount(
                &scratch.path("var/log/motherd").join(FULL_LOG),
                "size=80M,nr_inodes=200,mode=755",
            )?,
        ];
        let previous = folder.join("motherd.prev");
        write_program(&previous, &fs::read(&programs.motherd)?)?;
        let words = ["--previous", &previous.display().to_string()].map(str::to_owned);
        scratch.start_as(&programs.initldr, &programs.motherd, &words.each_ref().map(String::as_str))?;
        let places = Places {
            socket: scratch.path("run/motherd/motherd.sock"),
            cgroup: scratch.cgroup().to_owned(),
            logs: scratch.path("var/log/motherd"),
            said: Some(scratch.path("log")),
        };
        let text = |path: &Path| path.display().to_string();
        let mut second = vec![text(&programs.initldr), "--motherd".to_owned(), text(&programs.motherd)];
        second.extend(["--".to_owned(), "--root".to_owned(), text(&scratch.path(""))]);
        second.extend(["--cgroup".to_owned(), text(scratch.cgroup())]);
        let init = scratch.init()?.as_raw();
        Ok(Self::over(places, init, vec![programs.motherd.clone(), previous], load, second, mounts))
    }

    /// The system that this program runs in, which was made for it: see [`Place::guest`].
    pub fn in_guest(scale: Scale) -> Result<Self> {
        let places = Places {
            socket: "/run/motherd/motherd.sock".into(),
            cgroup: "/sys/fs/cgroup".into(),
            logs: "/var/log/motherd".into(),
            said: None,
        };
        let motherds = ["/usr/sbin/motherd", "/usr/sbin/motherd.prev"].map(PathBuf::from).to_vec();
        let second = ["/usr/sbin/initldr", "--motherd", "/usr/sbin/motherd"].map(str::to_owned).to_vec();
        let load = Load::new(Place::guest(), scale);
        Ok(Self::over(places, 1, motherds, load, second, Vec::new()))
    }

    fn over(
        places: Places,
        init: i32,
        motherds: Vec<PathBuf>,
        load: Load,
        second: Vec<String>,
        mounts: Vec<SmallFs>,
    ) -> Self {
        let seed = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { places, init, motherds, load, second, quiets: 0, seed, _mounts: mounts }
    }

    /// A number below this one.
    pub fn random(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below
    }

    /// Looks again and again until there is an answer.
    pub fn eventually<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(found) = check() {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
            thread::sleep(LOOK);
        }
    }

    /// The motherd there is.
    pub fn motherd(&self) -> Result<i32> {
        self.eventually("there is a motherd", || motherd_of(self.init, &self.motherds))
    }

    /// Waits until everything is up that is to be.
    pub fn settled(&self) -> Result<()> {
        let wanted = self.load.names(|kind| !matches!(kind, Kind::Once));
        let mut missing = Vec::new();
        let up = self.eventually("all services are up", || {
            let pids = audit::main_pids(&self.places).ok()?;
            missing = wanted.iter().filter(|name| !pids.contains_key(**name)).collect();
            missing.is_empty().then_some(())
        });
        up.with_context(|| format!("missing: {missing:?}"))?;
        // Running is from the execve on; they answer a little later.
        for (name, ask) in self.load.asks_anew() {
            self.eventually(&format!("{name} answers"), || ask(0).is_ok_and(|right| right).then_some(()))?;
        }
        Ok(())
    }

    /// Kills motherd with a signal, and waits for the next one to answer: how long that took.
    pub fn kill_and_wait(&self, signal: Signal) -> Result<Duration> {
        let pid = self.motherd()?;
        let killed = Instant::now();
        end(pid, signal)?;
        self.answers_after(pid).with_context(|| format!("after {signal}"))?;
        Ok(killed.elapsed())
    }

    /// Waits until a motherd other than this one answers.
    pub fn answers_after(&self, pid: i32) -> Result<()> {
        self.eventually("another motherd answers", || {
            let other = motherd_of(self.init, &self.motherds).filter(|other| *other != pid);
            other.and_then(|_| audit::main_pids(&self.places).ok()).map(drop)
        })
    }

    /// Has nobody crash or log by itself, and compares the accounts.
    pub fn audit(&mut self, report: &mut Report, baseline: &Baseline) -> Result<()> {
        // Whatever the last one died of, this one is not in safe mode: SIGKILL after such a life is no early death.
        thread::sleep(Duration::from_millis(300));
        self.kill_and_wait(Signal::SIGKILL)?;
        let quiet = self.load.folder.join("quiet");
        fs::write(&quiet, "")?;
        self.quiets += 1;
        let churn: Vec<&str> = self.load.names(|kind| kind == Kind::Churn);
        self.eventually("churning services are up", || {
            call(&self.places.socket, "Start", json!({ "services": churn })).ok()
        })?;
        self.settled()?;
        // What still crashes when it falls quiet has until here to come back.
        thread::sleep(Duration::from_millis(500));
        self.settled()?;
        let counts = &mut report.counts;
        report.crashes = audit::exits(counts, &self.load, &self.places)?;
        let mut missing = String::new();
        let read = self.eventually("all output is read", || {
            let mut tried = Counts::default();
            let lines = audit::logs(&mut tried, &self.load, &self.places, self.quiets);
            lines.map_err(|error| missing = format!("{error:#}")).ok().map(|lines| (lines, tried))
        });
        match read {
            Ok((lines, tried)) => {
                report.lines = lines;
                counts.lines_lost += tried.lines_lost;
                counts.details.extend(tried.details);
            }
            Err(error) => counts.add(|counts| &mut counts.lines_lost, 1, || format!("{error:#}; {missing}")),
        }
        let after = audit::see(&self.load, &self.places)?;
        audit::compare(counts, &baseline.seen, &after);
        audit::cgroups(counts, &self.places)?;
        let after = self.descriptors()?;
        for (who, (found, before)) in
            ["initldr", "motherd"].into_iter().zip(after.iter().zip(&baseline.descriptors))
        {
            counts.add(
                |counts| &mut counts.leaked_fds,
                found.count().saturating_sub(before.count()),
                || {
                    format!(
                        "{who}: {} descriptors, {} at the beginning: {}",
                        found.count(),
                        before.count(),
                        found.since(before)
                    )
                },
            );
        }
        fs::remove_file(&quiet)?;
        Ok(())
    }

    /// Of initldr, and of a motherd that has just adopted everything: it opens some things as late as it needs them, and what
    /// would leak from one to the next is in initldr's store, and shows in both. Where something is mounted on this host meanwhile,
    /// by others, a motherd lets go of what it had ready for launches, and makes it again later: then it is the next one's.
    fn descriptors(&self) -> Result<[Descriptors; 2]> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mounts = MountWatch::new()?;
            self.kill_and_wait(Signal::SIGKILL)?;
            self.settled()?;
            let found = self.resting_descriptors()?;
            if !mounts.changed() {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "something is mounted all the time");
        }
    }

    /// When they have been the same for half a second: what a motherd has ready for launches it makes when there is nothing else
    /// to do, and the connection of a client that was just answered may not be closed yet.
    fn resting_descriptors(&self) -> Result<[Descriptors; 2]> {
        let motherd = self.motherd()?;
        let mut last = (<[Descriptors; 2]>::default(), Instant::now());
        self.eventually("the descriptors stay as they are", || {
            let now = [Descriptors::of(self.init).ok()?, Descriptors::of(motherd).ok()?];
            if now != last.0 {
                last = (now.clone(), Instant::now());
            }
            (last.1.elapsed() > Duration::from_millis(500)).then_some(now)
        })
    }

    /// How things are before anything is killed at random: after one kill, so that what an adoption opens is counted.
    pub fn baseline(&mut self) -> Result<Baseline> {
        self.settled()?;
        let quiet = self.load.folder.join("quiet");
        fs::write(&quiet, "")?;
        self.quiets += 1;
        thread::sleep(Duration::from_millis(700));
        self.settled()?;
        // Whoever has not noticed by now would be waited for in vain later: each quiet has its line in the ledgers.
        self.eventually("all loggers fall quiet", || {
            audit::logs(&mut Counts::default(), &self.load, &self.places, self.quiets).ok()
        })?;
        let seen = audit::see(&self.load, &self.places)?;
        ensure!(seen.len() == self.load.names(Kind::stays).len(), "some services are not seen");
        let descriptors = self.descriptors()?;
        fs::remove_file(&quiet)?;
        Ok(Baseline { seen, descriptors })
    }

    /// `count` kills at random instants. Every other one is left to recover, which is timed; the ones between come at any
    /// instant of the recovery.
    pub fn kill_at_random(&mut self, report: &mut Report, count: usize, signals: &[Signal]) -> Result<()> {
        for number in 0..count {
            let signal = signals[number % signals.len()];
            if number % 2 == 0 {
                // Long enough to count as a life.
                thread::sleep(Duration::from_millis(250 + self.random(200)));
                report.recoveries.push(self.kill_and_wait(signal)?);
            } else {
                thread::sleep(Duration::from_micros(self.random(250_000)));
                let pid = self.motherd()?;
                let killed = Instant::now();
                end(pid, signal)?;
                thread::sleep(Duration::from_micros(self.random(30_000)));
                if let Some(next) = motherd_of(self.init, &self.motherds).filter(|next| *next != pid) {
                    end(next, signal)?;
                    report.kills += 1;
                    self.answers_after(next)?;
                } else {
                    self.answers_after(pid)?;
                    report.recoveries.push(killed.elapsed());
                }
            }
            report.kills += 1;
            // In a guest an hour may pass.
            if number % 100 == 99 {
                println!("{} of {count}", number + 1);
            }
        }
        Ok(())
    }

    /// Has motherd end at a named point, by doing everything that could lead there.
    pub fn end_at(&mut self, point: &str, action: &str) -> Result<Duration> {
        // Long enough for the last one's death to be no early one.
        thread::sleep(Duration::from_millis(250));
        let armed = self.places.socket.with_file_name("failpoint");
        fs::write(&armed, format!("{point}={action}"))?;
        let deadline = Instant::now() + Duration::from_secs(30);
        let adopting = point.starts_with("adopt.") || point.starts_with("replay.");
        let mut refused = String::new();
        let named = |kind: Kind| -> Vec<String> {
            self.load.names(|other| other == kind).into_iter().map(str::to_owned).collect()
        };
        let (churning, once) = (named(Kind::Churn), named(Kind::Once));
        // Where there are few services there are two of a kind.
        let kinds = churning.len().clamp(1, 3);
        let all = [churning, once].concat();
        for round in 0.. {
            if !armed.exists() {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{point} is not reached by anything that was tried; {refused}"
            );
            let number = round % kinds;
            if adopting {
                // A service that ends while there is no motherd is what an adoption can have to deal with.
                let pids = audit::main_pids(&self.places)?;
                let service = pids.get(&format!("churn-{number}")).and_then(|pid| i32::try_from(*pid).ok());
                let pid = self.motherd()?;
                kill(Pid::from_raw(pid), Signal::SIGKILL)?;
                service.map_or(Ok(()), |service| kill(Pid::from_raw(service), Signal::SIGKILL))?;
                self.answers_after(pid)?;
                continue;
            }
            if point.starts_with("upgrade.") {
                // Of what is installed already: nothing is written anywhere.
                let initldr = point == "upgrade.asked" || round % 3 == 2;
                if let Err(error) = call(&self.places.socket, "Upgrade", json!({ "initldr": initldr })) {
                    refused = format!("{error:#}");
                }
                continue;
            }
            if point.starts_with("transient.") {
                let name = format!("passing-{}-{round}", point.rsplit('.').next().unwrap_or_default());
                // What it did is over with its process, and so is it.
                let once = self.load.file(&name, Kind::Once);
                let definition = once.replace("type = \"oneshot\"", "type = \"exec\"");
                let run = json!({ "service": name, "definition": definition });
                if let Err(error) = call(&self.places.socket, "Run", run) {
                    refused = format!("{error:#}");
                }
                continue;
            }
            let (ready, churn, once) =
                (format!("ready-{number}"), format!("churn-{number}"), format!("once-{number}"));
            let requests = [
                ("Reload", vec![ready]),
                ("Restart", vec![churn.clone()]),
                ("Restart", vec![once.clone()]),
                ("Stop", vec![churn.clone(), once.clone()]),
                ("Start", vec![churn, once]),
                // More turns than a slice takes.
                ("Stop", all.clone()),
                ("Start", all.clone()),
            ];
            for (method, services) in requests {
                if armed.exists() {
                    // It is broken off where the point is reached.
                    let answer = call(&self.places.socket, method, json!({ "services": services }));
                    if let Err(error) = answer {
                        refused = format!("{error:#}");
                    }
                }
            }
        }
        let fired = Instant::now();
        self.eventually("a motherd answers", || audit::main_pids(&self.places).ok())
            .with_context(|| format!("after {point}"))?;
        Ok(fired.elapsed())
    }
}

/// Sends a signal until the process is no more: Rust's runtime takes the first SIGSEGV for a fault that will come again,
/// and goes on.
pub fn end(pid: i32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid), signal)?;
    for _ in 0..1000 {
        thread::sleep(Duration::from_millis(1));
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
    bail!("{signal} does not end process {pid}")
}

/// See [`Pair::baseline`].
#[derive(Debug)]
pub struct Baseline {
    seen: BTreeMap<String, Seen>,
    /// Of initldr and motherd.
    descriptors: [Descriptors; 2],
}

/// Requests to motherd that never end: starts, stops, restarts, reloads.
#[derive(Debug)]
pub struct Churn {
    end: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Churn {
    /// Begins.
    #[must_use]
    pub fn start(pair: &Pair) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let owned =
            |kind| pair.load.names(|found| found == kind).into_iter().map(str::to_owned).collect::<Vec<_>>();
        let (churn, once, ready) = (owned(Kind::Churn), owned(Kind::Once), owned(Kind::Ready));
        let (socket, ended) = (pair.places.socket.clone(), end.clone());
        let thread = thread::spawn(move || {
            let (mut done, mut broken) = (0, 0);
            for round in 0.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let pick = |names: &[String]| names[round % names.len()].clone();
                let (method, name) = match round % 5 {
                    0 => ("Restart", pick(&churn)),
                    1 => ("Stop", pick(&churn)),
                    2 => ("Start", pick(&churn)),
                    3 => ("Restart", pick(&once)),
                    _ => ("Reload", pick(&ready)),
                };
                match call(&socket, method, json!({ "services": [name] })) {
                    Ok(_) => done += 1,
                    Err(_) => broken += 1,
                }
                thread::sleep(Duration::from_millis(10));
            }
            (done, broken)
        });
        Self { end, thread }
    }

    /// Ends it: how many were answered, and how many were broken off or refused.
    pub fn stop(self) -> Result<(u64, u64)> {
        self.end.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(counts) => Ok(counts),
            Err(_) => bail!("the churning thread panicked"),
        }
    }
}

/// Where a guest has the names of the points, a line each: it has no source.
pub const POINTS: &str = "/usr/lib/e2e/points";

/// Every named point in motherd's source.
pub fn points() -> Result<Vec<String>> {
    if let Ok(text) = fs::read_to_string(POINTS) {
        return Ok(text.lines().map(str::to_owned).collect());
    }
    let mut found = Vec::new();
    let mut left = vec![crate::workspace().join("motherd/src")];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else {
                let text = fs::read_to_string(&path)?;
                let names = text.split("failpoint::hit(\"").skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }
    found.sort();
    found.dedup();
    ensure!(found.len() > 20, "only {found:?}");
    Ok(found)
}
