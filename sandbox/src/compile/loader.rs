//! Variables by which the dynamic loader and the C library are told where code is (ld.so(8)).
//!
//! With no_new_privs the kernel never runs a service in the loader's secure mode, so these always count. They may name
//! what the service cannot write to and nothing else: otherwise one file written is code in whatever it executes next,
//! and memory_deny_write_execute would be for nothing.

use super::{
    Builder,
    mounts::{View, is_beneath},
};
use crate::{diagnostic::Diagnostic, policy::Confinement};

/// Those that take paths.
const VARIABLES: [&str; 6] =
    ["GCONV_PATH", "LD_AUDIT", "LD_LIBRARY_PATH", "LD_PRELOAD", "LOCPATH", "NLSPATH"];

/// Refuses each that names a relative path, or one that the service may write to.
pub(crate) fn check(rules: &Confinement, view: &View, builder: &mut Builder<'_>) {
    for variable in &rules.process.environment {
        let (name, value) = &variable.value;
        if !VARIABLES.contains(&name.as_str()) {
            continue;
        }
        // A space separates as well in LD_PRELOAD; an empty element is the working directory.
        for path in value.split([':', ' ']) {
            let problem = if !(path.starts_with('/') || name == "LD_PRELOAD" && is_plain(path)) {
                format!("{name} names {path:?}, which is looked for where the service happens to be")
            } else if writable(path, rules, view) {
                format!("{name} names {path}, which the service may write to")
            } else {
                continue;
            };
            let help = "name absolute paths of what is read-only for it";
            builder.error(Diagnostic::error("loader-path", variable.at.clone(), problem).help(help));
        }
    }
}

/// A library by its name alone, which is looked for in the system's folders.
fn is_plain(path: &str) -> bool {
    !path.is_empty() && !path.contains('/')
}

/// Landlock or nothing: what it does not grant for writing is not written, whatever the mounts are.
fn writable(path: &str, rules: &Confinement, view: &View) -> bool {
    let granted = |granted: &str| is_beneath(path, granted) || is_beneath(granted, path);
    rules.landlock.write.iter().any(|write| granted(&write.value.path)) && view.may_be_written(path)
}
