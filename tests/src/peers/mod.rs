//! MotherD against other init systems, in guests: how fast they bring services up, what they cost while they run, and what
//! becomes of the services when they crash.
//!
//! A [`contender`] is PID 1 of a guest whose [`image`] holds nothing else of weight. What runs first there is [`guest`]: it
//! mounts, writes the contender's files, leaves a controller behind and becomes the contender. Each service is 9 kB of C
//! (`tests/peers/service.c`) that appends the time of its first instruction to a file and waits. The controller
//! measures, and says what it found over the second serial line; [`report`] is what it says, [`tables`] what is made of it.

pub mod contender;
pub mod files;
pub mod guest;
pub mod image;
pub mod native;
pub mod report;
pub mod run;
pub mod tables;
