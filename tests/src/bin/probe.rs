//! `probe ACT [ARGUMENT]...` attempts one act and says what came of it: see [`e2e::probe`]. `probe each ACT...` attempts
//! several, each in one word, and says a line of each. `probe figure WORD...` measures: see [`e2e::load`].

use std::process::ExitCode;

use e2e::probe::{Outcome, attempt};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["each", acts @ ..] = words.as_slice() {
        for act in acts {
            match attempt(&act.split(' ').collect::<Vec<_>>()) {
                Ok(outcome) => println!("{outcome}"),
                Err(error) => println!("error {error:#}"),
            }
        }
        return ExitCode::SUCCESS;
    }
    if let ["figure", words @ ..] = words.as_slice() {
        return match e2e::load::figure(words) {
            Ok(figure) => {
                println!("{figure}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("probe: {error:#}");
                ExitCode::from(2)
            }
        };
    }
    match attempt(&words) {
        Ok(outcome) => {
            println!("{outcome}");
            ExitCode::from(u8::from(outcome != Outcome::Allowed))
        }
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::from(2)
        }
    }
}
