//! Manual pages and shell completions of every binary, made from the same description of its
//! command line that parses it.
//!
//! `BINARY --generate-man DIRECTORY` writes a page for the binary and for each of its subcommands,
//! `BINARY --generate-completions SHELL` prints completions. Both are for packagers of the binaries
//! (`make build`), so help does not list them; they are looked for before anything else, because
//! flags that a role needs are not there then.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::exit::{Code, Failure};
use crate::style::ProcessStyle;
use crate::{layers, version};

/// Writes manual pages.
const MAN_FLAG: &str = "--generate-man";
/// Prints completions.
const COMPLETIONS_FLAG: &str = "--generate-completions";

/// Does what the hidden flags ask for; `None` = the command line has none of them.
pub(crate) fn generate(
    command: Command,
    style: ProcessStyle,
    argv: &[OsString],
) -> Option<anyhow::Result<()>> {
    let flag = argv.get(1)?.to_str()?;
    if flag != MAN_FLAG && flag != COMPLETIONS_FLAG {
        return None;
    }
    // The flag has one value, and nothing else is on the command line.
    let Some(value) = argv
        .get(2)
        .and_then(|value| value.to_str())
        .filter(|_| argv.len() == 3)
    else {
        let what = if flag == MAN_FLAG {
            "a directory"
        } else {
            "a shell: bash, zsh or fish"
        };
        return Some(Err(Failure::new(
            Code::Usage,
            format!("{flag} takes one value"),
        )
        .hint(format!("give {what}, and nothing else"))
        .into()));
    };
    Some(if flag == MAN_FLAG {
        write_pages(command, style, Path::new(value))
    } else {
        print_completions(command, value)
    })
}

/// Writes the page of `command` and those of its subcommands into a directory, which is made if it
/// is missing.
fn write_pages(command: Command, style: ProcessStyle, directory: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    for (name, text) in pages(command, style) {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// The pages as file names and texts, the one of the binary itself first.
pub(crate) fn pages(command: Command, style: ProcessStyle) -> Vec<(String, Vec<u8>)> {
    let section = if style == ProcessStyle::Server {
        "8"
    } else {
        "1"
    };
    // With the environment variables, which a page names beside each flag.
    let mut command = layers::with_environment(command).disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add_page(&command, section, &mut pages);
    pages
}

fn add_page(command: &Command, section: &str, pages: &mut Vec<(String, Vec<u8>)>) {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    pages.push((format!("{name}.{section}"), page(command, &name, section)));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add_page(sub, section, pages);
    }
}

fn page(command: &Command, name: &str, section: &str) -> Vec<u8> {
    let man = Man::new(command.clone())
        .title(name)
        .section(section)
        .date(version::DATE)
        .source(format!("MonoFS {}", version::VERSION))
        .manual("MonoFS");
    let mut text = Vec::new();
    write_sections(command, &man, &mut text).expect("writing to memory does not fail");
    // An empty line between two breaks, which formatters warn about.
    String::from_utf8_lossy(&text)
        .replace("\n.br\n\n.br\n", "\n.sp\n")
        .into_bytes()
}

/// The sections in the order that manual pages have them.
fn write_sections(command: &Command, man: &Man, text: &mut Vec<u8>) -> std::io::Result<()> {
    man.render_title(text)?;
    man.render_name_section(text)?;
    man.render_synopsis_section(text)?;
    man.render_description_section(text)?;
    man.render_options_section(text)?;
    if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
        man.render_subcommands_section(text)?;
    }
    if let Some(more) = command.get_after_help() {
        text.write_all(notes(&more.to_string()).render().as_bytes())?;
    }
    Ok(())
}

/// What stands below a help text: a line that ends with a colon opens a section, indented lines are
/// shown as they are.
fn notes(text: &str) -> Roff {
    // `open`: a section is open. `verbatim`: lines are shown as they are.
    let mut roff = Roff::new();
    let mut open = false;
    let mut verbatim = false;
    for line in text.lines() {
        // Lines that open or close something.
        let indented = line.starts_with("  ");
        if verbatim && !indented {
            roff.control("fi", []);
            verbatim = false;
        }
        if let Some(title) = line.strip_suffix(':').filter(|_| !indented) {
            roff.control("SH", [title.to_uppercase().as_str()]);
            open = true;
            continue;
        }
        if line.is_empty() {
            // The next paragraph is about the command again.
            open = false;
            continue;
        }
        // Lines of text, below a heading of their own if there is none.
        if !open {
            roff.control("SH", ["NOTES"]);
            open = true;
        }
        if indented && !verbatim {
            roff.control("nf", []);
            verbatim = true;
        }
        roff.text([roman(line.trim_start())]);
    }
    if verbatim {
        roff.control("fi", []);
    }
    roff
}

fn print_completions(mut command: Command, shell: &str) -> anyhow::Result<()> {
    let shell: Shell = shell.parse().map_err(|_| {
        Failure::new(
            Code::Usage,
            format!(
                "there are no completions for a shell called '{}'",
                shell.escape_debug()
            ),
        )
        .hint("write bash, zsh, fish, elvish or powershell")
    })?;
    std::io::stdout()
        .lock()
        .write_all(&completions(&mut command, shell))?;
    Ok(())
}

/// What this shell needs to complete the command line.
pub(crate) fn completions(command: &mut Command, shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, command, name, &mut text);
    if shell != Shell::Bash {
        return text;
    }
    // clap_complete 4.6 spells a hyphen in the name of the program in two ways, and then never
    // finds the flags of a command.
    let name = command.get_name();
    let label = name.replace('-', "__subcmd__");
    let looked_up = name.replace('-', "__");
    String::from_utf8_lossy(&text)
        .replace(&label, &looked_up)
        .into_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Arg;

    use super::*;

    fn server() -> Command {
        Command::new("monofs-x")
            .about("Does something")
            .after_help(
                "Example:\n  monofs-x --port 1 \\\n    --name=.x\n\nMind the gap.\n.dots are text",
            )
            .arg(
                Arg::new("port")
                    .long("port")
                    .help("Where it listens")
                    .default_value("9090"),
            )
            .subcommand(
                Command::new("up")
                    .about("Goes up")
                    .after_help("Examples:\n  monofs-x up"),
            )
    }

    #[test]
    fn a_page_has_flags_with_their_variables_and_examples_as_they_are_typed() {
        let pages = pages(server(), ProcessStyle::Server);
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["monofs-x.8", "monofs-x-up.8"]);
        let text = String::from_utf8(pages[0].1.clone()).unwrap();
        for part in [
            ".SH EXAMPLE\n.nf\nmonofs\\-x \\-\\-port 1",
            "\n.fi\n.SH NOTES\nMind the gap.",
            "MONOFS_PORT",
            "9090",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(
            text.contains("\n\\&.dots are text"),
            "a leading dot is no request: {text}"
        );
    }

    #[test]
    fn only_the_hidden_flags_generate() {
        assert!(generate(server(), ProcessStyle::Server, &argv(&["x", "--port=1"])).is_none());
        assert!(
            generate(
                server(),
                ProcessStyle::Server,
                &argv(&["x", "--generate-man"])
            )
            .unwrap()
            .is_err()
        );
        let wrong = generate(
            server(),
            ProcessStyle::Server,
            &argv(&["x", "--generate-completions", "tcsh"]),
        )
        .unwrap();
        assert!(wrong.unwrap_err().to_string().contains("tcsh"));
        let bash = String::from_utf8(completions(&mut server(), Shell::Bash)).unwrap();
        assert!(bash.contains("complete -F"), "{bash}");
    }

    fn argv(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }
}
