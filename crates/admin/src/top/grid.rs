//! A table whose rows can be sorted by any column and that gives up columns, the last first, where
//! there is no room.

use std::cmp::Ordering;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::mood::Mood;
use crate::output::TextTable;
use crate::text::clean;

/// Between two columns.
const GAP: usize = 2;
/// A column that is cut short keeps at least this much.
const CUT_MIN: usize = 6;

/// Whether the screen has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Palette {
    Coloured,
    Monochrome,
}

impl Palette {
    /// How a mood looks.
    pub fn style(self, mood: Mood) -> Style {
        let colour = match mood {
            Mood::Plain => return Style::new(),
            Mood::Good => Color::Green,
            Mood::Uneasy => Color::Yellow,
            Mood::Bad => Color::Red,
        };
        let style = match self {
            Self::Coloured => Style::new().fg(colour),
            Self::Monochrome => Style::new(),
        };
        match mood {
            Mood::Bad => style.add_modifier(Modifier::BOLD),
            _ => style,
        }
    }
}

/// What rows are sorted by.
#[derive(Debug, Clone, PartialEq)]
pub enum SortKey {
    Text(String),
    /// Not known is less than anything.
    Number(Option<f64>),
}

impl SortKey {
    /// Numbers from the largest down, texts from A to Z.
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => {
                let unknown = f64::NEG_INFINITY;
                b.unwrap_or(unknown).total_cmp(&a.unwrap_or(unknown))
            }
            (Self::Text(_), Self::Number(_)) => Ordering::Less,
            (Self::Number(_), Self::Text(_)) => Ordering::Greater,
        }
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub struct GridCell {
    pub text: String,
    pub mood: Mood,
    pub order: SortKey,
}

impl GridCell {
    /// A text; cleaned.
    pub fn text(text: &str) -> Self {
        let text = clean(text);
        Self {
            order: SortKey::Text(text.clone()),
            text,
            mood: Mood::Plain,
        }
    }

    /// A number with its text.
    pub fn number(value: Option<f64>, text: String) -> Self {
        Self {
            text,
            mood: Mood::Plain,
            order: SortKey::Number(value),
        }
    }

    /// The same in another mood.
    pub fn mood(mut self, mood: Mood) -> Self {
        self.mood = mood;
        self
    }
}

/// How the rows of a panel are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GridSort {
    pub column: usize,
    pub reversed: bool,
}

/// Headings and rows; every row has as many cells as there are headings. A heading that starts with
/// `>` is for numbers.
#[derive(Debug, Clone, Default)]
pub struct Grid {
    pub headings: Vec<&'static str>,
    pub rows: Vec<Vec<GridCell>>,
}

impl Grid {
    /// Sorts the rows; those that are equal stay in the order of their first cell.
    pub fn sort(&mut self, by: GridSort) {
        let column = by.column.min(self.headings.len().saturating_sub(1));
        self.rows.sort_by(|a, b| {
            let order = a[column].order.compare(&b[column].order);
            let order = if by.reversed { order.reverse() } else { order };
            order.then_with(|| a[0].order.compare(&b[0].order))
        });
    }

    /// The table for a stream that is no screen.
    pub fn plain(&self) -> String {
        let mut rows = TextTable::new(&self.headings);
        for row in &self.rows {
            rows.row_with(row.iter().map(|cell| (cell.text.as_str(), cell.mood)));
        }
        rows.render()
    }

    /// Headings and the rows from `first` on, at most `height` lines of at most `width` columns. A
    /// last line counts the rows that are not shown.
    pub fn lines(
        &self,
        width: usize,
        height: usize,
        first: usize,
        sort: Option<GridSort>,
        palette: Palette,
    ) -> Vec<Line<'static>> {
        if height == 0 {
            return Vec::new();
        }
        // The headings, and as many rows as fit.
        let widths = self.widths(width, sort);
        let mut lines = vec![self.heading(&widths, sort)];
        let room = height - 1;
        let hidden = self.rows.len().saturating_sub(room);
        let shown = if hidden > 0 && room > 1 {
            room - 1
        } else {
            room
        };
        let first = first.min(self.rows.len().saturating_sub(shown.max(1)));
        for row in self.rows.iter().skip(first).take(shown) {
            lines.push(line(row, &self.headings, &widths, palette));
        }
        // Which rows these are.
        if hidden > 0 && room > 1 {
            lines.push(Line::styled(
                format!("{}-{} of {}", first + 1, first + shown, self.rows.len()),
                Style::new().add_modifier(Modifier::DIM),
            ));
        }
        lines
    }

    /// Widths of the columns that fit.
    fn widths(&self, width: usize, sort: Option<GridSort>) -> Vec<usize> {
        let mut widths = Vec::new();
        let mut used = 0;
        for (column, heading) in self.headings.iter().enumerate() {
            let cells = self.rows.iter().map(|row| row[column].text.chars().count());
            let mark = usize::from(sort.is_some_and(|sort| sort.column == column));
            let wanted = cells
                .max()
                .unwrap_or(0)
                .max(heading.trim_start_matches('>').len() + mark);
            let gap = if column == 0 { 0 } else { GAP };
            let room = width.saturating_sub(used + gap);
            if wanted <= room {
                widths.push(wanted);
                used += gap + wanted;
                continue;
            }
            // Numbers are whole or not there; texts may be cut.
            if column == 0 || (room >= CUT_MIN && !heading.starts_with('>')) {
                widths.push(room);
            }
            break;
        }
        widths
    }

    fn heading(&self, widths: &[usize], sort: Option<GridSort>) -> Line<'static> {
        let spans =
            self.headings
                .iter()
                .zip(widths)
                .enumerate()
                .map(|(column, (heading, width))| {
                    let mark = match sort.filter(|sort| sort.column == column) {
                        Some(GridSort {
                            reversed: false, ..
                        }) => "*",
                        Some(GridSort { reversed: true, .. }) => "^",
                        None => "",
                    };
                    let text = format!("{}{mark}", heading.trim_start_matches('>'));
                    Span::raw(padded(&text, *width, heading, column))
                });
        Line::from(spans.collect::<Vec<_>>())
            .style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED))
    }
}

fn line(row: &[GridCell], headings: &[&str], widths: &[usize], palette: Palette) -> Line<'static> {
    let spans = row.iter().zip(headings).zip(widths).enumerate().map(
        |(column, ((cell, heading), width))| {
            let text = padded(&cell.text, *width, heading, column);
            Span::styled(text, palette.style(cell.mood))
        },
    );
    Line::from(spans.collect::<Vec<_>>())
}

/// A text in its column: cut or filled up to `width`, with the gap before it, numbers to the right.
fn padded(text: &str, width: usize, heading: &str, column: usize) -> String {
    let cut: String = text.chars().take(width).collect();
    let gap = if column == 0 { 0 } else { GAP };
    if heading.starts_with('>') {
        format!("{:gap$}{cut:>width$}", "")
    } else {
        format!("{:gap$}{cut:<width$}", "")
    }
}
