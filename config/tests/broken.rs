//! Broken configurations: each names file, line, column, cause and cure. What is expected stands in the first lines of
//! each file of `broken/`: `# expect LINE:COLUMN | part | part`, one line for each mistake, in the order of the file.
use miette::{GraphicalReportHandler, GraphicalTheme};
use std::path::{Path, PathBuf};

struct Expected {
    location: (usize, usize),
    parts: Vec<String>,
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn expected(text: &str) -> Vec<Expected> {
    let line = |line: &str| {
        let (location, parts) = line.split_once(" | ").unwrap();
        let (row, column) = location.split_once(':').unwrap();
        let parts = parts.split(" | ").map(str::to_owned).collect();
        Expected { location: (row.parse().unwrap(), column.parse().unwrap()), parts }
    };
    text.lines().map_while(|text| text.strip_prefix("# expect ")).map(line).collect()
}

#[test]
fn every_mistake_is_named_with_its_place_its_cause_and_its_cure() {
    let files = files();
    assert!(files.len() >= 20, "the table is gone: {files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let expected = expected(&text);
        assert!(!expected.is_empty(), "{} expects nothing", file.display());
        let report = match config::load(&file) {
            Ok(loaded) => panic!("{} is taken for good:\n{}", file.display(), loaded.plan),
            Err(report) => report,
        };
        let mut rendered = String::new();
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::none()).with_width(400);
        handler.render_report(&mut rendered, &report).unwrap();
        let found: Vec<_> = report.problems().iter().map(|p| p.line_and_column().unwrap()).collect();
        let wanted: Vec<_> = expected.iter().map(|e| e.location).collect();
        assert_eq!(found, wanted, "{}:\n{rendered}", file.display());
        for (problem, expected) in report.problems().iter().zip(&expected) {
            let (line, column) = expected.location;
            let message = format!("{problem}\n{}", problem.cure());
            assert!(message.starts_with(&format!("{}:{line}:{column}: ", file.display())), "{message}");
            assert!(!problem.cure().is_empty(), "no cure: {message}");
            for part in &expected.parts {
                assert!(message.contains(part), "{} lacks {part:?}:\n{message}", file.display());
                assert!(rendered.contains(part), "the report lacks {part:?}:\n{rendered}");
            }
        }
    }
}

#[test]
fn no_report_shows_a_secret() {
    for file in files() {
        let Err(report) = config::load(&file) else { continue };
        let mut rendered = String::new();
        GraphicalReportHandler::new_themed(GraphicalTheme::none()).render_report(&mut rendered, &report).unwrap();
        for secret in ["alicesecret1", "tooshort"] {
            assert!(!rendered.contains(secret), "{}:\n{rendered}", file.display());
            assert!(!format!("{report:?}{report}").contains(secret), "{}", file.display());
        }
    }
}
