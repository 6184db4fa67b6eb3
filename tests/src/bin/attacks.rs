//! Attacks on the sandbox, attempted on this machine: `attacks [NAME]...` as root attempts these, or all, and says a
//! line of each; `attacks list` names them; `attacks act ...` is the attacker that it launches.

use std::process::ExitCode;

use anyhow::Result;
use e2e::attacks::lab::Lab;
use e2e::attacks::{Verdict, acts, all, print_confined_environment};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["act", act @ ..] => match acts::run(act) {
            Ok(status) => ExitCode::from(status),
            Err(error) => {
                println!("attacks: {error:#}");
                ExitCode::from(2)
            }
        },
        ["list"] => {
            all().for_each(|attack| println!("{}", attack.name));
            ExitCode::SUCCESS
        }
        // The launcher of an attack that is about what its launcher was given.
        ["environment"] => match print_confined_environment() {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                println!("attacks: {error:#}");
                ExitCode::from(2)
            }
        },
        names => match attempt(names) {
            Ok(status) => status,
            Err(error) => {
                eprintln!("attacks: {error:#}");
                ExitCode::from(2)
            }
        },
    }
}

fn attempt(names: &[&str]) -> Result<ExitCode> {
    let mut failed = 0;
    for attack in all().filter(|attack| names.is_empty() || names.contains(&attack.name)) {
        // Each in a lab of its own, so that none finds what another left.
        let verdict = Lab::new().and_then(|lab| (attack.attempt)(&lab));
        match verdict {
            Ok(Verdict::Resisted) => println!("{} resisted", attack.name),
            Ok(Verdict::NotHere(why)) => println!("{} not-here {why}", attack.name),
            Err(error) => {
                failed += 1;
                let error = format!("{error:#}").replace('\n', " | ");
                println!("{} SUCCEEDED {error}", attack.name);
            }
        }
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}
