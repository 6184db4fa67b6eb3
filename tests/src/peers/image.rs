//! A contender's image: its programs out of its Debian package, the service, and the guest's own program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::contender::Contender;
use super::files::SERVICE;
use super::native::compiled;
use crate::fetch::{Cache, run};
use crate::initramfs::Image;
use crate::programs::PeersPrograms;

/// The programs of a contender, as its package has them (below `/usr` or not).
fn programs(contender: Contender) -> &'static [&'static str] {
    match contender {
        Contender::Floor
        | Contender::FloorCgroup
        | Contender::FloorSandboxed
        | Contender::FloorStandby
        | Contender::MotherD
        | Contender::MotherDSandboxed
        | Contender::MotherDStandby
        | Contender::Busybox => &[],
        Contender::Sysvinit => &["sbin/init"],
        Contender::Finit => &["sbin/finit", "lib/finit/initctl"],
        Contender::Runit => &["sbin/runit", "bin/runsvdir", "bin/runsv", "bin/sv"],
        Contender::S6 => &["bin/s6-svscan", "bin/s6-supervise", "bin/s6-svstat"],
        Contender::Systemd | Contender::SystemdSandboxed => &["lib/systemd/systemd", "bin/systemctl"],
        Contender::Openrc => &[
            "sbin/openrc-init",
            "sbin/openrc",
            "sbin/openrc-run",
            "sbin/rc-service",
            "sbin/supervise-daemon",
            "bin/rc-status",
        ],
    }
}

/// The image, and which version of the contender is in it.
pub fn write(contender: Contender) -> Result<(PathBuf, String)> {
    let ours = PeersPrograms::built()?;
    let cache = Cache::open()?;
    // busybox is in every image: as the shell of those who need one, and as the measure of what asking a question costs.
    let mut image = Image::bare(cache.userland()?)?;
    image.busybox()?;
    image.program(&ours.guest, "/bench/guest")?;
    for (source, defines, to) in [
        ("service", None, SERVICE),
        ("storm", None, "/bench/storm"),
        ("floor", None, "/bench/floor"),
        ("floor", Some("-DCGROUP"), "/bench/floor-cg"),
        ("floor", Some("-DSANDBOX"), "/bench/floor-sbx"),
        ("floor", Some("-DSTANDBY"), "/bench/floor-standby"),
    ] {
        image.program(&compiled(source, defines, to)?, to)?;
    }
    let version = match contender.package() {
        None if contender.is_ours() => {
            for (program, to) in
                [(&ours.initldr, "initldr"), (&ours.motherd, "motherd"), (&ours.motherctl, "motherctl")]
            {
                image.program(program, &format!("/usr/sbin/{to}"))?;
            }
            image.tree(&crate::workspace().join("policies"), "/usr/lib/motherd/policies")?;
            env!("CARGO_PKG_VERSION").to_owned()
        }
        None => "tests/peers/floor.c".to_owned(),
        Some(package) => {
            let tree = cache.peer(package)?;
            image.look_in(tree.clone());
            for program in programs(contender) {
                let (from, to) = find(&tree, program)?;
                image.program(&from, &to)?;
            }
            if contender == Contender::Openrc {
                image.tree(&tree.join("lib/rc"), "/usr/lib/rc")?;
                for file in ["rc.conf", "insserv.conf"] {
                    image.file(
                        &format!("/etc/{file}"),
                        0o644,
                        std::fs::read(tree.join("etc").join(file))?,
                    )?;
                }
            }
            version(&tree, package)?
        }
    };
    let path = image.write(&format!("peers-{}", contender.name()))?;
    Ok((path, version))
}

/// Where a package has a program, and where the image has it: below `/usr`.
fn find(tree: &Path, program: &str) -> Result<(PathBuf, String)> {
    let places = [program.to_owned(), format!("usr/{program}")];
    let from = places.iter().map(|place| tree.join(place)).find(|path| path.exists());
    let from = from.with_context(|| format!("{program} is not in {}", tree.display()))?;
    Ok((from, format!("/usr/{program}")))
}

/// The version that the package's changelog begins with: `runit (2.1.2-54) unstable; urgency=medium`.
fn version(tree: &Path, package: &str) -> Result<String> {
    let folder = tree.join("usr/share/doc").join(package);
    let log = ["changelog.Debian.gz", "changelog.gz"].map(|name| folder.join(name));
    let log = log.into_iter().find(|path| path.exists()).context("a package without a changelog")?;
    let text = run(Command::new("gzip").arg("-dc").arg(log), "gzip")?;
    let version = text.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    Ok(version.context("a changelog without a version")?.0.to_owned())
}
