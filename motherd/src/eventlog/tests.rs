//! The ring: what is found again, what is overwritten, and what a torn write leaves.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    time::Duration,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;

use super::*;
use crate::supervise::Requester;

fn memory() -> File {
    let fd: OwnedFd = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
    let file = File::from(fd);
    file.set_len(SIZE as u64).unwrap();
    file
}

fn entry(service: &str, words: &str) -> Entry {
    Entry {
        sequence: 0,
        at: Duration::from_nanos(1_500_000_001),
        realtime: Duration::from_secs(1_700_000_000),
        service: service.to_owned(),
        what: What::Became,
        state: "running".to_owned(),
        words: words.to_owned(),
        request: Some(Requester { uid: 1000, pid: 812 }),
    }
}

fn words(log: &EventLog) -> Vec<String> {
    log.after(0).map(|entry| entry.words).collect()
}

#[test]
fn entries_come_out_as_they_went_in_and_in_order() {
    let file = memory();
    let mut log = EventLog::map(&file).unwrap();
    let all = [
        entry("web", "started by uid 0 (pid 1)"),
        Entry { request: None, what: What::Manager, state: String::new(), ..entry("", "") },
        Entry { what: What::Timer, ..entry("rotate", &"é".repeat(100)) },
    ];
    for one in &all {
        log.push(one);
    }
    let expected: Vec<Entry> =
        all.iter().zip(1..).map(|(one, sequence)| Entry { sequence, ..one.clone() }).collect();
    assert_eq!(log.after(0).collect::<Vec<_>>(), expected);
    assert_eq!(log.after(2).collect::<Vec<_>>(), expected[2..]);
    assert_eq!(log.after(3).count(), 0);
}

#[test]
fn the_next_motherd_finds_them_and_goes_on_counting() {
    let file = memory();
    let mut log = EventLog::map(&file).unwrap();
    log.push(&entry("a", "one"));
    log.push(&entry("a", "two"));
    drop(log);
    let mut log = EventLog::map(&file).unwrap();
    log.push(&entry("a", "three"));
    assert_eq!(words(&log), ["one", "two", "three"]);
    assert_eq!(log.newest(), 3);
}

#[test]
fn a_text_that_is_too_long_is_cut_between_characters() {
    let file = memory();
    let mut log = EventLog::map(&file).unwrap();
    log.push(&entry("a", &"é".repeat(1000)));
    assert_eq!(words(&log), ["é".repeat(300)]);
}

#[test]
fn what_another_layout_wrote_is_cleared() {
    let file = memory();
    EventLog::map(&file).unwrap().push(&entry("a", "one"));
    file.write_all_at(&[9], 8).unwrap();
    let log = EventLog::map(&file).unwrap();
    assert_eq!(log.newest(), 0);
    assert_eq!(words(&log), [""; 0]);
}

#[test]
fn a_service_cannot_forge_an_entry_with_its_words() {
    let file = memory();
    let mut log = EventLog::map(&file).unwrap();
    // The bytes of a whole entry, as words: wherever they stand, no cell begins with them.
    let forged = String::from_utf8_lossy(&entry("root", "forged").encode(1 << 40)).into_owned();
    for lead in 0..CELL {
        log.push(&entry("a", &format!("{}S{forged}", "x".repeat(lead))));
    }
    drop(log);
    let log = EventLog::map(&file).unwrap();
    assert_eq!(log.newest(), CELL as u64);
    assert!(log.after(0).all(|entry| entry.service == "a"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Against a plain list: what is found is its end, whole and in order, also by the next motherd.
    #[test]
    fn the_newest_entries_are_there_and_nothing_else(
        lengths in prop::collection::vec((0_usize..400, any::<bool>()), 1..1500),
    ) {
        let file = memory();
        let mut log = EventLog::map(&file).unwrap();
        let mut all = Vec::new();
        for (number, (length, again)) in lengths.into_iter().enumerate() {
            let one = entry("svc", &format!("{number}:{}", "w".repeat(length)));
            log.push(&one);
            all.push(one.words);
            if again && number % 64 == 0 {
                log = EventLog::map(&file).unwrap();
            }
        }
        let found = words(&log);
        prop_assert_eq!(&all[all.len() - found.len()..], &found[..]);
        let bytes: usize = all.iter().rev().map(String::len).take(found.len() + 1).sum();
        prop_assert!(found.len() == all.len() || bytes > SIZE / 2, "{} entries are left", found.len());
        prop_assert_eq!(words(&EventLog::map(&file).unwrap()), found);
    }

    /// A motherd that is killed within a write leaves the other entries.
    #[test]
    fn a_torn_write_costs_no_other_entry(at in 0_usize..40, byte: u8) {
        let file = memory();
        let mut log = EventLog::map(&file).unwrap();
        for number in 0..40 {
            log.push(&entry("svc", &format!("entry {number:05}")));
        }
        let place = log.index[at];
        let torn = offset(place.cell) + 1 + usize::from(byte) % 60; // an entry has 63 bytes and more
        let mut old = [0];
        file.read_exact_at(&mut old, torn as u64).unwrap();
        file.write_all_at(&[old[0] ^ 0x55], torn as u64).unwrap();
        let log = EventLog::map(&file).unwrap();
        let expected: Vec<String> =
            (0..40).filter(|number| *number != at).map(|number| format!("entry {number:05}")).collect();
        prop_assert_eq!(words(&log), expected);
    }
}
