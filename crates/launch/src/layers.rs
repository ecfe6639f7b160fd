//! Where a setting comes from: flag, else environment, else file, else default.
//!
//! Works on any `clap::Command`: every argument with a long name also reads `MONOFS_<LONG_NAME>`
//! and the key of that name in the settings file (`-` and `_` are the same there); a table named
//! like a subcommand holds that subcommand's keys. Every on/off flag also takes `=true` and
//! `=false`, so that a flag can overrule the file.
//!
//! Invariant: nothing in the file is ignored: a key that is no flag, or a value that its flag would
//! not take, is an error that names the key and the file.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::{BoolishValueParser, Str};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::exit::{Code, Failure, one_line};

/// The largest settings file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The flag that names the settings file, and its variable.
const FILE_FLAG: &str = "config";
const FILE_VARIABLE: &str = "MONOFS_CONFIG";

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The command line is wrong, or asks for help.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The settings file is wrong.
    #[error(transparent)]
    File(Failure),
}

/// Parses `argv` with environment and settings file underneath.
pub fn matches(
    command: Command,
    argv: impl IntoIterator<Item = OsString>,
) -> Result<ArgMatches, SettingsError> {
    let argv: Vec<OsString> = argv.into_iter().collect();
    let mut command = with_environment(command);
    if let Some(path) = file_named_by(&argv) {
        let text = read_file(&path).map_err(SettingsError::File)?;
        command = with_file(command, &path, &text).map_err(SettingsError::File)?;
    }
    command
        .try_get_matches_from_mut(&argv)
        .map_err(|error| SettingsError::Usage(name_the_variable(error, &argv)))
}

/// The environment variable of a flag: `rpc-timeout` reads `MONOFS_RPC_TIMEOUT`.
pub fn variable_of(long: &str) -> String {
    format!("MONOFS_{}", long.replace('-', "_").to_ascii_uppercase())
}

/// The command line with the variable of each flag.
pub(crate) fn with_environment(command: Command) -> Command {
    command
        .mut_args(flag_with_value)
        .mut_args(from_variable)
        .mut_args(no_empty_default)
        .mut_subcommands(with_environment)
}

/// Lets on/off flags take a value too.
fn flag_with_value(arg: Arg) -> Arg {
    if !matches!(arg.get_action(), ArgAction::SetTrue) || arg.get_long().is_none() {
        return arg;
    }
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_value("false")
        .default_missing_value("true")
        .value_name("BOOL")
        .value_parser(BoolishValueParser::new())
        .hide_possible_values(true)
}

/// Hides `[default: ""]`, which tells a reader of the help nothing.
fn no_empty_default(arg: Arg) -> Arg {
    let empty = arg
        .get_default_values()
        .iter()
        .all(|value| value.is_empty());
    if empty {
        arg.hide_default_value(true)
    } else {
        arg
    }
}

fn from_variable(arg: Arg) -> Arg {
    let Some(long) = arg.get_long() else {
        return arg;
    };
    if !arg.get_action().takes_values() || arg.get_env().is_some() {
        return arg;
    }
    let variable = variable_of(long);
    // Compose files and units pass empty variables for what is not set.
    if std::env::var_os(&variable).is_some_and(|value| value.is_empty()) {
        return arg;
    }
    arg.env(Str::from(variable)).hide_env_values(true)
}

/// The settings file that the command line, else the environment, names.
fn file_named_by(argv: &[OsString]) -> Option<PathBuf> {
    let mut words = argv
        .iter()
        .skip(1)
        .take_while(|word| word.as_os_str() != "--");
    while let Some(word) = words.next() {
        if word.as_os_str() == "--config" {
            return words.next().map(PathBuf::from);
        }
        if let Some(path) = word.as_encoded_bytes().strip_prefix(b"--config=") {
            use std::os::unix::ffi::OsStrExt;
            return Some(PathBuf::from(OsStr::from_bytes(path)));
        }
    }
    std::env::var_os(FILE_VARIABLE)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::new(
        Code::Usage,
        format!("settings file {}: {what}", path.display()),
    )
}

fn read_file(path: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let hint = "give a readable TOML file with --config, or leave the flag away";
    let unreadable = |error: std::io::Error| wrong(path, error).hint(hint);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(path, "is larger than 1 MiB").hint(hint));
    }
    Ok(text)
}

/// The command with the file's values as its defaults.
fn with_file(command: Command, path: &Path, text: &str) -> Result<Command, Failure> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| {
            text[..span.start.min(text.len())].matches('\n').count()
        }) + 1;
        wrong(path, format!("line {line}: {}", one_line(error.message())))
            .hint("write it as TOML: `flag-name = value`")
    })?;
    with_table(command, path, "", table)
}

/// The command with the values of a table as its defaults; `prefix` names the table in errors.
fn with_table(
    mut command: Command,
    path: &Path,
    prefix: &str,
    table: toml::Table,
) -> Result<Command, Failure> {
    let mut seen = std::collections::HashSet::new();
    for (key, value) in table {
        let name = key.replace('_', "-");
        let full = format!("{prefix}{}", one_line(&key));
        if !seen.insert(name.clone()) {
            return Err(
                wrong(path, format!("key '{full}' is there twice")).hint("keep one of the two")
            );
        }
        // A key that is a flag becomes its default, if the flag would take the value.
        if let Some(id) = argument_named(&command, &name) {
            let values = texts(value)
                .map_err(|why| wrong(path, format!("key '{full}': {why}")).hint("see --help"))?;
            let arg = command.get_arguments().find(|arg| arg.get_id() == &id);
            let arg = arg
                .expect("argument_named found it in this command")
                .clone();
            let values = join(&arg, values);
            probe(&arg, &name, &values)
                .map_err(|why| wrong(path, format!("key '{full}': {why}")).hint("see --help"))?;
            command = command.mut_arg(id, |arg| arg.required(false).default_values(values));
            continue;
        }
        // A table that is named like a subcommand holds that one's keys; anything else is unknown.
        let subcommand = command
            .find_subcommand(&name)
            .map(|sub| sub.get_name().to_owned());
        match (subcommand, value) {
            (Some(sub), toml::Value::Table(inner)) => {
                let mut outcome = Ok(());
                command = command.mut_subcommand(sub, |sub| {
                    let unchanged = sub.clone();
                    with_table(sub, path, &format!("{full}."), inner).unwrap_or_else(|failure| {
                        outcome = Err(failure);
                        unchanged
                    })
                });
                outcome?;
            }
            _ => {
                return Err(wrong(path, format!("unknown key '{full}'")).hint(known_keys(&command)));
            }
        }
    }
    Ok(command)
}

/// The id of the argument that a key means.
fn argument_named(command: &Command, name: &str) -> Option<clap::Id> {
    command
        .get_arguments()
        .filter(|arg| is_settable(arg))
        .find(|arg| {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            arg.get_long() == Some(name) || aliases.contains(&name)
        })
        .map(|arg| arg.get_id().clone())
}

/// Whether a settings file may have a key for this argument.
fn is_settable(arg: &Arg) -> bool {
    arg.get_action().takes_values() && arg.get_id() != FILE_FLAG
}

fn known_keys(command: &Command) -> String {
    let keys = command.get_arguments().filter(|arg| is_settable(arg));
    let tables = command
        .get_subcommands()
        .map(|sub| format!("[{}]", sub.get_name()));
    let mut known: Vec<String> = keys
        .filter_map(Arg::get_long)
        .map(str::to_owned)
        .chain(tables)
        .collect();
    known.sort();
    format!("known keys: {}", known.join(", "))
}

/// A TOML value as the words of a command line. A table of plain values is a list of `key=value`.
fn texts(value: toml::Value) -> Result<Vec<String>, &'static str> {
    use toml::Value;
    match value {
        Value::Array(values) => values.into_iter().map(plain_text).collect(),
        Value::Table(table) => table
            .into_iter()
            .map(|(key, value)| Ok(format!("{key}={}", plain_text(value)?)))
            .collect(),
        single => Ok(vec![plain_text(single)?]),
    }
}

/// A TOML value that is neither a list nor a table, as one word.
fn plain_text(value: toml::Value) -> Result<String, &'static str> {
    use toml::Value;
    match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(yes) => Ok(yes.to_string()),
        Value::Datetime(time) => Ok(time.to_string()),
        Value::Array(_) | Value::Table(_) => Err("is nested too deeply"),
    }
}

/// Several values for a flag that is given once become its comma-separated form.
fn join(arg: &Arg, values: Vec<String>) -> Vec<String> {
    let repeats = matches!(arg.get_action(), ArgAction::Append);
    if repeats {
        values
    } else {
        vec![values.join(",")]
    }
}

/// Whether the flag would take these values; clap itself only checks defaults by panicking in debug
/// builds.
fn probe(arg: &Arg, name: &str, values: &[String]) -> Result<(), String> {
    // A copy of the argument, alone on a command line of its own.
    let mut copy = Arg::new("value")
        .long(name.to_owned())
        .action(arg.get_action().clone())
        .value_parser(arg.get_value_parser().clone())
        .value_name("VALUE");
    if let Some(delimiter) = arg.get_value_delimiter() {
        copy = copy.value_delimiter(delimiter);
    }
    let words = values.iter().map(|value| format!("--{name}={value}"));
    match Command::new("settings")
        .no_binary_name(true)
        .arg(copy)
        .try_get_matches_from(words)
    {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.render().to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            Err(one_line(first.trim_start_matches("error: ")))
        }
    }
}

/// Adds to a complaint about a value that it came from the environment.
fn name_the_variable(mut error: clap::Error, argv: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(usage)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let flag: String = usage
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    let given = argv
        .iter()
        .any(|word| word.as_encoded_bytes().starts_with(flag.as_bytes()));
    let variable = variable_of(flag.trim_start_matches('-'));
    if flag.starts_with("--") && !given && std::env::var_os(&variable).is_some() {
        let usage = format!("{usage} (from the environment variable {variable})");
        error.insert(ContextKind::InvalidArg, ContextValue::String(usage));
    }
    error
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
