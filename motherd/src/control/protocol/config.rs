//! What `ReloadConfig` answers.

use serde::{Deserialize, Serialize};

/// What the service files say differently from the generation that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPlan {
    /// Whether the files hold from here on.
    pub applied: bool,
    /// What is wrong with them; then they do not.
    pub errors: Vec<String>,
    /// What their authors should know.
    pub warnings: Vec<String>,
    /// By name.
    pub changes: Vec<ConfigChange>,
}

/// One service that is described differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// Its name.
    pub service: String,
    /// How.
    pub change: Change,
    /// It runs, so this takes effect when it has ended.
    pub runs: bool,
}

/// How the files describe a service differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there.
    Added,
    /// Its file has another text.
    Changed,
    /// Its file is gone.
    Removed,
}
