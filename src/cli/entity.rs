//! `entity …`

use clap::Subcommand;
use gjallar::admin::AdminRequest;
use jid::BareJid;
use serde_json::json;

use super::{
    CliError,
    control::{ServiceArgs, confirmed, value},
};

#[derive(Debug, Subcommand)]
pub(super) enum EntitySubcommand {
    /// Show the affiliations and subscriptions of a JID
    Show {
        #[command(flatten)]
        at: ServiceArgs,
        jid: BareJid,
    },
    /// Print everything that the service has of a JID, as JSON: what it is, and its items in a line each
    Export {
        #[command(flatten)]
        at: ServiceArgs,
        jid: BareJid,
    },
    /// Erase everything that the service has of a JID, with the nodes that it owns alone
    Erase {
        #[command(flatten)]
        at: ServiceArgs,
        jid: BareJid,
        /// Do not ask
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
