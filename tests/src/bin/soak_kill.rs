//! Kills motherd at every named point and at random instants under load, and compares the accounts: `cargo run --release
//! -p e2e --bin soak_kill -- [--kills N] [--services N] [--no-points]`, as root.

use std::{fs, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    programs::SoakPrograms,
    scratch::Scratch,
    soak::{
        client::{Clients, ask_echo},
        load::Scale,
        run::{Churn, Pair, Report, points},
    },
};
use nix::sys::signal::Signal;

struct Options {
    kills: usize,
    services: usize,
    points: bool,
}

fn main() -> Result<()> {
    let mut options = Options { kills: 1000, services: 200, points: true };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<usize> { Ok(words.next().context("a number")?.parse()?) };
        match word.as_str() {
            "--kills" => options.kills = number()?,
            "--services" => options.services = number()?,
            "--no-points" => options.points = false,
            other => bail!("not understood: {other}"),
        }
    }
    on_this_host(&options)
}

fn on_this_host(options: &Options) -> Result<()> {
    let programs = SoakPrograms::built()?;
    let mut scratch = Scratch::new("soak_kill")?.context("run it as root")?;
    let begun = Instant::now();
    let mut pair = Pair::start(&mut scratch, &programs, Scale { services: options.services, port: 47_100 })?;
    let result = soak(&mut pair, options, begun);
    if result.is_err() {
        let kept = std::env::temp_dir().join(format!("soak-kill-{}.log", std::process::id()));
        fs::copy(scratch.path("log"), &kept)?;
        println!("what motherd said: {}", kept.display());
    }
    result
}

fn soak(pair: &mut Pair, options: &Options, begun: Instant) -> Result<()> {
    pair.settled()?;
    println!("{} services are up after {:.1} s", options.services, begun.elapsed().as_secs_f64());
    let baseline = pair.baseline()?;
    let clients = Clients::start(pair.load.ports().into_iter().map(ask_echo).collect());
    let mut report = Report::default();
    if options.points {
        let mut all = points()?;
        all.retain(|point| !point.starts_with("boot."));
        for point in &all {
            report.recoveries.push(pair.end_at(point, "kill").with_context(|| point.clone())?);
            report.kills += 1;
        }
        println!("killed at each of {} points", all.len());
        pair.audit(&mut report, &baseline)?;
        println!("{}", report.text());
    }
    let churn = Churn::start(pair);
    let mut left = options.kills;
    while left > 0 {
        let batch = left.min(100);
        pair.kill_at_random(&mut report, batch, &[Signal::SIGKILL])?;
        left -= batch;
        println!("{} kills so far, {:.0} s", report.kills, begun.elapsed().as_secs_f64());
    }
    report.requests = churn.stop()?;
    pair.audit(&mut report, &baseline)?;
    report.answered(&clients.stop());
    println!("{}", report.text());
    ensure!(report.counts.total() == 0, "something was lost");
    println!("nothing was lost");
    Ok(())
}
