//! Whatever a file says, loading it ends with a policy or with a report that can be printed: never with a panic.
//!
//! The texts are the shipped policies, the contract's example and the malformed ones of `diagnostics`, with parts cut
//! out, doubled, exchanged between files, and replaced by bytes and words that mean something to the parser.

use std::{fs, path::Path, sync::OnceLock};

use proptest::prelude::*;
use sandbox::policy::{Store, load_text};

fn texts() -> &'static [String] {
    static TEXTS: OnceLock<Vec<String>> = OnceLock::new();
    TEXTS.get_or_init(read_texts)
}

fn read_texts() -> Vec<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![
        here.join("../policies/base/default.toml"),
        here.join("../policies/unconfined.toml"),
        here.join("tests/data/web-server.toml"),
    ];
    let malformed = fs::read_dir(here.join("tests/diagnostics")).expect("the cases are there");
    paths.extend(malformed.map(|entry| entry.expect("they can be listed").path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).expect("each can be read")).collect()
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
fn survives(text: &str) {
    if let Err(report) = load_text(Path::new("mutated.toml"), text, &Store::new(Vec::new())) {
        assert!(report.has_errors());
        let printed = report.to_string();
        assert!(printed.starts_with("error["), "{printed}");
        assert!(!printed.contains(['\u{1b}', '\0', '\u{202e}']), "it drives the terminal: {printed:?}");
    }
}

/// How many texts each test makes: 2,000, or what `MUTATIONS` says for a long run.
fn cases() -> u32 {
    std::env::var("MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(2000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_policy_is_loaded_or_refused(which in any::<prop::sample::Index>(), changes in prop::collection::vec(change(), 1..6)) {
        let texts = texts();
        let mut text = which.get(texts).clone();
        for change in &changes {
            text = changed(&text, change);
        }
        survives(&text);
    }

    #[test]
    fn halves_of_two_policies_are_loaded_or_refused(a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), cut in any::<usize>()) {
        let texts = texts();
        let (a, b) = (a.get(texts), b.get(texts));
        let none = |from, length| Change { from, length, instead: String::new() };
        let head = changed(a, &none(cut, a.len()));
        let tail = &changed(b, &none(0, cut % (b.len() + 1)));
        survives(&format!("{head}{tail}"));
    }

    #[test]
    fn any_text_is_loaded_or_refused(text in "(?s).{0,400}") {
        survives(&text);
    }
}
