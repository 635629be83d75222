//! `subscription …`

use clap::Subcommand;
use gjallar::admin::AdminRequest;
use jid::Jid;

use super::{
    CliError,
    control::{ServiceArgs, value},
};

#[derive(Debug, Subcommand)]
pub(super) enum SubscriptionSubcommand {
    /// List subscriptions
    List {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
    },
    /// Subscribe JIDs, or end their subscriptions
    Set {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
        #[arg(value_parser = ["subscribed", "none"])]
        subscription: String,
        #[arg(value_name = "JID", required = true)]
        jids: Vec<Jid>,
    },
    /// List who waits for an owner's approval
    Pending {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
    },
    /// Approve those who wait
    Approve(ApprovalArgs),
    /// Refuse those who wait
    Refuse(ApprovalArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ApprovalArgs {
    #[command(flatten)]
    at: ServiceArgs,
    node: String,
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
