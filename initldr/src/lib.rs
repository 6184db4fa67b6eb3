//! PID 1 without its loop: what decides, what remembers, and the [`link`] that motherd speaks too.
//!
//! | module | what it keeps |
//! | --- | --- |
//! | [`link`] | the messages, one encoding each |
//! | [`phase`] | (phase, event) to (phase, effect): launches, backoff, hangs, the end |
//! | [`ring`], [`store`] | the exits and the descriptors that outlive motherd |
//! | [`outbox`] | both of them, and what is still to be said on the link |
//! | [`args`], [`mounts`], [`line`] | the command line, the early mounts, a line of log |
//! | [`storage`] | what the end of a machine reads of its disks, and how long it waits for them |
//! | [`sys`], [`abi`] | the system calls, and the kernel's numbers and layouts |
//!
//! Invariant: nothing here allocates, and nothing here needs `std` or a C library. It is a library so that the unit
//! tests, which have both, can compare it with them; the program is `main.rs`.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod args;
pub mod line;
pub mod link;
pub mod mounts;
pub mod outbox;
pub mod phase;
pub mod ring;
pub mod storage;
pub mod store;
#[allow(unsafe_code, reason = "PID 1 links no C library: the system calls are made here, and only here")]
pub mod sys;
