//! The measurements, one after another, each if the order asks for it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::processes::{Processes, busy, cpu_of, field_of};
use super::{Line, Order, crash, stamps};
use crate::peers::contender::Contender;
use crate::peers::report;

/// So many different services are killed to see how fast each is back.
const RESTARTS: usize = 25;
/// Whoever is not back by then is counted as never.
const NEVER: Duration = Duration::from_secs(4);
/// Before each of them is killed: what the one before left to be done is done.
const REST: Duration = Duration::from_millis(250);
/// So often each question is asked, after once that is not counted.
const QUESTIONS: usize = 5;
/// After the last service began, until everybody is at rest.
const SETTLING: Duration = Duration::from_secs(3);

/// Everything that the order asks for.
pub(super) fn all(order: &Order, line: &mut Line) -> Result<()> {
    let begun = stamps::wait_for_all(order.services, order.contender.patience())?;
    let stamps::Begun { at: start, spent, busy: busy_before } = stamps::begun()?;
    let busy = busy()? - busy_before;
    let since = |at: Duration| at.saturating_sub(start).as_secs_f64() * 1e3;
    let times: Vec<f64> = begun.iter().map(|stamp| since(stamp.at)).collect();
    line.figures("first", &[times.iter().copied().fold(f64::INFINITY, f64::min)])?;
    line.figures("last", &[times.iter().copied().fold(0.0, f64::max)])?;
    let processes = Processes::now()?;
    let cpu = processes.cpu()?;
    let of_services: Result<Vec<f64>> = processes.services.values().map(|pid| cpu_of(*pid)).collect();
    line.figures("cpu of services to boot", &[of_services?.iter().sum::<f64>() / 1e6])?;
    line.figures("busy to boot", &[busy])?;
    line.figures("cpu to boot", &[(cpu.values().sum::<f64>() - spent) / 1e6])?;
    line.figures("cpu of PID 1 to boot", &[(cpu.get(&1).copied().unwrap_or_default() - spent) / 1e6])?;
    let asked = |measure: &str| order.measures.iter().any(|word| word == measure);
    if order.measures.is_empty() {
        return Ok(());
    }
    sleep(SETTLING);
    if asked("memory") {
        memory(line)?;
    }
    if let Some(seconds) = order.number("idle") {
        idle(line, seconds)?;
    }
    if asked("questions") {
        questions(order, line)?;
    }
    if asked("restarts") {
        restarts(order, line)?;
    }
    if let Some(count) = order.number("orphans") {
        orphans(line, count)?;
    }
    if asked("crash") {
        crash::all(order, line)?;
    }
    Ok(())
}

fn memory(line: &mut Line) -> Result<()> {
    let processes = Processes::now()?;
    line.figures("processes", &[f64::from(u32::try_from(processes.system.len())?)])?;
    line.figures("pss", &[processes.sum("smaps_rollup", "Pss")?])?;
    line.figures("anonymous", &[processes.sum("smaps_rollup", "Pss_Anon")?])?;
    line.figures("pss of PID 1", &[field_of(1, "smaps_rollup", "Pss")?])?;
    let mut kernel = 0.0;
    let text = fs::read_to_string("/proc/meminfo")?;
    for field in ["Slab:", "KernelStack:", "PageTables:"] {
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next());
        kernel += value.with_context(|| format!("/proc/meminfo has no {field}"))?.parse::<f64>()?;
    }
    line.figures("kernel", &[kernel])
}

/// Context switches of the whole init system while nothing happens.
fn idle(line: &mut Line, seconds: u64) -> Result<()> {
    let switches = |processes: &Processes| -> Result<f64> {
        let kinds = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];
        kinds.iter().map(|kind| processes.sum("status", kind)).sum()
    };
    let processes = Processes::now()?;
    let before = switches(&processes)?;
    sleep(Duration::from_secs(seconds));
    line.figures("switches", &[switches(&processes)? - before])?;
    line.figures("idle seconds", &[f64::from(u32::try_from(seconds)?)])
}

/// How long its operator waits for an answer: from the fork of the client to its end.
fn questions(order: &Order, line: &mut Line) -> Result<()> {
    ask(line, "busybox ps", &["busybox", "ps"])?;
    for (name, words) in order.contender.questions() {
        ask(line, name, words)?;
    }
    Ok(())
}

fn ask(line: &mut Line, name: &str, words: &[&str]) -> Result<()> {
    let (program, arguments) = words.split_first().context("a question is a command")?;
    let mut times = Vec::new();
    for round in 0..=QUESTIONS {
        let begin = Instant::now();
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
        let time = begin.elapsed();
        if round == 0 {
            line.say(&report::note(
                &format!("{}?", name.replace(' ', "-")),
                &format!("{}, {} bytes", output.status, output.stdout.len()),
            ))?;
        } else {
            times.push(time.as_secs_f64() * 1e3);
        }
    }
    line.figures(&format!("ask {name}"), &times)
}

/// From kill(2) of a service to its replacement's first instruction.
fn restarts(order: &Order, line: &mut Line) -> Result<()> {
    let (mut times, mut never) = (Vec::new(), 0.0);
    let count = RESTARTS.min(order.services);
    for number in 0..count {
        let id = number * order.services / count;
        if order.contender == Contender::MotherDStandby {
            wait_for_standby(id)?;
        }
        sleep(REST);
        match restart(id)? {
            Some(time) => times.push(time.as_secs_f64() * 1e3),
            None => never += 1.0,
        }
    }
    line.figures("restart", &times)?;
    line.figures("never back", &[never])
}

/// Until a service has a process that waits to be the next one: another run below its cgroup, and in it a process that has
/// executed what waits, which is no file. What was killed last is being made anew just now.
fn wait_for_standby(id: usize) -> Result<()> {
    let processes = Processes::now()?;
    let pid = processes.services.get(&id).with_context(|| format!("service {id} does not run"))?;
    let run = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let run = Path::new("/sys/fs/cgroup").join(run.trim().trim_start_matches("0::/"));
    let service = run.parent().context("a run is below its service")?;
    let waits = |pid: &str| {
        let program = fs::read_link(format!("/proc/{pid}/exe"));
        program.is_ok_and(|path| path.to_string_lossy().starts_with("/memfd:"))
    };
    let deadline = Instant::now() + NEVER * 10;
    loop {
        for entry in fs::read_dir(service)? {
            let procs = entry?.path().join("cgroup.procs");
            // One that was emptied is being removed.
            if fs::read_to_string(procs).is_ok_and(|pids| pids.lines().any(waits)) {
                return Ok(());
            }
        }
        ensure!(Instant::now() < deadline, "service {id} has no standby");
        sleep(Duration::from_millis(20));
    }
}

/// Kills a service; how long it took until it was back, if it came back.
pub(super) fn restart(id: usize) -> Result<Option<Duration>> {
    let processes = Processes::now()?;
    let pid = processes.services.get(&id).with_context(|| format!("service {id} does not run"))?;
    let skipped = stamps::count()?;
    let killed = stamps::now()?;
    kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
    let back = stamps::wait_for(id, skipped, NEVER)?;
    Ok(back.map(|stamp| stamp.at.saturating_sub(killed)))
}

/// What orphans cost whoever reaps them, and whether any is left.
fn orphans(line: &mut Line, count: u64) -> Result<()> {
    let before = Processes::now()?;
    let cpu = before.cpu()?;
    let begin = Instant::now();
    let status = Command::new("/bench/storm").arg(count.to_string()).stdin(Stdio::null()).status()?;
    ensure!(status.success(), "the storm ended with {status}");
    line.figures("storm", &[begin.elapsed().as_secs_f64() * 1e3])?;
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut left = Processes::now()?.zombies;
    while left > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(10));
        left = Processes::now()?.zombies;
    }
    line.figures("zombies left", &[f64::from(u32::try_from(left)?)])?;
    let after = before.cpu()?;
    let each = |ns: f64| ns / 1e3 / count as f64;
    let spent =
        |pid: &i32| after.get(pid).copied().unwrap_or_default() - cpu.get(pid).copied().unwrap_or_default();
    line.figures("orphan of PID 1", &[each(spent(&1))])?;
    line.figures("orphan of all", &[each(cpu.keys().map(spent).sum())])
}
