//! Launches by the ten thousand, and what of them is left in the kernel.
//!
//! Each way to launch takes its turn: everything inline, from a template into a network of a pool, into a berth, in a user
//! namespace of its own, and into a program that is not there, which fails as late as a launch can. What is counted are the
//! kernel's objects of the kinds that a launch makes (/proc/slabinfo), which other processes of this machine make too; and
//! what is this process's alone: descriptors, children, mounts, memory, and the cgroups below its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sandbox::berth::Berth;
use sandbox::launch::{Ahead, LaunchError, LaunchFailure};
use sandbox::netpool::NetworkPool;
use sandbox::template::Template;

use crate::arena::Confined;

/// The caches of kernel objects that are looked at, and how many objects of each a launch makes at least. proc inodes and
/// dentries are caches by their nature: they grow for as long as there is memory.
const SLABS: [(&str, u64); 13] = [
    ("net_namespace", 1),
    ("pid_namespace", 1),
    ("uts_namespace", 1),
    ("mqueue_inode_cache", 1),
    ("user_namespace", 1),
    ("nsproxy", 1),
    ("mnt_cache", 10),
    ("shmem_inode_cache", 5),
    ("sock_inode_cache", 1),
    ("key_jar", 1),
    ("task_struct", 1),
    ("pid", 1),
    // The files of a cgroup.
    ("kernfs_node_cache", 20),
];

/// A policy with what `base/default` has not: a user namespace, an idmapped bind, an overlay.
const USERS: &str = "extends = [\"base/default\"]\n[namespaces]\nuser = \"auto\"\n[filesystem]\n\
    overlay = [{ path = \"/tmp/over\", lower = [\"/usr/share\"], size = \"1M\" }]\n";

/// How long the kernel may take to clean up after the last launch: much of that it leaves to workers.
const SETTLING: Duration = Duration::from_secs(60);

/// How many there are of what.
type Counts = BTreeMap<String, u64>;

/// One line of the report.
#[derive(Debug)]
pub struct Line {
    /// What is counted.
    pub what: String,
    /// Before the first launch, once every way to launch was gone once.
    pub before: u64,
    /// After the last, when it had settled.
    pub after: u64,
    /// How many more than before are no leak: what others make meanwhile, and a hundredth of what the launches made.
    pub allowed: u64,
}

impl Line {
    /// Whether there are more than there may be.
    #[must_use]
    pub fn grew(&self) -> bool {
        self.after > self.before + self.allowed
    }
}

/// So often in a row something has to have grown. The kernel counts what a processor keeps for its next object as an object in
/// use, which comes and goes by the hundred whatever is launched; what launches leave grows each time.
const TIMES: usize = 3;

/// Launches so often, in the arena, and counts; again where something grew.
pub fn run(launches: u64) -> Result<Vec<Line>> {
    let mut ways = Ways::new()?;
    // What is kept for the next launch is kept from here on.
    for turn in 0..Ways::ALL {
        ways.launch(turn)?;
    }
    let slices = [ways.strict.slice(), ways.users.slice()];
    let mut before = settled(|| counts(&slices), None, launches)?;
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..TIMES {
        for turn in 0..launches {
            ways.launch(turn).with_context(|| format!("launch {turn}"))?;
        }
        let after = settled(|| counts(&slices), Some(&before), launches)?;
        let line = |(what, before): (&String, &u64)| Line {
            what: what.clone(),
            before: *before,
            after: after.get(what).copied().unwrap_or(0),
            allowed: allowed(what, launches),
        };
        lines = before.iter().map(line).collect();
        if !lines.iter().any(Line::grew) {
            break;
        }
        before = after;
    }
    Ok(lines)
}

struct Ways {
    strict: Confined,
    users: Confined,
    template: Arc<Template>,
    pool: NetworkPool,
}

impl Ways {
    const ALL: u64 = 5;

    fn new() -> Result<Self> {
        let strict = Confined::new("base/default")?;
        let users = Confined::of_text(USERS)?;
        let template = Template::build(&strict.plan)?.context("base/default has a template")?;
        Ok(Self { strict, users, template, pool: NetworkPool::new(1) })
    }

    fn launch(&mut self, turn: u64) -> Result<()> {
        match turn % Self::ALL {
            0 => self.strict.run_from(Ahead::default(), None).map(drop),
            1 => {
                self.pool.add()?;
                self.strict.run(Some(&self.template), self.pool.take())
            }
            2 => {
                let berth = Berth::make(&self.strict.plan, &self.template)?.into();
                let ahead = Ahead { berth: Some(&berth), ..Ahead::default() };
                self.strict.run_from(ahead, None).map(drop)
            }
            3 => self.users.run_from(Ahead::default(), None).map(drop),
            _ => {
                let refused = self.strict.refused("/no/such/program");
                let kind = refused.as_ref().err().and_then(|error| error.downcast_ref::<LaunchError>());
                ensure!(kind.map(LaunchError::kind) == Some(LaunchFailure::NotFound), "{refused:?}");
                Ok(())
            }
        }
    }
}

/// Counts again and again: until nothing is beyond what is allowed, or, without anything to compare with, until nothing
/// becomes less any more. The last counts, once the time is over.
fn settled(
    mut count: impl FnMut() -> Result<Counts>,
    before: Option<&Counts>,
    launches: u64,
) -> Result<Counts> {
    let begun = Instant::now();
    let mut last = count()?;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = count()?;
        let done = match before {
            Some(before) => now
                .iter()
                .all(|(what, now)| *now <= before.get(what).copied().unwrap_or(0) + allowed(what, launches)),
            None => now.iter().all(|(what, now)| *now >= last.get(what).copied().unwrap_or(0)),
        };
        if done || begun.elapsed() > SETTLING {
            return Ok(now);
        }
        last = now;
    }
}

fn allowed(what: &str, launches: u64) -> u64 {
    match what {
        "descriptors" | "children" | "mounts" | "cgroups" => 0,
        "dying cgroups" => 100,
        // An allocator keeps what it once had.
        "memory in kB" => 1024,
        slab => {
            let each = SLABS.iter().find(|(name, _)| *name == slab).map_or(1, |(_, each)| *each);
            each * (100 + launches / 100)
        }
    }
}

fn counts(slices: &[PathBuf]) -> Result<Counts> {
    let mut counts = Counts::new();
    let slabs = fs::read_to_string("/proc/slabinfo").context("run as root")?;
    for line in slabs.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(active)) = (words.next(), words.next()) else { continue };
        if SLABS.iter().any(|(wanted, _)| *wanted == name) {
            counts.insert(name.to_owned(), active.parse()?);
        }
    }
    let mut put = |what: &str, count: usize| counts.insert(what.to_owned(), count as u64);
    put("descriptors", fs::read_dir("/proc/self/fd")?.count());
    let children = fs::read_to_string("/proc/thread-self/children")?;
    put("children", children.split_whitespace().count());
    put("mounts", fs::read_to_string("/proc/self/mountinfo")?.lines().count());
    put("memory in kB", number_after(&fs::read_to_string("/proc/self/status")?, "VmRSS:")?);
    for (what, key) in [("cgroups", "nr_descendants"), ("dying cgroups", "nr_dying_descendants")] {
        let mut below = 0;
        for slice in slices {
            below += number_after(&fs::read_to_string(slice.join("cgroup.stat"))?, key)?;
        }
        put(what, below);
    }
    Ok(counts)
}

fn number_after(text: &str, key: &str) -> Result<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    Ok(line.split_whitespace().next().with_context(|| format!("nothing after {key}"))?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_left_by_each_launch_is_more_than_is_allowed() {
        for (name, each) in SLABS {
            for launches in [300, 100_000] {
                // A fifth of the launches is of each way.
                let line = |after| Line {
                    what: name.to_owned(),
                    before: 7,
                    after,
                    allowed: allowed(name, launches),
                };
                assert!(line(7 + each * launches / 2).grew(), "{name} after {launches}");
                assert!(!line(7 + each * 50).grew(), "{name}: what others do");
            }
        }
    }
}
