//! Commands `gjallar node …` and `gjallar announce`.

use clap::Subcommand;
use gjallar::admin::{AdminRequest, config_fields};

use super::{
    CliError,
    control::{ServiceArgs, confirmed},
    table::{text, value},
};

#[derive(Debug, Subcommand)]
pub(super) enum NodeSubcommand {
    /// List nodes
    #[command(after_help = "\
Examples:
  gjallar node list
  gjallar node list 'news/*' --json")]
    List {
        #[command(flatten)]
        at: ServiceArgs,
        /// Part of the name, or a pattern with * and ? of at most 127 characters [default: all nodes]
        #[arg(default_value = "", hide_default_value = true)]
        pattern: String,
    },
    /// Show the configuration and the counts of a node
    #[command(after_help = "\
Examples:
  gjallar node show news")]
    Show {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
    },
    /// Create a node, owned by the JID given with --as
    #[command(after_help = "\
Examples:
  gjallar node create news --as alice@example.org
  gjallar node create news --set access_model=whitelist --set title='All the news'")]
    Create {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node [default: chosen by the service]
        node: Option<String>,
        /// Set a field, such as access_model=whitelist (repeat for each value of a list)
        #[arg(long = "set", short = 's', value_name = "FIELD=VALUE", value_parser = field)]
        fields: Vec<(String, String)>,
    },
    /// Change configuration fields of a node
    #[command(after_help = "\
Examples:
  gjallar node configure news max_items=100
  gjallar node configure news access_model=whitelist title='All the news'")]
    Configure {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
        /// Fields, such as max_items=100 (repeat for each value of a list)
        #[arg(value_name = "FIELD=VALUE", value_parser = field, required = true)]
        fields: Vec<(String, String)>,
    },
    /// Delete a node with its items, subscriptions and affiliations
    #[command(after_help = "\
Examples:
  gjallar node delete news
  gjallar node delete news --yes --redirect 'xmpp:pubsub.example.org?;node=stories'")]
    Delete {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
        /// Redirect later requests for the deleted node to this URI
        #[arg(long, value_name = "URI")]
        redirect: Option<String>,
        /// Delete without confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Delete all items of a node, but not the node
    #[command(after_help = "\
Examples:
  gjallar node purge news")]
    Purge {
        #[command(flatten)]
        at: ServiceArgs,
        /// Name of the node
        node: String,
        /// Delete without confirmation
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gjallar announce news 'The feed moves on Friday.'")]
pub(super) struct AnnounceArgs {
    #[command(flatten)]
    at: ServiceArgs,
    /// Name of the node
    node: String,
    /// Text of the message
    text: String,
}

impl NodeSubcommand {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Self::List { at, pattern } => {
                at.list(AdminRequest::Nodes { pattern }, &["node", "title", "access_model", "type"])
            }
            Self::Show { at, node } => at.one(AdminRequest::Node { node }),
            Self::Create { at, node, fields } => {
                let fields = config_fields(fields).map_err(CliError::Argument)?;
                let request = AdminRequest::Create { node, fields };
                at.act(request, |done| text(value(done, "node")))
            }
            Self::Configure { at, node, fields } => {
                let fields = config_fields(fields).map_err(CliError::Argument)?;
                let request = AdminRequest::Configure { node, fields };
                at.act(request, |done| match value(done, "changed").as_bool() {
                    Some(false) => "unchanged".into(),
                    _ => "configured".into(),
                })
            }
            Self::Delete { at, node, redirect, yes } => {
                let question = format!("Type the name of the node to delete {node}:");
                if !yes && !confirmed(&question, &node)? {
                    return Err(CliError::Argument("not deleted".into()));
                }
                at.act(AdminRequest::Delete { node, redirect }, |_| "deleted".into())
            }
            Self::Purge { at, node, yes } => {
                let question = format!("Type the name of the node to remove all items of {node}:");
                if !yes && !confirmed(&question, &node)? {
                    return Err(CliError::Argument("not purged".into()));
                }
                at.act(AdminRequest::Purge { node }, |_| "purged".into())
            }
        }
    }
}

impl AnnounceArgs {
    pub(super) fn run(self) -> Result<(), CliError> {
        let Self { at, node, text } = self;
        at.act(AdminRequest::Announce { node, text }, |done| {
            format!("notified: {}", value(done, "told"))
        })
    }
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be FIELD=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
