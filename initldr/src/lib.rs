//! The parts of PID 1 that decide, without a system call among them, and the [`link`] that motherd speaks too.
//!
//! Invariant: nothing here allocates, and nothing here needs `std`.
#![cfg_attr(not(test), no_std)]

pub mod link;
