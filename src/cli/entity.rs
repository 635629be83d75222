//! `entity …`

use clap::Subcommand;
use gjallar::control::Request;
use jid::BareJid;
use serde_json::json;

use super::{
    Failure,
    ask::{AtService, confirmed, value},
};

#[derive(Debug, Subcommand)]
pub(super) enum Entity {
    /// Show the affiliations and subscriptions of a JID
    Show {
        #[command(flatten)]
        at: AtService,
        jid: BareJid,
    },
    /// Print everything that the service has of a JID, as JSON: what it is, and its items in a line each
    Export {
        #[command(flatten)]
        at: AtService,
        jid: BareJid,
    },
    /// Erase everything that the service has of a JID, with the nodes that it owns alone
    Erase {
        #[command(flatten)]
        at: AtService,
        jid: BareJid,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

impl Entity {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Show { at, jid } => at.one(Request::Entity { jid }),
            Self::Export { at, jid } => {
                let entity = at.ask(Request::Entity { jid: jid.clone() }, |_| ())?;
                at.show(&json!({ "entity": entity }))?;
                let at = AtService { json: true, ..at };
                at.list(Request::ItemsOf { jid }, &[])
            }
            Self::Erase { at, jid, yes } => {
                let question = format!("Type the JID to erase everything of {jid}:");
                if !yes && !confirmed(&question, jid.as_str())? {
                    return Err(Failure::Argument("not erased".into()));
                }
                at.act(Request::Erase { jid }, |done| {
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
