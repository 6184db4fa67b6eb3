//! Dates and times of day, in UTC. Pure: the clock is asked elsewhere.
//!
//! UTC has no hour that is skipped or comes twice, so a time that is written means one instant, in every week of the
//! year and on every machine alike.

mod civil;
mod schedule;

pub use self::{
    civil::{Civil, Date, timestamp},
    schedule::{Calendar, Wrong},
};
