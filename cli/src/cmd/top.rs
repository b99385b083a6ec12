//! `sluice top`: what happens in the switch now, in a terminal.

mod lines;
mod sample;
mod screen;

use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table};
use crate::watch::seconds;
use clap::{Args, ValueEnum};
use lines::{Line, Value, lines};
use sample::Sample;
use serde::Serialize;
use serde_json::Map;
use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

/// Longest time between two looks.
const HOUR: Duration = Duration::from_secs(3600);

/// Arguments of `sluice top`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice top                        ports by their traffic; Tab for the other views
  sluice top flows                  begin with the flows
  sluice top --every 0.5            look twice a second
  sluice top drops --once           once, as a table; of one second
  sluice top flows --once -o json

Keys: Tab, arrows or 1-5 for another view; up, down, PgUp, PgDn for another line; / or F4 for
lines with a word alone; < and > (F6) to sort by another column, I the other way round; Enter
for all of a line; t to trace a drop's last packet; p or Space to stop and go on; ? or F1 for
the keys; q or F10 to quit.")]
pub(crate) struct Top {
    /// What to begin with
    #[arg(value_enum, default_value_t = Tab::Ports)]
    view: Tab,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = |text: &str| seconds(text, HOUR))]
    every: Duration,
    /// Print it once, of that time, and end
    #[arg(long)]
    once: bool,
    /// With --once: so many lines at most; 0 for all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, requires = "once")]
    lines: usize,
    #[command(flatten)]
    target: Target,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Tab {
    /// Ports, those with most traffic first
    Ports,
    /// Flows, those with most packets first
    Flows,
    /// What is dropped, why, and by whose rule
    Drops,
    /// Tracked connections, those with most traffic first
    Connections,
    /// Workers and their caches
    Workers,
}

#[derive(Serialize)]
struct Answer {
    view: Tab,
    seconds: f64,
    rows: Vec<Map<String, serde_json::Value>>,
}

/// Runs the verb.
pub(crate) fn run(args: &Top, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    if args.once {
        return once(args, format, out);
    }
    if format == Format::Json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::usage("top fills a terminal, and this is none").next("sluice top --once -o json"));
    }
    screen::run(&args.target, args.view, args.every)
}

fn once(args: &Top, format: Format, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&args.target)?;
    let before = Sample::take(&client, args.view)?;
    thread::sleep(args.every);
    let now = Sample::take(&client, args.view)?;
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let mut rows = lines(Some(&before), &now);
    Line::sort(&mut rows, args.view.order(), true);
    rows.truncate(if args.lines == 0 { usize::MAX } else { args.lines });
    let columns = args.view.columns();
    if format == Format::Json {
        let row = |line: &Line| {
            let pairs = columns.iter().zip(&line.values);
            pairs.map(|(column, value)| (column.key.to_owned(), value.json())).collect()
        };
        out.json(&Answer { view: args.view, seconds, rows: rows.iter().map(row).collect() })?;
        return Ok(Exit::Yes);
    }
    let mut table = Table::new(columns.iter().map(|column| match column.is_number() {
        true => Cell::right(column.title),
        false => Cell::from(column.title),
    }));
    for line in &rows {
        table.row(line.values.iter().map(|value| match value {
            Value::Word(word) => Cell::from(word.as_str()),
            Value::Number(_) => Cell::right(value.text()),
        }));
    }
    out.table(&table)?;
    Ok(Exit::Yes)
}
