//! The ways in which motherd is troubled while everything runs, each by itself.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    audit,
    client::{call, call_within},
    load::Kind,
    run::{Pair, Report, end, points},
};

/// One way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// SIGKILL at each named point.
    Points,
    /// SIGKILL at random instants.
    Kill,
    /// SIGSEGV and its like; and the ladder: safe mode, the previous program, both.
    Fault,
    /// SIGSTOP: shorter than a hang, and hangs.
    Hang,
    /// No memory in motherd's cgroup.
    Memory,
    /// A full /run.
    Run,
    /// A full disk under a log.
    Disk,
    /// Pids that come again after some hundred.
    Pids,
    /// A service that ends while motherd does.
    Window,
    /// A storm of orphans while motherd is away.
    Orphans,
    /// Upgrades of motherd and initldr in a loop, and kills in the middle of them.
    Upgrade,
    /// A second pair with the same paths.
    Fence,
    /// A state that is damaged.
    Poison,
}

impl Mode {
    /// In the order in which they are run.
    pub const ALL: [Self; 13] = [
        Self::Points,
        Self::Kill,
        Self::Fault,
        Self::Hang,
        Self::Memory,
        Self::Run,
        Self::Disk,
        Self::Pids,
        Self::Window,
        Self::Orphans,
        Self::Upgrade,
        Self::Fence,
        Self::Poison,
    ];

    /// On the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Kill => "kill",
            Self::Fault => "fault",
            Self::Hang => "hang",
            Self::Memory => "memory",
            Self::Run => "run",
            Self::Disk => "disk",
            Self::Pids => "pids",
            Self::Window => "window",
            Self::Orphans => "orphans",
            Self::Upgrade => "upgrade",
            Self::Fence => "fence",
            Self::Poison => "poison",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|mode| mode.name() == name)
            .with_context(|| format!("no mode {name}: {}", known()))
    }

    /// Whether it needs a machine of its own: a memory controller, a limit on all pids.
    #[must_use]
    pub fn needs_a_machine(self) -> bool {
        matches!(self, Self::Memory | Self::Pids)
    }

    /// How often, where nothing else is said.
    #[must_use]
    pub fn times(self) -> usize {
        match self {
            Self::Points => 1,
            Self::Kill => 1000,
            Self::Fault | Self::Upgrade => 100,
            Self::Hang => 100,
            Self::Memory => 10,
            Self::Run | Self::Disk | Self::Pids => 50,
            Self::Window | Self::Poison => 200,
            Self::Orphans => 10_000,
            Self::Fence => 20,
        }
    }

    /// Whether requests without end belong to it. Where the harness itself ends services, nobody else is to.
    #[must_use]
    pub fn churns(self) -> bool {
        !matches!(self, Self::Points | Self::Window | Self::Memory | Self::Poison)
    }
}

impl Pair {
    /// Troubles motherd so often, in one way.
    pub fn trouble(&mut self, report: &mut Report, mode: Mode, times: usize) -> Result<()> {
        match mode {
            Mode::Points => self.every_point(report),
            Mode::Kill => self.kill_at_random(report, times, &[Signal::SIGKILL]),
            Mode::Fault => self.faults(report, times).and_then(|()| self.ladder(report)),
            Mode::Hang => self.hangs(report, times),
            Mode::Memory => self.no_memory(report, times),
            Mode::Run => self.full(report, times, &self.run_folder()),
            Mode::Disk => {
                let folder = self.places.logs.join(FULL_LOG);
                self.full(report, times, &folder)?;
                self.told_of_loss(report, &folder)
            }
            Mode::Pids => self.few_pids(report, times),
            Mode::Window => self.window(report, times),
            Mode::Orphans => self.orphans(report, times),
            Mode::Upgrade => self.upgrades(report, times),
            Mode::Fence => self.fence(report, times),
            Mode::Poison => self.poison(report, times),
        }
        .with_context(|| format!("while motherd is troubled by {}", mode.name()))
    }

    fn run_folder(&self) -> PathBuf {
        self.places.socket.parent().map(Path::to_owned).unwrap_or_default()
    }

    fn manager(&self) -> Result<Value> {
        Ok(call(&self.places.socket, "Manager", json!({}))?["manager"].clone())
    }

    fn every_point(&mut self, report: &mut Report) -> Result<()> {
        let mut all = points()?;
        all.retain(|point| !point.starts_with("boot."));
        for point in &all {
            report.recoveries.push(self.end_at(point, "kill").with_context(|| point.clone())?);
            report.kills += 1;
        }
        report.notes.push(format!("killed at each of {} points", all.len()));
        Ok(())
    }

    /// Faults of its own, each followed by a kill after a life, so that they do not add up to a ladder.
    fn faults(&mut self, report: &mut Report, times: usize) -> Result<()> {
        let signals = [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGABRT,
            Signal::SIGTRAP,
            Signal::SIGSYS,
        ];
        for number in 0..times {
            thread::sleep(Duration::from_millis(self.random(200)));
            report.recoveries.push(self.kill_and_wait(signals[number % signals.len()])?);
            thread::sleep(Duration::from_millis(250 + self.random(100)));
            report.recoveries.push(self.kill_and_wait(Signal::SIGKILL)?);
            report.kills += 2;
        }
        Ok(())
    }

    /// Fault after fault, until there is no further rung; and back.
    fn ladder(&mut self, report: &mut Report) -> Result<()> {
        thread::sleep(Duration::from_millis(300));
        let mut rungs: Vec<String> = Vec::new();
        for _ in 0..20 {
            let pid = self.motherd()?;
            let mode = self.eventually("motherd says how it was launched", || self.manager().ok())?;
            let mode = mode["mode"].as_str().unwrap_or_default().to_owned();
            if rungs.last() != Some(&mode) {
                rungs.push(mode.clone());
            }
            if mode == "previous_safe" {
                break;
            }
            end(pid, Signal::SIGSEGV)?;
            report.kills += 1;
            self.answers_after(pid)?;
        }
        ensure!(rungs == ["normal", "safe", "previous", "previous_safe"], "the rungs: {rungs:?}");
        // It lives a while, in which services crash and are not tried again.
        thread::sleep(Duration::from_secs(1));
        let events = call(&self.places.socket, "Events", json!({}))?.to_string();
        for words in
            [", in safe mode: ", ", the previous program: ", ", the previous program, in safe mode: "]
        {
            ensure!(events.contains(words), "no event says `{words}`");
        }
        report.recoveries.push(self.kill_and_wait(Signal::SIGKILL)?);
        report.kills += 1;
        ensure!(self.manager()?["mode"] == "normal", "{}", self.manager()?);
        report.notes.push(format!("the ladder: {}, and back", rungs.join(", ")));
        Ok(())
    }

    /// Stops that are no hang yet; and one hang in fifty, which initldr finds out.
    fn hangs(&mut self, report: &mut Report, times: usize) -> Result<()> {
        for number in 1..=times {
            thread::sleep(Duration::from_millis(self.random(100)));
            let pid = self.motherd()?;
            kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
            if number % 50 == 0 {
                let stopped = Instant::now();
                self.answers_after(pid)?;
                report.hangs.push(stopped.elapsed());
                let why = self.manager()?["why"].clone();
                ensure!(why == "said nothing for too long", "{why}");
            } else {
                thread::sleep(Duration::from_millis(self.random(300)));
                kill(Pid::from_raw(pid), Signal::SIGCONT)?;
            }
            report.kills += 1;
        }
        self.eventually("motherd answers", || self.manager().ok())?;
        Ok(())
    }

    /// motherd's own cgroup has no memory for it for a second, again and again.
    fn no_memory(&mut self, report: &mut Report, times: usize) -> Result<()> {
        let scope = self.places.cgroup.join("motherd.scope");
        let killed = || -> Result<u64> {
            let events = fs::read_to_string(scope.join("memory.events"))?;
            let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
            Ok(count.context("oom_kill")?.parse()?)
        };
        let before = killed().context("is there a memory controller?")?;
        for _ in 0..times {
            fs::write(scope.join("memory.max"), "600K")?;
            let end = Instant::now() + Duration::from_secs(1);
            while Instant::now() < end {
                // What it would have to answer takes memory; whether it does is not asked here.
                let patience = Duration::from_millis(100);
                drop(call_within(&self.places.socket, "Manager", json!({}), patience));
                thread::sleep(Duration::from_millis(20));
            }
            fs::write(scope.join("memory.max"), "max")?;
            let lifted = Instant::now();
            self.eventually("motherd answers", || self.manager().ok())?;
            report.recoveries.push(lifted.elapsed());
            thread::sleep(Duration::from_millis(300));
        }
        let kills = killed()? - before;
        ensure!(kills >= times as u64, "{kills} kills for want of memory in {times} rounds");
        report.kills += usize::try_from(kills)?;
        report.notes.push(format!("killed {kills} times for want of memory in {times} seconds of it"));
        Ok(())
    }

    /// Kills while a file system has neither a block nor an inode left.
    fn full(&mut self, report: &mut Report, times: usize, folder: &Path) -> Result<()> {
        let filling = Filling::new(folder)?;
        let result = self.kill_at_random(report, times, &[Signal::SIGKILL]);
        // What was removed meanwhile left an inode or two; of blocks there are none.
        let more = filling.0.join("one more");
        let written = File::create(&more).and_then(|mut file| file.write_all(&[0; 64 << 10]));
        ensure!(written.is_err(), "{} was not full at the end", folder.display());
        drop(filling);
        result
    }

    /// What no disk took is told of in the log, once there is room; the audit holds it against what is missing.
    fn told_of_loss(&mut self, report: &mut Report, folder: &Path) -> Result<()> {
        let told = self.eventually("what was lost is told of", || {
            let told = audit::told_lost(folder).ok()?;
            (told > 0).then_some(told)
        })?;
        report.notes.push(format!("{told} bytes were lost for want of room, and told of in the log"));
        Ok(())
    }

    /// Kills while pids come again after some hundred.
    fn few_pids(&mut self, report: &mut Report, times: usize) -> Result<()> {
        let limit = "/proc/sys/kernel/pid_max";
        let before = fs::read_to_string(limit)?;
        let used = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_string_lossy().parse::<u32>().ok())
            .count();
        // After the first time the kernel gives none below 300 (RESERVED_PIDS in kernel/pid.c), and threads have theirs too.
        fs::write(limit, (300 + used + 300).to_string())?;
        let result = self.kill_while_forking(report, times);
        fs::write(limit, before)?;
        let wraps = result?;
        ensure!(wraps >= 3, "pids came again {wraps} times only");
        report.notes.push(format!("pids began anew {wraps} times"));
        Ok(())
    }

    /// How often the pids began anew meanwhile.
    fn kill_while_forking(&mut self, report: &mut Report, times: usize) -> Result<u64> {
        use std::sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        };
        let ended = Arc::new(AtomicBool::new(false));
        let (end, mut last, mut wraps) = (ended.clone(), 0, 0);
        let forks = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                // No pid is free for a moment, perhaps; and the shell makes ten more.
                let script = "i=0; while [ $i -lt 10 ]; do (:); i=$((i+1)); done";
                if let Ok(mut child) = Command::new("/bin/sh").args(["-c", script]).spawn() {
                    wraps += u64::from(child.id() < last);
                    last = child.id();
                    drop(child.wait());
                }
            }
            wraps
        });
        let result = self.kill_at_random(report, times, &[Signal::SIGKILL]);
        ended.store(true, Ordering::Relaxed);
        let Ok(wraps) = forks.join() else { bail!("the forking thread panicked") };
        result.map(|()| wraps)
    }

    /// A service ends in the very window in which motherd does.
    fn window(&mut self, report: &mut Report, times: usize) -> Result<()> {
        let names: Vec<String> =
            self.load.names(|kind| kind == Kind::Churn).into_iter().map(str::to_owned).collect();
        self.eventually("they run", || {
            call(&self.places.socket, "Start", json!({ "services": names })).ok()
        })?;
        for number in 0..times {
            let name = &names[number % names.len()];
            let pid = *audit::main_pids(&self.places)?.get(name).context("it runs")?;
            let process = Pid::from_raw(i32::try_from(pid)?);
            let starts = audit::ledger(&self.load, name)?.starts();
            thread::sleep(Duration::from_millis(210));
            let motherd = self.motherd()?;
            let signal = |pid: Pid, signal| kill(pid, signal).map_err(anyhow::Error::from);
            let manager = Pid::from_raw(motherd);
            let killed = Instant::now();
            let mut expected = ("killed", 9);
            match number % 4 {
                0 => {
                    signal(manager, Signal::SIGSTOP)?;
                    signal(process, Signal::SIGKILL)?;
                    thread::sleep(Duration::from_micros(self.random(20_000)));
                    end(motherd, Signal::SIGKILL)?;
                }
                1 => {
                    signal(manager, Signal::SIGSTOP)?;
                    signal(manager, Signal::SIGKILL)?;
                    signal(process, Signal::SIGKILL)?;
                }
                2 => {
                    expected = ("exited", 0);
                    signal(manager, Signal::SIGSTOP)?;
                    signal(process, Signal::SIGTERM)?;
                    thread::sleep(Duration::from_micros(self.random(20_000)));
                    end(motherd, Signal::SIGKILL)?;
                }
                _ => {
                    signal(process, Signal::SIGKILL)?;
                    thread::sleep(Duration::from_micros(self.random(3_000)));
                    signal(manager, Signal::SIGKILL)?;
                }
            }
            report.kills += 1;
            self.answers_after(motherd)?;
            report.recoveries.push(killed.elapsed());
            let again = self.eventually("it runs again", || {
                let found = *audit::main_pids(&self.places).ok()?.get(name)?;
                (found != pid).then_some(found)
            });
            let since = match again {
                Ok(_) => self
                    .eventually("it has said so", || {
                        let now = audit::ledger(&self.load, name).ok()?.starts();
                        (now > starts).then_some(now - starts)
                    })
                    .unwrap_or(0),
                Err(_) => 0,
            };
            let status = call(&self.places.socket, "Status", json!({ "services": [name] }))?;
            let told = status["services"][0]["last_exit"].clone();
            report.counts.unlike_one(name, since);
            report.counts.exit(name, &told, expected);
        }
        Ok(())
    }

    /// Processes by the thousand end while there is nobody to be told of it.
    fn orphans(&mut self, report: &mut Report, count: usize) -> Result<()> {
        let wanted = self.load.folder.join("storm");
        let away = |pid: i32| kill(Pid::from_raw(pid), Signal::SIGSTOP);
        let mut motherd = self.motherd()?;
        away(motherd)?;
        let asked = self.load.folder.join("storm.new");
        fs::write(&asked, count.to_string())?;
        fs::rename(&asked, &wanted)?;
        let begun = Instant::now();
        while wanted.exists() {
            ensure!(begun.elapsed() < Duration::from_secs(600), "the storm does not end");
            thread::sleep(Duration::from_millis(50));
            // initldr found it out; the next one is kept away as well.
            if let Some(next) = audit::motherd_of(self.init, &self.motherds).filter(|next| *next != motherd) {
                motherd = next;
                away(motherd)?;
            }
        }
        let took = begun.elapsed();
        let killed = Instant::now();
        end(motherd, Signal::SIGKILL)?;
        self.answers_after(motherd)?;
        report.recoveries.push(killed.elapsed());
        report.kills += 1;
        report.notes.push(format!(
            "{count} orphans ended within {:.1} s; the next motherd answered {:.0} ms after the kill",
            took.as_secs_f64(),
            killed.elapsed().as_secs_f64() * 1e3
        ));
        Ok(())
    }

    /// Upgrades to what is installed, of motherd and of initldr in turn, some of them killed on the way.
    fn upgrades(&mut self, report: &mut Report, times: usize) -> Result<()> {
        let (mut done, mut of_initldr, mut broken) = (0, 0, 0);
        for number in 0..times {
            thread::sleep(Duration::from_millis(self.random(150)));
            let before = self.eventually("motherd answers", || self.manager().ok())?["generation"].clone();
            let initldr = number % 3 == 2;
            let killer = (number % 4 == 3).then(|| {
                let (motherd, wait) = (self.motherd(), Duration::from_micros(self.random(60_000)));
                thread::spawn(move || -> Result<()> {
                    thread::sleep(wait);
                    // It may have ended by itself meanwhile.
                    match kill(Pid::from_raw(motherd?), Signal::SIGKILL) {
                        Ok(()) | Err(Errno::ESRCH) => Ok(()),
                        Err(errno) => Err(errno.into()),
                    }
                })
            });
            let asked = call(&self.places.socket, "Upgrade", json!({ "initldr": initldr }));
            let answered = Instant::now();
            match (&asked, &killer) {
                (Err(_), Some(_)) => broken += 1,
                (Ok(_), _) if initldr => of_initldr += 1,
                (Ok(_), _) => done += 1,
                (Err(error), None) => bail!("upgrade {number}: {error:#}"),
            }
            let was_killed = killer.is_some();
            if let Some(killer) = killer {
                killer.join().map_err(|_| anyhow::anyhow!("the killing thread panicked"))??;
                report.kills += 1;
            }
            if initldr && !was_killed {
                ensure!(self.manager()?["generation"] == before, "a succession of initldr ended motherd");
                continue;
            }
            self.eventually("another motherd answers", || {
                let after = self.manager().ok()?["generation"].clone();
                // A kill may have come too late for the one, and too early for the other.
                (after != before || was_killed).then_some(())
            })?;
            report.recoveries.push(answered.elapsed());
        }
        report.notes.push(format!(
            "{done} upgrades of motherd, {of_initldr} of initldr, and {broken} that a kill broke off"
        ));
        Ok(())
    }

    /// A second pair tries to take over while the motherds of the first are killed.
    fn fence(&mut self, report: &mut Report, times: usize) -> Result<()> {
        let said = self.load.folder.join("second");
        let mut second = Second::start(&self.second, &said)?;
        let says = || fs::read_to_string(&said).unwrap_or_default();
        self.eventually("the second motherd is kept out", || {
            says().contains("is managed by another motherd").then_some(())
        })?;
        self.kill_at_random(report, times, &[Signal::SIGKILL])?;
        let said = says();
        let tries = said.matches("is managed by another motherd").count();
        for words in ["adopted", "running as", "orphan", "motherd 0."] {
            ensure!(!said.contains(words), "the second motherd did something: {said}");
        }
        second.stop()?;
        report.notes.push(format!("a second motherd was kept out {tries} times"));
        Ok(())
    }
}

/// The log whose disk is full in [`Mode::Disk`], and only there: it has room for more than the 64 MB that are kept of a log.
pub const FULL_LOG: &str = "slow-0";

/// A file system in memory, of its own size.
#[derive(Debug)]
pub struct SmallFs(PathBuf);

impl SmallFs {
    /// Mounted on a folder, which is made.
    pub fn mount(folder: &Path, options: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(options))
            .with_context(|| format!("mount a tmpfs on {}", folder.display()))?;
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for SmallFs {
    fn drop(&mut self) {
        if let Err(errno) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("umount {}: {errno}", self.0.display());
        }
    }
}

/// A file system without a block or an inode that is free.
struct Filling(PathBuf);

impl Filling {
    fn new(folder: &Path) -> Result<Self> {
        let filling = Self(folder.join("filling"));
        fs::create_dir_all(&filling.0)?;
        let mut file = File::create(filling.0.join("blocks"))?;
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![0; size]).is_err() {
                size /= 2;
            }
            ensure!(file.metadata()?.len() < 1 << 30, "{} does not get full", folder.display());
        }
        for number in 0..1_000_000 {
            if File::create(filling.0.join(number.to_string())).is_err() {
                return Ok(filling);
            }
        }
        bail!("{} has inodes without end", folder.display())
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

/// A second pair.
struct Second(Child);

impl Second {
    fn start(command: &[String], said: &Path) -> Result<Self> {
        let (program, words) = command.split_first().context("no command for a second pair")?;
        let said = File::create(said)?;
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()?;
        Ok(Self(child))
    }

    fn stop(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM)?;
        // Its motherd never learns what to stop: a second request is the end.
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.0.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the second initldr does not end");
            thread::sleep(Duration::from_millis(200));
            kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM)?;
        }
        Ok(())
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        // Where it was stopped it has been waited for, and this does nothing.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
