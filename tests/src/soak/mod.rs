//! motherd killed under load: the load, what asks it and its services, and the accounts that have to agree afterwards.
//!
//! The program `soak_kill` does it by hand or inside of a guest, `tests/tests/survival.rs` in a short form.

pub mod audit;
pub mod client;
pub mod guest;
pub mod load;
pub mod modes;
mod poison;
pub mod run;
