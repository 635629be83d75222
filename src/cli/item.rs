//! Commands `gjallar item …`.

use std::io::{self, Read};

use clap::Subcommand;
use gjallar::admin::AdminRequest;

use super::{
    CliError,
    control::ServiceArgs,
    table::{text, value},
};

#[derive(Debug, Subcommand)]
pub(super) enum ItemSubcommand {
    /// List the newest items of a node, the newest first
    #[command(after_help = "\
Examples:
  gjallar item list news
  gjallar item list news --max 100 --json")]
    List {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
        /// List at most this many items
        #[arg(long, short = 'n', default_value_t = 20)]
        max: usize,
    },
    /// Publish an item
    #[command(after_help = "\
Examples:
  gjallar item publish news < item.xml
  gjallar item publish news --id 1 --payload \"<x xmlns='urn:example'/>\"")]
    Publish {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
        /// Publish under this item id [default: chosen by the service]
        #[arg(long)]
        id: Option<String>,
        /// Publish this XML element, which needs a namespace [default: standard input]
        #[arg(long, value_name = "XML")]
        payload: Option<String>,
    },
    /// Delete items of a node by id or by age
    #[command(after_help = "\
Examples:
  gjallar item retract news 1 2
  gjallar item retract news --older-than-days 30")]
    Retract {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
        /// Ids of the items
        #[arg(value_name = "ITEM", required_unless_present = "older_than_days")]
        items: Vec<String>,
        /// Notify subscribers even if the node is configured not to
        #[arg(long)]
        notify: bool,
        /// Delete all items that are older than this many days
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
