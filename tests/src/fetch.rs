//! What a boot needs and this machine may lack: kernels, a userland, QEMU. All of it comes from Debian packages,
//! downloaded by apt and unpacked under `target/e2e-cache` without being installed.
//!
//! apt works on a state of its own there: it reads the machine's configuration (proxies, trust) and its mirror's
//! address, and changes neither its lists nor its packages. With an empty dpkg status its resolver names the whole
//! closure of a package, which is how a daemon's libraries are found.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Raised when what is kept in the cache changes its shape, so that old contents are not taken for new ones.
const LAYOUT: u32 = 2;

/// The daemons of the boot image and the tools that ask them.
const USERLAND: [&str; 6] =
    ["busybox-static", "libgcc-s1", "nginx", "nginx-common", "redis-server", "redis-tools"];

/// Real daemons, what asks them, and a shell for what they need before they run.
const DAEMONS: [&str; 8] =
    ["coreutils", "dash", "memcached", "nginx", "nginx-common", "postgresql", "redis-server", "redis-tools"];

/// A system that people log in to, on a disk of its own.
const SYSTEM: [&str; 22] = [
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "e2fsprogs",
    "findutils",
    "grep",
    "hostname",
    "kmod",
    "libpam-modules",
    "libpam-runtime",
    "login",
    "mount",
    "ncurses-base",
    "passwd",
    "procps",
    "redis-server",
    "sed",
    "util-linux",
    "busybox-static",
];

/// A kernel that the system has to work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 12's: Landlock ABI 2, so neither TCP ports nor scopes.
    V6_1,
    /// Debian 13's: Landlock ABI 6.
    V6_12,
}

impl Kernel {
    /// Oldest first.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// As `uname -r` begins.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The Debian release that ships it.
    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
        }
    }
}

/// Which of a release's two builds of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavour {
    /// For virtual machines, with what most of a system's tests need built in.
    #[default]
    Cloud,
    /// For every machine: with zswap, software RDMA, and x32 behind a word of the command line.
    Whole,
}

impl Flavour {
    /// For a file's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Whole => "whole",
        }
    }

    /// The package that needs the newest one of its release.
    fn package(self) -> &'static str {
        match self {
            Self::Cloud => "linux-image-cloud-amd64",
            Self::Whole => "linux-image-amd64",
        }
    }
}

/// `target/e2e-cache`, held exclusively while something is fetched into it.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
}

/// How QEMU is started here.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// The program, and what has to stand before its own arguments.
    pub command: Vec<String>,
    /// Environment that an unpacked QEMU needs to find its parts.
    pub environment: Vec<(String, String)>,
}

impl Cache {
    /// Opens the cache of this workspace and makes it if it is missing.
    pub fn open() -> Result<Self> {
        let dir = crate::target_dir().join("e2e-cache");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// The unpacked tree of nginx, redis, busybox and every library they need.
    ///
    /// It is of the release that this machine runs, since motherd and motherctl were linked against its libc.
    pub fn userland(&self) -> Result<PathBuf> {
        let suite = host_release()?;
        self.tree(&Tree {
            name: format!("userland-{suite}"),
            suite: &suite,
            asked: &USERLAND,
            keep: |package| USERLAND.contains(&package) || is_library(package),
        })
    }

    /// The unpacked tree of a small Debian, of the release that this machine runs; nothing in it was configured.
    pub fn system(&self) -> Result<PathBuf> {
        let suite = host_release()?;
        self.tree(&Tree { name: format!("system-{suite}"), suite: &suite, asked: &SYSTEM, keep: |_| true })
    }

    /// The unpacked tree of another init system's package, with everything that it depends on.
    pub fn peer(&self, package: &str) -> Result<PathBuf> {
        let suite = host_release()?;
        self.tree(&Tree {
            name: format!("peer-{package}-{suite}"),
            suite: &suite,
            asked: &[package],
            keep: |_| true,
        })
    }

    /// The unpacked package of a kernel.
    fn kernel_tree(&self, kernel: Kernel, flavour: Flavour) -> Result<PathBuf> {
        let name = match flavour {
            Flavour::Cloud => format!("kernel-{}", kernel.version()),
            Flavour::Whole => format!("kernel-{}-{}", kernel.version(), flavour.name()),
        };
        self.tree(&Tree {
            name,
            suite: kernel.suite(),
            asked: &[flavour.package()],
            keep: |package| package.starts_with("linux-image-6."),
        })
    }

    /// The modules of a kernel: the directory that is named after its release.
    pub fn modules(&self, kernel: Kernel, flavour: Flavour) -> Result<PathBuf> {
        let tree = self.kernel_tree(kernel, flavour)?;
        let folder = ["lib/modules", "usr/lib/modules"].map(|path| tree.join(path));
        let folder = folder.into_iter().find(|path| path.is_dir()).context("a kernel without modules")?;
        let release = fs::read_dir(&folder)?.next().context("no release in the folder of modules")?;
        Ok(release?.path())
    }

    /// A kernel image.
    pub fn kernel(&self, kernel: Kernel, flavour: Flavour) -> Result<PathBuf> {
        let tree = self.kernel_tree(kernel, flavour)?;
        let boot = tree.join("boot");
        let names = fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))?;
        for name in names {
            let name = name?;
            if name.file_name().to_string_lossy().starts_with("vmlinuz-") {
                return Ok(name.path());
            }
        }
        bail!("no kernel in {}: remove {} and run again", boot.display(), tree.display())
    }

    /// QEMU: the machine's own if it has one, else unpacked.
    pub fn qemu(&self) -> Result<Qemu> {
        const PROGRAM: &str = "qemu-system-x86_64";
        if is_in_path(PROGRAM) {
            return Ok(Qemu { command: vec![PROGRAM.to_owned()], environment: Vec::new() });
        }
        let suite = host_release()?;
        let tree = self
            .tree(&Tree {
                name: format!("qemu-{suite}"),
                suite: &suite,
                asked: &["qemu-system-x86"],
                keep: |package| is_library(package) || package.starts_with("qemu-") || package == "seabios",
            })
            .context("QEMU is neither installed nor could it be unpacked: apt-get install qemu-system-x86")?;
        Qemu::unpacked(&tree)
    }

    /// bubblewrap: the machine's own if it has one, else unpacked, and run with the machine's libraries.
    pub fn bwrap(&self) -> Result<PathBuf> {
        if is_in_path("bwrap") {
            return Ok(PathBuf::from("bwrap"));
        }
        let suite = host_release()?;
        let tree = self.tree(&Tree {
            name: format!("bubblewrap-{suite}"),
            suite: &suite,
            asked: &["bubblewrap"],
            keep: |package| package == "bubblewrap",
        })?;
        Ok(tree.join("usr/bin/bwrap"))
    }

    /// crun: the machine's own if it has one, else unpacked; and the libraries that it needs then (LD_LIBRARY_PATH).
    pub fn crun(&self) -> Result<(PathBuf, Option<PathBuf>)> {
        if is_in_path("crun") {
            return Ok((PathBuf::from("crun"), None));
        }
        let suite = host_release()?;
        let tree = self.tree(&Tree {
            name: format!("crun-{suite}"),
            suite: &suite,
            asked: &["crun"],
            keep: |package| package == "crun" || (is_library(package) && !package.starts_with("libc6")),
        })?;
        Ok((tree.join("usr/bin/crun"), Some(tree.join("usr/lib/x86_64-linux-gnu"))))
    }

    /// The programs that services speak sd_notify(3) with and that hand sockets over, with a Python of their own.
    pub fn clients(&self) -> Result<PathBuf> {
        let suite = host_release()?;
        self.tree(&Tree {
            name: format!("clients-{suite}"),
            suite: &suite,
            asked: &["systemd", "python3-minimal", "python3-sdnotify", "python3-systemd"],
            // They run on this machine's libc, which is of the same release.
            keep: |package| {
                package == "systemd"
                    || package.starts_with("python3")
                    || (is_library(package) && !package.starts_with("libc6"))
            },
        })
    }

    /// tini and dumb-init, unpacked.
    pub fn reapers(&self) -> Result<[PathBuf; 2]> {
        let suite = host_release()?;
        let tree = self.tree(&Tree {
            name: format!("reapers-{suite}"),
            suite: &suite,
            asked: &["tini", "dumb-init"],
            keep: |package| package == "tini" || package == "dumb-init",
        })?;
        Ok(["usr/bin/tini", "usr/bin/dumb-init"].map(|path| tree.join(path)))
    }

    /// A root with real daemons in it, as Debian lays them out; nothing in it was configured.
    pub fn daemons(&self) -> Result<PathBuf> {
        let suite = host_release()?;
        self.tree(&Tree {
            name: format!("daemons-{suite}"),
            suite: &suite,
            asked: &DAEMONS,
            // Without what PostgreSQL compiles queries to machine code with: no policy here lets it.
            keep: |package| {
                let compiler = package.starts_with("libllvm") || package.starts_with("libz3");
                let wanted = DAEMONS.contains(&package) || package.starts_with("postgresql-");
                wanted || (is_library(package) && !compiler)
            },
        })
    }

    /// The directory of `tree`, fetched if it is not there yet.
    fn tree(&self, tree: &Tree<'_>) -> Result<PathBuf> {
        let done = self.dir.join(format!("{}-{LAYOUT}", tree.name));
        let lock_path = self.dir.join("lock");
        let lock =
            File::create(&lock_path).with_context(|| format!("cannot make {}", lock_path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
        if done.is_dir() {
            return Ok(done);
        }
        let partial = done.with_extension("partial");
        remove_tree(&partial)?;
        crate::say(&format!(
            "fetching {} of Debian {} into {}",
            tree.asked.join(", "),
            tree.suite,
            done.display()
        ));
        let apt = Apt::prepare(&self.dir.join(format!("apt-{}", tree.suite)), tree.suite)?;
        for package in apt.download(tree.asked, tree.keep)? {
            run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&partial), "dpkg")?;
            fs::remove_file(&package)?;
        }
        fs::rename(&partial, &done).with_context(|| format!("cannot make {}", done.display()))?;
        Ok(done)
    }
}

impl Qemu {
    /// A QEMU in a tree of unpacked packages, on that tree's own libc.
    fn unpacked(tree: &Path) -> Result<Self> {
        let at = |path: &str| tree.join(path).display().to_string();
        let loader = ["lib64/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"]
            .into_iter()
            .map(|path| tree.join(path))
            .find(|path| path.exists())
            .context("the unpacked libc has no loader")?;
        let libraries =
            ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/pulseaudio"]
                .map(at);
        Ok(Self {
            command: vec![
                loader.display().to_string(),
                "--library-path".to_owned(),
                libraries.join(":"),
                at("usr/bin/qemu-system-x86_64"),
                "-L".to_owned(),
                at("usr/share/qemu"),
                "-L".to_owned(),
                at("usr/share/seabios"),
            ],
            environment: vec![("QEMU_MODULE_DIR".to_owned(), at("usr/lib/x86_64-linux-gnu/qemu"))],
        })
    }
}

/// Something to fetch.
struct Tree<'a> {
    name: String,
    suite: &'a str,
    /// What apt is asked to resolve.
    asked: &'a [&'a str],
    /// Which packages of the closure are wanted; the rest is what maintainer scripts would need.
    keep: fn(&str) -> bool,
}

/// apt with a state of its own.
struct Apt {
    dir: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// Makes the state in `dir` and reads the lists of `suite`.
    fn prepare(dir: &Path, suite: &str) -> Result<Self> {
        for sub in ["state/lists/partial", "cache/archives/partial", "debs"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        fs::write(dir.join("status"), "")?;
        let keyring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
        let signed =
            if keyring.exists() { format!("[signed-by={}] ", keyring.display()) } else { String::new() };
        fs::write(dir.join("sources.list"), format!("deb {signed}{} {suite} main\n", mirror()?))?;
        let at = |path: &str| dir.join(path).display().to_string();
        let mut options = vec![
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            // These two would bring in what belongs to the machine and not to this download.
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ];
        if nix::unistd::geteuid().is_root() {
            // apt would step down to a user who cannot write here.
            options.push("APT::Sandbox::User=root".to_owned());
        }
        let apt = Self { dir: dir.to_owned(), options };
        run(apt.get().args(["-qq", "update"]), "apt").with_context(|| {
            format!(
                "cannot read Debian's package lists of {suite}: is the mirror of apt's sources reachable?"
            )
        })?;
        Ok(apt)
    }

    /// apt-get with the options of this state.
    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    /// Downloads what `keep` wants of the closure of `asked`.
    fn download(&self, asked: &[&str], keep: fn(&str) -> bool) -> Result<Vec<PathBuf>> {
        let mut resolve = self.get();
        resolve.args(["-y", "--no-install-recommends", "--print-uris", "install"]).args(asked);
        let closure = run(&mut resolve, "apt")?;
        let names: Vec<&str> = closure.lines().filter_map(package_of).filter(|name| keep(name)).collect();
        ensure!(!names.is_empty(), "apt resolved {} to nothing", asked.join(", "));
        let debs = self.dir.join("debs");
        run(self.get().args(["-qq", "download"]).args(&names).current_dir(&debs), "apt")?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&debs)? {
            files.push(entry?.path());
        }
        ensure!(files.len() == names.len(), "asked for {} packages, got {}", names.len(), files.len());
        Ok(files)
    }
}

/// Whether a package has shared libraries, by Debian's way of naming them; zlib has its own.
fn is_library(package: &str) -> bool {
    package.starts_with("lib") || package == "zlib1g"
}

/// The package that a line of `--print-uris` is about: `'URI' NAME_VERSION_ARCH.deb SIZE HASH`.
fn package_of(line: &str) -> Option<&str> {
    let file = line.strip_prefix('\'')?.split_whitespace().nth(1)?;
    Some(file.split_once('_')?.0)
}

/// The address of the Debian mirror that this machine's apt uses.
fn mirror() -> Result<String> {
    let uris = run(Command::new("apt-get").args(["--print-uris", "update"]), "apt")?;
    let found = uris.lines().find_map(mirror_of);
    found.context("apt has no source for a Debian release: name a mirror in /etc/apt/sources.list.d")
}

/// The mirror that a line of `apt-get --print-uris update` is about, if it is a whole release's.
fn mirror_of(line: &str) -> Option<String> {
    let uri = line.strip_prefix('\'')?.split_once('\'')?.0;
    let (mirror, rest) = uri.split_once("/dists/")?;
    let suite = rest.strip_suffix("/InRelease")?;
    // bookworm-updates, bookworm-security and the like hold a part only.
    (!suite.contains(['-', '/'])).then(|| mirror.to_owned())
}

/// The code name of the Debian release that this machine runs.
fn host_release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|text| text.trim_matches('"'))
    };
    match (value("ID"), value("VERSION_CODENAME")) {
        (Some("debian"), Some(name)) => Ok(name.to_owned()),
        _ => bail!(
            "the boot image is made of Debian packages for the libc of this machine: run on Debian 12 or later"
        ),
    }
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Runs a command to its end and returns what it printed; `package` has the program.
pub(crate) fn run(command: &mut Command, package: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}: apt-get install {package}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed something that is not text"))
}

#[cfg(test)]
mod tests {
    use super::{mirror_of, package_of};

    #[test]
    fn the_mirror_is_that_of_a_whole_release() {
        let check =
            |line: &str, expected: Option<&str>| assert_eq!(mirror_of(line).as_deref(), expected, "{line}");
        check(
            "'http://m.example/debian/dists/bookworm/InRelease' m.example_InRelease 0",
            Some("http://m.example/debian"),
        );
        check("'http://m.example/debian/dists/bookworm-updates/InRelease' x 0", None);
        check("'http://m.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' x 0", None);
        check("Reading package lists...", None);
    }

    #[test]
    fn a_package_is_named_by_its_file() {
        let check = |line: &str, expected: Option<&str>| assert_eq!(package_of(line), expected, "{line}");
        check(
            "'http://m.example/zlib1g_1.2_amd64.deb' zlib1g_1%3a1.2_amd64.deb 86700 SHA256:00",
            Some("zlib1g"),
        );
        check("Need to get 27.4 MB of archives.", None);
    }
}
