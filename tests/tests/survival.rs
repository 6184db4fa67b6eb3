//! motherd troubled in every way that needs no machine of its own, in a short form of `soak_kill`; and what of the points
//! at which it ends is in the programs that are shipped.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    programs::{Programs, SoakPrograms},
    say,
    scratch::Scratch,
    soak::{
        audit::motherd_of,
        client::{Clients, answered, ask, call},
        load::{Scale, own_port},
        modes::Mode,
        run::{Churn, Pair, Report, points},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// How often each: together about a minute.
const MODES: [(Mode, usize); 11] = [
    (Mode::Points, 1),
    (Mode::Kill, 20),
    (Mode::Fault, 4),
    (Mode::Hang, 10),
    (Mode::Run, 6),
    (Mode::Disk, 6),
    (Mode::Window, 8),
    (Mode::Orphans, 2000),
    (Mode::Upgrade, 9),
    (Mode::Fence, 3),
    (Mode::Poison, 6),
];

#[test]
fn whatever_happens_to_motherd_nothing_is_lost() -> Result<()> {
    let Some(mut scratch) = Scratch::new("whatever_happens_to_motherd")? else { return Ok(()) };
    let programs = SoakPrograms::built()?;
    let mut pair =
        Pair::start(&mut scratch, &programs, Scale { services: 60, port: own_port(), loud: true })?;
    let said = || {
        let log = scratch.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(200)..].join("\n")
    };
    pair.settled().with_context(said)?;
    let baseline = pair.baseline()?;
    let clients = Clients::start(pair.load.asks(), Duration::from_millis(5));
    let (mut before, mut crashes, mut lines) = ([0; 3], 0, 0);
    for (mode, times) in MODES {
        let mut report = Report::default();
        let churn = mode.churns().then(|| Churn::start(&pair));
        let troubled = pair.trouble(&mut report, mode, times);
        if let Some(churn) = churn {
            report.requests = churn.stop()?;
        }
        troubled.with_context(said)?;
        pair.audit(&mut report, &baseline)?;
        before = report.answered_since(&clients, before);
        (crashes, lines) = (report.crashes, report.lines);
        say(&format!("{} ({times}): {}", mode.name(), report.text().trim_end()));
        ensure!(report.counts.total() == 0, "{}: {}\n{}", mode.name(), report.text(), said());
    }
    drop(clients.stop());
    ensure!(
        crashes > 50 && before[0] > 100 && lines > 1000,
        "too little load: {crashes} crashes, {} answers, {lines} lines",
        before[0]
    );
    Ok(())
}

/// Writes its name into a ledger each time that it is started. One that `crashes` ends the first time, as soon as there is a
/// file `go`.
fn in_the_ledger(scratch: &Scratch, name: &str, crashes: bool) -> Result<()> {
    let (ledger, go) = (scratch.path("ledger"), scratch.path("go"));
    let (ledger, go) = (ledger.display(), go.display());
    let first = format!(
        "test $(grep -c {name} {ledger}) -ge 2 || until test -e {go} && exit 1; do sleep 0.01; done; "
    );
    let first = if crashes { first } else { String::new() };
    let script = format!("echo {name} >>{ledger}; {first}exec sleep infinity");
    let restart = "[restart]\ndelay = \"1ms\"\nfactor = 1.0\n";
    let text = format!("exec = [\"/bin/sh\", \"-c\", \"{script}\"]\npolicy = \"unconfined\"\n{restart}");
    scratch.service(name, &text)?;
    Ok(())
}

/// How often each was started, as they say.
fn ledger(scratch: &Scratch) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in fs::read_to_string(scratch.path("ledger")).unwrap_or_default().lines() {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

/// The names in an answer to List, by what they are.
fn listed(list: &Value) -> Result<BTreeMap<String, String>> {
    let services = list["services"].as_array().context("no services")?;
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    Ok(services.iter().map(|one| (text(one, "name"), text(one, "state"))).collect())
}

/// motherd stops itself between two slices, and what happens meanwhile is there when it goes on.
#[test]
fn who_starts_many_answers_hears_and_lets_be_what_is_not_wanted_any_more() -> Result<()> {
    let Some(mut scratch) = Scratch::new("who_starts_many_answers")? else { return Ok(()) };
    let programs = SoakPrograms::built()?;
    let names: Vec<String> = (10..90).map(|number| format!("s{number}")).collect();
    for name in &names {
        in_the_ledger(&scratch, name, name == "s10")?;
    }
    scratch.start_as(&programs.initldr, &programs.motherd, &[])?;
    scratch.answers()?;
    let socket = scratch.path("run/motherd/motherd.sock");
    let motherd = [programs.motherd.canonicalize()?];
    let pid = motherd_of(scratch.init()?.as_raw(), &motherd).context("no motherd")?;
    let stops_at = |slice: usize| -> Result<()> {
        // Renamed, so that no half of it is read.
        let written = scratch.path("run/motherd/failpoint.new");
        fs::write(&written, format!("dispatch.between-slices=stop@{slice}"))?;
        Ok(fs::rename(&written, scratch.path("run/motherd/failpoint"))?)
    };
    let is_stopped = || {
        scratch.eventually("motherd stops between two slices", |_| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            Ok(stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")).then_some(()))
        })
    };
    let cgroup = |name: &str| -> PathBuf { scratch.cgroup().join(format!("system.slice/{name}.service")) };
    let patience = Duration::from_secs(60);

    stops_at(3)?;
    let start = ask(&socket, "Start", json!({ "services": names }), patience)?;
    is_stopped()?;
    let queued: Vec<&String> = names.iter().filter(|name| !cgroup(name).exists()).collect();
    ensure!(cgroup("s10").exists() && queued.len() > 30, "{queued:?} are left");
    fs::write(scratch.path("go"), "")?;
    scratch.eventually("s10 ends", |_| {
        let events = fs::read_to_string(cgroup("s10").join("cgroup.events"))?;
        Ok((ledger(&scratch).contains_key("s10") && events.contains("populated 0")).then_some(()))
    })?;
    let unwanted = *queued.last().context("nobody is left")?;
    let list = ask(&socket, "List", json!({}), patience)?;
    let stop = ask(&socket, "Stop", json!({ "services": [unwanted] }), patience)?;
    stops_at(13)?;
    kill(Pid::from_raw(pid), Signal::SIGCONT)?;
    is_stopped()?;
    // Both answers are in their sockets: nobody is there to write them now.
    let states = listed(&answered(list)?)?;
    let waiting = names.iter().filter(|name| states[*name] == "waiting").count();
    let running = names.iter().filter(|name| states[*name] == "running").count();
    ensure!(running >= 2 && waiting >= 20, "{states:?}");
    answered(stop)?;
    // By the time that it goes on, that of s10 has come.
    std::thread::sleep(Duration::from_millis(50));
    stops_at(20)?;
    kill(Pid::from_raw(pid), Signal::SIGCONT)?;
    is_stopped()?;
    scratch.eventually("s10 is started again", |_| Ok((ledger(&scratch)["s10"] == 2).then_some(())))?;
    let left = names.iter().filter(|name| !cgroup(name).exists()).count();
    ensure!(left > 10, "only {left} are left");

    // The next one finds no more than what they were meant to be.
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    ensure!(answered(start).is_err(), "the answer to the start was given before it was done");
    let wanted: Vec<&String> = names.iter().filter(|name| *name != unwanted).collect();
    scratch.eventually("all others are up", |scratch| {
        let Ok(list) = call(&socket, "List", json!({})) else { return Ok(None) };
        let states = listed(&list)?;
        let told = ledger(scratch);
        Ok(wanted.iter().all(|name| states[*name] == "running" && told.contains_key(*name)).then_some(()))
    })?;
    let states = listed(&call(&socket, "List", json!({}))?)?;
    let twice: Vec<_> = ledger(&scratch).into_iter().filter(|(_, times)| *times != 1).collect();
    ensure!(twice == [("s10".to_owned(), 2)], "not started once: {twice:?}");
    ensure!(states[unwanted] == "stopped" && !ledger(&scratch).contains_key(unwanted), "{states:?}");
    scratch.stop()?;
    Ok(())
}

/// The same with the program that is shipped, whose slices are as long as they are.
#[test]
fn a_crash_among_many_is_not_seen_last() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_crash_among_many")? else { return Ok(()) };
    let names: Vec<String> = (100..500).map(|number| format!("s{number}")).collect();
    for name in &names {
        in_the_ledger(&scratch, name, name == "s100")?;
    }
    fs::write(scratch.path("go"), "")?;
    scratch.start()?;
    scratch.answers()?;
    let socket = scratch.path("run/motherd/motherd.sock");
    let mut start = Command::new(&Programs::built()?.motherctl)
        .arg("--root")
        .arg(scratch.path(""))
        .arg("start")
        .args(&names)
        .stdout(Stdio::null())
        .spawn()?;
    let mut between = 0;
    let ended = loop {
        let states = listed(&call(&socket, "List", json!({}))?)?;
        let running = names.iter().filter(|name| states[*name] == "running").count();
        between += usize::from((1..names.len() - 1).contains(&running));
        if let Some(ended) = start.try_wait()? {
            break ended;
        }
    };
    ensure!(between > 0, "no answer came while some ran and others did not");
    let started = |told: &Value| told["state"] == "running";
    let events = call(&socket, "Events", json!({}))?;
    let events: Vec<&Value> =
        events["events"].as_array().context("no events")?.iter().filter(|told| started(told)).collect();
    let again = events.iter().rposition(|told| told["service"] == "s100").context("s100 never ran")?;
    let last = events.iter().rposition(|told| told["service"] != "s100").context("no other ran")?;
    ensure!(ended.success() && again > 0 && again < last, "{again} is not before {last}; {between} answers");
    say(&format!(
        "{between} answers while {} were started; s100 ran again at {again} of {last}",
        names.len()
    ));
    scratch.stop()?;
    Ok(())
}

#[test]
fn the_shipped_motherd_has_no_point_at_which_it_ends() -> Result<()> {
    let has = |program: &std::path::Path, text: &str| -> Result<bool> {
        let bytes = fs::read(program)?;
        Ok(bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    let (shipped, tested) = (&Programs::built()?.motherd, &SoakPrograms::built()?.motherd);
    for point in points()? {
        ensure!(!has(shipped, &point)?, "{} has {point}", shipped.display());
        ensure!(has(tested, &point)?, "control: {} has it not: {point}", tested.display());
    }
    ensure!(!has(shipped, "failpoint")? && has(tested, "failpoint")?);
    Ok(())
}

#[test]
fn a_transition_is_recorded_without_a_system_call() -> Result<()> {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_bench_adopt")).arg("--transitions").output()?;
    say(String::from_utf8_lossy(&output.stdout).trim_end());
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}
