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
    /// The operator's tool.
    pub motherctl: PathBuf,
    /// Attempts one act and says what came of it.
    pub probe: PathBuf,
    /// Attacks the sandbox from within.
    pub attacks: PathBuf,
}

impl Programs {
    /// Builds them, once per process.
    pub fn built() -> Result<&'static Self> {
        static BUILT: OnceLock<Result<Programs, String>> = OnceLock::new();
        let build = || Self::build().map_err(|error| format!("{error:#}"));
        BUILT.get_or_init(build).as_ref().map_err(|error| anyhow!("{error}"))
    }

    fn build() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(crate::workspace()).args(["build", "--quiet", "--release"]);
        command.args(["--package", "initldr", "--package", "motherd", "--package", "e2e"]);
        for program in ["initldr", "motherd", "motherctl", "probe", "attacks"] {
            command.args(["--bin", program]);
        }
        let status = command.status()?;
        ensure!(status.success(), "cargo build --release failed: {status}");
        let release = crate::target_dir().join("release");
        Ok(Self {
            initldr: release.join("initldr"),
            motherd: release.join("motherd"),
            motherctl: release.join("motherctl"),
            probe: release.join("probe"),
            attacks: release.join("attacks"),
        })
    }
}
