//! End-to-end tests: the vocabulary in which they are written.
//!
//! [`fetch`] gets kernels, daemons and QEMU; [`initramfs`] makes a boot image of them and of the [`programs`] of this
//! workspace; [`machine`] boots it and talks to it over serial lines; [`scratch`] runs the programs on this
//! very host, in a root directory and a cgroup of their own; [`clients`] are the programs that services speak with,
//! [`daemons`] real services, [`hostile`] clients that mean no good;
//! [`arena`] is where launches are measured. The tests
//! themselves stand in `tests/tests`.

pub mod arena;
pub mod attacks;
pub mod clients;
pub mod container;
pub mod cpio;
pub mod daemons;
pub mod descriptors;
pub mod differential;
pub mod disk;
pub mod faults;
pub mod fetch;
pub mod hostile;
pub mod initramfs;
pub mod leaks;
pub mod load;
pub mod machine;
pub mod modules;
pub mod peers;
pub mod probe;
pub mod programs;
pub mod reapers;
pub mod scale;
pub mod scratch;
pub mod soak;
pub mod system;
pub mod witness;

#[allow(unsafe_code, reason = "what a child does between fork and exec, and the probe's raw calls")]
mod sys;

use std::io::Write;
use std::path::{Path, PathBuf};

/// The workspace that these tests belong to.
#[must_use]
pub fn workspace() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// Where cargo builds to.
#[must_use]
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// Says a line to whoever runs the tests, past the capture of what a passing test prints.
pub fn say(line: &str) {
    let mut errors = std::io::stderr().lock();
    // Nobody is left to be told where standard error is closed.
    drop(errors.write_all(format!("{line}\n").as_bytes()));
}
