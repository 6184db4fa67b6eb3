//! The accounts: what the services say happened to them, what motherd says, and what the kernel says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use sandbox::cgroup::Cgroup;
use serde_json::{Value, json};

use super::{
    client::call,
    load::{Kind, Load},
};

/// What must not happen, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services that were to stay and are another process now, or none.
    pub restarted: u64,
    /// Copies that found another one running.
    pub duplicated: u64,
    /// Exits that were not followed by exactly one start, or that motherd calls lost.
    pub exits_lost: u64,
    /// Exits of which motherd tells another status than the service.
    pub exits_wrong: u64,
    /// Connections refused.
    pub refused: u64,
    /// Answers that were wrong or broken off.
    pub wrong_answers: u64,
    /// Lines that are missing in a log, or there twice.
    pub lines_lost: u64,
    /// Services whose confinement is not what it was.
    pub filters_gone: u64,
    /// Descriptors that initldr or motherd has too many.
    pub leaked_fds: u64,
    /// Cgroups of no running service.
    pub leaked_cgroups: u64,
    /// What it was, in words.
    pub details: Vec<String>,
}

impl Counts {
    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "restarted {}, duplicated {}, exits lost {}, exits wrong {}, refused {}, wrong answers {}, lines lost {}, \
             filters gone {}, leaked fds {}, leaked cgroups {}",
            self.restarted,
            self.duplicated,
            self.exits_lost,
            self.exits_wrong,
            self.refused,
            self.wrong_answers,
            self.lines_lost,
            self.filters_gone,
            self.leaked_fds,
            self.leaked_cgroups
        )
    }

    /// All of it together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.restarted
            + self.duplicated
            + self.exits_lost
            + self.exits_wrong
            + self.refused
            + self.wrong_answers
            + self.lines_lost
            + self.filters_gone
            + self.leaked_fds
            + self.leaked_cgroups
    }

    /// A service that ended once is to have started once since.
    pub(super) fn unlike_one(&mut self, name: &str, starts: u64) {
        let detail = || format!("{name}: {starts} starts after one end");
        match starts {
            1 => {}
            0 => self.add(|counts| &mut counts.exits_lost, 1, detail),
            more => self.add(|counts| &mut counts.duplicated, more - 1, detail),
        }
    }

    /// What motherd says of an end is what it was.
    pub(super) fn exit(&mut self, name: &str, told: &Value, expected: (&str, i32)) {
        let right = told["how"] == expected.0 && told["status"] == expected.1;
        self.add(
            |counts| &mut counts.exits_wrong,
            u64::from(!right),
            || format!("{name}: ended {expected:?}, and motherd says {told}"),
        );
    }

    pub(super) fn add(
        &mut self,
        which: fn(&mut Self) -> &mut u64,
        count: u64,
        detail: impl FnOnce() -> String,
    ) {
        if count > 0 {
            *which(self) += count;
            if self.details.len() < 40 {
                self.details.push(detail());
            }
        }
    }
}

/// A process as the kernel shows it, confinement included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pid: u64,
    start_ticks: String,
    confinement: String,
}

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Places {
    /// motherd's control socket.
    pub socket: PathBuf,
    /// The cgroup of all services.
    pub cgroup: PathBuf,
    /// `/var/log/motherd`
    pub logs: PathBuf,
    /// What initldr and motherd have said.
    pub said: Option<PathBuf>,
}

/// The main process of each service that has one.
pub fn main_pids(places: &Places) -> Result<BTreeMap<String, u64>> {
    let list = call(&places.socket, "List", json!({}))?;
    let services = list["services"].as_array().context("no services")?;
    let pid = |one: &Value| Some((one["name"].as_str()?.to_owned(), one["main_pid"].as_u64()?));
    Ok(services.iter().filter_map(pid).collect())
}

/// Every service that is to stay.
pub fn see(load: &Load, places: &Places) -> Result<BTreeMap<String, Seen>> {
    let pids = main_pids(places)?;
    let mut seen = BTreeMap::new();
    for name in load.names(Kind::stays) {
        if let Some(pid) = pids.get(name) {
            seen.insert(name.to_owned(), process(*pid)?);
        }
    }
    Ok(seen)
}

fn process(pid: u64) -> Result<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let start_ticks = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19));
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let telling = ["NoNewPrivs:", "Seccomp:", "Seccomp_filters:", "CapEff:", "CapBnd:", "Uid:"];
    let lines = status.lines().filter(|line| telling.iter().any(|key| line.starts_with(key)));
    let mut confinement = lines.collect::<Vec<_>>().join(" ");
    // What is on its cgroup are filters too.
    let programs = fs::read_to_string(format!("/proc/{pid}/cgroup"))?
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .map(|relative| {
            Cgroup::open(&crate::scratch::cgroup2()?, relative)?
                .context("no cgroup")?
                .programs()
                .map_err(Into::into)
        })
        .transpose()
        .unwrap_or_else(|error: anyhow::Error| {
            confinement.push_str(&format!(" {error:#}"));
            None
        });
    confinement.push_str(&format!(" {programs:?}"));
    for namespace in ["mnt", "pid", "ipc", "uts", "cgroup"] {
        let link = fs::read_link(format!("/proc/{pid}/ns/{namespace}"))?;
        confinement.push_str(&format!(" {}", link.display()));
    }
    Ok(Seen { pid, start_ticks: start_ticks.context("start time")?.to_owned(), confinement })
}

/// Whoever was to stay did, and is confined as before.
pub fn compare(counts: &mut Counts, before: &BTreeMap<String, Seen>, after: &BTreeMap<String, Seen>) {
    for (name, was) in before {
        let is = after.get(name);
        let same = is.is_some_and(|is| (is.pid, &is.start_ticks) == (was.pid, &was.start_ticks));
        counts.add(
            |counts| &mut counts.restarted,
            u64::from(!same),
            || format!("{name}: was {was:?}, is {is:?}"),
        );
        let confined = is.is_none_or(|is| is.confinement == was.confinement);
        let detail = || format!("{name}: was {}, is {is:?}", was.confinement);
        counts.add(|counts| &mut counts.filters_gone, u64::from(!confined), detail);
    }
}

/// A service's own account.
#[derive(Debug, Default)]
pub struct Ledger {
    starts: u64,
    twice: u64,
    exits: Vec<i64>,
    /// What a logger had written each time it fell quiet.
    lines: Vec<u64>,
}

impl Ledger {
    /// How often it was started.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.starts
    }
}

/// Reads it.
pub fn ledger(load: &Load, name: &str) -> Result<Ledger> {
    let path = load.folder.join(format!("{name}.ledger"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut ledger = Ledger::default();
    for line in text.lines() {
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        match what {
            "S" => ledger.starts += 1,
            "D" => ledger.twice += 1,
            "X" => ledger.exits.push(rest.parse().with_context(|| format!("{}: `{line}`", path.display()))?),
            "L" => ledger.lines.push(rest.parse().with_context(|| format!("{}: `{line}`", path.display()))?),
            _ => {}
        }
    }
    Ok(ledger)
}

/// While all is quiet: each crash was followed by one start, and motherd knows how the last one ended.
pub fn exits(counts: &mut Counts, load: &Load, places: &Places) -> Result<u64> {
    let mut all = 0;
    let crashing = load.names(|kind| matches!(kind, Kind::Crash(_)));
    let reply = call(&places.socket, "Status", json!({ "services": crashing }))?;
    for status in reply["services"].as_array().context("no services")? {
        let name = status["name"].as_str().context("no name")?;
        let Ledger { starts, exits, .. } = ledger(load, name)?;
        let ended = exits.len() as u64;
        all += ended;
        counts.add(
            |counts| &mut counts.exits_lost,
            (ended + 1).abs_diff(starts),
            || format!("{name}: {starts} starts and {ended} exits by its own account: {status:#}"),
        );
        let told = &status["last_exit"];
        let right = exits.last().is_none_or(|last| told["how"] == "exited" && told["status"] == *last);
        counts.add(
            |counts| &mut counts.exits_wrong,
            u64::from(!right),
            || format!("{name}: ended with {:?}, and motherd says {told}", exits.last()),
        );
    }
    for (name, kind) in &load.services {
        let twice = ledger(load, name).map_or(0, |ledger| ledger.twice);
        counts.add(|counts| &mut counts.duplicated, twice, || format!("{name} ({kind:?}) started twice"));
    }
    let events = call(&places.socket, "Events", json!({}))?;
    for event in events["events"].as_array().into_iter().flatten() {
        let words = event["words"].as_str().unwrap_or_default();
        counts.add(
            |counts| &mut counts.exits_lost,
            u64::from(words.contains("lost: its main process") || words.contains("lost: no exit")),
            || format!("an event: {event}"),
        );
    }
    let manager = call(&places.socket, "Manager", json!({}))?;
    let lost = manager["manager"]["lost_exits"].as_u64().context("lost_exits")?;
    counts.add(|counts| &mut counts.exits_lost, lost, || format!("initldr could not keep {lost} exits"));
    if let Some(said) = &places.said {
        let said = fs::read_to_string(said)?;
        let lost = said.lines().filter(|line| line.contains("(lost: its main process")).count();
        counts.add(
            |counts| &mut counts.exits_lost,
            lost as u64,
            || "motherd says that it lost exits".to_owned(),
        );
    }
    Ok(all)
}

/// How many lines the loggers wrote until they fell quiet for the nth time, and whether motherd's files have each once.
/// An error: what is not there yet.
pub fn logs(counts: &mut Counts, load: &Load, places: &Places, nth: usize) -> Result<u64> {
    let mut all = 0;
    let mut found = Counts::default();
    for name in load.names(|kind| matches!(kind, Kind::Log(..))) {
        let Some(written) = nth.checked_sub(1).and_then(|at| ledger(load, name).ok()?.lines.get(at).copied())
        else {
            bail!("{name} has not said how many lines it wrote");
        };
        let mut text = Vec::new();
        for file in ["3", "2", "1", "current"] {
            match fs::read(places.logs.join(name).join(file)) {
                Ok(part) => text.extend(part),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Walked { last, mut wrong } = walk(&text);
        ensure!(last >= written, "{name}: {last} of {written} lines, in {} bytes", text.len());
        all += written;
        wrong += last - written;
        found.add(|counts| &mut counts.lines_lost, wrong, || format!("{name}: {wrong} of {written} lines"));
    }
    counts.lines_lost += found.lines_lost;
    counts.details.append(&mut found.details);
    Ok(all)
}

/// How many bytes motherd says in a log that no disk took.
pub fn told_lost(folder: &Path) -> Result<u64> {
    let mut told = 0;
    for file in fs::read_dir(folder)? {
        let file = file?;
        if file.file_type()?.is_file() {
            let text = String::from_utf8_lossy(&fs::read(file.path())?).into_owned();
            let of = |line: &str| {
                let bytes = line.split_once('!')?.1.strip_suffix(LOST)?;
                bytes.parse::<u64>().ok()
            };
            told += text.lines().filter_map(of).sum::<u64>();
        }
    }
    Ok(told)
}

/// motherd's own words.
const LOST: &str = " bytes were lost here: the log could not be written";

/// What a logger writes behind each number.
pub const LINE: &str = "a line of some length, as programs write them when something happens";

#[derive(Debug, PartialEq, Eq)]
struct Walked {
    /// The number of the last whole line.
    last: u64,
    /// Lines that are missing without a word, or there twice; or bytes that are missing and not told of.
    wrong: u64,
}

/// Reads a log. What was rotated away is no loss: the oldest line that is kept is where counting begins. Nor is what
/// motherd says that no disk took, if it is as much as is missing there.
fn walk(text: &[u8]) -> Walked {
    let size = |number: u64| number.to_string().len() as u64 + 1 + LINE.len() as u64 + 1;
    let mut walked = Walked { last: 0, wrong: 0 };
    let mut next: Option<u64> = None;
    // Told of, found in pieces, and missing between whole lines.
    let (mut told, mut pieces, mut missing, mut holes): (u64, u64, u64, u64) = (0, 0, 0, 0);
    let mut open = false;
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        // Behind the time stands whose words they are, and then the words.
        let (Some(whose), Some(words)) = (line.get(27), line.get(28..)) else {
            walked.wrong += 1;
            continue;
        };
        let words = String::from_utf8_lossy(words);
        if *whose == b'!' {
            if let Some(bytes) = words.strip_suffix(LOST) {
                told += bytes.parse().unwrap_or(0);
                holes += 1;
                open = true;
            }
            continue;
        }
        let whole = words.split_once(' ').filter(|(_, rest)| *rest == LINE);
        let Some(number) = whole.and_then(|(number, _)| number.parse::<u64>().ok()) else {
            // The beginning of a line before what was lost, or the end of one behind it, with its newline.
            pieces += words.len() as u64 + u64::from(open);
            continue;
        };
        match next {
            Some(expected) if number > expected && open => {
                missing += (expected..number).map(size).sum::<u64>();
            }
            Some(expected) => walked.wrong += number.abs_diff(expected),
            None => {}
        }
        open = false;
        next = Some(number + 1);
        walked.last = number;
    }
    // A newline by itself leaves no trace: one a hole.
    let found = missing.saturating_sub(pieces);
    walked.wrong += u64::from(told.abs_diff(found) > holes);
    walked
}

/// What a process has open: how many of what. The numbers in a name are left out, and of a path all but the last part is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptors(BTreeMap<String, u64>);

impl Descriptors {
    /// Of this process, now.
    pub fn of(pid: i32) -> Result<Self> {
        let mut found = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            // One that was closed meanwhile counts all the same.
            let link = fs::read_link(entry?.path()).unwrap_or_default();
            let kind = link.file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy());
            *found.0.entry(kind.replace(|c: char| c.is_ascii_digit(), "")).or_default() += 1;
        }
        Ok(found)
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// What there is more of than there was, and what less: `+2 pipe:[] -1 socket:[]`.
    #[must_use]
    pub fn since(&self, before: &Self) -> String {
        let kinds: BTreeSet<&String> = self.0.keys().chain(before.0.keys()).collect();
        let of = |found: &Self, kind| found.0.get(kind).copied().unwrap_or_default();
        let changes = kinds.into_iter().filter_map(|kind| match (of(before, kind), of(self, kind)) {
            (was, is) if is > was => Some(format!("+{} {kind}", is - was)),
            (was, is) if is < was => Some(format!("-{} {kind}", was - is)),
            _ => None,
        });
        changes.collect::<Vec<_>>().join(" ")
    }
}

/// Cgroups named `*.service` below the base that no running service has.
pub fn cgroups(counts: &mut Counts, places: &Places) -> Result<()> {
    let running = main_pids(places)?;
    let mut left = vec![places.cgroup.clone()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let name = entry.file_name().to_string_lossy().into_owned();
                match name.strip_suffix(".service") {
                    Some(service) if !running.contains_key(service) => {
                        counts.add(|counts| &mut counts.leaked_cgroups, 1, || name.clone());
                    }
                    Some(_) => {}
                    None => left.push(entry.path()),
                }
            }
        }
    }
    Ok(())
}

/// The motherd that an initldr has started: the newest child that runs this program, and is not on the way to become a
/// service: such a one runs it too, in its service's cgroup.
pub fn motherd_of(init: i32, programs: &[PathBuf]) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).ok()?;
    // Asked in this order, and no further than needed: where a processor is emulated, three questions to each of hundreds of
    // children are what whoever is to come up waits for.
    let runs = |pid: &&str| {
        let exe = fs::read_link(format!("/proc/{pid}/exe"));
        exe.is_ok_and(|exe| programs.contains(&exe)) && {
            // What a motherd that was killed had just cloned has its program too, and initldr for a parent; it is in a
            // service's cgroup, or leads no session, as initldr has motherd do.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let session = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(3));
            let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            session == Some(pid) && !cgroup.contains(".service")
        }
    };
    children.split_whitespace().rev().find(runs)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &str = "2026-11-22T23:50:01.000042Z";

    fn line(number: u64) -> String {
        format!("{STAMP} {number} {LINE}\n")
    }

    fn lost(bytes: usize) -> String {
        format!("{STAMP}!{bytes}{LOST}\n")
    }

    fn check(text: &[String], last: u64, wrong: u64) {
        assert_eq!(walk(text.concat().as_bytes()), Walked { last, wrong }, "{text:?}");
    }

    #[test]
    fn each_line_is_to_be_there_once() {
        check(&[line(7), line(8), line(9)], 9, 0);
        check(&[line(7), line(9)], 9, 1);
        check(&[line(7), line(7)], 7, 1);
        check(&[line(7), "garbage\n".to_owned()], 7, 1);
    }

    #[test]
    fn what_no_disk_took_is_to_be_told_to_the_byte() {
        let of = |number: u64| line(number).len() - STAMP.len() - 1;
        check(&[line(7), lost(of(8) + of(9)), line(10)], 10, 0);
        check(&[line(7), lost(of(8)), line(10)], 10, 1);
        check(&[line(7), lost(0), line(10)], 10, 1);
        // Half a line before it, and half a line behind.
        let (before, behind) =
            (line(8)[..STAMP.len() + 11].to_owned() + "\n", format!("{STAMP} {}\n", &LINE[20..]));
        let gone = of(8) + of(9) - 10 - (LINE.len() - 20 + 1);
        check(&[line(7), before.clone(), lost(gone), behind.clone(), line(10)], 10, 0);
        check(&[line(7), before, lost(gone - 9), behind, line(10)], 10, 1);
    }
}
