//! Printing: one JSON document, or tables. Colours only on a terminal and without `NO_COLOR`.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use monofs_api::{CommandDocument, Tongue};
use monofs_launch::colour;

use crate::mood::Mood;
use crate::text::clean;

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people
    Table,
    /// One JSON document
    Json,
}

/// Writes to standard output.
pub fn emit(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Writes one JSON document to standard output.
pub fn emit_json(document: &impl CommandDocument) -> Result<()> {
    let text = Tongue::CommandLine.write(|| serde_json::to_string_pretty(document))?;
    emit(&(text + "\n"))
}

/// Writes a line to standard error, which may be closed.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Whether the command failed because the reader of its output has seen enough (`| head`).
pub fn reader_is_gone(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Lines and columns of the terminal on standard output; 24 and 80 when it is none.
pub fn screen() -> (usize, usize) {
    let size = if std::io::stdout().is_terminal() {
        ratatui::crossterm::terminal::size().ok()
    } else {
        None
    };
    // A terminal that does not know its size says 0.
    let (columns, lines) = size
        .filter(|(columns, lines)| *columns > 0 && *lines > 0)
        .unwrap_or((80, 24));
    (usize::from(lines), usize::from(columns))
}

/// Text in the colour of its mood, where standard output has colours.
pub fn painted(text: &str, mood: Mood) -> String {
    let code = match mood {
        Mood::Good => "32",
        Mood::Bad => "31",
        Mood::Uneasy => "33",
        Mood::Plain => return text.to_owned(),
    };
    if colour::wanted(&std::io::stdout()) {
        format!("\x1b[1;{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// A table under construction. Every cell is cleaned of control characters.
pub struct TextTable {
    table: Table,
    colours: bool,
}

impl TextTable {
    /// A table with these columns; a heading that starts with `>` is for numbers.
    pub fn new(headings: &[&str]) -> Self {
        let colours = colour::wanted(&std::io::stdout());
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        // Cut into pieces, a row cannot be searched or copied: lines may be longer than the
        // terminal is wide.
        table.set_content_arrangement(ContentArrangement::Disabled);
        if !colours {
            table.force_no_tty();
        }
        table.set_header(headings.iter().map(|heading| {
            let cell = Cell::new(heading.trim_start_matches('>'));
            if colours {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        }));
        for (column, heading) in table.column_iter_mut().zip(headings) {
            column.set_padding((0, 2));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table, colours }
    }

    /// Adds a row.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.row_with(cells.into_iter().map(|cell| (cell, Mood::Plain)));
    }

    /// Adds a row with moods.
    pub fn row_with<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = (T, Mood)>) {
        let colours = self.colours;
        self.table.add_row(cells.into_iter().map(|(text, mood)| {
            let cell = Cell::new(clean(text.as_ref()));
            match mood {
                Mood::Good if colours => cell.fg(Color::Green),
                Mood::Bad if colours => cell.fg(Color::Red),
                Mood::Uneasy if colours => cell.fg(Color::Yellow),
                _ => cell,
            }
        }));
    }

    /// The table as lines without trailing spaces.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in self.table.to_string().lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `name: value` lines with the values in one column.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    pairs
        .iter()
        .map(|(name, value)| format!("{:<width$}{}\n", format!("{name}:"), clean(value)))
        .collect()
}
