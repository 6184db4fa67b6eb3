//! What SIGKILL does not end: said once, with its pid and where in the kernel it hangs, and carried past.
//!
//! The service stays `stopping`, because a second instance beside the first is never started; the request that waits for
//! its end is answered, and the machine ends without it.

use std::fs;

use super::Daemon;
use crate::{
    graph::Id,
    supervise::{Event, Stage, State},
};

/// More than this are counted, not listed.
const LISTED: usize = 3;

impl Daemon {
    /// Who is left in the cgroup, for people.
    pub(super) fn survivors(&mut self, id: Id) -> Vec<(Id, Event)> {
        let meant = matches!(
            self.manager.unit(id).state,
            State::Stopping { stage: Stage::Killed { stuck: false, .. }, .. }
        );
        let pids =
            self.own_cgroup(id).filter(|_| meant).and_then(|cgroup| cgroup.procs().ok()).unwrap_or_default();
        if pids.is_empty() {
            return vec![];
        }
        let mut who: Vec<String> = pids.iter().take(LISTED).map(|pid| describe(*pid)).collect();
        if pids.len() > LISTED {
            who.push(format!("{} more", pids.len() - LISTED));
        }
        let who = who.join(", ");
        tracing::error!("{}: not even SIGKILL ends {who}", self.manager.graph().name(id));
        vec![(id, Event::Stuck { who })]
    }
}

/// `4711 (dd, state D, in nfs_wait_on_request)`.
pub(super) fn describe(pid: u32) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let stat = read("stat").unwrap_or_default();
    let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    let (name, state) =
        name.map_or(("?", "?"), |(name, rest)| (name, rest.split_ascii_whitespace().next().unwrap_or("?")));
    match read("wchan").ok().filter(|place| !matches!(place.as_str(), "" | "0")) {
        Some(place) => format!("{pid} ({name}, state {state}, in {place})"),
        None => format!("{pid} ({name}, state {state})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_of_with_its_name_its_state_and_where_it_waits() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id();
        // It sleeps as soon as it has executed.
        let asleep = || describe(pid).starts_with(&format!("{pid} (sleep, state S"));
        let patience = std::time::Instant::now();
        while !asleep() && patience.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
        let text = describe(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(text.starts_with(&format!("{pid} (sleep, state S")), "{text}");
        assert_eq!(describe(pid), format!("{pid} (?, state ?)"), "it is gone");
    }
}
