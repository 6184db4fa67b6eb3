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
    files: Vec<Arc<SourceFile>>,
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
        self.files.push(Arc::new(SourceFile { path: path.into(), text: text.into() }));
        id
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

fn render(f: &mut fmt::Formatter<'_>, sources: &Sources, diagnostic: &Diagnostic) -> fmt::Result {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    writeln!(f, "{severity}[{}]: {}", diagnostic.code, diagnostic.message)?;
    let mut gutter = 1;
    if let Some(at) = &diagnostic.at {
        let (line, column) = sources.line_column(at);
        gutter = line.to_string().len();
        let text = sources.text(at.file).lines().nth(line - 1).unwrap_or_default();
        let width = text.chars().count();
        let length = sources.text(at.file)[at.span.clone()].chars().take_while(|c| *c != '\n').count();
        let carets = length.min(width.saturating_sub(column - 1)).max(1);
        writeln!(f, "{:gutter$}--> {}", "", sources.locate(at))?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{line} | {text}")?;
        let marks = format!("{:indent$}{}", "", "^".repeat(carets), indent = column - 1);
        writeln!(f, "{:gutter$} | {}", "", format!("{marks} {}", diagnostic.label).trim_end())?;
    }
    if let Some(help) = &diagnostic.help {
        writeln!(f, "{:gutter$} = help: {help}", "")?;
    }
    Ok(())
}
