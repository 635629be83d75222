//! `node …` and `announce`.

use clap::Subcommand;
use gjallar::admin::{AdminRequest, ConfigFields};

use super::{
    CliError,
    control::{ServiceArgs, confirmed, text, value},
};

#[derive(Debug, Subcommand)]
pub(super) enum NodeSubcommand {
    /// List nodes
    List {
        #[command(flatten)]
        at: ServiceArgs,
        /// A part of the name, or a pattern with * and ?, of at most 127 characters
        #[arg(default_value = "")]
        pattern: String,
    },
    /// Show all about a node
    Show {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
    },
    /// Create a node; it belongs to whom --as names
    Create {
        #[command(flatten)]
        at: ServiceArgs,
        /// Its name; without one the service chooses it
        node: Option<String>,
        /// Fields of its configuration, such as access_model=whitelist
        #[arg(long = "set", short = 's', value_name = "FIELD=VALUE", value_parser = field)]
        fields: Vec<(String, String)>,
    },
    /// Configure a node
    Configure {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
        /// Fields of its configuration, such as max_items=100
        #[arg(value_name = "FIELD=VALUE", value_parser = field, required = true)]
        fields: Vec<(String, String)>,
    },
    /// Delete a node with everything in it
    Delete {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
        /// The URI of the node to turn to instead
        #[arg(long, value_name = "URI")]
        redirect: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Remove all items of a node
    Purge {
        #[command(flatten)]
        at: ServiceArgs,
        node: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct AnnounceArgs {
    #[command(flatten)]
    at: ServiceArgs,
    node: String,
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
                let request =
                    AdminRequest::Create { node, fields: ConfigFields::from_iter(fields) };
                at.act(request, |done| text(value(done, "node")))
            }
            Self::Configure { at, node, fields } => {
                let request =
                    AdminRequest::Configure { node, fields: ConfigFields::from_iter(fields) };
                at.act(request, |_| "configured".into())
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
            format!("told: {}", value(done, "told"))
        })
    }
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be FIELD=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
