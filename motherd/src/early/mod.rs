//! `motherd-early`: the one-shot work of a boot that no program of a distribution does, or that an initramfs has no
//! program for. Each command is the `exec` of a service, so it runs under a policy, is logged, and its failure has a cause.
//!
//! ```text
//! motherd-early modules              load the modules that devices and /etc/modules-load.d ask for
//! motherd-early root [--to DIR]      find the root of the kernel command line, wait for it, mount it
//! motherd-early random-seed load     credit the seed of the last shutdown, and replace it at once
//! motherd-early random-seed save
//! ```

pub(crate) mod cmdline;
mod modules;
mod root;
mod seed;
mod superblock;

use std::{fmt, io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// One-shot work of a boot; see motherd's shipped services.
#[derive(Debug, Parser)]
#[command(name = "motherd-early", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load the modules that devices and modules-load.d ask for
    Modules,
    /// Find the root file system that the kernel command line names, wait for it, and mount it
    Root {
        /// Where it is mounted; initldr enters /rootfs
        #[arg(long, value_name = "DIR", default_value = "/rootfs")]
        to: PathBuf,
    },
    /// Keep randomness across a boot
    #[command(subcommand)]
    RandomSeed(Seed),
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Seed {
    /// Credit what was saved, and replace it
    Load,
    /// Save some for the next boot
    Save,
}

/// Why a piece of work was not done: what was tried, and what the kernel said.
#[derive(Debug)]
struct Failure(String);

impl Failure {
    /// An error of the system, and about what.
    fn of<E: Into<io::Error>>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{what}: {}", error.into()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Modules => modules::load(),
        Command::Root { to } => root::mount(&to),
        Command::RandomSeed(Seed::Load) => seed::load(),
        Command::RandomSeed(Seed::Save) => seed::save(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("motherd-early: {failure}");
            ExitCode::FAILURE
        }
    }
}
