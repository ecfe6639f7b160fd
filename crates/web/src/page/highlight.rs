//! Source code as HTML, line by line, with a class for each kind of token. CPU-bound and fed by
//! anybody: bounded in every way.
//!
//! Invariants: each line is HTML of its own, with every character escaped and every tag closed; a
//! file that is too long, too slow or too odd is shown without colours, never not at all; at most
//! [`AT_ONCE`] files are worked on, also when those who asked have left.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use syntect::parsing::{ParseState, Scope, ScopeStack, SyntaxReference, SyntaxSet};
use tokio::sync::Semaphore;

use super::text::is_odd;

/// Files that are highlighted at the same time; others are shown without colours.
pub(super) const AT_ONCE: usize = 2;
/// How long a page waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_millis(500);
/// Files up to this many bytes and lines have colours.
pub(super) const BYTES_MAX: usize = 512 << 10;
const LINES_MAX: usize = 20_000;
/// A file with a longer line has no colours from there on: grammars are made for code that people
/// write.
const LINE_BYTES_MAX: usize = 2000;
/// Time for the colours of one file: what is left then has none.
const TIME_MAX: Duration = Duration::from_millis(1500);
/// A page does not wait longer; one line may take more than it should.
const PATIENCE: Duration = Duration::from_secs(3);
/// Scopes looked at for the class of a token, innermost first.
const SCOPES_MAX: usize = 16;

static SYNTAXES: LazyLock<SyntaxSet> = LazyLock::new(two_face::syntax::extra_newlines);

/// Which class a scope gets; the first that fits. No class: as plain text.
static CLASSES: LazyLock<Vec<(Scope, &'static str)>> = LazyLock::new(|| {
    let classes = [
        ("comment", "t-c"),
        ("punctuation.definition.comment", "t-c"),
        ("constant.character.escape", "t-n"),
        ("string", "t-s"),
        ("punctuation.definition.string", "t-s"),
        ("constant", "t-n"),
        ("keyword.operator", ""),
        ("keyword", "t-k"),
        ("storage", "t-k"),
        ("entity.name.tag", "t-k"),
        ("entity.other.attribute-name", "t-a"),
        ("variable.annotation", "t-a"),
        ("meta.annotation", "t-a"),
        ("meta.preprocessor", "t-a"),
        ("entity.name.function", "t-f"),
        ("variable.function", "t-f"),
        ("support.function", "t-f"),
        ("entity.name.section", "t-h"),
        ("markup.heading", "t-h"),
        ("markup.bold", "t-h"),
        ("markup.raw", "t-s"),
        ("entity.name", "t-t"),
        ("support.type", "t-t"),
        ("support.class", "t-t"),
        ("entity.other.inherited-class", "t-t"),
    ];
    classes
        .into_iter()
        .filter_map(|(scope, class)| Some((Scope::new(scope).ok()?, class)))
        .collect()
});

/// A file as it is shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Code {
    /// Each one HTML.
    pub lines: Vec<String>,
    /// What it was taken for; `None` = it has no colours.
    pub language: Option<String>,
    /// Why it has none, or not to its end.
    pub note: Option<&'static str>,
}

/// `text` of a file called `name`, with colours if that is possible in time.
pub(super) async fn show(turns: &Arc<Semaphore>, name: String, text: Arc<str>) -> Code {
    if text.len() > BYTES_MAX || text.bytes().filter(|byte| *byte == b'\n').count() > LINES_MAX {
        return plain(&text, Some("too long for colours"));
    }
    let Ok(Ok(turn)) = tokio::time::timeout(TURN_TIMEOUT, turns.clone().acquire_owned()).await
    else {
        return plain(
            &text,
            Some("without colours: the router is busy with others"),
        );
    };
    let code = text.clone();
    let work = tokio::task::spawn_blocking(move || {
        // Held until the work ends, whether or not somebody waits for it.
        let _turn = turn;
        highlight(&name, &code, Instant::now() + TIME_MAX)
    });
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(code)) => code,
        // It took too long, or its grammar failed on it.
        _ => plain(&text, Some("without colours: they took too long")),
    }
}

/// Without colours.
pub(super) fn plain(text: &str, note: Option<&'static str>) -> Code {
    Code {
        lines: text.split_inclusive('\n').map(plain_line).collect(),
        language: None,
        note,
    }
}

fn plain_line(line: &str) -> String {
    let mut html = String::with_capacity(line.len() + 16);
    escape(&mut html, ending(line));
    html
}

/// A line without its end.
fn ending(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

fn highlight(name: &str, text: &str, end: Instant) -> Code {
    let Some(syntax) = syntax_of(name, text) else {
        return plain(text, None);
    };
    let mut state = ParseState::new(syntax);
    let mut stack = ScopeStack::new();
    let mut code = Code {
        lines: Vec::new(),
        language: Some(syntax.name.clone()),
        note: None,
    };
    for line in text.split_inclusive('\n') {
        let mut html = String::with_capacity(line.len() * 2);
        if code.note.is_none() {
            code.note = if line.len() > LINE_BYTES_MAX {
                Some("a line is too long for colours from there on")
            } else if Instant::now() > end {
                Some("colours took too long: the rest has none")
            } else if paint(&mut html, line, &mut state, &mut stack).is_none() {
                html.clear();
                Some("the grammar of this language failed: the rest has no colours")
            } else {
                None
            };
        }
        if code.note.is_some() {
            html.clear();
            escape(&mut html, ending(line));
        }
        code.lines.push(html);
    }
    code
}

fn syntax_of(name: &str, text: &str) -> Option<&'static SyntaxReference> {
    let syntaxes = &*SYNTAXES;
    let extension = name
        .rsplit_once('.')
        .map_or(name, |(_, extension)| extension);
    let first = text
        .lines()
        .next()
        .filter(|line| line.len() <= LINE_BYTES_MAX)
        .unwrap_or_default();
    let found = syntaxes
        .find_syntax_by_extension(name)
        .or_else(|| syntaxes.find_syntax_by_extension(extension))
        .or_else(|| syntaxes.find_syntax_by_extension(&extension.to_ascii_lowercase()))
        .or_else(|| syntaxes.find_syntax_by_first_line(first));
    found.filter(|syntax| syntax.name != "Plain Text")
}

/// One line as HTML. `None`: the grammar failed.
fn paint(
    html: &mut String,
    line: &str,
    state: &mut ParseState,
    stack: &mut ScopeStack,
) -> Option<()> {
    let ops = state.parse_line(line, &SYNTAXES).ok()?;
    let shown = ending(line);
    let mut from = 0;
    for (at, op) in &ops {
        let at = (*at).min(shown.len());
        token(html, shown.get(from..at)?, stack);
        from = at;
        stack.apply(op).ok()?;
    }
    token(html, shown.get(from..)?, stack);
    Some(())
}

fn token(html: &mut String, text: &str, stack: &ScopeStack) {
    if text.is_empty() {
        return;
    }
    let class = class_of(stack);
    if class.is_empty() || text.trim().is_empty() {
        return escape(html, text);
    }
    html.push_str("<span class=\"");
    html.push_str(class);
    html.push_str("\">");
    escape(html, text);
    html.push_str("</span>");
}

fn class_of(stack: &ScopeStack) -> &'static str {
    stack
        .as_slice()
        .iter()
        .rev()
        .take(SCOPES_MAX)
        .find_map(|scope| class_of_scope(*scope))
        .unwrap_or("")
}

/// The class of the first row that fits; `None` when none does.
fn class_of_scope(scope: Scope) -> Option<&'static str> {
    let mut classes = CLASSES.iter();
    let found = classes.find(|(prefix, _)| prefix.is_prefix_of(scope));
    found.map(|(_, name)| *name)
}

/// Adds `text` as HTML. Characters that hide, or reorder what follows, are shown as escapes.
fn escape(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\t' => html.push('\t'),
            c if is_odd(c) => {
                html.push_str("<span class=\"t-odd\">");
                html.extend(c.escape_default());
                html.push_str("</span>");
            }
            c => html.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// The text that a line of HTML shows. Panics on any tag but ours.
    fn text_of(html: &str) -> String {
        let mut text = String::new();
        let mut rest = html;
        while let Some((before, tag)) = rest.split_once('<') {
            text.push_str(before);
            let (tag, after) = tag.split_once('>').expect("tags are closed");
            let ours = tag == "/span"
                || (tag.starts_with("span class=\"t-") && tag.ends_with('"') && tag.len() < 22);
            assert!(ours, "<{tag}>");
            rest = after;
        }
        text.push_str(rest);
        assert_eq!(
            html.matches("<span").count(),
            html.matches("</span>").count(),
            "{html}"
        );
        let entities = [
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&quot;", "\""),
            ("&#39;", "'"),
            ("&amp;", "&"),
        ];
        entities
            .iter()
            .fold(text, |text, (entity, c)| text.replace(entity, c))
    }

    #[test]
    fn code_gets_classes_line_by_line() {
        let code = highlight(
            "main.rs",
            "/* a\n b */ fn main() { \"<x>\" }\r\n// e\n",
            later(),
        );
        assert_eq!(code.language.as_deref(), Some("Rust"));
        assert_eq!(code.lines.len(), 3);
        assert_eq!(text_of(&code.lines[1]), " b */ fn main() { \"<x>\" }");
        assert!(
            code.lines[1].contains("<span class=\"t-f\">main</span>"),
            "{}",
            code.lines[1]
        );
        assert!(
            code.lines[1].contains("t-c") && code.lines[1].contains("t-s"),
            "{}",
            code.lines[1]
        );
        assert!(
            code.lines[2].starts_with("<span class=\"t-c\">"),
            "{}",
            code.lines[2]
        );
        for (name, language) in [
            ("Makefile", "Makefile"),
            ("x.toml", "TOML"),
            ("x.TS", "TypeScript"),
            ("Dockerfile", "Dockerfile"),
        ] {
            assert_eq!(
                syntax_of(name, "").map(|syntax| syntax.name.as_str()),
                Some(language),
                "{name}"
            );
        }
        assert_eq!(
            syntax_of("run", "#!/bin/bash\n").map(|syntax| syntax.name.contains("(bash)")),
            Some(true)
        );
        assert!(syntax_of("notes.txt", "hello").is_none());
    }

    #[test]
    fn what_takes_too_long_goes_on_without_colours() {
        let text = "let a = 1;\n".repeat(10);
        let code = highlight("a.rs", &text, Instant::now() - Duration::from_secs(1));
        assert!(
            code.note.is_some() && code.lines.len() == 10 && !code.lines[9].contains("span"),
            "{code:?}"
        );
        let long = format!(
            "let a = 1;\nlet b = \"{}\";\nlet c = 1;\n",
            "x".repeat(LINE_BYTES_MAX)
        );
        let code = highlight("a.rs", &long, later());
        assert!(
            code.lines[0].contains("span")
                && !code.lines[1].contains("span")
                && !code.lines[2].contains("span")
        );
    }

    #[test]
    fn marks_that_reorder_are_shown() {
        let code = plain("if a\u{202e} { }\u{7}<\n", None);
        assert_eq!(
            code.lines[0],
            "if a<span class=\"t-odd\">\\u{202e}</span> { }<span class=\"t-odd\">\\u{7}</span>&lt;"
        );
    }

    #[tokio::test]
    async fn a_busy_router_shows_text_without_colours() {
        let turns = Arc::new(Semaphore::new(0));
        let code = show(&turns, "a.rs".into(), "fn a() {}\n".into()).await;
        assert_eq!(
            (code.lines, code.language),
            (vec!["fn a() {}".to_owned()], None)
        );
        let turns = Arc::new(Semaphore::new(1));
        assert!(
            show(&turns, "a.rs".into(), "fn a() {}\n".into())
                .await
                .language
                .is_some()
        );
        let long: Arc<str> = "\n".repeat(LINES_MAX + 1).into();
        assert_eq!(
            show(&turns, "a.rs".into(), long).await.lines.len(),
            LINES_MAX + 1
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_a_file_has_its_lines_show_it_and_nothing_else(
            text in "[ -~\\n\\tä<>&\"'(){}/*#$\\\\]{0,300}", name in "x\\.(rs|js|html|md|py|c|sh|json|yaml|php)"
        ) {
            let code = highlight(&name, &text, later());
            let lines: Vec<&str> = text.split_inclusive('\n').map(ending).collect();
            let shown: Vec<String> = code.lines.iter().map(|line| text_of(line)).collect();
            prop_assert_eq!(shown, lines);
        }
    }
}
