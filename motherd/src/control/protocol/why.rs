//! Why a service is as it is.

use serde::{Deserialize, Serialize};

use super::{
    events::Event,
    status::{Cause, LastExit, State},
};

/// Where a service is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Down.
    Down,
    /// Up.
    Up,
    /// Down, and then up again.
    Again,
}

/// One step from a service to who was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Who has the one before started.
    pub by: String,
    /// As what: a key of `[dependencies]`.
    #[serde(rename = "as")]
    pub relation: String,
}

/// Somebody asked for a service, and the one that is explained is meant to be up for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// What was asked for.
    pub service: String,
    /// How it has the explained one started, the nearest step first; empty where it is the same.
    pub over: Vec<Pull>,
    /// Who asked.
    pub cause: Cause,
    /// When, RFC 3339, UTC; missing where that is not known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// What happens by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coming {
    /// For people.
    pub words: String,
    /// In how long.
    pub in_usec: u64,
}

/// Something that holds a service back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hindrance {
    /// For people.
    pub words: String,
    /// Whom it is about, where it is about another service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What comes of it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coming: Option<Coming>,
    /// Why that is so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<Hindrance>,
}

/// Why a service is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Its name.
    pub service: String,
    /// Now.
    pub state: State,
    /// What distinguishes it within the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_state: Option<String>,
    /// How long it has been in this state; missing for one that was never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_usec: Option<u64>,
    /// What brought it into its state.
    pub cause: Cause,
    /// Where it is meant to be.
    pub goal: Goal,
    /// Why it is meant to be there.
    pub goal_cause: Cause,
    /// Who was asked for and has it started, where it is meant to be up.
    pub roots: Vec<Root>,
    /// How many more there are.
    pub more_roots: u64,
    /// What holds it back from where it is meant to be.
    pub hindrances: Vec<Hindrance>,
    /// What comes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coming: Option<Coming>,
    /// How many times it was started again by itself.
    pub restarts: u64,
    /// How its main process ended the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<LastExit>,
    /// How long ago that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit_ago_usec: Option<u64>,
    /// What cannot be told, and why not.
    pub unknown: Vec<String>,
    /// What happened to it last, oldest first.
    pub events: Vec<Event>,
}
