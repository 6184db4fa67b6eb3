//! What runs in the guest beside the contender: first as PID 1, then as the controller that PID 1 leaves behind.

mod crash;
mod measure;
mod processes;
mod stage;
mod stamps;

use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::contender::Contender;
use super::report;

/// The program, by its two names.
pub fn main() -> Result<()> {
    let order = Order::read()?;
    if std::process::id() == 1 {
        return stage::become_contender(&order);
    }
    let mut line = Line::open()?;
    if let Err(error) = measure::all(&order, &mut line) {
        line.say(&report::note("error", &format!("{error:#}")))?;
    }
    line.say(report::END)
}

/// What the kernel command line asks for.
#[derive(Debug)]
struct Order {
    contender: Contender,
    services: usize,
    /// Words of [`measure::all`].
    measures: Vec<String>,
}

impl Order {
    fn read() -> Result<Self> {
        // Before /proc is mounted there is nothing to read, and only the first of us comes so early.
        if std::process::id() == 1 {
            stage::mount_all()?;
        }
        let line = std::fs::read_to_string("/proc/cmdline")?;
        let word = line.split_whitespace().find_map(|word| word.strip_prefix("peers="));
        let mut parts = word.context("no peers= on the kernel command line")?.split(',');
        let name = parts.next().unwrap_or_default();
        let contender = Contender::named(name).with_context(|| format!("{name} is no contender"))?;
        let services = parts.next().context("no number of services")?.parse()?;
        Ok(Self { contender, services, measures: parts.map(str::to_owned).collect() })
    }

    /// The number of a measure that has one: 60 of `idle=60`.
    fn number(&self, measure: &str) -> Option<u64> {
        self.measures.iter().find_map(|word| word.strip_prefix(measure)?.strip_prefix('=')?.parse().ok())
    }
}

/// The second serial line.
#[derive(Debug)]
struct Line(File);

impl Line {
    fn open() -> Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/ttyS1")?;
        let mut raw = tcgetattr(&file)?;
        cfmakeraw(&mut raw);
        tcsetattr(&file, SetArg::TCSANOW, &raw)?;
        Ok(Self(file))
    }

    fn say(&mut self, line: &str) -> Result<()> {
        self.0.write_all(format!("{line}\n").as_bytes())?;
        Ok(nix::sys::termios::tcdrain(&self.0)?)
    }

    fn figures(&mut self, name: &str, values: &[f64]) -> Result<()> {
        self.say(&report::figures(name, values))
    }
}
