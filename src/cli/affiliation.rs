//! `affiliation …`

use clap::Subcommand;
use gjallar::control::Request;
use jid::BareJid;

use super::{Failure, ask::AtService};

#[derive(Debug, Subcommand)]
pub(super) enum Affiliation {
    /// List affiliations
    List {
        #[command(flatten)]
        at: AtService,
        node: String,
    },
    /// Set the affiliation of JIDs; the last owner stays
    Set {
        #[command(flatten)]
        at: AtService,
        node: String,
        #[arg(value_parser = ["owner", "publisher", "publish-only", "member", "none", "outcast"])]
        affiliation: String,
        #[arg(value_name = "JID", required = true)]
        jids: Vec<BareJid>,
    },
}

impl Affiliation {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List { at, node } => {
                at.list(Request::Affiliations { node }, &["jid", "affiliation"])
            }
            Self::Set { at, node, affiliation, jids } => {
                let number = jids.len();
                let request = Request::SetAffiliations { node, jids, affiliation };
                at.act(request, |_| format!("set: {number}"))
            }
        }
    }
}
