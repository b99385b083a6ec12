//! What the command prints: tables for people, versioned JSON for programs, and its exit codes.
//!
//! Data goes to standard output, talk to standard error. Everything is written through [`Output`], which knows the
//! wanted [`Format`] and whether colours are wanted; verbs never print by themselves, so that a closed pipe ends the
//! command quietly instead of with a panic. Colours only repeat what a word already says.

use crate::failure::Failure;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for a person
    Table,
    /// The table with every column
    Wide,
    /// One JSON document with `"v": 1`, raw numbers, units in the keys
    Json,
    /// OVS's own dump syntax (flows, groups, meters, connections)
    Ofctl,
    /// A drawing as lines of text
    Ascii,
    /// A drawing for Mermaid
    Mermaid,
    /// A drawing for Graphviz
    Dot,
    /// A drawing for a browser
    Svg,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What the command's exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    /// It worked, or the answer is yes: 0.
    Yes,
    /// It failed, or the answer is no: 1.
    No,
    /// The command line, or a file named on it, is wrong: 2.
    Usage,
    /// A traced packet was dropped: 3.
    Dropped,
    /// Some of those who were asked did not answer: 4.
    Partial,
    /// A part of the switch is not well: 5.
    Unhealthy,
    /// No switch or lab is running: 69.
    NoDaemon,
    /// The kernel does not allow it to this user: 77.
    NoPrivilege,
    /// A child's code, passed on.
    Child(u8),
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Dropped => 3,
            Self::Partial => 4,
            Self::Unhealthy => 5,
            Self::NoDaemon => 69,
            Self::NoPrivilege => 77,
            Self::Child(code) => code,
        }
    }
}

/// What a table cell means; a colour repeats it on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// All is well: green.
    Good,
    /// Look at this: yellow.
    Warn,
    /// Lost, dropped, dead: red.
    Bad,
}

/// One cell of a [`Table`].
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    /// A cell that sits at the right of its column, as numbers do.
    pub(crate) fn right(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain, right: true }
    }

    /// The same cell with a tone.
    pub(crate) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain, right: false }
    }
}

/// Rows of cells under a header, with two spaces between columns and none at a line's end.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with this header.
    pub(crate) fn new(header: impl IntoIterator<Item = impl Into<Cell>>) -> Self {
        Self { rows: vec![header.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<Cell>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.text.chars().count()).max();
        (0..columns).map(|column| width(column).unwrap_or(0)).collect()
    }

    fn write(&self, to: &mut impl Write, color: bool) -> io::Result<()> {
        let widths = self.widths();
        for row in &self.rows {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if index > 0 {
                    line.push_str("  ");
                }
                let pad = " ".repeat(width - cell.text.chars().count());
                if cell.right {
                    line.push_str(&pad);
                }
                line.push_str(&paint(&cell.text, cell.tone, color));
                if !cell.right && index + 1 < row.len() {
                    line.push_str(&pad);
                }
            }
            writeln!(to, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn paint(text: &str, tone: Tone, color: bool) -> String {
    let code = match tone {
        _ if !color => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Good => 32,
        Tone::Warn => 33,
        Tone::Bad => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    v: u32,
    #[serde(flatten)]
    data: &'a T,
}

/// Where a verb writes its data.
pub(crate) struct Output {
    format: Format,
    color: bool,
    to: BufWriter<Stdout>,
}

impl Output {
    /// Version of the JSON that every verb writes.
    const JSON_VERSION: u32 = 1;

    /// Standard output, in this format.
    pub(crate) fn new(format: Format, color: Color) -> Self {
        let stdout = io::stdout();
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        Self { format, color, to: BufWriter::new(stdout) }
    }

    /// The wanted format, once it is known to be one that the verb can write.
    ///
    /// # Errors
    /// [`Exit::Usage`] with the formats that the verb knows.
    pub(crate) fn format(&self, known: &[Format]) -> Result<Format, Failure> {
        if known.contains(&self.format) {
            return Ok(self.format);
        }
        let name = |f: &Format| f.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
        let known: Vec<_> = known.iter().map(name).collect();
        Err(Failure::usage(format!("this verb does not write `-o {}`", name(&self.format)))
            .next(format!("use -o {}", known.join(" or -o "))))
    }

    /// Whether what is written has colours.
    pub(crate) fn is_colored(&self) -> bool {
        self.color
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.to, "{}", text.as_ref())
    }

    /// Writes a table.
    pub(crate) fn table(&mut self, table: &Table) -> io::Result<()> {
        table.write(&mut self.to, self.color)
    }

    /// Writes one JSON document, `data` (a struct or a map) with `"v": 1` in front.
    pub(crate) fn json(&mut self, data: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, &Envelope { v: Self::JSON_VERSION, data }).map_err(io::Error::from)?;
        writeln!(self.to)
    }

    /// Says that a change was made, of which there is nothing else to say: nothing to a person, `data` to a program.
    ///
    /// # Errors
    /// [`Exit::Usage`] for other formats.
    pub(crate) fn done(&mut self, data: &impl Serialize) -> Result<Exit, Failure> {
        if self.format(&[Format::Table, Format::Json])? == Format::Json {
            self.json(data)?;
        }
        Ok(Exit::Yes)
    }

    /// Says something to the person, after the data written so far and not among it: on standard error.
    pub(crate) fn talk(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        self.to.flush()?;
        writeln!(io::stderr(), "{}", text.as_ref())
    }

    /// Clears the screen, if it is one that is written to.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        if io::stdout().is_terminal() { write!(self.to, "\x1b[H\x1b[2J") } else { Ok(()) }
    }

    /// Sets the next answer off from the last: on a cleared screen, or behind an empty line. Documents of JSON are lines
    /// of their own as it is.
    pub(crate) fn begin_again(&mut self) -> io::Result<()> {
        if io::stdout().is_terminal() {
            return self.clear();
        }
        if self.format == Format::Json { Ok(()) } else { writeln!(self.to) }
    }

    /// Hands what was written so far to the terminal or pipe.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: &Table, color: bool) -> String {
        let mut to = Vec::new();
        table.write(&mut to, color).unwrap();
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn columns_align_and_lines_have_no_trailing_spaces() {
        let mut table = Table::new(["NODE", "PORT"]);
        table.row(["h1", "eth0"]);
        table.row(["longname", ""]);
        assert_eq!(text(&table, false), "NODE      PORT\nh1        eth0\nlongname\n");
    }

    #[test]
    fn numbers_sit_at_the_right_and_colour_does_not_change_the_width() {
        let mut table = Table::new([Cell::from(""), Cell::right("h1")]);
        table.row([Cell::from("h1"), Cell::right("0.2 ms").tone(Tone::Good)]);
        assert_eq!(text(&table, false), "        h1\nh1  0.2 ms\n");
        assert_eq!(text(&table, true), "        h1\nh1  \x1b[32m0.2 ms\x1b[0m\n");
    }
}
