//! Commands `gjallar affiliation …`.

use clap::Subcommand;
use gjallar::admin::AdminRequest;
use jid::BareJid;

use super::{CliError, control::ServiceArgs};

#[derive(Debug, Subcommand)]
pub(super) enum AffiliationSubcommand {
    /// List the affiliations of a node
    #[command(after_help = "\
Examples:
  gjallar affiliation list news")]
    List {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
    },
    /// Set the affiliation of JIDs at a node, which must keep at least one owner
    #[command(after_help = "\
Examples:
  gjallar affiliation set news publisher bot@example.org
  gjallar affiliation set news outcast mallory@example.net eve@example.net")]
    Set {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
        /// Affiliation of the JIDs
        #[arg(value_parser = ["owner", "publisher", "publish-only", "member", "none", "outcast"])]
        affiliation: String,
        /// Bare JIDs
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
