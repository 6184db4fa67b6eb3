//! Attacks that are known to have worked on sandboxes, each attempted on ours, with its control: the same act,
//! unconfined, succeeds.
//!
//! The program `attacks` holds both sides: run without words by root it launches itself under policies by the sandbox
//! library, in a folder of its own ([`lab`]), and says a line of each attack; `attacks act ...` is the attacker inside
//! ([`acts`]). So one list runs on any machine, the guests of QEMU among them. [`rows`] is the table of pitfalls that
//! the attacks answer, and what answers those that are not the sandbox's.

pub mod acts;
mod calls;
mod files;
mod identity;
pub mod lab;
mod launcher;
mod memory;
mod mounts;
mod neighbours;
mod policies;
pub mod rows;

#[allow(unsafe_code, reason = "attacks are raw system calls")]
mod sys;

use anyhow::Result;

use lab::Lab;

/// What came of an attack that did not succeed. One that did is an error.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The sandbox held, and the control showed that the act works without it.
    Resisted,
    /// It cannot be attempted here, because of this.
    NotHere(String),
}

/// One attack.
#[derive(Debug)]
pub struct Attack {
    /// What it is called, in tests as well.
    pub name: &'static str,
    /// The rows of [`rows::ROWS`] that it answers.
    pub rows: &'static [u8],
    /// What resists it.
    pub layer: &'static str,
    /// Attempts it.
    pub attempt: fn(&Lab) -> Result<Verdict>,
}

/// Makes a table of attacks, each named as the function that attempts it.
macro_rules! attacks {
    ($($name:ident [$($row:literal),*] $layer:literal;)*) => {
        pub(super) const ATTACKS: &[$crate::attacks::Attack] = &[
            $($crate::attacks::Attack {
                name: stringify!($name),
                rows: &[$($row),*],
                layer: $layer,
                attempt: $name,
            }),*
        ];
    };
}
use attacks;

pub use launcher::print_confined_environment;

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Attack> {
    let rooms = [
        launcher::ATTACKS,
        mounts::ATTACKS,
        files::ATTACKS,
        calls::ATTACKS,
        memory::ATTACKS,
        identity::ATTACKS,
        neighbours::ATTACKS,
        policies::ATTACKS,
    ];
    rooms.into_iter().flatten()
}
