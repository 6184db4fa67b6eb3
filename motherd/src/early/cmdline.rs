//! The kernel command line (Documentation/admin-guide/kernel-parameters.rst): words, some of them `name=value`, with
//! double quotes around what has blanks.

use std::{fs, io, path::Path};

/// The words of a command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CommandLine(Vec<(String, Option<String>)>);

impl CommandLine {
    /// Reads `/proc/cmdline` below `root`.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(root.join("proc/cmdline"))?))
    }

    /// For the tests of who reads it.
    #[cfg(test)]
    pub(crate) fn for_test(text: &str) -> Self {
        Self::parse(text)
    }

    /// What comes after `--` is for PID 1 and no word of the kernel's.
    fn parse(text: &str) -> Self {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for letter in text.chars() {
            match letter {
                '"' => quoted = !quoted,
                blank if blank.is_whitespace() && !quoted => words.push(String::new()),
                other => words.last_mut().expect("it begins with one").push(other),
            }
        }
        let words = words.into_iter().filter(|word| !word.is_empty()).take_while(|word| word != "--");
        Self(
            words
                .map(|word| match word.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (word, None),
                })
                .collect(),
        )
    }

    /// The value of a `name=value`; the last one wins, as it does for the kernel.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|(found, value)| (found == name).then_some(value.as_deref()).flatten())
    }

    /// Whether a bare word is there.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.0.iter().any(|(found, value)| found == word && value.is_none())
    }

    /// Which of these bare words stands last.
    pub(crate) fn last_of<'w>(&self, words: &[&'w str]) -> Option<&'w str> {
        self.0
            .iter()
            .rev()
            .find_map(|(found, value)| words.iter().copied().find(|word| *word == found && value.is_none()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_values_are_told_apart() {
        let line = CommandLine::parse(
            "ro root=UUID=1234-5 rootflags=\"data=journal,x y\" quiet root=/dev/b -- rw\n",
        );
        assert_eq!(line.value("root"), Some("/dev/b"), "the last one wins");
        assert_eq!(line.value("rootflags"), Some("data=journal,x y"));
        assert!(line.has("quiet") && line.has("ro") && !line.has("rw") && !line.has("root"));
        assert_eq!(line.value("quiet"), None);
        assert_eq!(CommandLine::parse(" \n"), CommandLine::default());
    }

    #[test]
    fn the_last_of_several_words_wins() {
        assert_eq!(CommandLine::parse("ro x rw").last_of(&["ro", "rw"]), Some("rw"));
        assert_eq!(CommandLine::parse("rw ro").last_of(&["ro", "rw"]), Some("ro"));
        assert_eq!(CommandLine::parse("x").last_of(&["ro", "rw"]), None);
    }
}
