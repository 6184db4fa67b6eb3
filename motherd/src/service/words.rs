//! The small words of a service file: names, times, sizes and signals.
//!
//! Pure text to value; whoever calls knows the place and makes the diagnostic.

use std::time::Duration;

/// The longest name of a service: `log/NAME` has to fit a slot of initldr's store, and `NAME.service` a directory.
pub const NAME_MAX: usize = 56;

/// A wait that is longer than this is a typing error (one year).
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// What is wrong with a name of a service, a slice or an instance.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    match name.chars().next() {
        None => Err("a name has at least one character"),
        Some(first) if !first.is_ascii_alphanumeric() => Err("a name begins with a letter or a digit"),
        Some(_) if name.len() > NAME_MAX => Err("a name has at most 56 characters"),
        Some(_) if !name.chars().all(inner) => Err("a name is made of letters, digits and - _ . :"),
        Some(_) => Ok(()),
    }
}

/// The same for a service, which may be an instance: `worker@blue`.
pub(crate) fn check_service_name(name: &str) -> Result<(), &'static str> {
    if name.len() > NAME_MAX {
        return Err("a name has at most 56 characters");
    }
    match name.split_once('@') {
        None => check_name(name),
        Some((template, instance)) => check_name(template).and_then(|()| check_name(instance)),
    }
}

/// `200ms`, `30s`, `5m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    const SHAPE: &str = "a time is a number and ms, s, m or h: \"200ms\", \"30s\", \"5m\", \"1h\"";
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(SHAPE)?;
    let number: u64 = text[..digits].parse().map_err(|_| SHAPE)?;
    let milliseconds = match &text[digits..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60 * 1000),
        "h" => number.checked_mul(3600 * 1000),
        _ => return Err(SHAPE),
    };
    milliseconds
        .map(Duration::from_millis)
        .filter(|duration| *duration <= LONGEST)
        .ok_or("a time is at most one year")
}

/// A number of bytes, with K, M, G or T as powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, &'static str> {
    const SHAPE: &str = "a size is a number, alone or with K, M, G or T (powers of 1024): \"16M\"";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| SHAPE)?;
    let shift = match &text[digits..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(SHAPE),
    };
    number.checked_mul(1 << shift).ok_or("a size is at most 2^64 - 1 bytes")
}

/// A number of bytes as a person would write it: `64M`; what is no whole multiple of 1024 is written out.
#[must_use]
pub fn size_name(bytes: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    match units.iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// The signals that a service file may name, by their names on Linux (signal(7)).
pub(crate) const SIGNALS: [(&str, i32); 16] = [
    ("SIGTERM", libc::SIGTERM),
    ("SIGINT", libc::SIGINT),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGHUP", libc::SIGHUP),
    ("SIGKILL", libc::SIGKILL),
    ("SIGABRT", libc::SIGABRT),
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGUSR2", libc::SIGUSR2),
    ("SIGWINCH", libc::SIGWINCH),
    ("SIGALRM", libc::SIGALRM),
    ("SIGCONT", libc::SIGCONT),
    ("SIGPIPE", libc::SIGPIPE),
    ("SIGPWR", libc::SIGPWR),
    ("SIGURG", libc::SIGURG),
    ("SIGIO", libc::SIGIO),
    ("SIGTTOU", libc::SIGTTOU),
];

/// The number of a signal, by name or `SIGRTMIN+N`.
pub(crate) fn signal(text: &str) -> Option<i32> {
    if let Some(offset) = text.strip_prefix("SIGRTMIN+") {
        return offset.parse().ok().filter(|n| (0..=30).contains(n)).map(|n: i32| libc::SIGRTMIN() + n);
    }
    SIGNALS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number)
}

/// How a signal is called in messages.
#[must_use]
pub fn signal_name(number: i32) -> String {
    const OTHERS: [(&str, i32); 7] = [
        ("SIGSEGV", libc::SIGSEGV),
        ("SIGBUS", libc::SIGBUS),
        ("SIGILL", libc::SIGILL),
        ("SIGFPE", libc::SIGFPE),
        ("SIGSYS", libc::SIGSYS),
        ("SIGTRAP", libc::SIGTRAP),
        ("SIGSTOP", libc::SIGSTOP),
    ];
    let known = SIGNALS.iter().chain(&OTHERS).find(|(_, known)| *known == number);
    match known {
        Some((name, _)) => (*name).to_owned(),
        None if number >= libc::SIGRTMIN() => format!("SIGRTMIN+{}", number - libc::SIGRTMIN()),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_a_ceiling() {
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "30 s",
            "30S",
            "99999999999999999999s",
            "18446744073709551615h",
            "9000h",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("16M"), Ok(16 << 20));
        assert_eq!(size("4096"), Ok(4096));
        for (bytes, name) in [(64 << 20, "64M"), (1 << 40, "1T"), (1536, "1536"), (0, "0"), (3 << 10, "3K")] {
            assert_eq!(size_name(bytes), name);
        }
        for wrong in ["", "M", "16m", "16MB", "-1", "99999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn signals_have_the_kernels_names() {
        assert_eq!(signal("SIGTERM"), Some(libc::SIGTERM));
        assert_eq!(signal("SIGRTMIN+3"), Some(libc::SIGRTMIN() + 3));
        assert_eq!(signal("TERM"), None);
        assert_eq!(signal_name(libc::SIGSEGV), "SIGSEGV");
        assert_eq!(signal_name(libc::SIGRTMIN() + 4), "SIGRTMIN+4");
    }

    #[test]
    fn names_fit_a_directory_and_a_slot() {
        for right in ["web", "web-worker", "a.b_c:d", "0day"] {
            assert_eq!(check_name(right), Ok(()), "{right}");
        }
        for wrong in ["", "-x", ".x", "a/b", "a b", "..", "ü", "a@b", &"x".repeat(57)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
        assert_eq!(check_service_name("worker@blue"), Ok(()));
        assert!(check_service_name("worker@").is_err());
        assert!(check_service_name("worker@a@b").is_err());
    }
}
