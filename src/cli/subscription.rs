//! `subscription …`

use clap::Subcommand;
use gjallar::control::Request;
use jid::Jid;

use super::{Failure, ask::AtService};

#[derive(Debug, Subcommand)]
pub(super) enum Subscription {
    /// List subscriptions
    List {
        #[command(flatten)]
        at: AtService,
        node: String,
    },
    /// Subscribe JIDs, or end their subscriptions
    Set {
        #[command(flatten)]
        at: AtService,
        node: String,
        #[arg(value_parser = ["subscribed", "none"])]
        subscription: String,
        #[arg(value_name = "JID", required = true)]
        jids: Vec<Jid>,
    },
    /// List who waits for an owner's approval
    Pending {
        #[command(flatten)]
        at: AtService,
        node: String,
    },
    /// Approve those who wait
    Approve(Decision),
    /// Refuse those who wait
    Refuse(Decision),
}

#[derive(Debug, clap::Args)]
pub(super) struct Decision {
    #[command(flatten)]
    at: AtService,
    node: String,
    #[arg(value_name = "JID", required = true)]
    jids: Vec<Jid>,
}

impl Subscription {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List { at, node } => {
                at.list(Request::Subscriptions { node }, &["jid", "subscription", "subid"])
            }
            Self::Set { at, node, subscription, jids } => {
                let number = jids.len();
                let request = Request::SetSubscriptions { node, jids, subscription };
                at.act(request, |_| format!("set: {number}"))
            }
            Self::Pending { at, node } => at.list(Request::Requests { node }, &["jid"]),
            Self::Approve(decision) => decision.make(true),
            Self::Refuse(decision) => decision.make(false),
        }
    }
}

impl Decision {
    fn make(self, allow: bool) -> Result<(), Failure> {
        let Self { at, node, jids } = self;
        let done = format!("{}: {}", if allow { "approved" } else { "refused" }, jids.len());
        at.act(Request::Authorize { node, jids, allow }, |_| done.clone())
    }
}
