//! Every code that a diagnostic about a policy may have, and what it means. `docs/policy.md` lists the same.

/// Code and meaning, in alphabetic order.
#[rustfmt::skip]
pub const CODES: &[(&str, &str)] = &[
    ("ambient-not-kept", "a capability is in `ambient` and not in `keep`"),
    ("conflicting-actions", "two groups give one call different actions"),
    ("conflicting-addresses", "one network is allowed and denied"),
    ("conflicting-paths", "one path is asked to be two things"),
    ("control-character", "a text contains a control character, or one that is not seen"),
    ("duplicate-key", "a key or a table stands twice in one file"),
    ("duplicate-value", "a list names the same thing twice, or two rules the same argument of a call"),
    ("empty-rule", "a rule lists no value, so it would never allow its call"),
    ("empty-set", "a set of processors or memory nodes has no member"),
    ("extends-cycle", "a policy extends itself, directly or through others"),
    ("extends-too-deep", "a chain of `extends` is longer than 16"),
    ("file-too-large", "a policy file has more than 1 MiB"),
    ("invalid-access", "a text is not made of r, w and m"),
    ("invalid-account", "a text cannot be the name or the number of a user or a group"),
    ("invalid-address", "a text is no address and no network"),
    ("invalid-credential", "a text cannot be the name of a credential"),
    ("invalid-device", "a text cannot be a device, or the name of one"),
    ("invalid-environment", "a text cannot be the name of a variable"),
    ("invalid-host-name", "a text cannot be a host or domain name"),
    ("invalid-id-map", "a text is not a line of a map of ids, or two lines map one id"),
    ("invalid-limit", "a text is not a size, a count, a percentage or a pair of limits"),
    ("invalid-mode", "a text is not a mode in octal"),
    ("invalid-path", "a text is not an absolute, normal path"),
    ("invalid-policy-name", "a text cannot be the name of a policy"),
    ("invalid-port", "a text is no port and no range of ports"),
    ("invalid-service-name", "a text cannot be the name of a service"),
    ("list-too-long", "a list has more entries than can be enforced"),
    ("missing-key", "a table lacks a key that it must have"),
    ("native-needed", "`architectures` lacks the one that the service is executed by"),
    ("needs-mount-namespace", "[filesystem] is asked for without a mount namespace to apply it in"),
    ("needs-namespace", "a key is asked for without the namespace of the service's own that it belongs to"),
    ("no-effect", "a key would have no effect beside the others"),
    ("no-such-argument", "a rule names an argument that its call does not have"),
    ("not-utf8", "a policy file is not UTF-8"),
    ("nothing-to-change", "`add` or `remove` changes an inherited value that is no list"),
    ("nothing-to-remove", "`remove` names what the inherited list does not have"),
    ("out-of-range", "a number is too small or too large"),
    ("pointer-argument", "a rule compares an address"),
    ("privileges-need-root", "`no_new_privs = false` for a user who is not root"),
    ("rule-on-denied-call", "a rule is about a call that is not allowed at all"),
    ("soft-above-hard", "a soft limit is above its hard limit"),
    ("syntax", "the file is not TOML"),
    ("unconfined-with-rules", "`unconfined = true` stands beside rules, which would not apply"),
    ("unknown-architecture", "no architecture has this name"),
    ("unknown-capability", "no capability has this name"),
    ("unknown-constant", "no constant that arguments are written with has this name"),
    ("unknown-controller", "no cgroup controller has this name"),
    ("unknown-errno", "no errno has this name"),
    ("unknown-group", "no group of system calls has this name"),
    ("unknown-key", "no key has this name there"),
    ("unknown-policy", "no policy of this name is in any of the folders"),
    ("unknown-right", "`landlock.optional` names something else than its rights"),
    ("unknown-rlimit", "no resource limit has this name"),
    ("unknown-scope", "no Landlock scope has this name"),
    ("unknown-syscall", "no system call of x86_64 has this name"),
    ("unknown-value", "a key has a value that is not among its words"),
    ("unreadable-file", "a policy file or folder cannot be opened or read"),
    ("unsafe-file", "someone else than root and the caller could have written the file"),
    ("unsafe-id-map", "a user namespace would have the host's root in it"),
    ("unsafe-path", "a path would lead to what a running process has open"),
    ("wide-argument", "a rule compares 32 bits of a value that has 64"),
    ("wrong-type", "a value has another type than its key"),
];

/// Whether a code is in the list.
pub(super) fn known(code: &str) -> bool {
    CODES.iter().any(|(known, _)| *known == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_kebab_case() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (code, meaning) in CODES {
            assert!(code.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit()), "{code}");
            assert!(!meaning.is_empty());
        }
    }
}
