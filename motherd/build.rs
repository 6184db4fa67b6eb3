//! Links motherctl without a dynamic loader, where the toolchain has what that takes
//! (docs/decisions/0038-motherctl-has-no-loader.md). Where it has not, motherctl is linked as any other program.

use std::{env, fs, io, path::PathBuf, process::Command};

/// What the standard library is linked with, by the names that it asks for.
const LIBRARIES: [&str; 6] = ["c", "m", "dl", "pthread", "rt", "util"];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CC");
    let is = |key: &str, value: &str| env::var(key).is_ok_and(|found| found == value);
    let native = env::var_os("HOST") == env::var_os("TARGET");
    if !native || !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return Ok(());
    }
    let archives: Option<Vec<_>> =
        LIBRARIES.iter().map(|name| Some((*name, path_of(&format!("lib{name}.a"))?))).collect();
    let (Some(archives), Some(_), Some(_)) = (archives, path_of("rcrt1.o"), path_of("libgcc_eh.a")) else {
        return Ok(());
    };
    // Linker scripts, as distributions have under these names as well: found first, they mean the archives.
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    for (name, archive) in archives {
        // libc.a needs what is in these, and they need it.
        fs::write(out.join(format!("lib{name}.so")), format!("GROUP({archive} -lgcc -lgcc_eh)\n"))?;
    }
    fs::write(out.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n")?;
    println!("cargo:rustc-link-arg-bin=motherctl=-L{}", out.display());
    println!("cargo:rustc-link-arg-bin=motherctl=-static-pie");
    Ok(())
}

/// Where the C compiler, which is what links, finds a file: one that it does not find it answers as it is.
fn path_of(file: &str) -> Option<String> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let answer = Command::new(compiler).arg(format!("-print-file-name={file}")).output().ok()?;
    let path = String::from_utf8(answer.stdout).ok()?.trim().to_owned();
    path.starts_with('/').then_some(path)
}
