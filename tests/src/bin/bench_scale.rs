//! A thousand services on this host, as root: `cargo run --release -p e2e --bin bench_scale [-- --help]`
//!
//! In each round motherd brings them up from nothing, and this program launches the same in a bare loop. Then, with all of
//! them up: what motherd weighs, how long `motherctl` takes, whether anything wakes up while nothing happens. Last, service
//! files by the thousand against `systemd-analyze verify`, if that is here.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use e2e::scale::{Scale, files, measure};

const USAGE: &str = "\
usage: bench_scale [--services N] [--policy NAME] [--rounds N] [--idle SECONDS]

1000 services under `unconfined`, 3 rounds, 60 s where nothing is given";

fn main() -> ExitCode {
    let scale = match parse(std::env::args().skip(1)) {
        Ok(scale) => scale,
        Err(error) => {
            eprintln!("{error:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match measure(&scale).and_then(|()| files()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Scale> {
    let mut scale = Scale { services: 1000, policy: "unconfined".to_owned(), rounds: 3, idle: 60 };
    while let Some(word) = words.next() {
        if word == "--help" {
            bail!("a thousand services on this host");
        }
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--services" => scale.services = value.parse()?,
            "--policy" => scale.policy = value,
            "--rounds" => scale.rounds = value.parse()?,
            "--idle" => scale.idle = value.parse()?,
            _ => bail!("{word} is no option"),
        }
    }
    Ok(scale)
}
