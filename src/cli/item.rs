//! `item …`

use std::io::{self, Read};

use clap::Subcommand;
use gjallar::admin::AdminRequest;

use super::{
    CliError,
    control::{ServiceArgs, text, value},
};

#[derive(Debug, Subcommand)]
pub(super) enum ItemSubcommand {
    /// List items, the newest first
    List {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
        /// How many at the most
        #[arg(long, short = 'n', default_value_t = 20)]
        max: usize,
    },
    /// Publish an item, whose payload is read from standard input
    Publish {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
        /// Its name; without one the service chooses it
        #[arg(long)]
        id: Option<String>,
        /// The payload, instead of standard input: an XML element with a namespace
        #[arg(long, value_name = "XML")]
        payload: Option<String>,
    },
    /// Retract items
    Retract {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
        #[arg(value_name = "ITEM", required_unless_present = "older_than_days")]
        items: Vec<String>,
        /// Tell subscribers in any case
        #[arg(long)]
        notify: bool,
        /// All that are older
        #[arg(long, value_name = "DAYS", conflicts_with_all = ["items", "notify"])]
        older_than_days: Option<u64>,
    },
}

impl ItemSubcommand {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Self::List { at, node, max } => {
                let columns = ["item", "publisher", "published", "payload"];
                at.list(AdminRequest::Items { node, max }, &columns)
            }
            Self::Publish { at, node, id, payload } => {
                let payload = match payload {
                    Some(payload) => payload,
                    None => {
                        let mut text = String::new();
                        io::stdin().read_to_string(&mut text)?;
                        text
                    }
                };
                at.act(AdminRequest::Publish { node, id, payload }, |done| {
                    text(value(done, "items"))
                })
            }
            Self::Retract { at, node, older_than_days: Some(days), .. } => {
                let seconds = days.saturating_mul(86_400);
                at.act(AdminRequest::RetractOlder { node, seconds }, |done| {
                    format!("retracted: {}", value(done, "retracted"))
                })
            }
            Self::Retract { at, node, items, notify, .. } => {
                let number = items.len();
                let request = AdminRequest::Retract { node, items, notify };
                at.act(request, |_| format!("retracted: {number}"))
            }
        }
    }
}
