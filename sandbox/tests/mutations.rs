//! Whatever a file says, loading it ends with a policy or with a report that can be printed: never with a panic.
//!
//! The texts are the shipped policies, the contract's example and the malformed ones of `diagnostics`, with parts cut
//! out, doubled, exchanged between files, and replaced by bytes and words that mean something to the parser. What they
//! extend is there, so that what is merged is validated as well.

mod inside;

use std::{
    fmt::Debug,
    fs,
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestRunner},
};
use sandbox::policy::load_text;

fn texts() -> &'static [String] {
    static TEXTS: OnceLock<Vec<String>> = OnceLock::new();
    TEXTS.get_or_init(read_texts)
}

/// Good ones as often as malformed ones.
fn read_texts() -> Vec<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |folders: &[&str]| -> Vec<String> {
        let files = folders.iter().flat_map(|folder| fs::read_dir(here.join(folder)).expect("it is there"));
        let mut paths: Vec<_> = files.map(|entry| entry.expect("it can be listed").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        paths.sort();
        paths.iter().map(|path| fs::read_to_string(path).expect("each can be read")).collect()
    };
    let good = read(&["../policies", "../policies/base", "../policies/boot", "../docs/examples/policies"]);
    let malformed = read(&["tests/diagnostics"]);
    let good_again = good.iter().cycle().take(malformed.len()).cloned();
    good_again.chain(malformed.iter().cloned()).collect()
}

/// One change: where, how much, and what instead.
#[derive(Debug, Clone)]
struct Change {
    from: usize,
    length: usize,
    instead: String,
}

/// Words that lead somewhere in the parser or in a check.
const WORDS: &[&str] = &[
    "",
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    ".",
    "#",
    "\n",
    "\r\n",
    "\t",
    "\\u0000",
    "\\",
    "\0",
    "\u{1b}[2J",
    "\u{202e}",
    "é",
    "日本",
    "🦀",
    "-1",
    "0",
    "1e309",
    "nan",
    "99999999999999999999999999999999999999999",
    "0x",
    "1979-05-27",
    "true",
    "\"max\"",
    "\"64M\"",
    "\"1:2:3\"",
    "\"100%\"",
    "\"@known\"",
    "\"errno:\"",
    "\"/\"",
    "\"..\"",
    "add = ",
    "remove = ",
    "extends = [\"x\"]\n",
    "unconfined = true\n",
    "[[seccomp.rule]]\n",
    "[process]\n",
    "[seccomp.rule]\n",
    "|",
    "|||",
    "\"|\"",
    "%",
];

fn change() -> impl Strategy<Value = Change> {
    let word = prop_oneof![
        4 => prop::sample::select(WORDS).prop_map(str::to_owned),
        1 => "\\PC{0,8}",
    ];
    (any::<usize>(), 0_usize..40, word).prop_map(|(from, length, instead)| Change { from, length, instead })
}

/// The text with the change, at the characters nearest to where it says.
fn changed(text: &str, change: &Change) -> String {
    let boundary = |offset: usize| (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    let from = boundary(change.from % (text.len() + 1)).unwrap_or(0);
    let to = boundary(from + change.length).unwrap_or(from).max(from);
    format!("{}{}{}", &text[..from], change.instead, &text[to..])
}

/// Loads, and prints what is wrong: the renderer must stand every place that the loader gives it.
/// Answers whether it is a policy.
fn survives(text: &str) -> bool {
    let Err(report) = load_text(Path::new("mutated.toml"), text, &inside::store()) else { return true };
    assert!(report.has_errors());
    let printed = report.to_string();
    assert!(printed.starts_with("error["), "{printed}");
    assert!(!printed.contains(['\u{1b}', '\0', '\u{202e}']), "it drives the terminal: {printed:?}");
    false
}

/// Plays 2,000 cases; and as many more as fit into the seconds of `MUTATE`, for a long run.
fn play<T: Debug>(what: &str, texts: &impl Strategy<Value = T>, make: impl Fn(T) -> String) {
    const CASES: u32 = 2000;
    let asked = std::env::var("MUTATE").ok();
    let seconds = asked.map_or(0, |seconds| seconds.parse().expect("MUTATE is a number of seconds"));
    let (began, limit) = (Instant::now(), Duration::from_secs(seconds));
    let (mut played, loaded) = (0_u64, std::cell::Cell::new(0_u64));
    loop {
        let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
        let outcome = TestRunner::new(config).run(texts, |case| -> Result<(), TestCaseError> {
            loaded.set(loaded.get() + u64::from(survives(&make(case))));
            Ok(())
        });
        outcome.unwrap_or_else(|failure| panic!("{failure}"));
        played += u64::from(CASES);
        if began.elapsed() >= limit {
            break;
        }
    }
    println!("{what}: {played} texts, {} of them policies, in {} s", loaded.get(), began.elapsed().as_secs());
}

#[test]
fn a_changed_policy_is_loaded_or_refused() {
    let cases = (any::<prop::sample::Index>(), prop::collection::vec(change(), 1..6));
    play("changed", &cases, |(which, changes)| {
        changes.iter().fold(which.get(texts()).clone(), |text, change| changed(&text, change))
    });
}

#[test]
fn halves_of_two_policies_are_loaded_or_refused() {
    let cases = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<usize>());
    play("halves", &cases, |(a, b, cut)| {
        let (a, b) = (a.get(texts()), b.get(texts()));
        let none = |from, length| Change { from, length, instead: String::new() };
        let head = changed(a, &none(cut, a.len()));
        let tail = changed(b, &none(0, cut % (b.len() + 1)));
        format!("{head}{tail}")
    });
}

#[test]
fn any_text_is_loaded_or_refused() {
    play("any", &"(?s).{0,400}", |text| text);
}
