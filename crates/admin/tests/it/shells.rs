//! Completions in real shells, and manual pages under a real formatter.

use std::path::Path;
use std::process::{Command, Stdio};

use monofs_testkit::require;

use crate::run;

/// Runs a script of a shell that has the completions in the file `$1`.
fn shell(program: &str, script: &str, completions: &Path) -> String {
    let output = Command::new(require(program))
        .args(["-c", script, program])
        .arg(completions)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn completions(dir: &tempfile::TempDir, shell: &str) -> std::path::PathBuf {
    let path = dir.path().join(format!("_monofs-admin.{shell}"));
    std::fs::write(&path, run(&["completions", shell]).done().out).unwrap();
    path
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let path = completions(&dir, "bash");
    let complete = |words: &str, last: usize| {
        let script = format!(
            "source \"$1\"; complete -p monofs-admin; COMP_WORDS=({words}); COMP_CWORD={last}; \
             cur=${{COMP_WORDS[{last}]}}; prev=${{COMP_WORDS[{last}-1]}}; \
             f=$(complete -p monofs-admin | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \"$f\" monofs-admin \"$cur\" \"$prev\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        shell("bash", &script, &path)
    };
    let commands = complete("monofs-admin sta", 1);
    assert!(
        commands.starts_with("complete -") && commands.contains(" -F "),
        "{commands}"
    );
    for command in ["status", "stats", "stat"] {
        assert!(
            commands.lines().any(|line| line == command),
            "{command} is missing in {commands}"
        );
    }
    assert!(
        complete("monofs-admin drain --re", 2)
            .lines()
            .any(|line| line == "--reason")
    );
    assert!(
        complete("monofs-admin jobs wa", 2)
            .lines()
            .any(|line| line == "watch")
    );
    assert!(
        complete("monofs-admin repos --format ''", 3)
            .lines()
            .any(|line| line == "json")
    );
}

#[test]
fn fish_completes_commands_flags_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let path = completions(&dir, "fish");
    let complete = |line: &str| {
        shell(
            "fish",
            &format!("source $argv[-1]; complete --do-complete '{line}'"),
            &path,
        )
    };
    assert!(complete("monofs-admin sta").contains("status\tShow the whole cluster"));
    assert!(complete("monofs-admin drain --re").contains("--reason"));
    assert!(complete("monofs-admin stats --type ").contains("fetchers"));
}

#[test]
fn zsh_knows_the_completions() {
    let dir = tempfile::tempdir().unwrap();
    let path = completions(&dir, "zsh");
    let script = "autoload -U compinit; compinit -u -D; source \"$1\"; print -- \
     $_comps[monofs-admin]; print -- $functions[_monofs-admin]";
    let told = shell("zsh", script, &path);
    assert!(
        told.starts_with("_monofs-admin\n") && told.contains("node-files"),
        "{told}"
    );
}

#[test]
fn manual_pages_are_clean_and_complete() {
    let dir = tempfile::tempdir().unwrap();
    let said = run(&["man", &format!("--dir={}", dir.path().display())])
        .done()
        .text();
    let mut pages: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.sort();
    assert!(
        said.starts_with(&format!("{} pages written", pages.len())) && pages.len() > 25,
        "{said}"
    );
    let lint = Command::new(require("mandoc"))
        .args(["-T", "lint", "-W", "warning"])
        .args(&pages)
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&lint.stdout).into_owned();
    assert!(
        lint.status.success() && complaints.is_empty(),
        "{complaints}"
    );
    let render = |name: &str| {
        let output = Command::new(require("mandoc"))
            .args(["-T", "ascii"])
            .arg(dir.path().join(name))
            .output()
            .unwrap();
        // Bold and underlined letters are struck twice.
        let text = String::from_utf8(output.stdout).unwrap();
        let mut plain = String::new();
        for c in text.chars() {
            if c == '\u{8}' {
                let _ = plain.pop();
            } else {
                plain.push(c)
            }
        }
        plain
    };
    let status = render("monofs-admin-status.1");
    for part in [
        "Show the whole cluster on one screen",
        "--check",
        "MONOFS_RPC_TIMEOUT",
        "EXAMPLES",
        "monofs-admin status",
    ] {
        assert!(status.contains(part), "{part} is missing in {status}");
    }
    assert!(render("monofs-admin.1").contains("monofs-admin-jobs(1)"));
    assert!(
        pages
            .iter()
            .any(|page| page.ends_with("monofs-admin-jobs-watch.1"))
    );
}

#[test]
fn one_page_is_printed_and_an_unknown_one_is_not() {
    let page = run(&["man", "jobs", "--format=json"]).done().text();
    assert!(page.contains(".TH monofs-admin-jobs 1"), "{page}");
    run(&["man", "nonsense"]).failed(2, "there is no manual page called monofs-admin-nonsense");
    let wrong = run(&["--generate-completions", "csh"]);
    wrong.failed(2, "there are no completions for a shell called 'csh'");
    let piped = super::command(&["man"])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    assert!(
        piped.stdout.starts_with(b".ie") || piped.stdout.starts_with(b".TH"),
        "{:?}",
        &piped.stdout[..20]
    );
}
