//! Requests to the running service, whose responses are printed as tables or JSON.

use std::{
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
};

use gjallar::{
    admin::AdminRequest,
    runtime::{RunError, store_tools},
};
use jid::Jid;
use serde_json::Value;

use super::{
    CliError, ServiceStoreArgs, print,
    table::{details, shown, table, text, value},
};

/// Arguments of a request to the running service.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServiceArgs {
    #[command(flatten)]
    pub(super) at: ServiceStoreArgs,
    /// Act as this JID [default: the service]
    #[arg(long = "as", value_name = "JID")]
    pub(super) actor: Option<Jid>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(super) json: bool,
}

impl ServiceArgs {
    /// Sends a request, passes each line of the response except the last to `show`, and returns the result in the last
    /// line.
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

    /// Sends a request as [`ask`](Self::ask) does, until `show` returns `Break`.
    pub(super) fn watch(
        &self,
        request: AdminRequest,
        show: impl FnMut(Value) -> ControlFlow<()>,
    ) -> Result<Value, CliError> {
        let mut client = store_tools::client(&self.at.config()?)?;
        Ok(client.ask(self.actor.clone(), request, show).map_err(RunError::from)?)
    }

    /// Sends a request for a change, and prints its result: as JSON, or as the text that `done` returns.
    pub(super) fn act(
        &self,
        request: AdminRequest,
        done: impl Fn(&Value) -> String,
    ) -> Result<(), CliError> {
        let answer = self.ask(request, |_| ())?;
        if self.json { self.show(&answer) } else { print(&format!("{}\n", done(&answer))) }
    }

    /// Prints a list: as JSON with one object per line, or as a table with the columns `columns`.
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

    /// Prints one object: as JSON, or as a table with one value per line.
    pub(super) fn one(&self, request: AdminRequest) -> Result<(), CliError> {
        let thing = self.ask(request, |_| ())?;
        if self.json {
            return self.show(&thing);
        }
        print(&shown(details(&thing)))
    }

    pub(super) fn show(&self, value: &Value) -> Result<(), CliError> {
        print(&format!("{value}\n"))
    }
}

/// Prints the metrics: a table on a terminal, OpenMetrics text elsewhere.
pub(super) fn stats(at: &ServiceArgs) -> Result<(), CliError> {
    if at.json || io::stdout().is_terminal() {
        return at.list(AdminRequest::Figures, &["name", "value", "meaning"]);
    }
    let text = at.ask(AdminRequest::Stats, |_| ())?;
    print(text.as_str().unwrap_or_default())
}

/// Asks on the terminal for a name; returns `true` if the input is this name.
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
