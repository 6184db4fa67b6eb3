//! `motherctl wait`: until services are in a state.
//!
//! The stream of events says that something became of one of them, and then it is asked what they are: between two events
//! nothing changes, so nobody asks without one. A motherd that ends meanwhile is waited for: what is awaited is a state,
//! and the next motherd knows it.

use std::{
    path::PathBuf,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    args::{Awaited, Global},
    failure::Failure,
    output::{print, print_json},
    render::printable,
};
use crate::control::{
    client::{CallError, Client},
    protocol::{Reply, Request, ServiceStatus, State, VERSION},
};

/// How long a motherd may be away before nobody waits for it any more.
const AWAY: Duration = Duration::from_secs(60);
/// From one look for it to the next.
const LOOK: Duration = Duration::from_millis(50);

/// What the wait for some services came to.
enum Outcome {
    /// All are there.
    There,
    /// This one has failed, and is not what is awaited.
    Never(String),
    /// Not yet: this one is not.
    NotYet(String),
}

/// Returns when all of them are in the state, and exits with 1 when one never will be, or the time is over.
pub(super) fn wait(
    global: &Global,
    names: &[String],
    awaited: Awaited,
    timeout: Option<Duration>,
) -> Result<u8, Failure> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut away_since: Option<Instant> = None;
    loop {
        let error = match follow(global, names, awaited, deadline) {
            Ok(status) => return Ok(status),
            Err(Ended::Failed(failure)) => return Err(failure),
            // Whom nobody ever reached is not there; who was there comes back.
            Err(Ended::Away { error, was_there }) => {
                if was_there {
                    away_since = None;
                }
                if !was_there && away_since.is_none() {
                    return Err(Failure::new(error.exit_status(), &error));
                }
                error
            }
        };
        let since = *away_since.get_or_insert_with(Instant::now);
        let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if over || since.elapsed() > AWAY {
            return Err(Failure::new(error.exit_status(), &error));
        }
        thread::sleep(LOOK);
    }
}

/// Why a motherd is not followed any more.
enum Ended {
    Failed(Failure),
    Away { error: CallError, was_there: bool },
}

fn ended(error: CallError, was_there: bool) -> Ended {
    match error {
        CallError::Unreachable { .. } if error.exit_status() == 6 => Ended::Away { error, was_there },
        CallError::Broken { .. } => Ended::Away { error, was_there },
        CallError::Unreachable { .. } | CallError::Nonsense { .. } | CallError::Refused(_) => {
            Ended::Failed(Failure::new(error.exit_status(), &error))
        }
    }
}

/// Waits with one motherd.
fn follow(
    global: &Global,
    names: &[String],
    awaited: Awaited,
    deadline: Option<Instant>,
) -> Result<u8, Ended> {
    let socket = global.socket();
    let mut client = Client::connect(&socket).map_err(|error| ended(error, false))?;
    let there = |error| ended(error, true);
    // Where the names are wrong, that is said here.
    let status = Request::Status { services: names.to_vec(), brief: false };
    let asked = |client: &mut Client| match client.call(&status) {
        Ok(Reply::Status(services)) => Ok(services),
        Ok(_) => Err(Ended::Failed(Failure::say(1, "motherd answered something else"))),
        Err(error) => Err(there(error)),
    };
    asked(&mut client)?;
    let events = |after, follow| Request::Events { services: names.to_vec(), after, follow };
    let Reply::Events(past) = client.call(&events(None, false)).map_err(there)? else {
        return Err(Ended::Failed(Failure::say(1, "motherd answered something else")));
    };
    let seen = past.events.last().map_or(0, |event| event.sequence);
    let told = stream(socket, events(Some(seen), true));
    loop {
        // The stream begins with an empty reply: what happens after that is told, so the first look comes after it.
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let heard = match left {
            Some(left) => told.recv_timeout(left),
            None => told.recv().map_err(RecvTimeoutError::from),
        };
        match heard {
            Ok(Ok(())) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Err(error)) => return Err(there(error)),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Ended::Failed(Failure::say(1, "the stream of events ended")));
            }
        }
        let services = asked(&mut client)?;
        let over = matches!(heard, Err(RecvTimeoutError::Timeout));
        let status = match outcome(&services, awaited) {
            Outcome::There => 0,
            Outcome::NotYet(_) if !over => continue,
            Outcome::NotYet(who) => {
                report(global, &services, awaited).map_err(Ended::Failed)?;
                return Err(Ended::Failed(Failure::say(1, format!("the time is over: {who}"))));
            }
            Outcome::Never(who) => {
                report(global, &services, awaited).map_err(Ended::Failed)?;
                return Err(Ended::Failed(Failure::say(1, who)));
            }
        };
        report(global, &services, awaited).map_err(Ended::Failed)?;
        return Ok(status);
    }
}

/// A message for each that the stream has, on a thread of its own: the time may be over while it has none.
fn stream(socket: PathBuf, request: Request) -> mpsc::Receiver<Result<(), CallError>> {
    let (send, told) = mpsc::channel();
    thread::spawn(move || {
        let streamed = Client::connect(&socket)
            .and_then(|mut client| client.call_each(&request, |_| send.send(Ok(())).is_ok()));
        if let Err(error) = streamed {
            // Who waits may be gone.
            drop(send.send(Err(error)));
        }
    });
    told
}

fn is_there(state: State, awaited: Awaited) -> bool {
    match awaited {
        Awaited::Up => matches!(state, State::Running | State::Reloading | State::Done),
        Awaited::State(wanted) => state == wanted,
    }
}

fn outcome(services: &[ServiceStatus], awaited: Awaited) -> Outcome {
    let to_be_up = match awaited {
        Awaited::Up => true,
        Awaited::State(state) => matches!(state, State::Running | State::Done | State::Reloading),
    };
    let missing: Vec<&ServiceStatus> =
        services.iter().filter(|service| !is_there(service.state, awaited)).collect();
    let told = |service: &ServiceStatus| {
        let (name, state) = (printable(&service.name), service.state.name());
        format!("{name} is {state}: {}", printable(&service.cause.words))
    };
    match missing.iter().find(|service| to_be_up && service.state == State::Failed).or(missing.first()) {
        None => Outcome::There,
        Some(service) if to_be_up && service.state == State::Failed => Outcome::Never(told(service)),
        Some(service) => Outcome::NotYet(told(service)),
    }
}

fn report(global: &Global, services: &[ServiceStatus], awaited: Awaited) -> Result<(), Failure> {
    if global.json {
        let services: Vec<Value> = services
            .iter()
            .map(|service| {
                let reached = is_there(service.state, awaited);
                json!({ "service": service.name, "state": service.state, "reached": reached })
            })
            .collect();
        return print_json(&json!({ "version": VERSION, "services": services }));
    }
    let there = services.iter().filter(|service| is_there(service.state, awaited));
    print(
        &there
            .map(|service| format!("{}: {}\n", printable(&service.name), service.state.name()))
            .collect::<String>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::samples::{stopped, web};

    #[test]
    fn what_is_to_be_up_and_has_failed_never_comes() {
        let in_state = |state| ServiceStatus { state, ..stopped() };
        let is = |states: &[State], awaited| {
            let services: Vec<ServiceStatus> = states.iter().map(|state| in_state(*state)).collect();
            match outcome(&services, awaited) {
                Outcome::There => "there",
                Outcome::Never(_) => "never",
                Outcome::NotYet(_) => "not yet",
            }
        };
        assert_eq!(is(&[State::Running, State::Done], Awaited::Up), "there");
        assert_eq!(is(&[State::Running, State::Starting], Awaited::Up), "not yet");
        assert_eq!(is(&[State::Stopped, State::Failed], Awaited::Up), "never");
        assert_eq!(is(&[State::Failed], Awaited::State(State::Failed)), "there");
        assert_eq!(is(&[State::Failed], Awaited::State(State::Stopped)), "not yet");
        assert_eq!(is(&[State::Done], Awaited::State(State::Running)), "not yet");
        assert!(matches!(outcome(&[web()], Awaited::Up), Outcome::There));
    }
}
