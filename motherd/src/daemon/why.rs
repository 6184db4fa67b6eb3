//! `Why`: what the manager's reasons, the records and the event log say together of one service.
//!
//! Goals and causes are in the records, and what happened is in the event log; both outlive motherd. What neither of them
//! says is said as not known, and never guessed.

use std::time::Duration;

use super::{
    Daemon,
    answer::{Named, brief, microseconds, since, wire_cause, wire_exit, wire_state},
    now,
    streams::wire,
};
use crate::{
    calendar::timestamp,
    control::protocol::{
        Cause as WireCause, Coming, Goal as WireGoal, Hindrance, Pull, RequestError, Root, State as Wire, Why,
    },
    eventlog::{Entry, What},
    graph::Id,
    manager::{self, Manager},
    supervise::{Cause, Goal, RECORD_LOST, State},
};

/// How many of its last events are told with it.
const EVENTS: usize = 12;

impl Daemon {
    /// Why a service is as it is.
    pub(super) fn why(&self, name: &str) -> Result<Why, RequestError> {
        let events: Vec<Entry> = self.events.after(0).collect();
        match self.find(name)? {
            Named::Service(id) => {
                let why = explained(&self.manager, id, &events, now());
                Ok(Why { state: self.shown_state(id), sub_state: self.sub_state(id), ..why })
            }
            Named::Broken => {
                let words = self.catalog.broken.get(name).map(brief).unwrap_or_default();
                Ok(bare(name, Wire::Failed, Some("not loaded".to_owned()), words, vec![], &events))
            }
            Named::Unmade => Ok(bare(name, Wire::Stopped, None, "never started".to_owned(), vec![], &events)),
            Named::Orphan => {
                let words = "its cgroup has processes, and no file describes it".to_owned();
                let unknown = vec!["who started its processes: no record has them".to_owned()];
                Ok(bare(name, Wire::Orphan, None, words, unknown, &events))
            }
        }
    }
}

/// Why one of the manager's services is as it is. `events` are all that there are, oldest first.
pub(crate) fn explained(manager: &Manager, id: Id, events: &[Entry], now: Duration) -> Why {
    let unit = manager.unit(id);
    let name = manager.graph().name(id);
    let reasons = manager.reasons(id);
    let root = |root: &manager::Root| {
        let name = manager.graph().name(root.id);
        // It was up for somebody else already when it was asked for by name: only the log knows who that was.
        let request = asked_besides(events, name, &root.cause);
        let (cause, time) = match request {
            None => (wire_cause(&root.cause), asked_at(events, name, &root.cause)),
            Some(None) => (wire_cause(&Cause::new("asked for by name")), None),
            Some(Some(entry)) => {
                let cause = Cause { words: entry.words.clone(), request: entry.request };
                (wire_cause(&cause), Some(timestamp(entry.realtime)))
            }
        };
        let over = root.over.iter().map(|pull| Pull {
            by: manager.graph().name(pull.by).to_owned(),
            relation: pull.relation.key().to_owned(),
        });
        Root { service: name.to_owned(), over: over.collect(), cause, time }
    };
    let roots: Vec<Root> = reasons.roots.iter().map(root).collect();
    let mut unknown = Vec::new();
    if unit.asked.words == RECORD_LOST {
        unknown.push("who asked for it, and what became of it before: its record was lost".to_owned());
    } else if let Some(root) = roots.iter().find(|root| root.time.is_none()) {
        unknown.push(format!("when {} was asked for: the event log has no more of it", root.service));
    }
    if unit.state == State::Orphan {
        unknown.push("who started its processes: no record has them".to_owned());
    }
    if unit.last_exit.is_none() && unit.cause.words.contains("lost: ") {
        unknown.push("how its main process ended: motherd was not there, and nobody recorded it".to_owned());
    }
    Why {
        service: name.to_owned(),
        state: wire_state(&unit.state),
        sub_state: manager.is_blocked(id).then(|| "blocked".to_owned()),
        uptime_usec: since(unit).map(|since| microseconds(now.saturating_sub(since))),
        cause: wire_cause(&unit.cause),
        goal: match unit.goal {
            Goal::Down => WireGoal::Down,
            Goal::Up => WireGoal::Up,
            Goal::Bounce => WireGoal::Again,
        },
        goal_cause: wire_cause(&unit.asked),
        roots,
        more_roots: u64::try_from(reasons.more_roots).unwrap_or(u64::MAX),
        hindrances: reasons.hindrances.iter().map(|one| hindrance(manager, one, now)).collect(),
        coming: reasons.coming.as_ref().map(|one| coming(one, now)),
        restarts: unit.history.total,
        last_exit: unit.last_exit.as_ref().map(wire_exit),
        last_exit_ago_usec: unit.last_exit.map(|exit| microseconds(now.saturating_sub(exit.at))),
        unknown: unknown.into_iter().chain(before(events, name)).collect(),
        events: last_of(events, name),
    }
}

fn hindrance(manager: &Manager, found: &manager::Hindrance, now: Duration) -> Hindrance {
    Hindrance {
        words: found.words.clone(),
        service: found.service.map(|id| manager.graph().name(id).to_owned()),
        coming: found.coming.as_ref().map(|one| coming(one, now)),
        because: found.because.iter().map(|one| hindrance(manager, one, now)).collect(),
    }
}

fn coming(found: &manager::Coming, now: Duration) -> Coming {
    Coming { words: found.words.to_owned(), in_usec: microseconds(found.at.saturating_sub(now)) }
}

/// For a service that was asked for by name, and whose cause is another one that has it started: who asked, if the log has
/// it. `None`: the cause is the request.
fn asked_besides<'a>(events: &'a [Entry], name: &str, cause: &Cause) -> Option<Option<&'a Entry>> {
    let pulled = ["needed by ", "wanted by ", "prepares "].iter().any(|how| cause.words.starts_with(how));
    let asked = |entry: &&Entry| {
        entry.service == name
            && entry.what == What::Asked
            && ["start ", "restart "].iter().any(|what| entry.words.starts_with(what))
    };
    pulled.then(|| events.iter().rev().find(asked))
}

/// When a service was asked for by this cause: the newest event that tells of it.
fn asked_at(events: &[Entry], name: &str, cause: &Cause) -> Option<String> {
    let tells = |entry: &&Entry| {
        let about = entry.service == name || entry.service.is_empty();
        let same = entry.words == cause.words && entry.request == cause.request;
        let asked = entry.what == What::Asked && cause.request.is_some() && entry.request == cause.request;
        about && (same || asked && entry.service == name)
    };
    // The same cause is told of each state that follows from it: the first of the newest run of them is meant.
    let newest = events.iter().rev().find(tells)?;
    let first = events.iter().rev().skip_while(|entry| entry.sequence > newest.sequence).filter(tells).last();
    Some(timestamp(first.unwrap_or(newest).realtime))
}

/// What fell out of the log.
fn before(events: &[Entry], name: &str) -> Option<String> {
    let oldest = events.first().filter(|entry| entry.sequence > 1)?;
    let many = events.iter().filter(|entry| entry.service == name).count() > EVENTS;
    (!many).then(|| {
        format!("what happened to it before {}: the event log begins there", timestamp(oldest.realtime))
    })
}

fn last_of(events: &[Entry], name: &str) -> Vec<crate::control::protocol::Event> {
    let of_it: Vec<&Entry> = events.iter().filter(|entry| entry.service == name).collect();
    of_it[of_it.len().saturating_sub(EVENTS)..].iter().map(|entry| wire((*entry).clone())).collect()
}

/// Of what the manager knows nothing.
fn bare(
    name: &str,
    state: Wire,
    sub_state: Option<String>,
    words: String,
    unknown: Vec<String>,
    events: &[Entry],
) -> Why {
    let cause = WireCause { words, request: None };
    Why {
        service: name.to_owned(),
        state,
        sub_state,
        uptime_usec: None,
        cause: cause.clone(),
        goal: WireGoal::Down,
        goal_cause: cause,
        roots: vec![],
        more_roots: 0,
        hindrances: vec![],
        coming: None,
        restarts: 0,
        last_exit: None,
        last_exit_ago_usec: None,
        unknown: unknown.into_iter().chain(before(events, name)).collect(),
        events: last_of(events, name),
    }
}
