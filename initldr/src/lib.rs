//! Shared with motherd.
#![cfg_attr(not(test), no_std)]
