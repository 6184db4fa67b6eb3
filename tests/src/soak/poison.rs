//! The state of motherd, damaged under it: what initldr keeps of it is written to while motherd is stopped, and the next
//! one has to make do with that.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use motherd::{
    state::{Record, Table},
    supervise::{Main, State},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::{
    audit,
    client::call,
    load::Kind,
    run::{Pair, Report, end},
};

/// Where the fields of the header are, twice.
const FIELDS: [std::ops::Range<usize>; 2] = [0..24, 64..88];
/// How many bytes from one on are damaged: in a service that is the same process all the time any, of which the last is all
/// that it has; in others one, which loses nothing that the last two copies of it do not both have.
const WIDTHS: [usize; 7] = [1, 1, 2, 8, 64, 244, usize::MAX];

/// The state of the pair.
struct Memory(File);

impl Memory {
    fn of(init: i32) -> Result<Self> {
        for entry in fs::read_dir(format!("/proc/{init}/fd"))? {
            let path = entry?.path();
            if fs::read_link(&path).is_ok_and(|link| link.to_string_lossy().contains("memfd:motherd-state")) {
                return Ok(Self(File::options().read(true).write(true).open(path)?));
            }
        }
        bail!("initldr has no state")
    }

    fn flip(&self, range: std::ops::Range<usize>) -> Result<()> {
        let mut bytes = vec![0; range.len()];
        self.0.read_exact_at(&mut bytes, range.start as u64)?;
        bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
        Ok(self.0.write_all_at(&bytes, range.start as u64)?)
    }

    /// Which bytes are whose: the record, and what it may have behind all records.
    fn places(&self) -> Result<Vec<(String, [std::ops::Range<usize>; 3])>> {
        let (table, _found, records) = Table::map(&self.0)?;
        let place = |name: String| table.ranges(&name).map(|ranges| (name, ranges));
        Ok(records.into_iter().filter_map(|record| place(record.name)).collect())
    }
}

impl Pair {
    /// `times` rounds: in each, some of every record and a byte of the header is damaged, in another place each time.
    pub(super) fn poison(&mut self, report: &mut Report, times: usize) -> Result<()> {
        let stays: Vec<String> = self.load.names(Kind::stays).into_iter().map(str::to_owned).collect();
        let before = audit::see(&self.load, &self.places)?;
        let mut flipped: Vec<u64> = Vec::new();
        let (mut ranges, mut header, mut spared) = (0_u64, 0_u64, 0_u64);
        for round in 0..times {
            thread::sleep(Duration::from_millis(250));
            let motherd = self.stopped()?;
            let memory = Memory::of(self.init)?;
            let places = memory.places()?;
            ensure!(places.len() >= stays.len(), "records of {} services only", places.len());
            let mut single = Vec::new();
            for (index, (name, [record, tails @ ..])) in places.iter().enumerate() {
                flipped.resize(record.len(), 0);
                let width = if stays.contains(name) { WIDTHS[(round + index) % WIDTHS.len()] } else { 1 };
                // From round to round and from record to record another one: 997 is prime.
                let from = if width > record.len() { 0 } else { (round * 997 + index * 61) % record.len() };
                let to = from.saturating_add(width).min(record.len());
                memory.flip(record.start + from..record.start + to)?;
                if !stays.contains(name) {
                    single.push((name, record.start + from..record.start + to));
                }
                flipped[from..to].iter_mut().for_each(|times| *times += 1);
                ranges += 1;
                if width > record.len() {
                    tails.iter().try_for_each(|tail| memory.flip(tail.clone()))?;
                }
            }
            // Where motherd was stopped in the middle of writing one of its two copies, that byte was of the only one.
            let (_table, _found, left) = Table::map(&memory.0)?;
            for (_, byte) in
                single.into_iter().filter(|(name, _)| !left.iter().any(|record| record.name == **name))
            {
                memory.flip(byte)?;
                spared += 1;
            }
            let field = FIELDS[round % 2].clone();
            let at = field.start + round / 2 % field.len();
            memory.flip(at..at + 1)?;
            header += 1;
            end(motherd, Signal::SIGKILL)?;
            let killed = Instant::now();
            self.answers_after(motherd)?;
            report.recoveries.push(killed.elapsed());
            report.kills += 1;
            audit::compare(&mut report.counts, &before, &audit::see(&self.load, &self.places)?);
            ensure!(
                report.counts.total() == 0,
                "round {round}: {}\n{}",
                report.counts.line(),
                report.counts.details.join("\n")
            );
        }
        let least = flipped.iter().min().copied().unwrap_or_default();
        report.notes.push(format!(
            "{ranges} ranges of records damaged, each of their {} bytes at least {least} times, and {header} \
             bytes of the header; {spared} were mended, since motherd was writing the other copy",
            flipped.len()
        ));
        self.forged(report)?;
        self.unbearable(report)
    }

    /// The motherd there is, stopped.
    fn stopped(&self) -> Result<i32> {
        let motherd = self.motherd()?;
        kill(Pid::from_raw(motherd), Signal::SIGSTOP)?;
        self.eventually("motherd is stopped", || {
            let stat = fs::read_to_string(format!("/proc/{motherd}/stat")).ok()?;
            stat.rsplit_once(')')?.1.trim_start().starts_with('T').then_some(motherd)
        })
    }

    /// Records with right checksums that are wrong: that name a process of somebody else's, or say that nothing runs.
    fn forged(&mut self, report: &mut Report) -> Result<()> {
        let names: Vec<String> =
            self.load.names(|kind| kind == Kind::Ready).into_iter().map(str::to_owned).collect();
        let bystander = std::process::Command::new("/bin/sleep").arg("1000000").spawn()?;
        let mut bystander = Bystander(bystander);
        let stranger = bystander.0.id();
        let stat = fs::read_to_string(format!("/proc/{stranger}/stat"))?;
        let ticks = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
        let ticks: u64 = ticks.context("start time")?.parse()?;
        let before = audit::see(&self.load, &self.places)?;
        let mut forged = 0;
        for what in 0..5 {
            thread::sleep(Duration::from_millis(300));
            let motherd = self.stopped()?;
            let memory = Memory::of(self.init)?;
            let (mut table, _found, records) = Table::map(&memory.0)?;
            for mut record in records.into_iter().filter(|record| names.contains(&record.name)) {
                forge(&mut record, what, stranger, ticks);
                ensure!(table.write(&record), "there is room for what was there");
                forged += 1;
            }
            drop(table);
            end(motherd, Signal::SIGKILL)?;
            report.kills += 1;
            self.answers_after(motherd)?;
            audit::compare(&mut report.counts, &before, &audit::see(&self.load, &self.places)?);
            // Whatever is asked for then is done to the service.
            if let Err(error) = call(&self.places.socket, "Start", json!({ "services": names })) {
                report.notes.push(format!("forged {what}: {error:#}"));
            }
            audit::compare(&mut report.counts, &before, &audit::see(&self.load, &self.places)?);
            ensure!(
                bystander.0.try_wait()?.is_none(),
                "forged {what}: the process of somebody else has ended"
            );
        }
        report.notes.push(format!(
            "{forged} records forged to name somebody else's process or cgroup, or to say that nothing runs: it lives"
        ));
        Ok(())
    }

    /// A state that motherd cannot bear: it ends wherever it restores the first record, until it is told to trust none.
    fn unbearable(&mut self, report: &mut Report) -> Result<()> {
        thread::sleep(Duration::from_millis(300));
        let before = audit::see(&self.load, &self.places)?;
        let armed = self.places.socket.with_file_name("failpoint");
        let manager =
            || call(&self.places.socket, "Manager", json!({})).map(|answer| answer["manager"].clone());
        let rearming = Rearming::start(&armed);
        end(self.motherd()?, Signal::SIGSEGV)?;
        self.eventually("a motherd is told to trust no record", || {
            match manager().ok()?["mode"].as_str() {
                Some("safe") => Some(Ok(())),
                // It was there before its fault was.
                _ => self.motherd().and_then(|pid| end(pid, Signal::SIGSEGV)).err().map(Err),
            }
        })??;
        let deaths = rearming.stop()?;
        ensure!(deaths > 0, "no motherd came to the record");
        let events = call(&self.places.socket, "Events", json!({}))?.to_string();
        ensure!(events.contains(", in safe mode: "), "no event says that it is in safe mode");
        audit::compare(&mut report.counts, &before, &audit::see(&self.load, &self.places)?);
        thread::sleep(Duration::from_millis(300));
        self.kill_and_wait(Signal::SIGKILL)?;
        ensure!(manager()?["mode"] == "normal", "{}", manager()?);
        audit::compare(&mut report.counts, &before, &audit::see(&self.load, &self.places)?);
        report.kills += deaths + 2;
        report.notes.push(format!(
            "{deaths} motherds in a row could not bear the state: --safe was reached and said, and left again"
        ));
        Ok(())
    }
}

/// A lie about a service that runs.
fn forge(record: &mut Record, what: usize, stranger: u32, ticks: u64) {
    let Some(main) = record.unit.main() else { return };
    let other = Main { pid: stranger, ..main };
    match what {
        0 => (record.unit.state, record.start_ticks) = (State::Running { main: other }, ticks),
        1 => record.start_ticks += 1,
        2 => record.cgroup_id += 1,
        3 => record.unit.state = State::Stopped,
        _ => record.unit.state = State::Backoff { until: Duration::ZERO },
    }
}

/// The point at which motherd ends is armed again as soon as it has fired.
struct Rearming {
    end: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<usize>>,
}

impl Rearming {
    fn start(armed: &Path) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (armed, ended) = (armed.to_owned(), end.clone());
        let thread = thread::spawn(move || {
            let mut fired = 0;
            fs::write(&armed, "adopt.restored=segv")?;
            while !ended.load(Ordering::Relaxed) {
                if !armed.exists() {
                    fs::write(&armed, "adopt.restored=segv")?;
                    fired += 1;
                }
                thread::sleep(Duration::from_millis(1));
            }
            fs::remove_file(&armed)?;
            Ok(fired)
        });
        Self { end, thread }
    }

    /// How often it fired.
    fn stop(self) -> Result<usize> {
        self.end.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(fired) => Ok(fired?),
            Err(_) => bail!("the arming thread panicked"),
        }
    }
}

/// A process that nothing here is about.
struct Bystander(std::process::Child);

impl Drop for Bystander {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
