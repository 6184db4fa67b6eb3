//! A state is written, damaged in every place, and read: in the layouts that a motherd may find.

use std::{os::fd::OwnedFd, sync::atomic::Ordering, time::Duration};

use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;

use super::{
    fields::WORDS_MAX,
    shape::{SEQUENCE, SLOT_MAX, WIDE},
    *,
};
use crate::{
    service::NAME_MAX,
    supervise::{
        Cause, Command, Exit, ExitHow, Goal, History, Hook, Main, Requester, Stage, Standby, State, Then,
    },
};

const SHAPES: [&Shape; 2] = [&WIDE, &PACKED];

fn memfd() -> OwnedFd {
    let fd = memfd_create("state", MFdFlags::MFD_CLOEXEC).unwrap();
    nix::unistd::ftruncate(&fd, STATE_SIZE.try_into().unwrap()).unwrap();
    fd
}

/// A state as a motherd made it that knew no other layout.
fn state_of(shape: &'static Shape, fd: &OwnedFd) -> Table {
    let (mut table, found, _) = Table::map(fd).unwrap();
    assert_eq!(found, Found::Fresh);
    table.shape = shape;
    table.begin();
    table
}

/// Its words have no room in a record.
fn long(name: &str, state: State) -> Record {
    let mut record = record(name, state);
    record.unit.cause.words = "because ".repeat(40);
    record
}

fn record(name: &str, state: State) -> Record {
    let unit = Unit {
        state,
        since: Duration::from_nanos(1_234_567_890),
        cause: Cause::request("started", Requester { uid: 7, pid: 8 }),
        goal: Goal::Up,
        asked: Cause::new("boot"),
        explicit: true,
        launched: Duration::from_millis(1_500),
        history: History { streak: 3, in_window: 2, failing: true, total: 9, ..History::default() },
        last_exit: Some(Exit { how: ExitHow::Dumped, status: 11, at: Duration::from_secs(5) }),
        standby: Standby::None,
    };
    Record {
        name: name.to_owned(),
        unit,
        start_ticks: 77,
        cgroup_id: 1 << 40,
        policy: [7; 8],
        standby_cgroup_id: 1 << 41,
        oom_kills: 3,
        stale: false,
    }
}

fn main() -> Main {
    Main { pid: 4321, launched: Duration::from_millis(1500) }
}

fn states() -> Vec<State> {
    let until = Duration::from_secs(9);
    let deadline = Duration::from_secs(8);
    let command = |hook| Command { hook, index: 0, process: None, deadline, overdue: false };
    let mut states = vec![
        State::Stopped,
        State::Waiting,
        State::Expecting { deadline: None },
        State::Expecting { deadline: Some(deadline) },
        State::Launching,
        State::Starting { main: main(), deadline: Some(deadline) },
        State::Starting { main: main(), deadline: None },
        State::Running { main: main() },
        State::Done,
        State::Backoff { until },
        State::Failed,
        State::Orphan,
        State::Preparing { command: command(Hook::Pre) },
        State::Preparing { command: Command { index: 7, process: Some(main()), ..command(Hook::Pre) } },
        State::Settling { main: main(), command: command(Hook::Post) },
        State::Settling {
            main: main(),
            command: Command { process: Some(main()), overdue: true, ..command(Hook::Post) },
        },
        State::Cleaning { command: command(Hook::StopPost), then: Then::Restart { until } },
        State::Forked { launched: until, deadline: Some(deadline) },
        State::Forked { launched: until, deadline: None },
    ];
    for main in [None, Some(main())] {
        let killed = |stuck, cleaned| Stage::Killed { again: deadline, stuck, cleaned };
        let mut stages = vec![Stage::Signalled { deadline }, Stage::Asking { command: command(Hook::Stop) }];
        stages.extend([killed(false, false), killed(true, false), killed(false, true), killed(true, true)]);
        for stage in stages {
            for then in [Then::Settle, Then::Done, Then::Restart { until }, Then::Fail] {
                states.push(State::Stopping { main, stage, then });
            }
        }
    }
    states
}

#[test]
fn every_state_comes_back_as_it_was() {
    for (shape, state) in
        SHAPES.into_iter().flat_map(|shape| states().into_iter().map(move |one| (shape, one)))
    {
        for record in [record("web", state.clone()), long("web", state)] {
            assert_eq!(decode(&encode(shape, &record, 5).unwrap()), Some((5, record)));
        }
    }
}

/// The longest words and the greatest numbers.
#[test]
fn every_record_has_room() {
    let most = Duration::from_nanos(u64::MAX);
    let who = Requester { uid: u32::MAX, pid: u32::MAX };
    let main = Main { pid: u32::MAX, launched: most };
    let cause = |len| Cause { words: "w".repeat(len), request: Some(who) };
    let command =
        Command { hook: Hook::Stop, index: u16::MAX, process: Some(main), deadline: most, overdue: true };
    let then = Then::Restart { until: most };
    let history =
        History { streak: u32::MAX, window_start: most, in_window: u32::MAX, failing: true, total: u64::MAX };
    let record = Record {
        name: "n".repeat(NAME_MAX),
        unit: Unit {
            state: State::Stopping { main: Some(main), stage: Stage::Asking { command }, then },
            since: most,
            cause: cause(WORDS_MAX),
            goal: Goal::Bounce,
            asked: cause(180),
            explicit: true,
            launched: most,
            history,
            last_exit: Some(Exit { how: ExitHow::Dumped, status: i32::MIN, at: most }),
            standby: Standby::None,
        },
        start_ticks: u64::MAX,
        cgroup_id: u64::MAX,
        policy: [0xff; 8],
        standby_cgroup_id: u64::MAX,
        oom_kills: u64::MAX,
        stale: false,
    };
    for shape in SHAPES {
        let slot = encode(shape, &record, SEQUENCE).expect("there is room");
        assert_eq!(decode(&slot), Some((SEQUENCE, record.clone())), "layout {}", shape.layout);
    }
}

#[test]
fn an_ordinary_record_needs_no_more_than_its_own_place() {
    let mut ordinary = record("a-service-with-a-long-name@1", State::Running { main: main() });
    ordinary.unit.cause = Cause::new(crate::service::Start::Fd.readiness());
    ordinary.unit.asked = Cause::request("started", Requester { uid: u32::MAX, pid: 4_194_304 });
    let year = Duration::from_secs(365 * 86_400);
    (ordinary.unit.since, ordinary.unit.launched) = (year, year);
    let slot = encode(&PACKED, &ordinary, 5).unwrap();
    assert!(slot.len <= PACKED.slot, "{} bytes", slot.len);
    let slot = encode(&PACKED, &long("web", State::Stopped), 5).unwrap();
    assert!(slot.len > PACKED.slot, "control: {} bytes", slot.len);
}

/// As a write that stops anywhere leaves it: each part in its turn.
fn written(before: &Slot, new: &Slot, bytes: usize) -> Slot {
    let mut torn = before.clone();
    let parts = new.parts(0, 0);
    let places = parts.iter().flat_map(|(at, part)| (0..part.len()).map(move |byte| (at + byte, part[byte])));
    for (at, byte) in places.take(bytes) {
        let tail = at.checked_sub(PACKED.tail_at(0, 0)).filter(|_| new.shape.packed);
        torn.bytes[tail.map_or(at - new.shape.slot_at(0, 0), |at| new.shape.slot + at)] = byte;
    }
    torn.len = new.shape.length(&torn.bytes).unwrap_or_default();
    torn
}

#[test]
fn a_write_that_stops_anywhere_leaves_the_old_record_or_the_new_one() {
    for (shape, make) in
        SHAPES.into_iter().flat_map(|shape| [(shape, record as fn(_, _) -> _), (shape, long)])
    {
        let (old, new) = (record("web", State::Launching), make("web", State::Running { main: main() }));
        let of = |record: &Record, sequence| encode(shape, record, sequence).unwrap();
        let first = of(&old, 1);
        let blank = Slot { shape, bytes: [0; SLOT_MAX], len: 0 };
        let before = [
            (blank, 2),
            (of(&record("web", State::Waiting), 0), 2),
            (of(&long("web", State::Waiting), 0), 2),
            (of(&old, 1), 3),
        ];
        for (before, sequence) in before {
            let whole = of(&new, sequence);
            for bytes in 0..=whole.len {
                let torn = written(&before, &whole, bytes);
                let (_, _, found) = newest(&[first.clone(), torn]).expect("one of them is valid");
                if bytes == whole.len {
                    assert_eq!(found, new);
                } else {
                    assert!(found == old || found == new, "{bytes} bytes");
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_never_trusted() {
    for (shape, make) in
        SHAPES.into_iter().flat_map(|shape| [(shape, record as fn(_, _) -> _), (shape, long)])
    {
        let whole = encode(shape, &make("web", State::Running { main: main() }), 4).unwrap();
        for bit in 0..whole.len * 8 {
            let mut bent = whole.clone();
            bent.bytes[bit / 8] ^= 1 << (bit % 8);
            bent.len = shape.length(&bent.bytes).unwrap_or_default();
            assert_eq!(decode(&bent), None, "bit {bit}");
        }
    }
}

/// Of a record that has changed twice, whatever byte is damaged: it is as it was, or known not to be the newest.
#[test]
fn the_record_before_a_damaged_one_is_known_for_stale() {
    for (shape, make) in
        SHAPES.into_iter().flat_map(|shape| [(shape, record as fn(_, _) -> _), (shape, long)])
    {
        let fd = memfd();
        let mut table = state_of(shape, &fd);
        let (old, new) = (make("web", State::Launching), make("web", State::Running { main: main() }));
        for one in [make("web", State::Waiting), old.clone(), new.clone()] {
            assert!(table.write(&one));
        }
        let mut stale = 0;
        for at in table.ranges("web").unwrap().into_iter().flatten() {
            let mut byte = [0];
            table.memory.read(at, &mut byte);
            table.memory.write(at, &[!byte[0]]);
            let (_, _, records) = Table::map(&fd).unwrap();
            match &records[..] {
                [one] if one.stale => {
                    assert_eq!(*one, Record { stale: true, ..old.clone() }, "byte {at}");
                    stale += 1;
                }
                one => assert_eq!(one, std::slice::from_ref(&new), "byte {at}"),
            }
            table.memory.write(at, &byte);
        }
        let Place { index, newest, sequence } = table.by_name.get("web").unwrap();
        assert_eq!(stale, table.slot(index, newest).len);
        // A motherd that ended while it wrote: what it had written before is the newest.
        let next = encode(shape, &make("web", State::Done), sequence + 1).unwrap();
        let parts = next.parts(index, 1 - newest);
        let [tail, (at, begin), _] = parts;
        table.memory.write(tail.0, tail.1);
        table.memory.write(at, &begin[..shape.slot_header]);
        assert_eq!(Table::map(&fd).unwrap().2, [new]);
    }
}

proptest! {
    /// Whatever the bytes, reading them neither panics nor makes a record that is not whole.
    #[test]
    fn alien_bytes_are_no_record(bytes in prop::collection::vec(any::<u8>(), SLOT_MAX), len in 0..=SLOT_MAX) {
        let bytes: [u8; SLOT_MAX] = bytes.try_into().unwrap();
        for shape in SHAPES {
            let len = if shape.packed { len.max(shape.slot_header) } else { shape.slot };
            prop_assert_eq!(decode(&Slot { shape, bytes, len }), None);
            let mut fields = Fields::new(bytes, len, shape, FIELDS);
            let mut record = record("x", State::Stopped);
            fields.record(&mut record, false);
        }
    }
}

#[test]
fn words_are_cut_between_characters() {
    for shape in SHAPES {
        let mut long = record("web", State::Failed);
        long.unit.cause.words = "ü".repeat(300);
        let (_, read) = decode(&encode(shape, &long, 1).unwrap()).unwrap();
        assert_eq!(read.unit.cause.words, "ü".repeat(WORDS_MAX / 2));
    }
}

#[test]
fn what_one_motherd_wrote_the_next_one_reads() {
    let fd = memfd();
    let (mut table, found, records) = Table::map(&fd).unwrap();
    assert_eq!((found, records.len()), (Found::Fresh, 0));
    assert!(table.write(&record("a", State::Launching)));
    assert!(table.write(&record("b", State::Done)));
    table.cell("a").unwrap().store(99, Ordering::Relaxed);
    assert!(table.write(&record("a", State::Running { main: main() })));
    table.set_booted();
    table.set_ending(End::Reboot);

    let (mut table, found, mut records) = Table::map(&fd).unwrap();
    assert_eq!(found, Found::Known { booted: true, ending: Some(End::Reboot), torn: 0, foreign: 0 });
    records.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(records, [record("a", State::Running { main: main() }), record("b", State::Done)]);
    assert_eq!(table.cell("a").unwrap().load(Ordering::Relaxed), 99, "the cell is no part of a slot");
    table.forget("a");
    table.set_ending(End::Exit(255));
    assert!(matches!(table.header().0, Found::Known { ending: Some(End::Exit(255)), .. }));

    let (_, _, records) = Table::map(&fd).unwrap();
    assert_eq!(records, [record("b", State::Done)]);
}

#[test]
fn the_state_of_something_else_is_cleared_and_said() {
    let fd = memfd();
    nix::sys::uio::pwrite(&fd, b"something else entirely, longer than a header", 0).unwrap();
    let (_, found, records) = Table::map(&fd).unwrap();
    assert_eq!((found, records.len()), (Found::Alien, 0));
    let (_, found, _) = Table::map(&fd).unwrap();
    assert_eq!(found, Found::Known { booted: false, ending: None, torn: 0, foreign: 0 });
}

/// Writes a state as a motherd of layout 1 did.
fn state_of_layout_1(fd: &OwnedFd, records: &[Record]) {
    let mut table = state_of(&WIDE, fd);
    for record in records {
        assert!(table.write(record));
        let Place { index, newest, .. } = table.by_name.get(&record.name).unwrap();
        let slot = encode_in(1, &WIDE, record, 7).unwrap();
        table.memory.write(WIDE.slot_at(index, newest), &slot.bytes);
    }
    table.memory.write(AT_LAYOUT, &1_u32.to_le_bytes());
    table.memory.write(MIRROR + AT_LAYOUT, &2_u32.to_le_bytes());
    table.memory.write(AT_BOOTED, &1_u32.to_le_bytes());
    table.memory.write(AT_ENDING, &3_u32.to_le_bytes());
}

#[test]
fn an_older_layout_is_read_and_counted_and_then_written_anew() {
    let fd = memfd();
    let web = record("web", State::Running { main: main() });
    state_of_layout_1(&fd, std::slice::from_ref(&web));
    let (mut table, found, records) = Table::map(&fd).unwrap();
    assert_eq!(found, Found::Known { booted: true, ending: Some(End::Halt), torn: 0, foreign: 1 });
    // What that layout has not is not known.
    assert_eq!(records, [Record { policy: [0; 8], standby_cgroup_id: 0, oom_kills: 0, ..web.clone() }]);
    table.set_booted();
    table.set_ending(End::Halt);
    assert!(table.write(&web));
    let (_, found, records) = Table::map(&fd).unwrap();
    assert_eq!(found, Found::Known { booted: true, ending: Some(End::Halt), torn: 0, foreign: 0 });
    assert_eq!(records, [web]);
}

/// After an upgrade: what the motherd before this one wrote is read, and written on as that one can read it.
#[test]
fn a_state_of_the_layout_before_stays_in_it() {
    let fd = memfd();
    let mut table = state_of(&WIDE, &fd);
    let old = [long("web", State::Launching), record("db", State::Running { main: main() })];
    old.iter().for_each(|one| assert!(table.write(one)));
    table.set_booted();
    let (mut table, found, mut records) = Table::map(&fd).unwrap();
    assert_eq!(found, Found::Known { booted: true, ending: None, torn: 0, foreign: 0 });
    records.sort_by(|one, other| other.name.cmp(&one.name));
    assert_eq!(records, old);
    let new = [long("web", State::Running { main: main() }), long("another", State::Launching)];
    new.iter().for_each(|one| assert!(table.write(one)));
    assert_eq!(table.layout(), 2);
    let mut word = [0; 4];
    table.memory.read(AT_LAYOUT, &mut word);
    assert_eq!(u32::from_le_bytes(word), 2, "a motherd that knows no other reads it");
    let (table, _, mut records) = Table::map(table.copy().unwrap()).unwrap();
    records.sort_by(|one, other| other.name.cmp(&one.name));
    let [web, another] = new;
    assert_eq!((table.layout(), records), (2, vec![web, old[1].clone(), another]));
}

#[test]
fn a_copy_has_what_lies_behind_the_records() {
    let fd = memfd();
    let (mut table, ..) = Table::map(&fd).unwrap();
    let all = [record("c", State::Stopped), long("b", State::Launching), record("a", State::Done)];
    all.iter().for_each(|one| assert!(table.write(one)));
    let (copy, found, records) = Table::map(table.copy().unwrap()).unwrap();
    assert_eq!(found, Found::Known { booted: false, ending: None, torn: 0, foreign: 0 });
    assert_eq!(
        (copy.layout(), &records[..]),
        (LAYOUT, &[all[2].clone(), all[1].clone(), all[0].clone()][..])
    );
}

/// Pages are spent on records and on what is longer, and on nothing else.
#[test]
fn a_record_costs_half_a_kibibyte() {
    let fd = memfd();
    let spent = || nix::sys::stat::fstat(&fd).unwrap().st_blocks * 512;
    let (mut table, ..) = Table::map(&fd).unwrap();
    for n in 0..800 {
        assert!(table.write(&record(&format!("s{n}"), State::Launching)));
        assert!(table.write(&record(&format!("s{n}"), State::Running { main: main() })));
    }
    assert_eq!(spent(), 4096 + 800 * 512, "the header and the records");
    drop(table.copy().unwrap());
    let (mut table, ..) = Table::map(&fd).unwrap();
    assert_eq!(spent(), 4096 + 800 * 512, "reading them spends nothing");
    assert!(table.write(&long("s700", State::Failed)));
    assert!(spent() > 4096 + 800 * 512, "control: what is longer does");
}

#[test]
fn a_newer_layout_is_read_as_far_as_it_is_known() {
    for shape in SHAPES {
        let web = record("web", State::Running { main: main() });
        let mut newer = encode_in(FIELDS + 1, shape, &web, 9).unwrap();
        newer.len += usize::from(shape.packed);
        newer.bytes[newer.len - 1] = 0xa5; // a field of the future
        newer.seal(9, FIELDS + 1);
        assert_eq!(decode(&newer), Some((9, web)));
    }
}

/// The machine is not ended, and nothing is read that nobody wrote, whatever byte of the header is damaged.
#[test]
fn a_damaged_header_ends_nothing_and_invents_nothing() {
    for shape in SHAPES {
        damage_the_header(shape);
    }
}

fn damage_the_header(shape: &'static Shape) {
    let fd = memfd();
    let web = record("web", State::Running { main: main() });
    let mut table = state_of(shape, &fd);
    assert!(table.write(&web));
    table.set_booted();
    let mut whole = [0; AT_ENDING + 4];
    table.memory.read(0, &mut whole);
    let mut known = |flip: u8, at: usize, copies: &[usize]| {
        let mut bent = whole;
        bent[at] ^= flip;
        copies.iter().for_each(|copy| table.memory.write(*copy, &bent));
        let header = table.header();
        copies.iter().for_each(|copy| table.memory.write(*copy, &whole));
        header
    };
    for (at, flip) in (0..whole.len()).flat_map(|at| (1..=255_u8).map(move |flip| (at, flip))) {
        for one in [0, MIRROR] {
            let header = known(flip, at, &[one]);
            let unharmed = Found::Known { booted: true, ending: None, torn: 0, foreign: 0 };
            assert_eq!(header, (unharmed, shape), "byte {at} of {one}, {flip:#x}");
        }
        let (found, taken) = known(flip, at, &[0, MIRROR]);
        match found {
            Found::Known { ending, .. } => assert_eq!((ending, taken), (None, shape), "byte {at}, {flip:#x}"),
            Found::Fresh => panic!("byte {at}, {flip:#x}: taken for nothing"),
            Found::Alien => {}
        }
    }
    assert_eq!(Table::map(&fd).unwrap().2, [web], "control");
}

#[test]
fn there_is_room_for_two_thousand_services_and_the_next_is_told() {
    for shape in SHAPES {
        let fd = memfd();
        let mut table = state_of(shape, &fd);
        for n in 0..RECORDS {
            assert!(table.write(&long(&format!("s{n}"), State::Stopped)));
        }
        assert_eq!(RECORDS, 2046);
        assert!(!table.write(&record("one-more", State::Stopped)));
        assert!(table.write(&record("s5", State::Done)), "those that have a place keep it");
        table.forget("s7");
        assert!(table.write(&long("one-more", State::Stopped)), "and one that is given back is another's");
        let (_, _, records) = Table::map(&fd).unwrap();
        assert_eq!(records.len(), RECORDS);
        let whole = |record: &&Record| record.unit.cause.words.len() == 320;
        assert_eq!(records.iter().filter(whole).count(), RECORDS - 1);
    }
}

#[test]
fn what_files_said_before_is_compared_with_what_they_say_now() {
    for shape in SHAPES {
        let fd = memfd();
        let mut table = state_of(shape, &fd);
        assert!(!table.was_related_otherwise(7), "a motherd that did not say");
        table.set_relations(7);
        let (mut table, _, _) = Table::map(&fd).unwrap();
        assert!(!table.was_related_otherwise(7) && table.was_related_otherwise(8));
        for one in [0, MIRROR] {
            table.memory.write(one + AT_RELATIONS, &6_u64.to_le_bytes());
            assert!(table.was_related_otherwise(7) && table.was_related_otherwise(6), "one copy is damaged");
            table.set_relations(7);
        }
        table.begin();
        assert!(!table.was_related_otherwise(8), "another state");
    }
}
