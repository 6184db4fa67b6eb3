//! motherd troubled in every way that needs no machine of its own, in a short form of `soak_kill`; and what of the points
//! at which it ends is in the programs that are shipped.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    programs::{Programs, SoakPrograms},
    say,
    scratch::Scratch,
    soak::{
        client::Clients,
        load::{Scale, own_port},
        modes::Mode,
        run::{Churn, Pair, Report, points},
    },
};

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
