//! `Events`: what happened, once or as a stream.
//!
//! Invariant: nothing is queued for a reader. Whoever has taken what it was given is given what the event log has next;
//! whoever is slower than the log finds that some of it is gone, and is told how much.

use std::collections::BTreeMap;

use super::{Daemon, now};
use crate::{
    calendar::timestamp,
    control::{
        protocol::{Event, EventKind, Events, Reply, RequestError, Requester},
        server::Token,
    },
    eventlog::{Entry, What},
};

/// What one message of a stream has at most, so that a reader's part of our memory is small.
const BATCH: usize = 128;

/// Who reads, and how far it has come.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<Token, Stream>);

#[derive(Debug)]
struct Stream {
    services: Vec<String>,
    /// Everything up to this was sent, or is not wanted.
    seen: u64,
}

impl Daemon {
    /// The one reply to `Events` without `more`.
    pub(super) fn events(&mut self, services: &[String], after: Option<u64>) -> Result<Reply, RequestError> {
        self.known_to_events(services)?;
        let seen = after.unwrap_or_else(|| self.events.oldest().saturating_sub(1));
        let events = self.events.after(seen).filter(|entry| is_about(entry, services)).map(wire).collect();
        Ok(Reply::Events(Events { events, lost: self.lost_after(seen) }))
    }

    /// The first reply to `Events` with `more`; the others follow as things happen.
    pub(super) fn follow_events(&mut self, token: Token, services: &[String], after: Option<u64>) {
        if let Err(error) = self.known_to_events(services) {
            self.server.reply(token, &Reply::Error(error), now());
            return;
        }
        let seen = after.unwrap_or_else(|| self.events.oldest().saturating_sub(1));
        // It is told at once that it is heard, even where there is nothing to say.
        self.server.reply_more(token, &Reply::Events(Events::default()), now());
        self.streams.0.insert(token, Stream { services: services.to_vec(), seen });
    }

    /// Gives the readers that have room what they have not seen. Ends: the log is finite, and nothing here adds to it.
    pub(super) fn feed_streams(&mut self) {
        let mut streams = std::mem::take(&mut self.streams.0);
        streams.retain(|token, stream| {
            while self.server.hungry(*token) == Some(true) && stream.seen < self.events.newest() {
                let lost = self.lost_after(stream.seen);
                let batch: Vec<Entry> = self.events.after(stream.seen).take(BATCH).collect();
                stream.seen = batch.last().map_or(self.events.newest(), |entry| entry.sequence);
                let wanted = batch.into_iter().filter(|entry| is_about(entry, &stream.services));
                let events: Vec<Event> = wanted.map(wire).collect();
                if !events.is_empty() || lost > 0 {
                    self.server.reply_more(*token, &Reply::Events(Events { events, lost }), now());
                }
            }
            self.server.hungry(*token).is_some()
        });
        self.streams.0 = streams;
    }

    fn lost_after(&self, seen: u64) -> u64 {
        self.events.oldest().saturating_sub(1).saturating_sub(seen)
    }

    /// A name that neither a service nor an event has is a spelling mistake.
    fn known_to_events(&mut self, services: &[String]) -> Result<(), RequestError> {
        for service in services {
            if let Err(error) = self.check_name(service)
                && !self.events.after(0).any(|entry| entry.service == *service)
            {
                return Err(error);
            }
        }
        Ok(())
    }
}

fn is_about(entry: &Entry, services: &[String]) -> bool {
    services.is_empty() || services.contains(&entry.service)
}

pub(super) fn wire(entry: Entry) -> Event {
    let text = |text: String| (!text.is_empty()).then_some(text);
    Event {
        sequence: entry.sequence,
        boottime_usec: u64::try_from(entry.at.as_micros()).unwrap_or(u64::MAX),
        time: timestamp(entry.realtime),
        kind: match entry.what {
            What::Became => EventKind::Became,
            What::Asked => EventKind::Asked,
            What::Timer => EventKind::Timer,
            What::Socket => EventKind::Socket,
            What::Pressure => EventKind::Pressure,
            What::Manager => EventKind::Manager,
        },
        service: text(entry.service),
        state: text(entry.state),
        words: entry.words,
        request: entry.request.map(|who| Requester { uid: who.uid, pid: who.pid }),
    }
}
