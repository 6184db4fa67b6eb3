//! Logs over real pipes and files, and over the death of motherd at each step.

use std::{fs, path::PathBuf};

use super::*;
use crate::scratch::Scratch;

const T: &str = "2026-11-22T23:50:01.000042Z";

/// A folder, a stage whose memory outlives what is made of it, and one log.
struct Desk {
    scratch: Scratch,
    memory: (OwnedFd, OwnedFd),
    keep: u64,
    rate: Option<LogRate>,
}

impl Desk {
    fn new() -> Self {
        Self { scratch: Scratch::new(), memory: Stage::memory().unwrap(), keep: 1 << 20, rate: None }
    }

    fn folder(&self) -> PathBuf {
        self.scratch.path().join("web")
    }

    fn files(&self) -> Files {
        Files { folder: self.folder(), keep_bytes: self.keep, readers: None }
    }

    fn stage(&self) -> (Stage, Option<Left>) {
        Stage::open(self.memory.0.try_clone().unwrap(), &self.memory.1).unwrap()
    }

    fn log(&self, stage: &Stage) -> Log {
        let log = Log::create("web", self.files(), self.rate, stage).unwrap();
        log.enlarge();
        log
    }

    /// What the next motherd makes of what this one leaves.
    fn next(&self, log: Log) -> (Stage, Log) {
        let kept = log.reader().try_clone_to_owned().unwrap();
        drop(log);
        let (mut stage, left) = self.stage();
        let mut log = Log::adopt(kept, "web", self.files(), self.rate, &stage).unwrap();
        if let Some(left) = left {
            log.recover(&left, &mut stage, &at(9)).unwrap();
        }
        (stage, log)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder().join(name)).unwrap().replace(T, "T")
    }
}

fn at(second: u64) -> Clock {
    Clock { now: Duration::from_secs(1000 + second), stamp: T.to_owned() }
}

fn write(log: &Log, text: &str) {
    nix::unistd::write(log.writer(), text.as_bytes()).unwrap();
}

fn pump_all(log: &mut Log, stage: &mut Stage) {
    while log.pump(stage, &at(0)) {}
}

#[test]
fn what_is_written_is_in_the_file_line_by_line_with_its_time() {
    let desk = Desk::new();
    let (mut stage, left) = desk.stage();
    assert_eq!(left, None);
    let mut log = desk.log(&stage);
    write(&log, "one\ntwo");
    assert!(log.pump(&mut stage, &at(0)));
    assert_eq!(desk.read("current"), "T one\nT two");
    write(&log, " and a half\nÿ\0bytes\n");
    pump_all(&mut log, &mut stage);
    assert_eq!(desk.read("current"), "T one\nT two and a half\nT ÿ\0bytes\n");
    assert_eq!(tail(&desk.folder(), 2)[0], format!("{T} two and a half"));
    assert!(!log.pump(&mut stage, &at(0)));
}

#[test]
fn a_service_that_dies_within_a_line_ends_it_and_the_next_begins_one() {
    let desk = Desk::new();
    let (mut stage, _) = desk.stage();
    let mut log = desk.log(&stage);
    write(&log, "no end");
    log.finish(&mut stage, &at(0));
    log.finish(&mut stage, &at(0));
    write(&log, "next\n");
    pump_all(&mut log, &mut stage);
    assert_eq!(desk.read("current"), "T no end\nT next\n");
}

#[test]
fn a_service_that_has_said_nothing_has_no_file_at_its_end() {
    let desk = Desk::new();
    let (mut stage, _) = desk.stage();
    let mut log = desk.log(&stage);
    log.finish(&mut stage, &at(0));
    assert!(!desk.folder().exists());
    write(&log, "now");
    log.finish(&mut stage, &at(0));
    assert_eq!(desk.read("current"), "T now\n", "control");
}

#[test]
fn the_next_motherd_goes_on_where_the_last_one_stopped() {
    let desk = Desk::new();
    let (mut stage, _) = desk.stage();
    let mut log = desk.log(&stage);
    write(&log, "before\nwith");
    pump_all(&mut log, &mut stage);
    write(&log, "in a line\nmeanwhile\n");
    let (mut stage, mut log) = desk.next(log);
    write(&log, "after\n");
    pump_all(&mut log, &mut stage);
    assert_eq!(desk.read("current"), "T before\nT within a line\nT meanwhile\nT after\n");
}

/// The three places at which a motherd can die with bytes that are not in the pipe any more.
#[test]
fn no_line_is_lost_or_there_twice_wherever_motherd_dies() {
    for died in ["staged", "half written", "written", "booked"] {
        let desk = Desk::new();
        let (mut stage, _) = desk.stage();
        let mut log = desk.log(&stage);
        write(&log, "one\ntw");
        pump_all(&mut log, &mut stage);
        write(&log, "o\nthree\nfo");
        let bytes = stage.fill(log.reader(), "web", log.page.chunk + 1).unwrap().to_vec();
        if died != "staged" {
            let mut text = Text::default();
            let shape = Shape { now: at(1).now, stamp: T, rate: None, longest: 1000 };
            let mut carry = log.page.carry;
            carry.take(&bytes, &shape, &mut text);
            if died == "half written" {
                text.bytes.truncate(9);
                text.starts.clear();
            }
            log.files.append(log.current.as_mut().unwrap(), &text).unwrap();
            if died == "booked" {
                let size = log.current.as_ref().unwrap().size;
                let page = Page { chunk: log.page.chunk + 1, size, carry, ..log.page.clone() };
                assert!(stage.write(&page));
            }
        }
        drop(stage);
        let (mut stage, mut log) = desk.next(log);
        write(&log, "ur\n");
        pump_all(&mut log, &mut stage);
        assert_eq!(desk.read("current"), "T one\nT two\nT three\nT four\n", "{died}");
        assert_eq!(desk.stage().1, None, "{died}: nothing is left in the stage");
    }
}

#[test]
fn a_chunk_that_was_being_written_when_the_file_was_rotated_is_written_anew() {
    let desk = Desk { keep: 16 << 10, ..Desk::new() };
    let (mut stage, _) = desk.stage();
    let mut log = desk.log(&stage);
    let line = |number: usize| format!("{number:>100}\n");
    write(&log, &(0..20).map(line).collect::<String>());
    pump_all(&mut log, &mut stage);
    assert!(!desk.folder().join("1").exists());
    write(&log, &(20..50).map(line).collect::<String>());
    let bytes = stage.fill(log.reader(), "web", log.page.chunk + 1).unwrap().to_vec();
    let (mut carry, mut text) = (log.page.carry, Text::default());
    let longest = log.files.longest_line();
    carry.take(&bytes, &Shape { now: at(0).now, stamp: T, rate: None, longest }, &mut text);
    log.files.append(log.current.as_mut().unwrap(), &text).unwrap();
    assert!(desk.folder().join("1").exists(), "it was rotated within the chunk");
    drop(stage);
    let (_, log) = desk.next(log);
    drop(log);
    let names = ["3", "2", "1", "current"].into_iter().filter(|name| desk.folder().join(name).exists());
    let all: String = names.map(|name| desk.read(name)).collect();
    let numbers: Vec<usize> = all.lines().map(|line| line[1..].trim().parse().unwrap()).collect();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

#[test]
fn no_more_than_what_is_to_be_kept_is_kept_and_no_line_is_cut() {
    let desk = Desk { keep: 16 << 10, ..Desk::new() };
    let (mut stage, _) = desk.stage();
    let mut log = desk.log(&stage);
    for number in 0..4000 {
        write(&log, &format!("line {number}\n"));
        if number % 97 == 0 {
            pump_all(&mut log, &mut stage);
        }
    }
    pump_all(&mut log, &mut stage);
    let mut total = 0;
    let mut text = String::new();
    for name in ["3", "2", "1", "current"] {
        let part = desk.read(name);
        assert!(part.starts_with("T line ") && part.ends_with('\n'), "{name}");
        total += fs::metadata(desk.folder().join(name)).unwrap().len();
        text.push_str(&part);
    }
    assert!(total <= desk.keep, "{total} bytes are kept");
    assert!(total > desk.keep / 2, "{total} bytes are kept");
    let numbers: Vec<u32> = text.lines().map(|line| line[7..].parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a line is missing");
    assert_eq!(numbers.last(), Some(&3999));
    assert_eq!(fs::read_dir(desk.folder()).unwrap().count(), 4);
}

#[test]
fn a_line_without_an_end_stays_within_what_is_to_be_kept() {
    let desk = Desk { keep: 16 << 10, ..Desk::new() };
    let (mut stage, _) = desk.stage();
    let mut log = desk.log(&stage);
    for _ in 0..100 {
        write(&log, &"x".repeat(1000));
        pump_all(&mut log, &mut stage);
    }
    let sizes: Vec<u64> =
        files::NAMES.iter().map(|name| fs::metadata(desk.folder().join(name)).unwrap().len()).collect();
    assert!(sizes.iter().all(|size| *size <= desk.keep / 4), "{sizes:?}");
    assert!(desk.read("1").starts_with("T+xxx"), "{}", &desk.read("1")[..20]);
}

#[test]
fn what_is_dropped_is_counted_over_the_death_of_motherd() {
    let desk = Desk { rate: Some(LogRate { lines: 2, per: Duration::from_secs(1) }), ..Desk::new() };
    let (mut stage, _) = desk.stage();
    let mut log = desk.log(&stage);
    write(&log, "1\n2\n3\n4 beg");
    pump_all(&mut log, &mut stage);
    drop(stage);
    let (mut stage, mut log) = desk.next(log);
    write(&log, "inning\n5\n");
    pump_all(&mut log, &mut stage);
    assert_eq!((log.dropped(), log.due()), (3, Some(at(1).now)));
    log.tell(&mut stage, &at(1));
    assert_eq!(desk.read("current"), "T 1\nT 2\nT!3 lines dropped (log.rate)\n");
    assert_eq!((log.dropped(), log.due()), (3, None));
}

#[test]
fn a_disk_that_takes_nothing_does_not_hold_the_service_up_and_the_loss_is_told() {
    let desk = Desk::new();
    fs::write(desk.folder(), "a file where the folder should be").unwrap();
    let (mut stage, _) = desk.stage();
    let mut log = desk.log(&stage);
    write(&log, "lost\n");
    assert!(log.pump(&mut stage, &at(0)));
    assert_eq!(log.page.lost, 5);
    fs::remove_file(desk.folder()).unwrap();
    write(&log, "kept\n");
    pump_all(&mut log, &mut stage);
    assert_eq!(desk.read("current"), "T!5 bytes were lost here: the log could not be written\nT kept\n");
    assert_eq!(log.page.lost, 0);
}

#[test]
fn a_file_that_was_removed_truncated_or_changed_is_no_obstacle() {
    let desk = Desk::new();
    let (mut stage, _) = desk.stage();
    let mut log = desk.log(&stage);
    write(&log, "one\ntwo");
    pump_all(&mut log, &mut stage);
    fs::remove_file(desk.folder().join("current")).unwrap();
    write(&log, " is gone\nthree\n");
    pump_all(&mut log, &mut stage);
    let text = desk.read("current");
    assert!(text.starts_with("T ") && text.ends_with("T three\n"), "{text}");
    fs::write(desk.folder().join("current"), "no time and no end").unwrap();
    let (mut stage, mut log) = desk.next(log);
    write(&log, "four\n");
    pump_all(&mut log, &mut stage);
    assert_eq!(desk.read("current"), "no time and no end\nT four\n");
}

#[test]
fn one_wake_up_moves_one_chunk() {
    let desk = Desk { keep: 16 << 20, ..Desk::new() };
    let (mut stage, _) = desk.stage();
    let mut log = desk.log(&stage);
    write(&log, &"x\n".repeat(CHUNK));
    assert!(log.pump(&mut stage, &at(0)));
    assert_eq!(desk.read("current").lines().count(), CHUNK / 2);
}

#[test]
fn books_that_nobody_writes_take_no_page() {
    let (stage, books) = Stage::memory().unwrap();
    for time in ["first", "second"] {
        let (mut open, left) = Stage::open(stage.try_clone().unwrap(), &books).unwrap();
        assert_eq!(
            (left, nix::sys::stat::fstat(&books).unwrap().st_blocks / 8),
            (None, 1),
            "the {time} motherd"
        );
        assert!(open.write(&Page { name: "web".to_owned(), ..Page::default() }));
    }
}
