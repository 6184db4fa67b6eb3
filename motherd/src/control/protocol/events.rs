//! What the manager says of what happened, and of why a service is as it is.

use serde::{Deserialize, Serialize};

use super::status::Requester;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A service came into a state.
    Became,
    /// Somebody asked for something.
    Asked,
    /// A timer went off.
    Timer,
    /// Somebody connected to a socket.
    Socket,
    /// A service waited too much for a resource.
    Pressure,
    /// motherd itself: started, relaunched, ending the machine.
    Manager,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// From 1, over the whole life of initldr.
    pub sequence: u64,
    /// On CLOCK_BOOTTIME.
    pub boottime_usec: u64,
    /// RFC 3339, UTC.
    pub time: String,
    /// What it is about.
    pub kind: EventKind,
    /// Which service, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The state that the service came into: a state's name, or `blocked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why, or what was asked.
    pub words: String,
    /// Who asked, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Requester>,
}

/// A socket of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketStatus {
    /// As LISTEN_FDNAMES has it.
    pub name: String,
    /// `tcp:0.0.0.0:80`
    pub listen: String,
    /// The service is started when somebody connects.
    pub lazy: bool,
    /// It listens now.
    pub listening: bool,
    /// The next connection starts the service.
    pub starts_it: bool,
    /// Why it could not be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A timer of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerStatus {
    /// Whose.
    pub service: String,
    /// As it is written: `daily 03:00`, `every 15m`.
    pub schedule: String,
    /// What was missed while the machine was off is made up for.
    pub persistent: bool,
    /// When it goes off, RFC 3339, UTC; missing where that depends on what has not happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// In how long that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_in_usec: Option<u64>,
    /// When it went off last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// Events, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// Each.
    pub events: Vec<Event>,
    /// How many there were between what was asked for and the first of these that are no longer known.
    pub lost: u64,
}
