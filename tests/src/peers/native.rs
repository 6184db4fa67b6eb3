//! The programs of `tests/peers`: C without a C library, compiled by the machine's gcc.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::fetch::run;

/// A program of `tests/peers`, without a C library.
pub fn compiled(source: &str, define: Option<&str>, name: &str) -> Result<PathBuf> {
    let folder = crate::target_dir().join("e2e-peers");
    std::fs::create_dir_all(&folder)?;
    let name = Path::new(name).file_name().context("a path with a name")?;
    // Of this process alone: another one may be compiling the same.
    let program = folder.join(format!("{}.{}", name.display(), std::process::id()));
    let mut command = Command::new("gcc");
    command.args([
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-static",
        "-nostdlib",
        "-ffreestanding",
    ]);
    // No call of a C library, no red zone (floor.c says why), nothing to be relocated.
    command.args([
        "-fno-stack-protector",
        "-mno-red-zone",
        "-fno-pie",
        "-no-pie",
        "-s",
        "-Wl,--build-id=none",
    ]);
    command.args(define).arg("-o").arg(&program);
    command.arg(crate::workspace().join("tests/peers").join(format!("{source}.c")));
    run(&mut command, "gcc")?;
    Ok(program)
}
