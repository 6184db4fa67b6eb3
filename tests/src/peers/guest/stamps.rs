//! When each service began: the file that all of them append to (`struct stamp` of `tests/peers/bench.h`).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};

use super::processes::{busy, cpu_of};

const STAMPS: &str = "/bench/run/stamps";
const BEGUN: &str = "/bench/run/begun";
const SIZE: usize = 16;

/// One first instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) id: usize,
    /// CLOCK_MONOTONIC.
    pub(super) at: Duration,
}

/// CLOCK_MONOTONIC, as the services read it.
pub(super) fn now() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?))
}

/// An empty file that every service may write to, whoever it runs as.
pub(super) fn prepare() -> Result<()> {
    fs::write(STAMPS, "")?;
    Ok(fs::set_permissions(STAMPS, fs::Permissions::from_mode(0o666))?)
}

/// When the contender was exec'd, and what was spent before.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) at: Duration,
    /// By PID 1, in nanoseconds.
    pub(super) spent: f64,
    /// By all processors, in milliseconds.
    pub(super) busy: f64,
}

/// Notes that the contender is being exec'd now, and what PID 1 and all processors have spent before.
pub(super) fn begin() -> Result<()> {
    let (spent, busy) = (cpu_of(1)?, busy()?);
    Ok(fs::write(BEGUN, format!("{} {spent} {busy}", now()?.as_nanos()))?)
}

/// What was noted.
pub(super) fn begun() -> Result<Begun> {
    let text = fs::read_to_string(BEGUN)?;
    let mut words = text.split(' ');
    let mut next = || words.next().context("three numbers");
    Ok(Begun { at: Duration::from_nanos(next()?.parse()?), spent: next()?.parse()?, busy: next()?.parse()? })
}

/// All stamps but the first `skipped`.
pub(super) fn after(skipped: usize) -> Result<Vec<Stamp>> {
    let bytes = fs::read(STAMPS)?;
    let whole = bytes.chunks_exact(SIZE).skip(skipped);
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    Ok(whole
        .map(|stamp| Stamp {
            id: usize::try_from(word(&stamp[..4])).unwrap_or(usize::MAX),
            at: Duration::from_nanos(word(&stamp[8..])),
        })
        .collect())
}

/// How many there are.
pub(super) fn count() -> Result<usize> {
    Ok(usize::try_from(fs::metadata(STAMPS)?.len())? / SIZE)
}

/// Waits until every service has begun. What is measured is in the stamps, so looking now and then is enough, and takes
/// nothing away from those who work.
pub(super) fn wait_for_all(services: usize, limit: Duration) -> Result<Vec<Stamp>> {
    let deadline = Instant::now() + limit;
    loop {
        if count()? >= services {
            let stamps = after(0)?;
            let ids: BTreeSet<usize> = stamps.iter().map(|stamp| stamp.id).collect();
            if ids.len() >= services {
                return Ok(stamps);
            }
        }
        ensure!(Instant::now() < deadline, "{} of {services} services began within {limit:?}", count()?);
        sleep(Duration::from_millis(50));
    }
}

/// Waits for the next stamp of a service after the first `skipped` of all.
pub(super) fn wait_for(id: usize, skipped: usize, limit: Duration) -> Result<Option<Stamp>> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if count()? > skipped
            && let Some(stamp) = after(skipped)?.into_iter().find(|stamp| stamp.id == id)
        {
            return Ok(Some(stamp));
        }
        sleep(Duration::from_millis(1));
    }
    Ok(None)
}
