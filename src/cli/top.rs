//! Command `gjallar top`: metrics of the running service, once per second.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
};

use gjallar::admin::AdminRequest;
use serde_json::Value;

use super::{
    CliError,
    control::ServiceArgs,
    table::{shown, table, text, value},
};

/// Control sequence that clears a terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gjallar top
  gjallar top --seconds 60 --json")]
pub(super) struct TopArgs {
    #[command(flatten)]
    at: ServiceArgs,
    /// Exit after this many seconds [default: never]
    #[arg(long, short = 'n', value_name = "SECONDS")]
    seconds: Option<u64>,
}

impl TopArgs {
    pub(super) fn run(self) -> Result<(), CliError> {
        let (mut times, mut before) = (0, None);
        let mut broken = None;
        let mut show = |now: Value| {
            let text = match self.at.json {
                true => format!("{now}\n"),
                false => page(&now, before.as_ref()),
            };
            before = Some(now);
            let mut out = io::stdout().lock();
            broken = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
            times += 1;
            // The first page has no rates.
            match broken.is_some() || self.seconds.is_some_and(|seconds| times > seconds) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        self.at.watch(AdminRequest::Top, &mut show)?;
        broken.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn page(now: &Value, before: Option<&Value>) -> String {
    let number =
        |of: &Value, name: &str| value(value(of, "figures"), name).as_u64().unwrap_or_default();
    let figure = |name| number(now, name);
    let rate = |name| before.map_or(0, |before| figure(name).saturating_sub(number(before, name)));
    let mut page = String::new();
    if io::stdout().is_terminal() {
        page.push_str(CLEAR);
    }
    let link = if figure("link_up") == 1 { "connected" } else { "NOT CONNECTED" };
    // Writing to a string does not fail.
    let _ = writeln!(
        page,
        "link {link} · nodes {} · backlog {} events, {} notifications, {} bytes · notifications {}/s · \
         bounces {}/s",
        figure("nodes"),
        figure("log_backlog_entries"),
        figure("log_backlog_notifications"),
        figure("log_backlog_bytes"),
        rate("notifications_acknowledged"),
        rate("notification_bounces"),
    );
    let mut table = table(&["events/s", "node"]);
    for node in value(now, "busiest").as_array().into_iter().flatten() {
        table.add_row([text(value(node, "events")), text(value(node, "node"))]);
    }
    let _ = writeln!(page, "{}", shown(table));
    page
}
