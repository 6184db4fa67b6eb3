//! What a motherd costs that finds 1,000 services running: `cargo run --release -p e2e --bin bench_adopt -- [--services N]
//! [--rounds N] | --transitions`, as root.
//!
//! Its own time is what the kernel accounts to it (`/proc/PID/schedstat`) from its launch to its first answer; the time on
//! the wall is from the SIGKILL of the one before. Then what keeping the state costs: transitions written into a record
//! while every system call but the last is forbidden.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    scratch::Scratch,
    soak::{
        audit::{main_pids, motherd_of},
        client::call,
        run::end,
    },
};
use initldr::link::STATE_SIZE;
use motherd::{
    state::{Record, Table},
    supervise::{Main, State, Unit},
};
use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    signal::Signal,
};
use serde_json::json;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some(FORBIDDEN) => return without_system_calls(false),
        Some(CONTROL) => return without_system_calls(true),
        Some("--transitions") => return transitions(),
        _ => {}
    }
    let (mut services, mut rounds) = (1000, 15);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<usize> { Ok(words.next().context("a number")?.parse()?) };
        match word.as_str() {
            "--services" => services = number()?,
            "--rounds" => rounds = number()?,
            other => bail!("not understood: {other}"),
        }
    }
    adoption(services, rounds)?;
    transitions()
}

/// How this program is told that it is the child of [`transitions`], and that it is the one that is to be ended.
const FORBIDDEN: &str = "--without-system-calls";
const CONTROL: &str = "--with-one-system-call";
const TRANSITIONS: u32 = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };

/// Has a child write transitions into a state that both have mapped, after it has forbidden itself every system call.
fn transitions() -> Result<()> {
    let memory = fs::File::from(memfd_create(c"state", MFdFlags::MFD_CLOEXEC)?);
    memory.set_len(STATE_SIZE as u64)?;
    let run = |word: &str| -> Result<ExitStatus> {
        let program = std::env::current_exe()?;
        Ok(Command::new(program).arg(word).stdin(memory.try_clone()?).status()?)
    };
    let control = run(CONTROL)?;
    ensure!(
        control.signal() == Some(Signal::SIGSYS as i32),
        "control: a system call does not end the child: {control}"
    );
    let begun = Instant::now();
    let status = run(FORBIDDEN)?;
    let took = begun.elapsed();
    ensure!(status.success(), "a transition makes a system call, or cannot be recorded: {status}");
    let (_table, _found, records) = Table::map(&memory)?;
    let record = records.first().context("no record")?;
    ensure!(
        record.unit.history.total == u64::from(TRANSITIONS),
        "the last transition is not the last: {record:?}"
    );
    println!(
        "{TRANSITIONS} transitions recorded with every system call forbidden: {:.0} ns each",
        took.as_secs_f64() * 1e9 / f64::from(TRANSITIONS)
    );
    Ok(())
}

fn without_system_calls(and_one: bool) -> Result<()> {
    let (mut table, _found, _records) = Table::map(std::io::stdin())?;
    let mut record = Record {
        name: "service".to_owned(),
        unit: Unit::default(),
        start_ticks: 0,
        cgroup_id: 0,
        policy: [0; 8],
        standby_cgroup_id: 0,
        oom_kills: 0,
        stale: false,
    };
    let mut write = |number: u32| {
        let since = Duration::from_micros(number.into());
        let main = Main { pid: number, launched: since };
        let up = number.is_multiple_of(2);
        record.unit.state = if up { State::Running { main } } else { State::Stopped };
        (record.unit.since, record.unit.history.total) = (since, number.into());
        assert!(table.write(&record), "there is room for one");
    };
    // The allocator has what it needs after some.
    (0..1000).for_each(&mut write);
    e2e::scratch::without_system_calls(|| {
        (1..=TRANSITIONS).for_each(&mut write);
        if and_one {
            assert_ne!(std::process::id(), 0);
        }
    })
}

fn adoption(services: usize, rounds: usize) -> Result<()> {
    let mut scratch = Scratch::new("bench_adopt")?.context("run it as root")?;
    let names: Vec<String> = (0..services).map(|number| format!("service-{number}")).collect();
    for name in &names {
        scratch.service(name, "exec = [\"/usr/bin/sleep\", \"1000000\"]\n")?;
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    scratch.service("system", &format!("[dependencies]\nwants = [{}]\n", quoted.join(", ")))?;
    let begun = Instant::now();
    scratch.start()?;
    let places = e2e::soak::audit::Places {
        socket: scratch.path("run/motherd/motherd.sock"),
        cgroup: scratch.cgroup().to_owned(),
        logs: scratch.path("var/log/motherd"),
        said: None,
    };
    let deadline = Instant::now() + Duration::from_secs(300);
    let pids = loop {
        match main_pids(&places) {
            Ok(pids) if pids.len() == services => break pids,
            Ok(_) | Err(_) => thread::sleep(Duration::from_millis(50)),
        }
        ensure!(Instant::now() < deadline, "the services do not come up");
    };
    println!("{services} services under base/default are up after {:.1} s", begun.elapsed().as_secs_f64());
    let programs = [e2e::programs::Programs::built()?.motherd.clone()];
    let init = scratch.init()?.as_raw();
    let (mut own, mut wall) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        // Long enough for its end to be no early death.
        thread::sleep(Duration::from_millis(400));
        let before = motherd_of(init, &programs).context("no motherd")?;
        let killed = Instant::now();
        end(before, Signal::SIGKILL)?;
        let manager = loop {
            match call(&places.socket, "Manager", json!({})) {
                Ok(answer) if answer["manager"]["pid"] != before => break answer,
                Ok(_) | Err(_) => thread::sleep(Duration::from_micros(200)),
            }
            ensure!(killed.elapsed() < Duration::from_secs(60), "no other motherd answers");
        };
        wall.push(killed.elapsed());
        own.push(on_processor(manager["manager"]["pid"].as_u64().context("no pid")?)?);
    }
    ensure!(main_pids(&places)? == pids, "every service is the same process");
    for (what, times) in [("motherd's own time", &mut own), ("from SIGKILL to its first answer", &mut wall)] {
        times.sort();
        let milliseconds = |time: Option<&Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
        println!(
            "{what}: median {:.1} ms, least {:.1} ms, worst {:.1} ms, of {rounds}",
            milliseconds(times.get(times.len() / 2)),
            milliseconds(times.first()),
            milliseconds(times.last())
        );
    }
    Ok(())
}

/// How long a process has run on a processor.
fn on_processor(pid: u64) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    Ok(Duration::from_nanos(text.split_whitespace().next().context("schedstat")?.parse()?))
}
