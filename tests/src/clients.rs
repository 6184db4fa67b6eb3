//! The programs with which services speak sd_notify(3): `systemd-notify`, Python's `sdnotify` and `systemd-python`, and the
//! crate `sd-notify`. The first three come from Debian packages that are unpacked and not installed, with the Python that
//! they were made for, so that it matters to nobody what this machine has.
//!
//! Each is driven alike: a service whose first socket is a fifo, from which it reads what to say, a message a line (see
//! `tests/clients`).

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::fetch::Cache;
use crate::programs::Programs;
use crate::scratch::{Scratch, write_program};

/// Where a service sees the unpacked packages, and the programs that speak.
const PACKAGES: &str = "/srv";
const SPEAKERS: &str = "/mnt";
/// Where the packages have their shared libraries.
const LIBRARIES: [&str; 3] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/systemd"];
/// The name of the policy that [`Clients::new`] writes.
pub const POLICY: &str = "client";

/// One of them.
#[derive(Debug, Clone)]
pub struct Client {
    /// For people, and for the names of services.
    pub name: &'static str,
    /// The program that a service runs, and its first arguments.
    pub exec: Vec<String>,
    /// Whether it can send descriptors along.
    pub sends_descriptors: bool,
}

/// All of them, and what else is in the same packages.
#[derive(Debug)]
pub struct Clients {
    packages: PathBuf,
    /// The interpreter, as a service sees it.
    pub python: String,
    /// In the order of the matrix.
    pub all: [Client; 4],
}

impl Clients {
    /// Fetches and places them, and writes the policy under which services can run them.
    pub fn new(scratch: &Scratch) -> Result<Self> {
        let packages = Cache::open()?.clients()?;
        let speakers = scratch.path("speakers");
        fs::create_dir_all(&speakers)?;
        let scripts = crate::workspace().join("tests/clients");
        let rust = &Programs::built()?.client;
        for file in [&scripts.join("notify.sh"), &scripts.join("notify.py"), rust] {
            let to = speakers.join(file.file_name().context("a file")?);
            write_program(&to, &fs::read(file).with_context(|| format!("cannot read {}", file.display()))?)?;
        }
        scratch.policy(
            POLICY,
            &format!(
                "extends = [\"base/default\"]\n[filesystem]\nbind = [{{ from = \"{}\", to = \"{PACKAGES}\" }}, \
                 {{ from = \"{}\", to = \"{SPEAKERS}\" }}]\n[landlock]\nread = {{ add = [\"{PACKAGES}\", \"{SPEAKERS}\"] }}\n\
                 execute = {{ add = [\"{PACKAGES}\", \"{SPEAKERS}\"] }}\n[process.environment]\n\
                 LD_LIBRARY_PATH = \"{}\"\nPYTHONHOME = \"{PACKAGES}/usr\"\n\
                 PYTHONPATH = \"{PACKAGES}/usr/lib/python3/dist-packages\"\n",
                packages.display(),
                speakers.display(),
                LIBRARIES.map(|path| format!("{PACKAGES}/{path}")).join(":"),
            ),
        )?;
        let inside = |path: &str| format!("{PACKAGES}/{path}");
        let python = inside(&python_of(&packages)?);
        let script = |word: &str| vec![python.clone(), format!("{SPEAKERS}/notify.py"), word.to_owned()];
        let notify = inside(&program_of(&packages, "systemd-notify")?);
        let all = [
            Client {
                name: "systemd-notify",
                exec: vec!["/bin/bash".to_owned(), format!("{SPEAKERS}/notify.sh"), notify],
                sends_descriptors: false,
            },
            Client { name: "sdnotify", exec: script("sdnotify"), sends_descriptors: false },
            Client { name: "systemd-python", exec: script("systemd"), sends_descriptors: true },
            Client {
                name: "sd-notify",
                exec: vec![format!("{SPEAKERS}/client"), "notify".to_owned()],
                sends_descriptors: true,
            },
        ];
        Ok(Self { packages, python, all })
    }

    /// A program of the packages, on this host, and the libraries that it needs (LD_LIBRARY_PATH).
    pub fn program(&self, name: &str) -> Result<(PathBuf, String)> {
        let path = self.packages.join(program_of(&self.packages, name)?);
        let libraries = LIBRARIES.map(|path| self.packages.join(path).display().to_string());
        Ok((path, libraries.join(":")))
    }
}

impl Client {
    /// A service file of this client's, which says `first` before anything else.
    #[must_use]
    pub fn service(&self, first: &[&str], start: &str, sections: &str) -> String {
        let words: Vec<&str> = self.exec.iter().map(String::as_str).chain(first.iter().copied()).collect();
        format!(
            "exec = {words:?}\npolicy = \"{POLICY}\"\n[start]\ntype = \"notify\"\n{start}\n[stop]\nsignal = \"SIGKILL\"\n{sections}"
        )
    }
}

/// The section that gives a service its orders.
#[must_use]
pub fn orders(service: &str) -> String {
    format!("[[socket]]\nname = \"orders\"\nlisten = \"fifo:/run/orders-{service}\"\n")
}

/// Has a service say one message, words between tabs.
pub fn order(scratch: &Scratch, service: &str, words: &str) -> Result<()> {
    let path = scratch.path(&format!("run/orders-{service}"));
    // Nobody reads from it if it is not there: then this says so, and does not make a file.
    let mut fifo = fs::OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    fifo.write_all(format!("{words}\n").as_bytes()).context("an order does not fit")
}

/// Where a program is in the tree of its package, which has `/bin` merged or not.
fn program_of(tree: &Path, name: &str) -> Result<String> {
    ["usr/bin", "bin"]
        .into_iter()
        .map(|folder| format!("{folder}/{name}"))
        .find(|path| tree.join(path).is_file())
        .with_context(|| format!("{name} is not in {}", tree.display()))
}

/// The interpreter of a tree, by its own version's name.
fn python_of(tree: &Path) -> Result<String> {
    let folder = tree.join("usr/bin");
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let version = name.strip_prefix("python3.").unwrap_or_default();
        if !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(format!("usr/bin/{name}"));
        }
    }
    anyhow::bail!("no python3 in {}", folder.display())
}
