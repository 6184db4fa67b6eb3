//! Who names whom.

use serde::{Deserialize, Serialize};

use super::status::State;

/// A service and whom it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeNode {
    /// Its name.
    pub service: String,
    /// Now.
    pub state: State,
    /// What distinguishes it within the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_state: Option<String>,
    /// Somebody asked for it by name.
    pub asked: bool,
    /// Whom its file names.
    pub edges: Vec<TreeEdge>,
}

/// One name in a `[dependencies]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEdge {
    /// The key: `needs`, `after`.
    #[serde(rename = "as")]
    pub relation: String,
    /// Who is named; there may be no such service.
    pub service: String,
}
