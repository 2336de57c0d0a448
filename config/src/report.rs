//! What is wrong with a configuration: where, what, and what would be right.
use crate::mask;
use miette::{
    Diagnostic, LabeledSpan, MietteError, MietteSpanContents, Severity, SourceCode, SourceSpan, SpanContents,
};
use std::{fmt, ops::Range, sync::Arc};

/// The text of a configuration with asterisks where secrets were, and its name.
struct Masked {
    file: String,
    text: String,
}

impl SourceCode for Masked {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let found = self.text.read_span(span, before, after)?;
        Ok(Box::new(MietteSpanContents::new_named(
            self.file.clone(),
            found.data(),
            *found.span(),
            found.line(),
            found.column(),
            found.line_count(),
        )))
    }
}

/// Where in a text something is.
#[derive(Clone)]
struct Place {
    source: Arc<Masked>,
    span: Range<usize>,
    line: usize,
    column: usize,
}

/// One mistake, or one warning.
#[derive(Clone)]
pub struct Problem {
    severity: Severity,
    file: String,
    place: Option<Place>,
    key: String,
    cause: String,
    cure: String,
}

impl Problem {
    /// Whether it is a warning only.
    pub fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }

    /// Line and column, both from 1, the column in characters; None for what is wrong with a file as a whole.
    pub fn line_and_column(&self) -> Option<(usize, usize)> {
        self.place.as_ref().map(|place| (place.line, place.column))
    }

    /// `file:line:column`, or the file alone.
    pub fn location(&self) -> String {
        match &self.place {
            Some(place) => format!("{}:{}:{}", self.file, place.line, place.column),
            None => self.file.clone(),
        }
    }

    /// The key as it would be written with dots, arrays counted from 0: `volume[1].store.size`. May be empty.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What would be right.
    pub fn cure(&self) -> &str {
        &self.cure
    }

    /// About a file as a whole.
    pub(crate) fn of_file(file: &str, cause: String, cure: String) -> Problem {
        Problem { severity: Severity::Error, file: file.to_owned(), place: None, key: String::new(), cause, cure }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.location())?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.cause)
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({})", self.cure)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.cure.is_empty()).then(|| Box::new(&self.cure) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_ref().map(|place| &*place.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.place.as_ref()?;
        let label = if self.is_warning() { "this" } else { "here" };
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some(label.to_owned()), place.span.clone()))))
    }
}

/// Every mistake of one file; never empty.
#[derive(Clone)]
pub struct Report {
    file: String,
    problems: Vec<Problem>,
    /// Mistakes that were found but are not in `problems`.
    more: usize,
}

/// Most mistakes that one report shows: a file with more of them is not the file that was meant.
const MAX_PROBLEMS: usize = 100;

impl Report {
    pub(crate) fn of_file(file: &str, cause: String, cure: &str) -> Report {
        let problem = Problem::of_file(file, cause, cure.to_owned());
        Report { file: file.to_owned(), problems: vec![problem], more: 0 }
    }

    /// Of findings, one at least, in a text from which the ranges in `secrets` are hidden.
    pub(crate) fn new(file: &str, text: &str, secrets: &[Range<usize>], findings: Vec<Finding>) -> Report {
        let more = findings.len().saturating_sub(MAX_PROBLEMS);
        Report { file: file.to_owned(), problems: place(file, text, secrets, findings), more }
    }

    /// In the order of the file; the first 100 if there are more.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            n if self.more > 0 => {
                write!(f, "{} mistakes in {}, of which these are {n}", n + self.more, self.file)
            }
            1 => write!(f, "a mistake in {}", self.file),
            n => write!(f, "{n} mistakes in {}", self.file),
        }
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.problems).finish()
    }
}

impl std::error::Error for Report {}

impl Diagnostic for Report {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

/// A finding before it is given its text.
pub(crate) struct Finding {
    pub severity: Severity,
    pub span: Range<usize>,
    pub key: String,
    pub cause: String,
    pub cure: String,
}

/// Gives findings their places in the text, from which the ranges in `secrets` are hidden; in the order of the text, 100 at
/// most.
pub(crate) fn place(file: &str, text: &str, secrets: &[Range<usize>], mut findings: Vec<Finding>) -> Vec<Problem> {
    if findings.is_empty() {
        return Vec::new();
    }
    let masked = Arc::new(Masked { file: file.to_owned(), text: mask::hide(text, secrets) });
    findings.sort_by_key(|finding| (finding.span.start, finding.span.end));
    findings.truncate(MAX_PROBLEMS);
    let problem = |finding: Finding| {
        let span = clip(&masked.text, finding.span);
        let before = &masked.text[..span.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let place = Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            source: masked.clone(),
            span,
        };
        Problem {
            severity: finding.severity,
            file: file.to_owned(),
            place: Some(place),
            key: finding.key,
            cause: finding.cause,
            cure: finding.cure,
        }
    };
    findings.into_iter().map(problem).collect()
}

/// Spans come from a parser that may point behind the end; what is shown never leaves its first line.
fn clip(text: &str, span: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    let end = floor(span.end.max(start));
    let line = text[start..end].find('\n').map_or(end, |at| start + at);
    start..line
}
