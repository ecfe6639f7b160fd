//! What the code looks like in numbers: the rows of one table, for any checkout.
//!
//! All of it is measured over code that is not for tests; the last rows compare the two. Figures
//! show a direction between two commits. They are no goals.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use syn::visit::Visit as _;

use crate::circles;
use crate::sources::ModuleTree;

mod survey;

use survey::{Finding, FindingKind, Survey};

/// Columns that a line may have.
const COLUMNS_MAX: usize = 100;

/// All figures of a checkout.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    files: usize,
    /// Lines of code with comments, without empty ones.
    code_lines: usize,
    long_lines: usize,
    /// Lines of code and of tests of each package.
    sizes: BTreeMap<String, Sizes>,
    survey: Survey,
    files_in_circles: usize,
    largest_circle: usize,
    largest_file: (usize, String),
}

#[derive(Debug, Default, Clone, Copy)]
struct Sizes {
    code: usize,
    tests: usize,
}

pub(crate) fn measure(trees: &[ModuleTree]) -> Figures {
    let mut figures = Figures::default();
    for tree in trees {
        for file in &tree.files {
            figures.add_file(tree, file);
        }
    }
    let circles = circles::find(trees);
    figures.files_in_circles = circles.iter().map(circles::ImportCircle::len).sum();
    figures.largest_circle = circles.first().map_or(0, circles::ImportCircle::len);
    figures
}

impl Figures {
    fn add_file(&mut self, tree: &ModuleTree, file: &crate::sources::SourceFile) {
        // Files of tests count for the ratio alone.
        let code = file.code_lines().count();
        let sizes = self.sizes.entry(tree.package.clone()).or_default();
        sizes.code += code;
        sizes.tests += file.test_line_count();
        if code == 0 {
            return;
        }

        // Lines are looked at as text, all else as syntax.
        self.files += 1;
        let path = file.path.display().to_string();
        for (number, line) in file.code_lines() {
            self.code_lines += usize::from(!line.trim().is_empty());
            if line.chars().count() > COLUMNS_MAX {
                self.long_lines += 1;
                self.survey.add_at(FindingKind::LongLine, &path, number);
            }
        }
        self.largest_file = std::mem::take(&mut self.largest_file).max((code, path.clone()));

        self.survey.begin_file(&path, &file.text);
        self.survey.visit_file(&file.syntax);
    }

    /// One line for each finding that has a place.
    pub(crate) fn places(&self) -> String {
        let mut text = String::new();
        let mut findings: Vec<&Finding> = self.survey.findings.iter().collect();
        findings.sort_by_key(|finding| finding.kind);
        for finding in findings {
            let Finding { file, line, .. } = finding;
            let _ = writeln!(text, "{file}:{line}: {}", finding.kind.text());
        }
        for (name, files) in self.survey.shared_types() {
            let _ = writeln!(text, "type {name}: {}", files.join(", "));
        }
        text
    }

    /// The table, in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from("| measured over non-test code | |\n|---|---|\n");
        self.write_style(&mut text);
        self.write_names_and_imports(&mut text);
        self.write_sizes(&mut text);
        self.write_ratios(&mut text);
        text
    }

    fn write_style(&self, text: &mut String) {
        let survey = &self.survey;
        let long = percent(self.long_lines, self.code_lines);
        write_row(text, "lines over 100 columns, %", format!("{long:.1}"));
        let comments = percent(survey.comment_lines, survey.body_lines);
        write_row(
            text,
            "comments per 100 lines in bodies >= 12 lines",
            format!("{comments:.1}"),
        );
        for kind in [
            FindingKind::TupleLet,
            FindingKind::LocalClosure,
            FindingKind::BoolParameter,
        ] {
            let per_thousand = percent(survey.count(kind), self.code_lines) * 10.0;
            let name = format!("{} per kLoC", kind.text());
            write_row(text, &name, format!("{per_thousand:.1}"));
        }
        let unmarked = FindingKind::UnmarkedBody;
        write_row(text, unmarked.text(), survey.count(unmarked).to_string());
    }

    fn write_names_and_imports(&self, text: &mut String) {
        let survey = &self.survey;
        let shared = percent(survey.shared_type_count(), survey.type_count());
        write_row(
            text,
            "types that share their name in the tree, %",
            format!("{shared:.0}"),
        );
        let short = percent(survey.one_word_type_count(), survey.type_count());
        write_row(text, "one-word type names, %", format!("{short:.0}"));
        let circles = percent(self.files_in_circles, self.files);
        write_row(
            text,
            "files in import circles, % / largest",
            format!("{circles:.0} / {}", self.largest_circle),
        );
    }

    fn write_sizes(&self, text: &mut String) {
        let (lines, place) = &self.largest_file;
        write_row(text, "largest file, lines", format!("{lines} ({place})"));
        let (lines, place) = &self.survey.largest_function;
        write_row(
            text,
            "largest function, lines",
            format!("{lines} ({place})"),
        );
    }

    fn write_ratios(&self, text: &mut String) {
        let mut all = Sizes::default();
        for (package, sizes) in &self.sizes {
            all.code += sizes.code;
            all.tests += sizes.tests;
            write_ratio(text, package, *sizes);
        }
        write_ratio(text, "all", all);
    }
}

fn write_row(text: &mut String, name: &str, value: String) {
    let _ = writeln!(text, "| {name} | {value} |");
}

fn write_ratio(text: &mut String, package: &str, sizes: Sizes) {
    let Sizes { code, tests } = sizes;
    let ratio = percent(tests, code) / 100.0;
    let _ = writeln!(
        text,
        "| test : code, {package} | {ratio:.2} ({tests} : {code}) |"
    );
}

/// `part` in percent of `whole`; of nothing, none.
fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    100.0 * part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree_of;

    fn row(table: &str, name: &str) -> String {
        let line = table.lines().find(|line| line.contains(name));
        let line = line.expect("the table has the row");
        line.split('|').nth(2).expect("a value").trim().to_owned()
    }

    #[test]
    fn tuple_lets_and_closures_are_counted_by_thousand_lines() {
        let text = "fn f() {\nlet (a, b) = (1, 2);\nlet g = |x: u8| x;\nlet (c, d) = g(a);\n}\n";
        let table = measure(&[tree_of(&[("lib.rs", text)])]).table();
        assert_eq!(row(&table, "tuple lets"), "200.0");
        assert_eq!(row(&table, "named local closures"), "200.0");
    }

    #[test]
    fn comments_are_counted_in_long_bodies_alone() {
        let short = "fn short() {\n// Not counted.\n}\n";
        let long = format!("fn long() {{\n// Stage.\n{}}}\n", "call();\n".repeat(19));
        let text = format!("{short}{long}");
        let table = measure(&[tree_of(&[("lib.rs", &text)])]).table();
        assert_eq!(row(&table, "comments per 100 lines"), "5.0");
        assert_eq!(row(&table, "largest function"), "22 (lib.rs:4)");
    }

    #[test]
    fn types_share_a_name_across_files_and_tests_do_not_count() {
        let tree = tree_of(&[
            ("lib.rs", "mod one; struct State; struct RouterState;"),
            (
                "one.rs",
                "enum State {}\n#[cfg(test)]\nmod tests { struct State; }\n",
            ),
        ]);
        let table = measure(&[tree]).table();
        assert_eq!(row(&table, "types that share"), "67");
        assert_eq!(row(&table, "one-word"), "67");
    }

    #[test]
    fn tests_are_set_against_code() {
        let tree = tree_of(&[("lib.rs", "fn f() {}\nfn g() {}\n#[cfg(test)]\nmod t {}\n")]);
        let table = measure(&[tree]).table();
        assert_eq!(row(&table, "test : code, monofs-tried"), "1.00 (2 : 2)");
    }
}
