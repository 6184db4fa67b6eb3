//! Troubles motherd in every way under load, and compares the accounts: `cargo run --release -p e2e --bin soak_kill --
//! [--only MODE,...] [--times N] [--services N] [--port N] [--kernel 6.1|6.12|all]`, as root.
//!
//! Without `--kernel` it works on this host; with it in a guest, where this very program is run with `--guest`. Each mode has
//! counts of its own, all of which are to be 0; `--times` is how often, for all modes that are run, where their own numbers
//! are not wanted.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    programs::SoakPrograms,
    scratch::Scratch,
    soak::{
        client::Clients,
        guest,
        load::{Scale, own_port},
        modes::Mode,
        run::{Churn, Pair, Report},
    },
};

struct Options {
    only: Vec<Mode>,
    times: Option<usize>,
    services: Option<usize>,
    port: Option<u16>,
    kernel: Option<String>,
    guest: bool,
}

fn main() -> Result<()> {
    let mut options =
        Options { only: vec![], times: None, services: None, port: None, kernel: None, guest: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--only" => {
                options.only = value()?.split(',').map(Mode::named).collect::<Result<_>>()?;
            }
            // `--kills` is what it was called when killing was all.
            "--times" | "--kills" => options.times = Some(value()?.parse()?),
            "--services" => options.services = Some(value()?.parse()?),
            "--port" => options.port = Some(value()?.parse()?),
            "--kernel" => options.kernel = Some(value()?),
            "--guest" => options.guest = true,
            other => bail!("not understood: {other}"),
        }
    }
    match &options.kernel {
        Some(kernel) => {
            let modes: Vec<&str> = options.only.iter().map(|mode| mode.name()).collect();
            guest::run(kernel, &modes, options.times, options.services.unwrap_or(guest::SERVICES))
        }
        None if options.guest => {
            let services = options.services.unwrap_or(guest::SERVICES);
            let mut pair = Pair::in_guest(Scale { services, port: 47_100, loud: false })?;
            all_modes(&mut pair, &options, |_| true)
        }
        None => on_this_host(&options),
    }
}

fn on_this_host(options: &Options) -> Result<()> {
    let programs = SoakPrograms::built()?;
    let mut scratch = Scratch::new("soak_kill")?.context("run it as root")?;
    let services = options.services.unwrap_or(200);
    let mut pair = Pair::start(
        &mut scratch,
        &programs,
        Scale { services, port: options.port.unwrap_or_else(own_port), loud: true },
    )?;
    let result = all_modes(&mut pair, options, |mode| !mode.needs_a_machine());
    if result.is_err() {
        let kept = std::env::temp_dir().join(format!("soak-kill-{}.log", std::process::id()));
        fs::copy(scratch.path("log"), &kept)?;
        println!("what motherd said: {}", kept.display());
    }
    result
}

fn all_modes(pair: &mut Pair, options: &Options, can: impl Fn(Mode) -> bool) -> Result<()> {
    let begun = Instant::now();
    pair.settled()?;
    println!("{} services are up after {:.1} s", pair.load.services.len(), begun.elapsed().as_secs_f64());
    let baseline = pair.baseline()?;
    // Two hundred questions a second to each are enough to hit any gap; an emulated processor has fifty and time for more.
    let pause = Duration::from_millis(if options.guest { 20 } else { 5 });
    let clients = Clients::start(pair.load.asks(), pause);
    let wanted = |mode: &Mode| options.only.is_empty() || options.only.contains(mode);
    let (mut failed, mut crashes, mut before) = (Vec::new(), 0, [0; 3]);
    for mode in Mode::ALL.into_iter().filter(wanted) {
        if !can(mode) {
            println!("\n== {}: needs a machine of its own: --kernel all --only {}", mode.name(), mode.name());
            continue;
        }
        if !fs::exists(points_file())? && mode == Mode::Points && options.guest {
            println!("\n== {}: its list is not here", mode.name());
            continue;
        }
        let times = options.times.unwrap_or_else(|| mode.times());
        println!("\n== {} ({times})", mode.name());
        let mut report = Report::default();
        let churn = mode.churns().then(|| Churn::start(pair));
        let troubled = pair.trouble(&mut report, mode, times);
        if let Some(churn) = churn {
            report.requests = churn.stop()?;
        }
        troubled?;
        pair.audit(&mut report, &baseline)?;
        report.crashes -= std::mem::replace(&mut crashes, report.crashes);
        before = report.answered_since(&clients, before);
        print!("{}", report.text());
        println!("{:.0} s so far", begun.elapsed().as_secs_f64());
        if report.counts.total() > 0 {
            failed.push(mode.name());
        }
    }
    drop(clients.stop());
    ensure!(failed.is_empty(), "something was lost: {}", failed.join(", "));
    println!("\nnothing was lost");
    Ok(())
}

fn points_file() -> &'static Path {
    Path::new(e2e::soak::run::POINTS)
}
