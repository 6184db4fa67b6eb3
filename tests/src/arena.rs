//! Where launches are measured: a mount namespace of this process's own, with a program that does nothing.
//!
//! All contenders start one and the same file: 129 bytes of ELF whose one system call is exit_group(0). It lies in
//! /usr/local/bin, which every sandbox shows, on a tmpfs that nobody outside of the namespace sees. cgroup2 is mounted at
//! /sys/fs/cgroup there, since crun starts on no hybrid host.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use sandbox::Plan;
use sandbox::cgroup::Cgroup;
use sandbox::compile::{Subject, compile};
use sandbox::kernel::Kernel;
use sandbox::launch::{Ahead, Launch, launch};
use sandbox::netpool::PooledNetwork;
use sandbox::policy::{Policy, Store, load_text};
use sandbox::template::Template;
use sandbox::timings::Timings;

use crate::sys;

/// What is started.
pub const PROGRAM: &CStr = c"/usr/local/bin/nothing";

/// An ELF header, one program header, and `xor edi, edi; mov eax, SYS_exit_group; syscall` (elf(5)).
fn program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    const CODE: [u8; 9] = [0x31, 0xff, 0xb8, 0xe7, 0, 0, 0, 0x0f, 0x05];
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    let long = |file: &mut Vec<u8>, value: u64| file.extend(value.to_le_bytes());
    half(&mut file, 2); // ET_EXEC
    half(&mut file, 62); // EM_X86_64
    word(&mut file, 1);
    long(&mut file, BASE + HEADERS); // entry
    long(&mut file, 64); // program headers
    long(&mut file, 0);
    word(&mut file, 0);
    // This header's size, and the size and number of the two kinds of headers that follow.
    for value in [64, 56, 1, 0, 0, 0] {
        half(&mut file, value);
    }
    word(&mut file, 1); // PT_LOAD
    word(&mut file, 5); // read, execute
    for value in [0, BASE, BASE, HEADERS + 9, HEADERS + 9, 4096] {
        long(&mut file, value);
    }
    file.extend(CODE);
    file
}

/// Moves this process into the arena, for good. It must have no other thread.
pub fn enter() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "run as root: mounts and cgroups are made");
    let none: Option<&str> = None;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).context("umount /sys/fs/cgroup")?;
    mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none).context("cgroup2")?;
    mount(Some("arena"), "/usr/local/bin", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
    let path = PROGRAM.to_str()?;
    fs::write(path, program())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The namespaces of `base/default`, as clone(2) takes them.
#[must_use]
pub fn namespaces() -> i32 {
    libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
}

/// The program in new namespaces and nothing else, to its end.
pub fn bare(namespaces: i32) -> Result<()> {
    let pid = bare_launch(PROGRAM, namespaces)?;
    ensure!(waitpid(pid, None)? == WaitStatus::Exited(pid, 0));
    Ok(())
}

/// The same with another one, up to its execve.
pub fn bare_launch(program: &CStr, namespaces: i32) -> Result<Pid> {
    Ok(Pid::from_raw(sys::bare_launch(program, namespaces)?))
}

fn shipped() -> Store {
    Store::new(vec![crate::workspace().join("policies")])
}

/// A policy on this machine.
#[derive(Debug)]
pub struct Confined {
    /// Compiled.
    pub plan: Arc<Plan>,
    base: PathBuf,
    /// Its own, so that two of these programs can run at once.
    slice: String,
    null: File,
}

impl Confined {
    /// Compiles one.
    pub fn new(policy: &str) -> Result<Self> {
        Self::of(&shipped().load(policy)?)
    }

    /// Compiles a text that extends them.
    pub fn of_text(text: &str) -> Result<Self> {
        Self::of(&load_text(Path::new("arena.toml"), text, &shipped())?)
    }

    fn of(policy: &Policy) -> Result<Self> {
        let kernel = Kernel::probe(None)?;
        // As motherd says it of itself.
        sandbox::inherited::dispositions_are_final()?;
        let subject = Subject { name: "bench".to_owned(), root: "/".into(), sockets: vec![] };
        let plan = compile(policy, &subject, &kernel)?;
        let base = kernel.cgroup_base.context("no cgroup2 tree is mounted")?;
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let slice = format!("bench-{}-{number}.slice", std::process::id());
        Ok(Self { plan, base, slice, null: File::options().read(true).write(true).open("/dev/null")? })
    }

    /// The cgroup below which its launches get theirs.
    #[must_use]
    pub fn slice(&self) -> PathBuf {
        self.base.join(&self.slice)
    }

    fn cgroup(&self) -> Result<Cgroup> {
        Ok(Cgroup::create(&self.base, &format!("{}/bench.service", self.slice), &self.plan)?)
    }

    /// A launch of another program, in a cgroup of its own, that is expected to fail.
    pub fn refused(&self, program: &str) -> Result<()> {
        let cgroup = self.cgroup()?;
        let null = self.null.as_fd();
        let launched = launch(&Launch {
            cgroup: Some(&cgroup),
            ..Launch::new(&self.plan, &[program.to_owned()], [null, null, null])
        });
        cgroup.remove()?;
        Ok(launched.map(drop)?)
    }

    /// One launch of the program in a cgroup of its own, to its end.
    pub fn run(&self, template: Option<&Arc<Template>>, network: Option<PooledNetwork>) -> Result<()> {
        let ahead = Ahead { template, network: Some(&network.into()), ..Ahead::default() };
        self.run_from(ahead, None).map(drop)
    }

    /// The same, with anything ready, and where its time went. What is left of it are its mounts, if they were ready.
    pub fn run_from(&self, ahead: Ahead<'_>, timings: Option<&Timings>) -> Result<Option<OwnedFd>> {
        let mark = |what| timings.into_iter().for_each(|timings| timings.mark(what));
        let cgroup = self.cgroup()?;
        mark("cgroup made");
        let null = self.null.as_fd();
        let launched = launch(&Launch {
            cgroup: Some(&cgroup),
            ahead,
            timings,
            ..Launch::new(&self.plan, &[PROGRAM.to_str()?.to_owned()], [null, null, null])
        })?;
        let ended = waitid(Id::PIDFd(launched.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        mark("its end");
        ensure!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
        cgroup.remove()?;
        mark("cgroup removed");
        Ok(launched.mounts)
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        match fs::remove_dir(self.slice()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                eprintln!("cannot remove {}: {error}", self.slice().display());
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Something to be timed: what comes before each time, and what counts.
pub struct Candidate<'a> {
    /// For the table.
    pub name: String,
    /// Not timed.
    pub before: Box<dyn FnMut() -> Result<()> + 'a>,
    /// Timed.
    pub run: Box<dyn FnMut() -> Result<()> + 'a>,
    times: Vec<Duration>,
}

impl std::fmt::Debug for Candidate<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Candidate<'a> {
    /// With nothing before it.
    pub fn new(name: impl Into<String>, run: impl FnMut() -> Result<()> + 'a) -> Self {
        Self { name: name.into(), before: Box::new(|| Ok(())), run: Box::new(run), times: Vec::new() }
    }

    /// The same, with this before each time.
    #[must_use]
    pub fn after(self, before: impl FnMut() -> Result<()> + 'a) -> Self {
        Self { before: Box::new(before), ..self }
    }

    /// Microseconds; the median, and the 10th and the 90th percentile.
    pub fn figures(&mut self) -> [f64; 3] {
        self.times.sort();
        [50, 10, 90].map(|percent| {
            let index = self.times.len() * percent / 100;
            self.times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
        })
    }
}

/// Runs all of them once in each round, in another order in each, so that what one leaves behind for the next and what
/// the machine does meanwhile meet them all alike. Before each is so much rest, for what the kernel does after the one before:
/// it takes apart a network namespace for as long as it makes one.
pub fn interleave(rounds: usize, rest: Duration, candidates: &mut [Candidate<'_>]) -> Result<()> {
    let mut random: usize = 0x2545_f491;
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    for _ in 0..rounds {
        for last in (1..order.len()).rev() {
            // xorshift: enough to have every order.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            order.swap(last, random % (last + 1));
        }
        for index in &order {
            let candidate = &mut candidates[*index];
            (candidate.before)().with_context(|| candidate.name.clone())?;
            std::thread::sleep(rest);
            let started = Instant::now();
            (candidate.run)().with_context(|| candidate.name.clone())?;
            candidate.times.push(started.elapsed());
        }
    }
    Ok(())
}

/// A folder for a contender's files, in the arena.
pub fn folder(name: &str) -> Result<PathBuf> {
    let path = Path::new("/usr/local/bin").join(name);
    fs::create_dir_all(&path)?;
    Ok(path)
}
