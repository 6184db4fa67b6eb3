//! How the service manager scales: service files loaded and checked, and a thousand services started by the pure core.
//!
//! No process is made: what is measured is what motherd itself costs. `cargo run --release -p e2e --bin bench_manager`

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use motherd::graph::Graph;
use motherd::manager::{Confirmed, Effect, Manager};
use motherd::service::load_dirs;
use motherd::supervise::{Act, Cause, Event};

fn main() -> Result<()> {
    for count in [1_000, 10_000] {
        let dir = std::env::temp_dir().join(format!("bench-manager-{}-{count}", std::process::id()));
        write(&dir, count)?;
        let measured = measure(&dir, count);
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
        measured?;
    }
    Ok(())
}

/// A house of `count` services: chains of ten that need each other, all wanted by `system`, every tenth after another
/// chain, some with rivals.
fn write(dir: &Path, count: usize) -> Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let mut wanted = Vec::new();
    for number in 0..count {
        let mut dependencies = String::new();
        if number % 10 > 0 {
            dependencies.push_str(&format!("needs = [\"s{}\"]\n", number - 1));
        } else if number >= 10 {
            dependencies.push_str(&format!("after = [\"s{}\"]\n", number - 10));
        }
        if number % 100 == 99 {
            dependencies.push_str(&format!("conflicts = [\"r{number}\"]\n"));
        }
        let text = format!(
            "description = \"service {number}\"\nexec = [\"/usr/bin/true\", \"--number\", \"{number}\"]\n\
             policy = \"base/default\"\n\n[dependencies]\n{dependencies}\n[restart]\nwhen = \"always\"\n\
             delay = \"200ms\"\n\n[stop]\ntimeout = \"5s\"\n"
        );
        one(dir, &format!("s{number}"), &text)?;
        wanted.push(format!("\"s{number}\""));
    }
    one(dir, "system", &format!("[dependencies]\nwants = [{}]\n", wanted.join(", ")))
}

fn one(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(format!("{name}.toml"));
    fs::write(&path, text)?;
    // Whatever the umask: files that others may write are refused.
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?)
}

fn measure(dir: &Path, count: usize) -> Result<()> {
    let files = count + 1;
    let begin = Instant::now();
    let catalog = load_dirs(&[dir.to_owned()]);
    let loaded = begin.elapsed();
    ensure!(catalog.broken.is_empty() && catalog.problems.is_empty(), "the files are good");
    let begin = Instant::now();
    let built = Graph::build(catalog.services.values().cloned().collect(), &BTreeSet::new());
    let checked = begin.elapsed();
    let refused = built.refused.len();
    ensure!(built.graph.len() + refused == files, "each file is in the graph or refused");
    let per_file = (loaded + checked).as_secs_f64() * 1e3 / files as f64;
    // Among 10,000 names two have the same automatic uid now and then; the second of them is refused, with who needs it.
    println!(
        "{files} files, {refused} refused: loaded in {loaded:.1?}, checked in {checked:.1?}: {per_file:.4} ms a file"
    );

    let begin = Instant::now();
    let mut manager = Manager::new(built.graph);
    let made = begin.elapsed();
    let system = manager.graph().find("system").context("there is a system")?;
    let begin = Instant::now();
    let boot = Cause::new("boot: system");
    let mut now = Duration::from_secs(1);
    let mut queue = VecDeque::from(manager.boot(system, &boot, now));
    let (mut events, mut launched, mut slowest) = (0_u32, 0_u32, Duration::ZERO);
    while let Some(effect) = queue.pop_front() {
        now += Duration::from_nanos(1);
        let one = Instant::now();
        if let Confirmed::Instead(effects) = manager.confirm(&effect, now) {
            let _recorded = manager.take_touched();
            effects.into_iter().rev().for_each(|effect| queue.push_front(effect));
            slowest = slowest.max(one.elapsed());
            continue;
        }
        if let Effect::Service(id, Act::Launch) = effect {
            launched += 1;
            events += 1;
            queue.extend(manager.event(id, Event::Launched { pid: launched + 100 }, now));
            let _recorded = manager.take_touched();
            slowest = slowest.max(one.elapsed());
        }
    }
    let started = begin.elapsed();
    ensure!(
        manager.unit(system).is_up() && launched as usize + refused == count,
        "{launched} of {count} are up"
    );
    println!(
        "{count} services: graph taken in {made:.1?}, all started in {started:.1?}: {:.1} us a service, the slowest \
         event {slowest:.1?}, {events} events",
        started.as_secs_f64() * 1e6 / count as f64
    );

    let begin = Instant::now();
    let ids: Vec<_> = manager.graph().ids().collect();
    for id in ids.iter().filter(|id| **id != system) {
        now += Duration::from_nanos(1);
        // A notice that changes nothing: what an event costs that has nobody else to look at.
        ensure!(manager.event(*id, Event::Ready, now).is_empty(), "a service that is up stays so");
    }
    println!("{count} events that change nothing: {:.1?}", begin.elapsed());
    Ok(())
}
