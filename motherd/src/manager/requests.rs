//! What somebody asks for, and the one answer that each request gets: what is so when it is given.

use std::time::Duration;

use super::{Effect, HELD, Manager};
use crate::{
    fault::{self, Fault},
    graph::Id,
    supervise::{Cause, Event, Goal, Requester, Stage, State},
};

/// What somebody asks for some services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Start them and what they require and want.
    Start,
    /// Stop them. One that another service needs is refused, unless all who need it are named as well.
    Stop {
        /// Nothing is refused: who needs one of them is stopped first.
        force: bool,
    },
    /// Both, in this order.
    Restart,
}

/// For each service of a request whether anything changed, or why it did not come to pass.
pub type Outcome = Vec<(Id, Result<bool, String>)>;

/// A request that waits for its services.
#[derive(Debug)]
pub(super) struct Pending {
    token: u64,
    verb: Verb,
    /// Each with what was done at once: whether that changes anything, or why nothing was done.
    services: Vec<(Id, Result<bool, String>)>,
    /// The first of them that was found on its way: as long as it is, there is no answer.
    waits_at: usize,
    /// Its answer was announced ([`Effect::Answer`]).
    announced: bool,
}

impl Pending {
    /// Whether it waits for this service.
    pub(super) fn is_about(&self, id: Id) -> bool {
        self.services.iter().any(|(about, _)| *about == id)
    }
}

impl Manager {
    /// Somebody's request; [`Effect::Reply`] with this token follows, now or later.
    #[must_use]
    pub fn request(
        &mut self,
        token: u64,
        verb: Verb,
        ids: &[Id],
        who: Requester,
        now: Duration,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        // What is refused depends on how things are before any of it is done.
        let refused: Vec<Option<String>> = ids.iter().map(|id| self.refusal(verb, *id, ids)).collect();
        let mut services = Vec::new();
        for (id, refused) in ids.iter().zip(refused) {
            if let Some(why) = refused {
                services.push((*id, Err(why)));
                continue;
            }
            let unit = &self.units[id.0];
            let changed = match verb {
                Verb::Start => !unit.is_up() || unit.goal != Goal::Up,
                Verb::Stop { .. } => unit.state != State::Stopped || unit.goal != Goal::Down,
                Verb::Restart => true,
            };
            services.push((*id, Ok(changed)));
            match verb {
                Verb::Start => {
                    // What it did before it was stopped is not held against it. A connection or a timer forgets nothing.
                    if matches!(self.units[id.0].state, State::Stopped | State::Done) {
                        self.units[id.0].history.forgive();
                        self.changed(*id);
                    }
                    self.want(*id, &Cause::request("started", who), now, &mut effects);
                }
                Verb::Stop { .. } => {
                    let cause = Cause::request("stopped", who);
                    // Where it is meant to be is known from here on.
                    self.unrecorded.remove(id);
                    self.unwant(*id, &cause);
                    if self.units[id.0].state == State::Orphan {
                        self.step(*id, Event::Stop(cause), now, &mut effects);
                    }
                }
                Verb::Restart => self.bounce(*id, &Cause::request("restarted", who), now, &mut effects),
            }
        }
        self.pending.push(Pending { token, verb, services, waits_at: 0, announced: false });
        self.settle(now, &mut effects);
        effects
    }

    fn refusal(&self, verb: Verb, id: Id, among: &[Id]) -> Option<String> {
        match verb {
            Verb::Start | Verb::Restart | Verb::Stop { force: true } => None,
            Verb::Stop { force: false } => {
                let keepers = self.keepers(id, among);
                let names: Vec<&str> = keepers.iter().map(|keeper| self.graph.name(*keeper)).collect();
                let (them, these) = if names.len() == 1 { ("it", "it") } else { ("them", "these") };
                (!names.is_empty()).then(|| {
                    format!(
                        "needed by {}: stop {these} first or as well, or let --force stop {them} too",
                        names.join(", ")
                    )
                })
            }
        }
    }

    /// Announces the answers to the requests that are done.
    pub(super) fn answer(&mut self, effects: &mut Vec<Effect>) {
        let pending = std::mem::take(&mut self.pending);
        for mut request in pending {
            if !request.announced && self.outcome(&mut request).is_some() {
                request.announced = true;
                effects.push(Effect::Answer { token: request.token });
            }
            if request.announced || !fault::on(Fault::ForgetsARequest) {
                self.pending.push(request);
            }
        }
    }

    /// Answers a request, if it is still done.
    pub(super) fn reply(&mut self, token: u64) -> Option<Effect> {
        let place = self.pending.iter().position(|request| request.token == token)?;
        let mut request = self.pending.remove(place);
        request.announced = false;
        let outcome = self.outcome(&mut request);
        if outcome.is_none() || fault::on(Fault::AnswersTwice) {
            self.pending.push(request);
        }
        Some(Effect::Reply { token, outcome: outcome? })
    }

    /// What became of each service of a request, if all are where they will be.
    fn outcome(&self, request: &mut Pending) -> Option<Outcome> {
        let one = |(id, done): &(Id, Result<bool, String>)| {
            let changed = match done {
                Ok(changed) => *changed,
                Err(why) => return Some((*id, Err(why.clone()))),
            };
            let result = match request.verb {
                Verb::Start | Verb::Restart => self.started(*id),
                Verb::Stop { .. } => self.stopped(*id),
            }?;
            Some((*id, result.map(|()| changed)))
        };
        // Most often the same one is still on its way: then the others need not be looked at.
        if request.services.get(request.waits_at).is_some_and(|service| one(service).is_none()) {
            return None;
        }
        let results: Vec<_> = request.services.iter().map(one).collect();
        match results.iter().position(Option::is_none) {
            Some(first) => {
                request.waits_at = first;
                None
            }
            None => results.into_iter().collect(),
        }
    }

    /// Whether a service is up as asked, or why it will not be. `None`: it is on its way.
    fn started(&self, id: Id) -> Option<Result<(), String>> {
        let unit = self.unit(id);
        match unit.goal {
            Goal::Bounce => None,
            Goal::Down if self.ending.is_some() => Some(Err("the machine is ending".to_owned())),
            Goal::Down => Some(Err(unit.asked.words.clone())),
            Goal::Up => match unit.state {
                // Its end has come, and is only announced so far.
                State::Running { .. } | State::Done if self.fates[id.0].doom.is_some() => None,
                State::Running { .. } | State::Done => Some(Ok(())),
                State::Stopped | State::Waiting | State::Expecting { .. } | State::Stopping { .. }
                    if self.held =>
                {
                    Some(Err(HELD.to_owned()))
                }
                State::Failed | State::Backoff { .. } | State::Orphan => Some(Err(unit.cause.words.clone())),
                State::Waiting | State::Expecting { .. } if self.is_blocked(id) => {
                    Some(Err(self.waits_for(id).unwrap_or_default()))
                }
                State::Stopped
                | State::Waiting
                | State::Expecting { .. }
                | State::Preparing { .. }
                | State::Launching
                | State::Starting { .. }
                | State::Forked { .. }
                | State::Settling { .. }
                | State::Stopping { .. }
                | State::Cleaning { .. } => None,
            },
        }
    }

    fn stopped(&self, id: Id) -> Option<Result<(), String>> {
        let unit = self.unit(id);
        match (unit.goal, &unit.state) {
            (Goal::Down, State::Stopped) => Some(Ok(())),
            // It goes on being killed; whoever asked is told now what hangs.
            (Goal::Down, State::Stopping { stage: Stage::Killed { stuck: true, .. }, .. }) => {
                Some(Err(unit.cause.words.clone()))
            }
            (Goal::Down, _) => None,
            (Goal::Up | Goal::Bounce, _) => {
                Some(Err(format!("started again meanwhile: {}", unit.asked.words)))
            }
        }
    }
}
