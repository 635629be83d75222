//! `affiliation …`

use clap::Subcommand;
use gjallar::admin::AdminRequest;
use jid::BareJid;

use super::{CliError, control::ServiceArgs};

#[derive(Debug, Subcommand)]
pub(super) enum AffiliationSubcommand {
    /// List affiliations
    List {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
    },
    /// Set the affiliation of JIDs; the last owner stays
    Set {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
        #[arg(value_parser = ["owner", "publisher", "publish-only", "member", "none", "outcast"])]
        affiliation: String,
        #[arg(value_name = "JID", required = true)]
        jids: Vec<BareJid>,
    },
}

impl AffiliationSubcommand {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Self::List { at, node } => {
                at.list(AdminRequest::Affiliations { node }, &["jid", "affiliation"])
            }
            Self::Set { at, node, affiliation, jids } => {
                let number = jids.len();
                let request = AdminRequest::SetAffiliations { node, jids, affiliation };
                at.act(request, |_| format!("set: {number}"))
            }
        }
    }
}
