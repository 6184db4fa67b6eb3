//! The control socket: Varlink over a UNIX stream socket, JSON objects that each end in a NUL.
//!
//! ```text
//! client.rs --Request--> server.rs --Incoming--> the daemon --Reply--> server.rs --> client.rs
//!                     (limits, peer, protocol)              (any time later)
//! ```
//!
//! Invariant: nothing that a peer sends, or fails to send, blocks or ends the daemon.

pub mod address;
pub mod client;
pub mod protocol;
pub mod server;
