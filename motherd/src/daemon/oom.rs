//! Whether it was the kernel that killed a process, for want of memory: `oom_kill` in `memory.events` of its cgroup.
//!
//! A count that was dealt with is remembered: the cgroup of a service with a standby may be that of many runs.

use sandbox::cgroup::Cgroup;

use super::Daemon;
use crate::{
    graph::Id,
    supervise::{Exit, ExitHow, Stage, State},
};

impl Daemon {
    /// An exit with its true reason. To be called while the cgroup is there, so before the exit is dealt with.
    pub(super) fn judged(&mut self, id: Id, exit: Exit) -> Exit {
        let killed = exit.how == ExitHow::Killed && exit.status == libc::SIGKILL;
        let by_us =
            matches!(self.manager.unit(id).state, State::Stopping { stage: Stage::Killed { .. }, .. });
        if !killed || by_us {
            return exit;
        }
        let Some(cgroup) = self.cgroup(id) else { return exit };
        let count = counted(cgroup);
        let runtime = self.runtime.entry(id).or_default();
        if count <= runtime.oom_kills {
            return exit;
        }
        runtime.oom_kills = count;
        let limit = runtime.cgroup.as_ref().and_then(|cgroup| cgroup.read("memory.max").ok());
        let limit = limit.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Exit { how: ExitHow::OutOfMemory { limit_bytes: limit }, ..exit }
    }
}

/// How many there were in it; 0 where nobody counts.
pub(super) fn counted(cgroup: &Cgroup) -> u64 {
    cgroup.read("memory.events").map_or(0, |text| oom_kills(&text))
}

/// The line `oom_kill N`.
fn oom_kills(events: &str) -> u64 {
    let line = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_that_of_kills_and_not_of_alarms() {
        let text = "low 0\nhigh 3\nmax 12\noom 4\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(oom_kills(text), 2);
        assert_eq!(oom_kills("oom 4\noom_group_kill 1\n"), 0);
        assert_eq!(oom_kills(""), 0);
    }
}
