//! What services write: every line once, over the death of motherd; a flood disturbs nobody; `motherctl logs`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::programs::Programs;
use e2e::say;
use e2e::scratch::Scratch;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn shell(script: &str) -> String {
    format!(
        "exec = [\"/bin/sh\", \"-c\", '''{script}''']\npolicy = \"unconfined\"\n[restart]\nwhen = \"never\"\n"
    )
}

fn started(scratch: &mut Scratch) -> Result<()> {
    scratch.start()?;
    scratch.answers()
}

/// The service's own lines, without their times.
fn written(scratch: &Scratch, service: &str) -> Result<Vec<String>> {
    let ran = scratch.motherctl(&["--json", "logs", service])?;
    let mut lines = Vec::new();
    for line in ran.out.lines() {
        let line: Value = serde_json::from_str(line)?;
        ensure!(
            line["service"] == service && line["time"].as_str().is_some_and(|time| time.len() == 27),
            "{line}"
        );
        if line["from"] == "service" {
            lines.push(line["text"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(lines)
}

#[test]
fn every_line_is_there_once_however_often_motherd_is_killed() -> Result<()> {
    const LINES: usize = 200_000;
    let Some(mut scratch) = Scratch::new("every_line_is_there_once")? else { return Ok(()) };
    let keep = "[log]\nkeep = \"64M\"\n";
    // In bursts, so that some of it is written while there is no motherd.
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do seq $((i+1)) $((i+2000)); i=$((i+2000)); sleep 0.02; done; printf end"
    );
    scratch.service("count", &format!("{}{keep}", shell(&script)))?;
    started(&mut scratch)?;
    ensure!(scratch.motherctl(&["start", "count"])?.status == 0);
    let mut kills = 0;
    while scratch.status("count").map_or(true, |status| status["state"] != "stopped") && kills < 40 {
        if let Ok(pid) = scratch.motherd() {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            kills += 1;
        }
        scratch.eventually("another motherd is there", |scratch| {
            Ok((scratch.motherctl(&["list"])?.status == 0).then_some(()))
        })?;
    }
    scratch.eventually("it has ended", |scratch| {
        Ok((scratch.status("count")?["state"] == "stopped").then_some(()))
    })?;
    let lines = written(&scratch, "count")?;
    say(&format!("{} lines over {kills} deaths of motherd", lines.len()));
    ensure!(kills > 0, "motherd was never killed while it wrote");
    let wrong = lines.iter().zip(1..=LINES).find(|(line, number)| **line != number.to_string());
    ensure!(wrong.is_none(), "the line {wrong:?} is lost, twice, or broken");
    ensure!(lines.len() == LINES + 1 && lines[LINES] == "end", "{} lines", lines.len());
    Ok(())
}

#[test]
fn a_flood_is_counted_and_neither_motherd_nor_another_service_waits_for_it() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_flood_is_counted")? else { return Ok(()) };
    scratch.service("flood", &format!("{}[log]\nrate = \"100/s\"\nkeep = \"1M\"\n", shell("yes flood")))?;
    scratch.service("torrent", &format!("{}[log]\nkeep = \"1M\"\n", shell("yes torrent")))?;
    scratch.service("quiet", &shell("while :; do echo tick; sleep 0.1; done"))?;
    started(&mut scratch)?;
    ensure!(scratch.motherctl(&["start", "flood", "torrent", "quiet"])?.status == 0);
    scratch.eventually("the quiet one is heard", |scratch| {
        Ok((written(scratch, "quiet")?.len() > 20).then_some(()))
    })?;
    // Not a figure of speed: what would make these seconds is a manager that reads a flood to its end.
    let begun = Instant::now();
    ensure!(scratch.motherctl(&["restart", "quiet"])?.status == 0);
    say(&format!("a restart took {:?} beside two floods", begun.elapsed()));
    let flood = scratch.status("flood")?;
    ensure!(flood["dropped_lines"].as_u64() > Some(10_000), "{flood:#}");
    let ran = scratch.motherctl(&["logs", "flood"])?;
    ensure!(ran.out.contains(" lines dropped (log.rate)\n"), "{}", &ran.out[..ran.out.len().min(500)]);
    ensure!(scratch.motherctl(&["stop", "flood", "torrent", "quiet"])?.status == 0);
    let kept = |service: &str| -> Result<u64> {
        let folder = std::fs::read_dir(scratch.path("var/log/motherd").join(service))?;
        Ok(folder
            .map(|entry| Ok(entry?.metadata()?.len()))
            .collect::<std::io::Result<Vec<u64>>>()?
            .iter()
            .sum())
    };
    ensure!(kept("torrent")? <= 1 << 20 && kept("flood")? <= 1 << 20, "more is kept than log.keep");
    Ok(())
}

#[test]
fn a_follower_sees_each_line_as_it_is_written_over_rotation_and_the_death_of_motherd() -> Result<()> {
    let Some(mut scratch) = Scratch::new("a_follower_sees_each_line")? else { return Ok(()) };
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; exec sleep 1000";
    scratch.service("web", &format!("{}[log]\nkeep = \"256K\"\n", shell(script)))?;
    started(&mut scratch)?;
    std::fs::create_dir_all(scratch.path("var/log/motherd"))?;
    let mut follower = Command::new(&Programs::built()?.motherctl)
        .arg("--root")
        .arg(scratch.path(""))
        .args(["logs", "--follow", "--lines", "100000", "web"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(follower.stdout.take().context("no output")?).lines();
    ensure!(scratch.motherctl(&["start", "web"])?.status == 0);
    let mut next = 1;
    while next <= 3000 {
        let line = lines.next().context("the stream ended")??;
        ensure!(line.ends_with(&format!("Z line {next}")), "{line:?} instead of line {next}");
        if next == 1000 {
            kill(Pid::from_raw(scratch.motherd()?), Signal::SIGKILL)?;
        }
        next += 1;
    }
    follower.kill()?;
    follower.wait()?;
    ensure!(scratch.path("var/log/motherd/web/1").exists(), "it was rotated meanwhile");
    ensure!(written(&scratch, "web")?.len() == 3000);
    let last = scratch.motherctl(&["logs", "-n", "2", "web"])?.out;
    ensure!(last.lines().count() == 2 && last.ends_with(" line 3000\n"), "{last}");
    ensure!(scratch.motherctl(&["logs", "--since", "2000-01-01", "web"])?.out.lines().count() == 3000);
    ensure!(scratch.motherctl(&["logs", "--since", "2100-01-01", "web"])?.out.is_empty());
    ensure!(scratch.motherctl(&["logs", "wbe"])?.status == 4);
    Ok(())
}

#[test]
fn rotation_keeps_the_newest_lines_whole_in_four_files_of_their_share() -> Result<()> {
    const LINES: usize = 20_000;
    const KEEP: u64 = 64 << 10;
    let Some(mut scratch) = Scratch::new("rotation_keeps_the_newest_lines")? else { return Ok(()) };
    scratch.service("count", &format!("{}[log]\nkeep = \"64K\"\n", shell(&format!("seq {LINES}"))))?;
    started(&mut scratch)?;
    ensure!(scratch.motherctl(&["start", "count"])?.status == 0);
    scratch.eventually("it has ended and is written", |scratch| {
        Ok(written(scratch, "count")?.last().is_some_and(|line| *line == LINES.to_string()).then_some(()))
    })?;
    let folder = scratch.path("var/log/motherd/count");
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        let (name, text) =
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(entry.path())?);
        ensure!(text.len() as u64 <= KEEP / 4, "{name} has {} bytes", text.len());
        ensure!(
            text.lines().all(|line| line.as_bytes().get(26) == Some(&b'Z')),
            "{name} begins within a line"
        );
        names.push(name);
    }
    names.sort();
    ensure!(names == ["1", "2", "3", "current"], "{names:?}");
    let lines = written(&scratch, "count")?;
    let first: usize = lines[0].parse()?;
    let whole = (first..=LINES).map(|number| number.to_string()).eq(lines.iter().cloned());
    ensure!(whole && first > 1, "{} lines from {first} on, with a gap", lines.len());
    ensure!(lines.len() as u64 * 34 > KEEP / 2, "only {} lines are kept", lines.len());
    Ok(())
}

#[test]
fn every_line_beyond_the_rate_is_counted_and_told_of() -> Result<()> {
    const LINES: usize = 30_000;
    let Some(mut scratch) = Scratch::new("every_line_beyond_the_rate")? else { return Ok(()) };
    let script = format!("trap 'echo after' USR1; seq {LINES}; while :; do sleep 0.1; done");
    scratch.service("count", &format!("{}[log]\nrate = \"100/s\"\n", shell(&script)))?;
    scratch.service("free", &shell(&format!("seq {LINES}; exec sleep 1000")))?;
    started(&mut scratch)?;
    ensure!(scratch.motherctl(&["start", "count", "free"])?.status == 0);
    let dropped = |scratch: &Scratch| -> Result<u64> {
        scratch.status("count")?["dropped_lines"].as_u64().context("no count")
    };
    let kept = scratch.eventually("each line is kept or counted", |scratch| {
        let (kept, dropped) = (written(scratch, "count")?.len(), dropped(scratch)?);
        Ok((kept as u64 + dropped == LINES as u64).then_some(kept))
    })?;
    ensure!((100..LINES / 2).contains(&kept), "{kept} kept");
    let told = dropped(&scratch)?;
    // The log says the same, where they would have been.
    scratch.eventually("the log tells of all of them", |scratch| {
        let mut said = 0;
        for line in scratch.motherctl(&["--json", "logs", "count"])?.out.lines() {
            let line: Value = serde_json::from_str(line)?;
            if line["from"] == "motherd" {
                let words = line["text"].as_str().unwrap_or_default();
                let count =
                    words.strip_suffix(" lines dropped (log.rate)").with_context(|| words.to_owned())?;
                said += count.parse::<u64>()?;
            }
        }
        Ok((said == told).then_some(()))
    })?;
    scratch.eventually("the rate lets through what comes later", |scratch| {
        ensure!(scratch.motherctl(&["kill", "--signal", "USR1", "count"])?.status == 0);
        Ok(written(scratch, "count")?.last().is_some_and(|line| line == "after").then_some(()))
    })?;
    scratch.eventually("control: without a rate all are there", |scratch| {
        Ok((written(scratch, "free")?.len() == LINES).then_some(()))
    })?;
    ensure!(scratch.status("free")?["dropped_lines"] == 0);
    Ok(())
}

#[test]
fn several_logs_are_one_stream_in_the_order_of_their_times() -> Result<()> {
    let Some(mut scratch) = Scratch::new("several_logs_are_one_stream")? else { return Ok(()) };
    let tick = |name: &str| shell(&format!("while :; do echo {name}; sleep 0.05; done"));
    scratch.service("one", &tick("one"))?;
    scratch.service("two", &tick("two"))?;
    started(&mut scratch)?;
    ensure!(scratch.motherctl(&["start", "one", "two"])?.status == 0);
    for service in ["one", "two"] {
        scratch.eventually("both have written", |scratch| {
            Ok((written(scratch, service)?.len() >= 20).then_some(()))
        })?;
    }
    let lines = |words: &[&str]| -> Result<Vec<Value>> {
        let ran = scratch.motherctl(&[&["--json", "logs"], words].concat())?;
        ensure!(ran.status == 0, "{ran:?}");
        ran.out.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    let time = |line: &Value| line["time"].as_str().unwrap_or_default().to_owned();
    let all = lines(&[])?;
    ensure!(all.is_sorted_by_key(time), "in another order");
    for service in ["one", "two"] {
        ensure!(all.iter().any(|line| line["service"] == service), "nothing of {service}");
    }
    // The last five of both together, and those that are newer than one in the middle.
    let last = lines(&["-n", "5", "one", "two"])?;
    ensure!(last.len() == 5 && last.is_sorted_by_key(time) && time(&last[0]) >= time(&all[all.len() - 5]));
    let middle = time(&all[all.len() / 2]);
    let since = lines(&["--since", &middle])?;
    ensure!(time(&since[0]) == middle && since.len() >= all.len() / 2, "{} since {middle}", since.len());
    let both = lines(&["--since", &middle, "-n", "3"])?;
    ensure!(both.len() == 3 && time(&both[0]) > middle, "--since and -n: the last of those");
    ensure!(lines(&["--since", "1h", "one"])?.iter().all(|line| line["service"] == "one"));
    let wrong = scratch.motherctl(&["logs", "--since", "yesterday"])?;
    ensure!(wrong.status == 2 && wrong.errors.contains("10m"), "{wrong:?}");

    // A follower of both begins where it is told, and goes on with each as it comes, over the death of motherd.
    let mut follower = Command::new(&Programs::built()?.motherctl)
        .arg("--root")
        .arg(scratch.path(""))
        .args(["--json", "logs", "-f", "-n", "4", "one", "two"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stream = BufReader::new(follower.stdout.take().context("no output")?).lines();
    let mut seen: Vec<Value> = Vec::new();
    while seen.len() < 60 {
        seen.push(serde_json::from_str(&stream.next().context("the stream ended")??)?);
        if seen.len() == 20 {
            kill(Pid::from_raw(scratch.motherd()?), Signal::SIGKILL)?;
        }
    }
    follower.kill()?;
    follower.wait()?;
    for service in ["one", "two"] {
        let of_it: Vec<&Value> = seen.iter().filter(|line| line["service"] == service).collect();
        ensure!(
            of_it.len() > 10 && of_it.is_sorted_by_key(|line| time(line)),
            "{} of {service}",
            of_it.len()
        );
    }
    Ok(())
}
