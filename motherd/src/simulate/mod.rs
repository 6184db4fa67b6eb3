//! The simulator: random services, random histories of a hundred events and more, and what has to hold after each.
//!
//! A schedule follows from one number. Its events are what can happen to a motherd: processes end, launches fail, services
//! say that they are ready or never do, signals are not heard, SIGKILL takes its time, somebody asks for something, the
//! files change, time passes, turns are left for a later slice and all of this comes before them, motherd itself ends between
//! any two effects and its successor reads the records. `world.rs` plays the kernel and the daemon, `invariants.rs` is what is
//! promised, all of it.
//!
//! `SIMULATE_SEED=N cargo test -p motherd --lib simulate -- --nocapture` replays one schedule, event by event;
//! `SIMULATE=N` runs the first N.

mod dice;
mod house;
mod invariants;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};

use self::world::World;
pub(crate) use self::{
    dice::Dice,
    house::{Kinds, graph},
};
use crate::fault::{self, Fault};

/// What the unit tests can afford, unoptimized; the whole number is run by `cargo verify`.
const SCHEDULES: u64 = 2_000;
/// After this many a bug that was made on purpose has to be found.
const SCHEDULES_PER_FAULT: u64 = 20_000;

/// Plays one schedule; how many events it had, or what was broken.
fn play(kinds: &Kinds, seed: u64, loud: bool) -> Result<u64, String> {
    let played = catch_unwind(AssertUnwindSafe(|| World::new(kinds, seed, loud).play(kinds)));
    played.unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// The first schedule that breaks something, and how many events there were. On all processors.
fn search(schedules: u64, fault: Option<Fault>) -> (Option<(u64, String)>, u64) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, events, found) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let broken = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    fault::make(fault);
                    let kinds = Kinds::new();
                    while !found.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= schedules {
                            break;
                        }
                        match play(&kinds, seed, false) {
                            Ok(count) => {
                                events.fetch_add(count, Ordering::Relaxed);
                            }
                            Err(what) => {
                                found.store(true, Ordering::Relaxed);
                                return Some((seed, what));
                            }
                        }
                    }
                    None
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).min()
    });
    (broken, events.into_inner())
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn no_schedule_breaks_a_promise() {
    if let Some(seed) = number("SIMULATE_SEED") {
        let played = play(&Kinds::new(), seed, true);
        println!("{played:?}");
        assert!(played.is_ok());
        return;
    }
    let schedules = number("SIMULATE").unwrap_or(SCHEDULES);
    let started = Instant::now();
    let (broken, events) = search(schedules, None);
    if let Some((seed, what)) = broken {
        panic!("{what}\nSIMULATE_SEED={seed} replays it");
    }
    println!("{schedules} schedules, {events} events in {:.1} s", started.elapsed().as_secs_f64());
    assert!(events / schedules >= 100, "a schedule has a hundred events and more");
}

#[test]
fn every_bug_that_is_made_on_purpose_is_found() {
    let unwound = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found: Vec<_> =
        Fault::ALL.into_iter().map(|fault| (fault, search(SCHEDULES_PER_FAULT, Some(fault)).0)).collect();
    std::panic::set_hook(unwound);
    for (fault, found) in &found {
        match found {
            Some((seed, what)) => println!("{fault:?}: schedule {seed}: {what}"),
            None => println!("{fault:?}: NOT FOUND"),
        }
    }
    assert!(found.iter().all(|(_, found)| found.is_some()));
}

/// Where they are listed for people.
#[test]
fn the_bugs_that_are_made_on_purpose_are_listed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/testing.md");
    let text = std::fs::read_to_string(path).unwrap();
    for fault in Fault::ALL {
        assert!(text.contains(&format!("| `{fault:?}` |")), "{fault:?} is not in docs/testing.md");
    }
}
