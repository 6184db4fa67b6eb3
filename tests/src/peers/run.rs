//! One boot of one contender, and what its guest reports.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::contender::Contender;
use super::files::order;
use super::report::{END, Report};
use crate::fetch::Kernel;
use crate::machine::{Machine, Setup, run_with};

/// Beyond what the contender may take for its services: kernel, image, and everything that is measured after them.
const REST: Duration = Duration::from_secs(400);
/// For 500 confined services; the kernel's objects of each take some 300 kB.
const MEMORY: u32 = 2048;

/// What PID 1 died of takes the machine with it.
const PANIC: &str = "Kernel panic - not syncing: Attempted to kill init!";

/// What is asked of a boot.
#[derive(Debug, Clone)]
pub struct Boot<'a> {
    /// Who is PID 1.
    pub contender: Contender,
    /// How many services it has.
    pub services: usize,
    /// What is measured once they run: words of `guest::measure`.
    pub measures: &'a [String],
    /// By a clock that counts instructions.
    pub counted: bool,
}

impl Boot<'_> {
    /// Boots, measures, and ends the machine; once more if the emulation failed.
    pub fn run(&self, kernel: Kernel, image: &Path) -> Result<Report> {
        let idle = self.measures.iter().find_map(|word| word.strip_prefix("idle=")?.parse().ok());
        let limit = self.contender.patience() + REST + Duration::from_secs(idle.unwrap_or_default());
        // For whoever looks for a reason: motherd.log=debug, say.
        let more = std::env::var("PEERS_WORDS").unwrap_or_default();
        let order = order(self.contender, self.services, self.measures);
        // The kernel would examine its ciphers meanwhile.
        let words = format!("rdinit=/bench/guest quiet cryptomgr.notests {order} {more}");
        let setup = || {
            Ok(Setup {
                words: words.clone(),
                memory: Some(MEMORY),
                counted: self.counted,
                ..Setup::default()
            })
        };
        let told = RefCell::new(Report::default());
        let boot = |machine: &mut Machine| {
            let text = machine.written(END, limit)?;
            let mut report = Report::read(&text);
            let console = machine.console();
            if report.faulted && !report.ended && console.contains(PANIC) {
                report
                    .notes
                    .insert("restarted-after-it".to_owned(), "kernel panic: everything is gone".to_owned());
                report.ended = true;
            }
            if std::env::var_os("PEERS_VERBOSE").is_some() {
                crate::say(&console);
            }
            if !report.ended {
                bail!("the machine ended, its console's end: {}", tail(&console));
            }
            if let Some(error) = report.notes.get("error").filter(|_| !report.figures.contains_key("last")) {
                bail!("{error}; its console's end: {}", tail(&console));
            }
            told.replace(report);
            Ok(())
        };
        run_with(kernel, image, &setup, boot)
            .with_context(|| format!("{} with {} services", self.contender.name(), self.services))?;
        Ok(told.into_inner())
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
