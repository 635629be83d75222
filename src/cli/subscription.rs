//! Commands `gjallar subscription …`.

use clap::Subcommand;
use gjallar::admin::AdminRequest;
use jid::Jid;

use super::{CliError, control::ServiceArgs, table::value};

#[derive(Debug, Subcommand)]
pub(super) enum SubscriptionSubcommand {
    /// List the subscriptions of a node
    #[command(after_help = "\
Examples:
  gjallar subscription list news")]
    List {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
    },
    /// Subscribe JIDs to a node (subscribed), or delete their subscriptions (none)
    #[command(after_help = "\
Examples:
  gjallar subscription set news subscribed alice@example.org bob@example.org
  gjallar subscription set news none alice@example.org")]
    Set {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
        /// State of the subscriptions
        #[arg(value_parser = ["subscribed", "none"])]
        subscription: String,
        /// JIDs of the subscribers
        #[arg(value_name = "JID", required = true)]
        jids: Vec<Jid>,
    },
    /// List the subscription requests that wait for the approval of an owner
    #[command(after_help = "\
Examples:
  gjallar subscription pending news")]
    Pending {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
    },
    /// Approve pending subscription requests
    #[command(after_help = "\
Examples:
  gjallar subscription approve news alice@example.org")]
    Approve(ApprovalArgs),
    /// Refuse pending subscription requests
    #[command(after_help = "\
Examples:
  gjallar subscription refuse news mallory@example.net")]
    Refuse(ApprovalArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ApprovalArgs {
    #[command(flatten)]
    at: ServiceArgs,
    /// Name of the node
    node: String,
    /// JIDs that requested a subscription
    #[arg(value_name = "JID", required = true)]
    jids: Vec<Jid>,
}

impl SubscriptionSubcommand {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Self::List { at, node } => {
                at.list(AdminRequest::Subscriptions { node }, &["jid", "subscription", "subid"])
            }
            Self::Set { at, node, subscription, jids } => {
                let number = jids.len();
                let request = AdminRequest::SetSubscriptions { node, jids, subscription };
                at.act(request, |_| format!("set: {number}"))
            }
            Self::Pending { at, node } => at.list(AdminRequest::Requests { node }, &["jid"]),
            Self::Approve(decision) => decision.make(true),
            Self::Refuse(decision) => decision.make(false),
        }
    }
}

impl ApprovalArgs {
    fn make(self, allow: bool) -> Result<(), CliError> {
        let Self { at, node, jids } = self;
        let done = if allow { "approved" } else { "refused" };
        let request = AdminRequest::Authorize { node, jids, allow };
        at.act(request, |answer| format!("{done}: {}", value(answer, "decided")))
    }
}
