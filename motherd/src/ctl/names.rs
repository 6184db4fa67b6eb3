//! The names that other init systems have for what motherctl does: as a link of one of these names it takes their words.
//!
//! ```text
//! poweroff, reboot, halt [-f] [-p] [-w] [-d] [-i] [-h] [-n]
//! shutdown               as `motherctl shutdown`
//! telinit, init LEVEL    0, 6: power-off, reboot; 1, S: rescue; 2 to 5: system; q: reload-config; u: upgrade
//! ```

use std::{ffi::OsString, path::Path};

/// The words of motherctl's own command line that mean the same; as they are where the name is none of these.
///
/// # Errors
/// What is not understood, and what is.
pub(super) fn translate(words: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let name = words.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    let name = name.unwrap_or_default().to_owned();
    let rest = || words.iter().skip(1).map(|word| word.to_string_lossy().into_owned());
    let own = match name.as_str() {
        "poweroff" | "reboot" | "halt" => ending(&name, rest())?,
        "shutdown" => ["shutdown".to_owned()].into_iter().chain(rest()).collect(),
        "telinit" | "init" => level(&name, rest())?,
        _ => return Ok(words),
    };
    Ok([OsString::from("motherctl")].into_iter().chain(own.into_iter().map(OsString::from)).collect())
}

fn ending(name: &str, words: impl Iterator<Item = String>) -> Result<Vec<String>, String> {
    let mut verb = name.to_owned();
    let mut rest = Vec::new();
    for word in words {
        match word.as_str() {
            "-f" | "--force" => rest.push("--force".to_owned()),
            "-ff" => rest.extend(["--force".to_owned(), "--force".to_owned()]),
            "-p" | "--poweroff" => verb = "poweroff".to_owned(),
            "--halt" => verb = "halt".to_owned(),
            "--reboot" => verb = "reboot".to_owned(),
            // No records of wtmp are kept; disks and interfaces are the kernel's and the services'.
            "-d" | "--no-wtmp" | "-i" | "-h" | "-n" | "--no-sync" | "--no-wall" => {}
            "-w" | "--wtmp-only" => return Err(format!("{name} {word}: there is no wtmp to write")),
            "--help" => rest.push(word),
            _ => {
                return Err(format!(
                    "{name}: {word} is not understood: there are -f, -p, --halt and --reboot"
                ));
            }
        }
    }
    Ok([verb].into_iter().chain(rest).collect())
}

fn level(name: &str, words: impl Iterator<Item = String>) -> Result<Vec<String>, String> {
    let words: Vec<String> = words.collect();
    let own: &[&str] = match words.as_slice() {
        [word] => match word.as_str() {
            "0" => &["poweroff"],
            "6" => &["reboot"],
            "1" | "s" | "S" => &["start", "rescue"],
            "2" | "3" | "4" | "5" => &["start", "system"],
            "q" | "Q" => &["reload-config"],
            "u" | "U" => &["upgrade"],
            _ => &[],
        },
        _ => &[],
    };
    if own.is_empty() {
        let given = [name.to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ");
        return Err(format!("{given}: there are {name} 0, 1, 2 to 5, 6, S, q and u"));
    }
    Ok(own.iter().map(|word| (*word).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let words = line.split_whitespace().map(OsString::from).collect();
        let found = translate(words).map(|words| {
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(found.unwrap_or_else(|error| error), expected, "{line}");
    }

    #[test]
    fn the_names_of_others_are_its_own_commands() {
        check("/sbin/poweroff", "motherctl poweroff");
        check("reboot -f", "motherctl reboot --force");
        check("reboot -f -f -d", "motherctl reboot --force --force");
        check("/sbin/halt -p", "motherctl poweroff");
        check("shutdown -r +5 a new kernel", "motherctl shutdown -r +5 a new kernel");
        check("telinit 6", "motherctl reboot");
        check("/sbin/init 0", "motherctl poweroff");
        check("telinit S", "motherctl start rescue");
        check("telinit 3", "motherctl start system");
        check("telinit q", "motherctl reload-config");
        check("/usr/sbin/motherctl list", "/usr/sbin/motherctl list");
    }

    #[test]
    fn what_is_none_of_them_is_said() {
        check("reboot now", "reboot: now is not understood: there are -f, -p, --halt and --reboot");
        check("telinit", "telinit: there are telinit 0, 1, 2 to 5, 6, S, q and u");
        check("telinit 7", "telinit 7: there are telinit 0, 1, 2 to 5, 6, S, q and u");
    }
}
