//! motherd killed at every named point and at random instants, in a short form of `soak_kill`; and what of that is in the
//! programs that are shipped.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::{
    programs::{Programs, SoakPrograms},
    say,
    scratch::Scratch,
    soak::{
        client::{Clients, ask_echo},
        load::Scale,
        run::{Churn, Pair, Report, points},
    },
};
use nix::sys::signal::Signal;

/// A pair under load; `None` where this is not root.
fn pair(test: &str, services: usize, port: u16) -> Result<Option<(Scratch, Pair)>> {
    let Some(mut scratch) = Scratch::new(test)? else { return Ok(None) };
    let programs = SoakPrograms::built()?;
    let pair = Pair::start(&mut scratch, &programs, Scale { services, port })?;
    pair.settled().with_context(|| scratch.log().unwrap_or_default())?;
    Ok(Some((scratch, pair)))
}

#[test]
fn a_motherd_killed_at_every_point_and_at_twenty_instants_loses_nothing() -> Result<()> {
    let Some((scratch, mut pair)) = pair("a_motherd_killed_at_every_point", 60, 47_200)? else {
        return Ok(());
    };
    let baseline = pair.baseline()?;
    let clients = Clients::start(pair.load.ports().into_iter().map(ask_echo).collect());
    let mut report = Report::default();
    for point in points()?.iter().filter(|point| !point.starts_with("boot.")) {
        report.recoveries.push(pair.end_at(point, "kill").with_context(|| point.clone())?);
        report.kills += 1;
    }
    let churn = Churn::start(&pair);
    pair.kill_at_random(&mut report, 10, &[Signal::SIGKILL])?;
    pair.kill_at_random(
        &mut report,
        10,
        &[Signal::SIGSEGV, Signal::SIGABRT, Signal::SIGKILL, Signal::SIGKILL],
    )?;
    report.requests = churn.stop()?;
    pair.audit(&mut report, &baseline)?;
    report.answered(&clients.stop());
    say(report.text().trim_end());
    ensure!(report.counts.total() == 0, "{}\n{}", report.text(), scratch.log()?);
    ensure!(
        report.crashes > 50 && report.answers > 100 && report.lines > 1000,
        "too little load: {}",
        report.text()
    );
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
