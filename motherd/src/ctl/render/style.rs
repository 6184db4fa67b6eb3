//! Colours, where they are wanted.

use std::{
    env,
    io::{IsTerminal, stdout},
};

use sandbox::doctor::Grade;

use crate::{control::protocol::State, ctl::args::ColorWhen};

/// Whether to colour, and how. Nothing is told by colour alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    on: bool,
}

impl Style {
    #[cfg(test)]
    pub(crate) const PLAIN: Style = Style { on: false };
    #[cfg(test)]
    pub(crate) const COLOURED: Style = Style { on: true };

    /// As asked for, or by what standard output is; NO_COLOR (no-color.org) counts when it is not empty.
    pub(crate) fn choose(when: ColorWhen) -> Self {
        let asked_not_to = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { on: wanted(when, stdout().is_terminal(), asked_not_to) }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// The same with what a text has from there on.
    pub(crate) fn dim_from(self, start: usize, text: &mut String) {
        if self.on {
            let dim = self.dim(&text.split_off(start));
            text.push_str(&dim);
        }
    }

    pub(crate) fn warning(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn grade(self, grade: Grade, text: &str) -> String {
        match grade {
            Grade::Good => self.paint("32", text),
            Grade::Less => self.dim(text),
            Grade::Lax => self.paint("33", text),
            Grade::Lacking => self.paint("31", text),
        }
    }

    pub(crate) fn state(self, state: State, text: &str) -> String {
        match state {
            State::Running | State::Reloading | State::Done => self.paint("32", text),
            State::Starting | State::Stopping | State::Waiting | State::Backoff => self.paint("33", text),
            State::Failed | State::Lost | State::Orphan => self.paint("31", text),
            State::Stopped => self.dim(text),
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.into() }
    }
}

fn wanted(when: ColorWhen, terminal: bool, asked_not_to: bool) -> bool {
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto => terminal && !asked_not_to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_colours_a_terminal_unless_asked_not_to() {
        assert!(wanted(ColorWhen::Auto, true, false));
        assert!(!wanted(ColorWhen::Auto, false, false));
        assert!(!wanted(ColorWhen::Auto, true, true));
    }

    #[test]
    fn always_and_never_are_just_that() {
        assert!(wanted(ColorWhen::Always, false, true));
        assert!(!wanted(ColorWhen::Never, true, false));
    }
}
