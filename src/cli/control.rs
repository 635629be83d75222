//! Asking the running service, and showing what it answers: tables for people, JSON for scripts.

use std::{
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
};

use comfy_table::{Table, presets};
use gjallar::{
    admin::AdminRequest,
    runtime::{RunError, store_tools},
};
use jid::Jid;
use serde_json::Value;

use super::{CliError, StoreArgs, print};

/// Where the running service is, and how its answers are shown.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServiceArgs {
    #[command(flatten)]
    pub(super) at: StoreArgs,
    /// In whose name; without it, in that of the service
    #[arg(long = "as", value_name = "JID")]
    pub(super) actor: Option<Jid>,
    /// Print JSON: of a list an object in each line
    #[arg(long)]
    pub(super) json: bool,
}

impl ServiceArgs {
    /// What the answer ends with; its lines are shown one by one.
    pub(super) fn ask(
        &self,
        request: AdminRequest,
        mut show: impl FnMut(Value),
    ) -> Result<Value, CliError> {
        self.watch(request, |line| {
            show(line);
            ControlFlow::Continue(())
        })
    }

    /// The same, as long as more lines are wanted.
    pub(super) fn watch(
        &self,
        request: AdminRequest,
        show: impl FnMut(Value) -> ControlFlow<()>,
    ) -> Result<Value, CliError> {
        let mut client = store_tools::client(&self.at.config()?)?;
        Ok(client.ask(self.actor.clone(), request, show).map_err(RunError::from)?)
    }

    /// Has something done, and says so.
    pub(super) fn act(
        &self,
        request: AdminRequest,
        done: impl Fn(&Value) -> String,
    ) -> Result<(), CliError> {
        let answer = self.ask(request, |_| ())?;
        if self.json { self.show(&answer) } else { print(&format!("{}\n", done(&answer))) }
    }

    /// Shows a list: of each entry these values.
    pub(super) fn list(&self, request: AdminRequest, columns: &[&str]) -> Result<(), CliError> {
        if self.json {
            let mut written = Ok(());
            self.ask(request, |entry| {
                if written.is_ok() {
                    written = self.show(&entry);
                }
            })?;
            return written;
        }
        let mut table = table(columns);
        self.ask(request, |entry| {
            table.add_row(columns.iter().map(|column| text(value(&entry, column))));
        })?;
        print(&shown(table))
    }

    /// Shows one thing, each value in a line.
    pub(super) fn one(&self, request: AdminRequest) -> Result<(), CliError> {
        let thing = self.ask(request, |_| ())?;
        if self.json {
            return self.show(&thing);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        rows(&mut table, "", &thing);
        print(&shown(table))
    }

    pub(super) fn show(&self, value: &Value) -> Result<(), CliError> {
        print(&format!("{value}\n"))
    }
}

/// What is counted: as a table, or as OpenMetrics text where a program reads it.
pub(super) fn stats(at: &ServiceArgs) -> Result<(), CliError> {
    if at.json || io::stdout().is_terminal() {
        return at.list(AdminRequest::Figures, &["name", "value", "meaning"]);
    }
    let text = at.ask(AdminRequest::Stats, |_| ())?;
    print(text.as_str().unwrap_or_default())
}

/// Returns `true` if somebody types a name who was asked to.
pub(super) fn confirmed(question: &str, name: &str) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::Argument("confirmation required: repeat with --yes".into()));
    }
    eprint!("{question} ");
    io::stderr().flush()?;
    let mut typed = String::new();
    io::stdin().read_line(&mut typed)?;
    Ok(typed.trim_end_matches(['\r', '\n']) == name)
}

/// A value of an object; null if it is not there.
pub(super) fn value<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

pub(super) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|column| column.to_uppercase()));
    table
}

/// A table as it is printed: columns two spaces apart.
pub(super) fn shown(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    format!("{}\n", table.trim_fmt())
}

/// Plain values first, then what has values of its own.
fn rows(table: &mut Table, prefix: &str, thing: &Value) {
    let (nested, plain): (Vec<_>, Vec<_>) =
        thing.as_object().into_iter().flatten().partition(|(_, of)| is_nested(of));
    for (name, of) in plain.into_iter().chain(nested) {
        let name = name.strip_prefix("pubsub#").unwrap_or(name);
        let name = format!("{prefix}{name}");
        match of {
            Value::Object(_) => rows(table, &format!("{name} "), of),
            Value::Array(entries) if is_nested(of) => {
                for entry in entries {
                    let values = entry.as_object().into_iter().flatten().map(|(_, of)| text(of));
                    table.add_row([name.clone(), values.collect::<Vec<_>>().join(" ")]);
                }
            }
            of => {
                table.add_row([name, text(of)]);
            }
        }
    }
}

fn is_nested(of: &Value) -> bool {
    match of {
        Value::Array(entries) => entries.iter().any(Value::is_object),
        of => of.is_object(),
    }
}

/// A value as people read it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => readable(text),
        Value::Array(entries) => entries.iter().map(text).collect::<Vec<_>>().join(", "),
        other => readable(&other.to_string()),
    }
}

/// A text without what could steer a terminal.
pub(super) fn readable(text: &str) -> String {
    let is_steering = |c: char| c.is_control() && c != '\n';
    text.chars().map(|c| if is_steering(c) { '\u{fffd}' } else { c }).collect()
}
