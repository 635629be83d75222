//! Commands `gjallar entity …`.

use clap::Subcommand;
use gjallar::admin::AdminRequest;
use jid::BareJid;
use serde_json::json;

use super::{
    CliError,
    control::{ServiceArgs, confirmed},
    table::value,
};

#[derive(Debug, Subcommand)]
pub(super) enum EntitySubcommand {
    /// Show the affiliations and subscriptions of a JID
    #[command(after_help = "\
Examples:
  gjallar entity show alice@example.org")]
    Show {
        #[command(flatten)]
        at: ServiceArgs,
        /// Bare JID
        jid: BareJid,
    },
    /// Print all data of a JID as JSON, first the entity and then one item per line
    #[command(after_help = "\
Examples:
  gjallar entity export alice@example.org > alice.json")]
    Export {
        #[command(flatten)]
        at: ServiceArgs,
        /// Bare JID
        jid: BareJid,
    },
    /// Delete all data of a JID, including the nodes that it alone owns
    #[command(after_help = "\
Examples:
  gjallar entity erase alice@example.org")]
    Erase {
        #[command(flatten)]
        at: ServiceArgs,
        /// Bare JID
        jid: BareJid,
        /// Delete without confirmation
        #[arg(long)]
        yes: bool,
    },
}

impl EntitySubcommand {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Self::Show { at, jid } => at.one(AdminRequest::Entity { jid }),
            Self::Export { at, jid } => {
                let entity = at.ask(AdminRequest::Entity { jid: jid.clone() }, |_| ())?;
                at.show(&json!({ "entity": entity }))?;
                let at = ServiceArgs { json: true, ..at };
                at.list(AdminRequest::ItemsOf { jid }, &[])
            }
            Self::Erase { at, jid, yes } => {
                let question = format!("Type the JID to erase everything of {jid}:");
                if !yes && !confirmed(&question, jid.as_str())? {
                    return Err(CliError::Argument("not erased".into()));
                }
                at.act(AdminRequest::Erase { jid }, |done| {
                    let count = |what| value(done, what);
                    format!(
                        "erased: {} nodes, {} affiliations, {} subscriptions, {} items",
                        count("nodes"),
                        count("affiliations"),
                        count("subscriptions"),
                        count("items")
                    )
                })
            }
        }
    }
}
