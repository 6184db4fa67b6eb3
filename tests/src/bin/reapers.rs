//! Puts the questions of [`e2e::reapers`] to initldr, tini and dumb-init, and prints where each answers otherwise than
//! expected: `cargo run -p e2e --bin reapers`. As root also as PID 1 of a namespace.

use anyhow::{Result, ensure};
use e2e::fetch::Cache;
use e2e::reapers::{QUESTIONS, Question};
use e2e::witness::Reaper;

fn main() -> Result<()> {
    let folder = std::env::current_exe()?;
    let initldr = folder.with_file_name("initldr");
    for program in ["initldr", "witness"] {
        let path = folder.with_file_name(program);
        ensure!(path.exists(), "{} is not there: cargo build -p initldr -p e2e", path.display());
    }
    let [tini, dumb_init] = Cache::open()?.reapers()?;
    let reapers = [
        (Reaper::initldr(&initldr, false), false),
        (Reaper::initldr(&initldr, true), true),
        (Reaper::other("tini", &tini, &["-s", "--"]), false),
        (Reaper::other("tini -g", &tini, &["-s", "-g", "--"]), true),
        (Reaper::other("dumb-init --single-child", &dumb_init, &["--single-child", "--"]), false),
        (Reaper::other("dumb-init", &dumb_init, &["--"]), true),
    ];
    let modes: &[bool] = if nix::unistd::geteuid().is_root() { &[false, true] } else { &[false] };
    let mut wrong = 0;
    for (reaper, group) in &reapers {
        for as_pid_1 in modes {
            println!("{}{}", reaper.name, if *as_pid_1 { ", as PID 1" } else { "" });
            let (mut asked, mut otherwise) = (0, 0);
            for question in
                QUESTIONS.iter().filter(|question| question.group.is_none_or(|asked| asked == *group))
            {
                asked += 1;
                if let Some(found) = other_answer(question, reaper, *as_pid_1) {
                    otherwise += 1;
                    println!("    {}: {found}", question.says);
                }
            }
            println!("    {} of {asked} as expected", asked - otherwise);
            wrong += if reaper.name.starts_with("initldr") { otherwise } else { 0 };
        }
    }
    ensure!(wrong == 0, "initldr answers {wrong} questions otherwise than expected");
    Ok(())
}

/// The answer of a reaper that is not the expected one.
fn other_answer(question: &Question, reaper: &Reaper, as_pid_1: bool) -> Option<String> {
    match (question.ask)(reaper, as_pid_1) {
        Ok(found) if found == question.expected => None,
        Ok(found) => Some(found),
        Err(error) => Some(format!("{error:#}")),
    }
}
