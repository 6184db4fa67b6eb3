//! The service manager.

pub mod control;
