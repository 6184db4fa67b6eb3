//! The programs under test, built by cargo as a user would build them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, anyhow, ensure};

/// Where the release builds are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// PID 1.
    pub initldr: PathBuf,
    /// The service manager.
    pub motherd: PathBuf,
    /// One-shot work of a boot.
    pub early: PathBuf,
    /// The operator's tool.
    pub motherctl: PathBuf,
    /// Attempts one act and says what came of it.
    pub probe: PathBuf,
    /// Attacks the sandbox from within.
    pub attacks: PathBuf,
    /// Puts PID 1 of a guest under fire.
    pub fire: PathBuf,
    /// Speaks for a service, and says what it was handed.
    pub client: PathBuf,
}

impl Programs {
    /// Builds them, once per process.
    pub fn built() -> Result<&'static Self> {
        static BUILT: OnceLock<Result<Programs, String>> = OnceLock::new();
        let build = || Self::build().map_err(|error| format!("{error:#}"));
        BUILT.get_or_init(build).as_ref().map_err(|error| anyhow!("{error}"))
    }

    fn build() -> Result<Self> {
        let packages = ["--package", "initldr", "--package", "motherd", "--package", "e2e"];
        cargo_build(
            true,
            &packages,
            &["initldr", "motherd", "motherctl", "motherd-early", "probe", "attacks", "client", "fire"],
        )?;
        let release = crate::target_dir().join("release");
        Ok(Self {
            initldr: release.join("initldr"),
            motherd: release.join("motherd"),
            early: release.join("motherd-early"),
            motherctl: release.join("motherctl"),
            probe: release.join("probe"),
            attacks: release.join("attacks"),
            fire: release.join("fire"),
            client: release.join("client"),
        })
    }
}

/// What only `soak_kill` and its tests need, built as they are themselves, optimized or not.
#[derive(Debug, Clone)]
pub struct SoakPrograms {
    /// PID 1.
    pub initldr: PathBuf,
    /// motherd with points at which it ends.
    pub motherd: PathBuf,
    /// The operator's tool.
    pub motherctl: PathBuf,
    /// A service that keeps a ledger.
    pub service: PathBuf,
    /// The client and auditor, which can also run inside of a guest.
    pub soak: PathBuf,
}

impl SoakPrograms {
    /// Builds them.
    pub fn built() -> Result<Self> {
        let release = !cfg!(debug_assertions);
        let failpoints = ["--package", "motherd", "--features", "motherd/failpoints"];
        cargo_build(release, &failpoints, &["motherd_failpoints", "motherctl"])?;
        cargo_build(release, &["--package", "initldr"], &["initldr"])?;
        cargo_build(release, &["--package", "e2e"], &["soak_service", "soak_kill"])?;
        let folder = crate::target_dir().join(if release { "release" } else { "debug" });
        let names = ["initldr", "motherd_failpoints", "motherctl", "soak_service", "soak_kill"];
        let [initldr, motherd, motherctl, service, soak] = names.map(|name| folder.join(name));
        Ok(Self { initldr, motherd, motherctl, service, soak })
    }
}

/// What only `peers_boot` needs.
#[derive(Debug, Clone)]
pub struct PeersPrograms {
    /// PID 1.
    pub initldr: PathBuf,
    /// The service manager.
    pub motherd: PathBuf,
    /// The operator's tool.
    pub motherctl: PathBuf,
    /// PID 1 and controller of a guest in which init systems are measured.
    pub guest: PathBuf,
}

impl PeersPrograms {
    /// Builds them.
    pub fn built() -> Result<Self> {
        cargo_build(true, &["--package", "initldr"], &["initldr"])?;
        cargo_build(true, &["--package", "motherd"], &["motherd", "motherctl"])?;
        cargo_build(true, &["--package", "e2e"], &["peers_guest"])?;
        let release = crate::target_dir().join("release");
        let [initldr, motherd, motherctl, guest] =
            ["initldr", "motherd", "motherctl", "peers_guest"].map(|name| release.join(name));
        Ok(Self { initldr, motherd, motherctl, guest })
    }
}

fn cargo_build(release: bool, packages: &[&str], programs: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(crate::workspace()).args(["build", "--quiet"]).args(packages);
    if release {
        command.arg("--release");
    }
    for program in programs {
        command.args(["--bin", program]);
    }
    let status = command.status()?;
    ensure!(status.success(), "cargo build failed: {status}");
    Ok(())
}
