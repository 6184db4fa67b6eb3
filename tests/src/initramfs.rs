//! The boot image: a whole small system that runs out of the initramfs, since the cloud kernels have their disk and
//! network drivers as modules and this system needs neither.
//!
//! What it holds beside the programs of this workspace and the shipped policies stands as files in `tests/image`, and
//! comes from the Debian packages that [`crate::fetch`] unpacked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};

use crate::cpio::Archive;
use crate::fetch::{Cache, Flavour, Kernel, run};
use crate::programs::Programs;

/// Where a tree of Debian's has its shared libraries.
const LIBRARY_DIRS: [&str; 5] = [
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "lib64",
    "usr/lib64",
    // systemd's own, which nobody else links.
    "usr/lib/x86_64-linux-gnu/systemd",
];
/// Where the image has them.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
/// The one path of the loader that programs name.
const LOADER: &str = "ld-linux-x86-64.so.2";
/// The daemons and the tool that asks one of them.
const DAEMONS: [&str; 3] = ["usr/sbin/nginx", "usr/bin/redis-server", "usr/bin/redis-cli"];

/// An image under construction.
#[derive(Debug)]
pub struct Image {
    archive: Archive,
    userland: PathBuf,
    /// Where else libraries are looked for.
    packages: Vec<PathBuf>,
    /// File names of the libraries that are in already.
    libraries: BTreeSet<String>,
}

impl Image {
    /// The system: initldr as `/init`, motherd, its policies and services, nginx, redis and busybox.
    pub fn system() -> Result<Self> {
        let programs = Programs::built()?;
        let mut image = Self::base()?;
        image.archive.copy(&programs.initldr, "/init", 0o755)?;
        image.program(&programs.initldr, "/usr/sbin/initldr")?;
        image.program(&programs.motherd, "/usr/sbin/motherd")?;
        image.program(&programs.motherctl, "/usr/sbin/motherctl")?;
        image.program(&programs.probe, "/usr/bin/probe")?;
        image.tree(&crate::workspace().join("policies"), "/usr/lib/motherd/policies")?;
        image.tree(&crate::workspace().join("tests/image/services"), "/usr/lib/motherd/services")?;
        for daemon in DAEMONS {
            let path = image.userland.join(daemon);
            image.program(&path, &format!("/{daemon}"))?;
        }
        image.archive.copy(&image.userland.join("etc/nginx/mime.types"), "/etc/nginx/mime.types", 0o644)?;
        for (path, user) in [("/var/lib/nginx", 33), ("/var/log/nginx", 33), ("/var/lib/redis", 101)] {
            image.folder(path, user)?;
        }
        Ok(image)
    }

    /// An initramfs that finds a root on a disk: initldr as `/init`, motherd, the services of that phase, and modules.
    pub fn early(modules: impl Fn(Kernel) -> Vec<&'static str>) -> Result<Self> {
        let programs = Programs::built()?;
        let mut image = Self::base()?;
        image.archive.copy(&programs.initldr, "/init", 0o755)?;
        image.program(&programs.motherd, "/usr/sbin/motherd")?;
        image.program(&programs.motherctl, "/usr/sbin/motherctl")?;
        image.program(&programs.early, "/usr/lib/motherd/motherd-early")?;
        let shipped = crate::workspace().join("motherd/services");
        image.archive.copy(&shipped.join("rescue"), "/usr/lib/motherd/rescue", 0o755)?;
        image.tree(&shipped.join("initramfs"), "/usr/lib/motherd/services")?;
        image.tree(&crate::workspace().join("policies"), "/usr/lib/motherd/policies")?;
        image.archive.file("/etc/initrd-release", 0o644, "NAME=\"initramfs of the tests\"\n")?;
        for kernel in Kernel::ALL {
            image.modules(kernel, Flavour::Cloud, &modules(kernel))?;
        }
        Ok(image)
    }

    /// Adds sulogin(8), and a root who has a password.
    pub fn sulogin(&mut self) -> Result<()> {
        let system = Cache::open()?.system()?;
        self.packages(&system);
        self.program(&system.join("sbin/sulogin"), "/usr/sbin/sulogin")?;
        self.file("/etc/shadow", 0o600, crate::disk::shadow())
    }

    /// Adds modules of a kernel, and those that they need.
    pub fn modules(&mut self, kernel: Kernel, flavour: Flavour, names: &[&str]) -> Result<()> {
        // Where the kernel looks for it.
        if !self.archive.has("/usr/sbin/modprobe") {
            self.archive.link("/usr/sbin/modprobe", "../bin/busybox")?;
        }
        for (path, data) in crate::modules::files(&Cache::open()?.modules(kernel, flavour)?, names)? {
            self.archive.file(&format!("/usr/lib/modules/{path}"), 0o644, data)?;
        }
        Ok(())
    }

    /// Directories and no program. Libraries of what is added come from `userland`.
    pub fn bare(userland: PathBuf) -> Result<Self> {
        let mut image =
            Self { archive: Archive::default(), userland, packages: vec![], libraries: BTreeSet::new() };
        for (path, permissions) in [
            ("/dev", 0o755),
            ("/proc", 0o555),
            ("/sys", 0o555),
            ("/run", 0o755),
            ("/tmp", 0o1777),
            ("/root", 0o700),
            ("/home", 0o755),
            ("/boot", 0o755),
            ("/var/log", 0o755),
            ("/var/cache", 0o755),
            ("/usr/sbin", 0o755),
        ] {
            image.archive.directory(path, permissions)?;
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            image.archive.link(&format!("/{name}"), &format!("usr/{name}"))?;
        }
        // The kernel opens it for PID 1 before anything is mounted.
        image.archive.device("/dev/console", 0o600, 5, 1)?;
        Ok(image)
    }

    /// What is no program of ours: busybox, `/etc`, empty directories, and a shell script as `/init`.
    ///
    /// By itself it is a machine without motherd, which tells a failure of the harness from one of the product.
    pub fn base() -> Result<Self> {
        let mut image = Self::bare(Cache::open()?.userland()?)?;
        image.busybox()?;
        image.tree(&crate::workspace().join("tests/image/root"), "")?;
        image.archive.file(
            "/init",
            0o755,
            fs::read(crate::workspace().join("tests/image/init-without-motherd"))?,
        )?;
        Ok(image)
    }

    /// What is added from now on may need libraries of these unpacked packages.
    pub fn packages(&mut self, tree: &Path) {
        self.packages.push(tree.to_owned());
    }

    /// Adds an empty folder of somebody's.
    pub fn folder(&mut self, path: &str, owner: u32) -> Result<()> {
        self.archive.directory(path, 0o750)?;
        self.archive.give(path, owner, owner)
    }

    /// Adds a file of root's.
    pub fn file(&mut self, path: &str, permissions: u32, data: impl Into<Vec<u8>>) -> Result<()> {
        self.archive.file(path, permissions, data)
    }

    /// From now on libraries come from this tree.
    pub fn look_in(&mut self, userland: PathBuf) {
        self.userland = userland;
    }

    /// Writes the image under `target/` and returns its path.
    pub fn write(&self, name: &str) -> Result<PathBuf> {
        let dir = crate::target_dir().join("e2e-cache/images");
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{name}.cpio"));
        // Renamed into place, since another test process may be starting QEMU with the same image.
        let partial = dir.join(format!("{name}.{}.partial", std::process::id()));
        fs::write(&partial, self.archive.finish()?)
            .with_context(|| format!("cannot write {}", partial.display()))?;
        fs::rename(&partial, &path)?;
        Ok(path)
    }

    /// busybox, and a link for each of its applets.
    pub(crate) fn busybox(&mut self) -> Result<()> {
        let found = ["bin/busybox", "usr/bin/busybox"].map(|path| self.userland.join(path));
        let busybox =
            found.into_iter().find(|path| path.exists()).context("busybox-static has no busybox")?;
        self.archive.copy(&busybox, "/usr/bin/busybox", 0o755)?;
        for applet in run(Command::new(&busybox).arg("--list"), "busybox-static")?.lines() {
            if applet != "busybox" {
                self.archive.link(&format!("/usr/bin/{applet}"), "busybox")?;
            }
        }
        Ok(())
    }

    /// A program and the libraries it needs.
    pub fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        self.archive.copy(from, to, 0o755)?;
        self.libraries_of(from)
    }

    /// The libraries that `object` needs, and those that they need.
    fn libraries_of(&mut self, object: &Path) -> Result<()> {
        let headers = run(Command::new("objdump").arg("-p").arg(object), "binutils")?;
        for name in headers.lines().filter_map(needed) {
            if !self.libraries.insert(name.to_owned()) {
                continue;
            }
            let library = self.library(name).with_context(|| format!("needed by {}", object.display()))?;
            self.archive.copy(&library, &format!("{LIBRARIES}/{name}"), 0o755)?;
            self.libraries_of(&library)?;
            if !self.archive.has("/usr/lib64") {
                let loader = self.library(LOADER)?;
                self.archive.copy(&loader, &format!("/usr/lib64/{LOADER}"), 0o755)?;
            }
        }
        Ok(())
    }

    fn library(&self, name: &str) -> Result<PathBuf> {
        for tree in std::iter::once(&self.userland).chain(&self.packages) {
            for dir in LIBRARY_DIRS {
                let path = tree.join(dir).join(name);
                if path.exists() {
                    return Ok(path);
                }
            }
        }
        bail!("{name} is in none of the unpacked packages in {}", self.userland.display())
    }

    /// The files of a directory, as root's; scripts stay executable.
    pub(crate) fn tree(&mut self, from: &Path, to: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let entry = entry?;
            let target = format!("{to}/{}", entry.file_name().to_string_lossy());
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                self.tree(&entry.path(), &target)?;
            } else {
                let permissions = if metadata.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
                self.archive.copy(&entry.path(), &target, permissions)?;
            }
        }
        Ok(())
    }
}

/// An image that the tests of one process share: made by the first that needs it.
#[derive(Debug)]
pub struct SharedImage {
    name: &'static str,
    build: fn() -> Result<Image>,
    path: OnceLock<Result<PathBuf, String>>,
}

impl SharedImage {
    /// To be made by `build`.
    #[must_use]
    pub const fn new(name: &'static str, build: fn() -> Result<Image>) -> Self {
        Self { name, build, path: OnceLock::new() }
    }

    /// Where it is.
    pub fn path(&self) -> Result<&Path> {
        let make = || {
            let path = (self.build)().and_then(|image| image.write(self.name));
            path.map_err(|error| format!("{error:#}"))
        };
        self.path.get_or_init(make).as_deref().map_err(|error| anyhow!("{error}"))
    }
}

/// The library that a line of `objdump -p` says is needed.
fn needed(line: &str) -> Option<&str> {
    let name = line.trim_start().strip_prefix("NEEDED")?;
    name.starts_with(' ').then(|| name.trim())
}

#[cfg(test)]
mod tests {
    use super::needed;

    #[test]
    fn libraries_are_read_from_the_dynamic_section() {
        assert_eq!(needed("  NEEDED               libc.so.6"), Some("libc.so.6"));
        assert_eq!(needed("  SONAME               libz.so.1"), None);
    }
}
