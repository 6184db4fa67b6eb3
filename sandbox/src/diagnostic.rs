//! What a person wrote is wrong: where, why, what is allowed there, and the nearest right spelling.
//!
//! A [`Diagnostic`] points into a [`Sources`]; a [`Report`] is all diagnostics of one load, rendered at once. Service
//! files use the same types as policies. Errors of the world (a syscall that failed) are not diagnostics.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// One file among [`Sources`]: an index, stable for the life of the set it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u16);

/// A range of bytes in one file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file.
    pub file: FileId,
    /// Byte offsets into its text, end excluded.
    pub span: Range<usize>,
}

/// A value and the place where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub at: Place,
}

impl<T> Located<T> {
    /// A value that stands at `at`.
    pub fn new(value: T, at: Place) -> Self {
        Self { value, at }
    }

    /// The same place with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        Located { value: change(self.value), at: self.at }
    }
}

/// The texts that places point into; cheap to clone, append-only.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Arc<[Arc<SourceFile>]>,
}

/// One text and the path it came from.
#[derive(Debug)]
pub struct SourceFile {
    path: PathBuf,
    text: String,
}

impl Sources {
    /// Adds a text; a path added twice gets two ids.
    ///
    /// # Panics
    /// Beyond 65,535 files, which no loader reaches: it refuses far smaller folders.
    pub fn add(&mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> FileId {
        let id = FileId(u16::try_from(self.files.len()).expect("a loader refuses more than 65,535 files"));
        let file = Arc::new(SourceFile { path: path.into(), text: text.into() });
        self.files = self.files.iter().cloned().chain([file]).collect();
        id
    }

    /// Every file, in the order in which they were added.
    pub fn files(&self) -> impl Iterator<Item = FileId> {
        (0..u16::try_from(self.files.len()).unwrap_or(u16::MAX)).map(FileId)
    }

    /// The path of a file.
    #[must_use]
    pub fn path(&self, file: FileId) -> &Path {
        &self.files[usize::from(file.0)].path
    }

    /// The text of a file.
    #[must_use]
    pub fn text(&self, file: FileId) -> &str {
        &self.files[usize::from(file.0)].text
    }

    /// Line and column of a place, both from 1, the column in characters.
    #[must_use]
    pub fn line_column(&self, place: &Place) -> (usize, usize) {
        let before = &self.text(place.file)[..place.span.start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// `path:line:column`.
    #[must_use]
    pub fn locate(&self, place: &Place) -> String {
        let (line, column) = self.line_column(place);
        format!("{}:{line}:{column}", self.path(place.file).display())
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing of the file is applied.
    Error,
    /// The file is applied; the author should know.
    Warning,
}

/// One thing that is wrong with what a person wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable, kebab-case: `unknown-syscall`.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, lower case, without a full stop.
    pub message: String,
    /// Where; `None` for a file that could not be read at all.
    pub at: Option<Place>,
    /// What stands under the carets: often the nearest right spelling.
    pub label: String,
    /// What is allowed there, or what to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(code: &'static str, at: Place, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            at: Some(at),
            label: String::new(),
            help: None,
        }
    }

    /// An error about something that has no text: a file that cannot be read, a folder that is missing.
    pub fn error_nowhere(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            at: None,
            label: String::new(),
            help: None,
        }
    }

    /// The same, with the words under the carets.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The same, with what is allowed there or what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All diagnostics of one load, with the texts they point into. Displays as people read it.
#[derive(Debug, Clone)]
pub struct Report {
    /// The texts.
    pub sources: Sources,
    /// In the order of the files and of the places in them.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Whether anything in it forbids use.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, diagnostic) in self.diagnostics.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            render(f, &self.sources, diagnostic)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// The candidate that `word` is most likely a misspelling of; `None` if none is near enough to be helpful.
///
/// Nearness is the number of insertions, deletions, replacements and swaps of neighbours that lead from one to the
/// other, letter case and `-` against `_` not counted; up to a third of the word, and at least one, may differ. Where
/// nothing is near, the one candidate that begins with the word, or that the word begins with, will do.
#[must_use]
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let fold = |text: &str| -> Vec<char> {
        text.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
    };
    // A name has tens of letters; what is longer is no misspelling, and comparing it costs its square.
    if word.is_empty() || word.len() > 100 {
        return None;
    }
    let folded = fold(word);
    let allowance = (folded.len() / 3).max(1);
    let (mut best, mut longer) = (None, Vec::new());
    for candidate in candidates {
        let other = fold(candidate);
        // `umount` is rather `umount2` than `mount`: people begin words rightly.
        let rank = (distance(&folded, &other), other.first() != folded.first());
        if rank.0 <= allowance && rank.0 < other.len() && best.is_none_or(|(known, _)| rank < known) {
            best = Some((rank, candidate));
        }
        if folded.len().min(other.len()) >= 3 && (other.starts_with(&folded) || folded.starts_with(&other)) {
            longer.push(candidate);
        }
    }
    match (best, longer.as_slice()) {
        (Some((_, candidate)), _) => Some(candidate),
        // `kill` for `kill-process`, `network` for `net`: as long as there is no doubt.
        (None, [candidate]) => Some(candidate),
        (None, _) => None,
    }
}

/// Optimal string alignment distance, in three rows. By hand because it is twenty lines; a crate would be more.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(from != to);
            row[j + 1] = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

fn render(f: &mut fmt::Formatter<'_>, sources: &Sources, diagnostic: &Diagnostic) -> fmt::Result {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    writeln!(f, "{severity}[{}]: {}", diagnostic.code, harmless(&diagnostic.message))?;
    let mut gutter = 1;
    if let Some(at) = &diagnostic.at {
        let (line, _) = sources.line_column(at);
        gutter = line.to_string().len();
        let excerpt = Excerpt::of(sources.text(at.file), &at.span);
        writeln!(f, "{:gutter$}--> {}", "", sources.locate(at))?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{}", format!("{line} | {}", excerpt.text).trim_end())?;
        let marks = format!("{:indent$}{}", "", "^".repeat(excerpt.marked), indent = excerpt.indent);
        let rest = if excerpt.goes_on { "..." } else { "" };
        let label = format!("{marks}{rest} {}", harmless(&diagnostic.label));
        writeln!(f, "{:gutter$} | {}", "", label.trim_end())?;
    }
    if let Some(help) = &diagnostic.help {
        writeln!(f, "{:gutter$} = help: {}", "", harmless(help))?;
    }
    Ok(())
}

/// One line of a text as it is shown, and the columns of it that are marked.
struct Excerpt {
    text: String,
    indent: usize,
    marked: usize,
    /// The marked range ends on a later line.
    goes_on: bool,
}

impl Excerpt {
    /// Columns that a line may take; of a longer one only the neighbourhood of the mark is shown.
    const WIDTH: usize = 120;
    /// Columns that stay in view to the left of the mark.
    const LEAD: usize = 40;
    const TAB: usize = 4;

    fn of(text: &str, span: &Range<usize>) -> Self {
        let line_start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[line_start..].find('\n').map_or(text.len(), |newline| line_start + newline);
        let (shown, from) =
            Self::columns(text[line_start..line_end].trim_end_matches('\r'), span.start - line_start);
        let (_, to) = Self::columns(&text[line_start..line_end], span.end.min(line_end) - line_start);
        let marked = to.saturating_sub(from).max(1);
        let goes_on = span.end > line_end + 1;
        if shown.chars().map(width).sum::<usize>() <= Self::WIDTH {
            return Self { text: shown, indent: from, marked, goes_on };
        }
        Self::cut(&shown, from, marked, goes_on)
    }

    /// The line with tabs spread and what could drive a terminal replaced, and the column of a byte offset in it.
    fn columns(line: &str, offset: usize) -> (String, usize) {
        let (mut shown, mut column, mut found) = (String::new(), 0, None);
        for (at, c) in line.char_indices() {
            if at >= offset && found.is_none() {
                found = Some(column);
            }
            if c == '\t' {
                let spaces = Self::TAB - column % Self::TAB;
                shown.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            } else {
                let c = if drives_terminal(c) { char::REPLACEMENT_CHARACTER } else { c };
                shown.push(c);
                column += width(c);
            }
        }
        (shown, found.unwrap_or(column))
    }

    fn cut(shown: &str, from: usize, marked: usize, goes_on: bool) -> Self {
        let left = from.saturating_sub(Self::LEAD);
        let ellipsis = if left > 0 { "..." } else { "" };
        let (mut text, mut column, mut start) = (String::from(ellipsis), 0, None);
        for c in shown.chars() {
            if column >= left && column + width(c) <= left + Self::WIDTH {
                start.get_or_insert(column);
                text.push(c);
            }
            column += width(c);
        }
        let right = left + Self::WIDTH;
        if column > right {
            text.push_str("...");
        }
        let indent = from - start.unwrap_or(left).min(from) + ellipsis.len();
        Self { text, indent, marked: marked.min(right.saturating_sub(from)).max(1), goes_on }
    }
}

/// A message quotes what a file says, and a file may say an escape sequence.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if drives_terminal(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Control characters, and those that turn the direction of writing (so that a line reads other than it is).
fn drives_terminal(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Columns that a character takes on a terminal: the blocks of wide and of combining characters that people write
/// in comments. What is missing here misplaces carets and nothing else.
fn width(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x200b..=0x200d | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Renders one error over the part of `text` between `<<` and `>>`.
    fn check(text: &str, expected: &str) {
        let start = text.find("<<").expect("the test marks a start");
        let text = text.replacen("<<", "", 1);
        let end = text.find(">>").expect("the test marks an end");
        let text = text.replacen(">>", "", 1);
        let mut sources = Sources::default();
        let file = sources.add("f.toml", text);
        let place = Place { file, span: start..end };
        let report =
            Report { sources, diagnostics: vec![Diagnostic::error("code", place, "wrong").label("here")] };
        assert_eq!(report.to_string(), format!("error[code]: wrong\n{expected}\n"));
    }

    #[test]
    fn carets_stand_under_the_place() {
        check("a = 1\nb = <<\"x\">>, 2\n", " --> f.toml:2:5\n  |\n2 | b = \"x\", 2\n  |     ^^^ here");
    }

    #[test]
    fn tabs_are_spread_and_wide_characters_counted() {
        check("\tb = <<x>>", " --> f.toml:1:6\n  |\n1 |     b = x\n  |         ^ here");
        check("\"日本\" = <<x>>", " --> f.toml:1:8\n  |\n1 | \"日本\" = x\n  |          ^ here");
        check("\"<<日本>>\"", " --> f.toml:1:2\n  |\n1 | \"日本\"\n  |  ^^^^ here");
    }

    #[test]
    fn a_place_of_many_lines_is_marked_on_its_first() {
        check("a = <<[\n 1,\n]>>\n", " --> f.toml:1:5\n  |\n1 | a = [\n  |     ^... here");
    }

    #[test]
    fn a_place_at_the_very_end_has_one_caret() {
        check("a = <<>>", " --> f.toml:1:5\n  |\n1 | a =\n  |     ^ here");
        check("a\n<<>>", " --> f.toml:2:1\n  |\n2 |\n  | ^ here");
    }

    #[test]
    fn a_file_cannot_drive_the_terminal() {
        check(
            "a\u{1b}[2J\u{202e} <<b>>",
            " --> f.toml:1:8\n  |\n1 | a\u{fffd}[2J\u{fffd} b\n  |        ^ here",
        );
    }

    #[test]
    fn of_a_long_line_the_neighbourhood_is_shown() {
        let text = format!("{}<<here>>{}", "x".repeat(200), "y".repeat(200));
        let shown = format!("...{}here{}...", "x".repeat(40), "y".repeat(76));
        let expected = format!(" --> f.toml:1:201\n  |\n1 | {shown}\n  | {}^^^^ here", " ".repeat(43));
        check(&text, &expected);
    }

    #[test]
    fn a_misspelling_finds_its_word_and_nonsense_finds_none() {
        let words = ["private", "none", "host", "read_write"];
        for (word, expected) in [
            ("prviate", Some("private")),
            ("Host", Some("host")),
            ("read-write", Some("read_write")),
            ("hots", Some("host")),
            ("xyzzy", None),
            ("priv", Some("private")),
            ("hostname", Some("host")),
            ("", None),
        ] {
            assert_eq!(nearest(word, words), expected, "{word}");
        }
        assert_eq!(nearest("x", ["y"]), None, "a word that shares no letter is no suggestion");
    }
}
