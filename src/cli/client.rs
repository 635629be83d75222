//! Commands `gjallar client …`: log in with an XMPP account, and publish or subscribe at any pubsub service.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use clap::Subcommand;
use gjallar::{
    client::{self, Account, ClientError, Event, EventKind, Item},
    runtime::print_warnings,
};
use jid::Jid;
use serde_json::{Value, json};

use super::{
    CliError, print,
    table::{readable, shown, table},
};

#[derive(Debug, Subcommand)]
pub(super) enum ClientSubcommand {
    /// Subscribe to nodes and print their events
    ///
    /// The account must have no other program that reads messages: this command receives all messages of the account,
    /// including those that the server has stored, and drops everything except events. The other commands receive no
    /// messages.
    #[command(after_help = "\
Examples:
  gjallar client subscribe news --jid alice@example.org --service pubsub.example.org \\
      --password-file password
  gjallar client subscribe news blog --json --number 10 --jid alice@example.org \\
      --service pubsub.example.org --server localhost:5222")]
    Subscribe {
        #[command(flatten)]
        login: LoginArgs,
        /// Names of the nodes
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<String>,
        /// Exit after this many events [default: never]
        #[arg(long, short = 'n', value_name = "EVENTS")]
        number: Option<usize>,
    },
    /// Delete the account's subscription to a node
    #[command(after_help = "\
Examples:
  gjallar client unsubscribe news --jid alice@example.org --service pubsub.example.org")]
    Unsubscribe {
        #[command(flatten)]
        login: LoginArgs,
        /// Name of the node
        node: String,
    },
    /// Publish an item
    #[command(after_help = "\
Examples:
  gjallar client publish news --jid bot@example.org --service pubsub.example.org \\
      --password-file password < item.xml
  gjallar client publish news --id 1 --payload \"<x xmlns='urn:example'/>\" \\
      --jid bot@example.org --service pubsub.example.org --server localhost:5222")]
    Publish {
        #[command(flatten)]
        login: LoginArgs,
        /// Name of the node
        node: String,
        /// Publish under this item id [default: chosen by the service]
        #[arg(long)]
        id: Option<String>,
        /// Publish this XML element, which needs a namespace [default: standard input]
        #[arg(long, value_name = "XML")]
        payload: Option<String>,
    },
    /// Delete an item of a node
    #[command(after_help = "\
Examples:
  gjallar client retract news 1 --jid bot@example.org --service pubsub.example.org")]
    Retract {
        #[command(flatten)]
        login: LoginArgs,
        /// Name of the node
        node: String,
        /// Id of the item
        item: String,
    },
    /// List the newest items of a node
    #[command(after_help = "\
Examples:
  gjallar client items news --max 5 --jid alice@example.org --service pubsub.example.org")]
    Items {
        #[command(flatten)]
        login: LoginArgs,
        /// Name of the node
        node: String,
        /// List at most this many items
        #[arg(long, short = 'n', default_value_t = 20)]
        max: u32,
    },
    /// Create a node
    #[command(after_help = "\
Examples:
  gjallar client create news --jid alice@example.org --service pubsub.example.org")]
    Create {
        #[command(flatten)]
        login: LoginArgs,
        /// Name of the node [default: chosen by the service]
        node: Option<String>,
    },
    /// Delete a node with its items and subscriptions
    #[command(after_help = "\
Examples:
  gjallar client delete news --jid alice@example.org --service pubsub.example.org")]
    Delete {
        #[command(flatten)]
        login: LoginArgs,
        /// Name of the node
        node: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct LoginArgs {
    /// Log in with this account
    #[arg(long, env = "GJALLAR_CLIENT_JID")]
    jid: Jid,
    /// Send the requests to this pubsub service
    #[arg(long, env = "GJALLAR_CLIENT_SERVICE")]
    service: Jid,
    /// Log in with this password (safer in the environment or in a file)
    #[arg(long, env = "GJALLAR_CLIENT_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,
    /// Connect to this server, without TLS if it is on the same machine [default: from DNS]
    #[arg(long, value_name = "HOST:PORT", env = "GJALLAR_CLIENT_SERVER")]
    server: Option<String>,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

impl ClientSubcommand {
    pub(super) fn run(self) -> Result<(), CliError> {
        print_warnings();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.work())
    }

    async fn work(self) -> Result<(), CliError> {
        match self {
            Self::Subscribe { login, nodes, number } => {
                let mut client = login.connect().await?;
                for node in &nodes {
                    client.subscribe(node).await?;
                }
                for _ in 0..number.unwrap_or(usize::MAX) {
                    let event = client.event().await.ok_or(ClientError::Lost)?;
                    login.show(&event)?;
                }
                Ok(())
            }
            Self::Unsubscribe { login, node } => {
                login.connect().await?.unsubscribe(&node).await?;
                login.print_change("node", &node)
            }
            Self::Publish { login, node, id, payload } => {
                let payload = match payload {
                    Some(payload) => payload,
                    None => {
                        let mut text = String::new();
                        io::stdin().read_to_string(&mut text)?;
                        text
                    }
                };
                let id = login.connect().await?.publish(&node, id.as_deref(), &payload).await?;
                login.print_change("item", &id)
            }
            Self::Retract { login, node, item } => {
                login.connect().await?.retract(&node, &item).await?;
                login.print_change("item", &item)
            }
            Self::Items { login, node, max } => {
                let items = login.connect().await?.items(&node, max).await?;
                login.list(&items)
            }
            Self::Create { login, node } => {
                let node = login.connect().await?.create(node.as_deref()).await?;
                login.print_change("node", &node)
            }
            Self::Delete { login, node } => {
                login.connect().await?.delete(&node).await?;
                login.print_change("node", &node)
            }
        }
    }
}

impl LoginArgs {
    async fn connect(&self) -> Result<client::Client, CliError> {
        let password = match (&self.password, &self.password_file) {
            (Some(password), _) => password.clone(),
            (None, Some(file)) => {
                fs::read_to_string(file)?.lines().next().unwrap_or_default().to_owned()
            }
            (None, None) => {
                let missing = "a password is required: GJALLAR_CLIENT_PASSWORD or --password-file";
                return Err(CliError::Argument(missing.into()));
            }
        };
        let account = Account::new(self.jid.clone(), &password);
        let account = match &self.server {
            Some(server) => account.at(server),
            None => account,
        };
        Ok(client::Client::connect(account, self.service.clone()).await?)
    }

    /// Prints the name of the changed node or item.
    fn print_change(&self, what: &str, name: &str) -> Result<(), CliError> {
        match self.json {
            true => print(&format!("{}\n", json!({ what: name }))),
            false => print(&format!("{}\n", readable(name))),
        }
    }

    fn list(&self, items: &[Item]) -> Result<(), CliError> {
        if self.json {
            return items.iter().try_for_each(|item| print(&format!("{}\n", object(item))));
        }
        let mut table = table(&["item", "publisher", "payload"]);
        for Item { id, publisher, payload } in items {
            let optional = |text: &Option<String>| readable(text.as_deref().unwrap_or_default());
            table.add_row([readable(id), optional(publisher), optional(payload)]);
        }
        print(&shown(table))
    }

    fn show(&self, event: &Event) -> Result<(), CliError> {
        let Event { node, what, since, place } = event;
        let (name, item) = match what {
            EventKind::Configured => ("configured", Value::Null),
            EventKind::Deleted(redirect) => ("deleted", json!({ "redirect": redirect })),
            EventKind::Published(item) => ("published", item.as_ref().map_or(Value::Null, object)),
            EventKind::Purged => ("purged", Value::Null),
            EventKind::Retracted(id) => ("retracted", json!({ "item": id })),
            EventKind::Subscription(state) => ("subscription", json!({ "subscription": state })),
        };
        if self.json {
            let event = json!({
                "node": node, "event": name, "content": item, "since": since, "place": place,
            });
            return print(&format!("{event}\n"));
        }
        let details = match what {
            EventKind::Published(Some(item)) => {
                format!(" {} {}", item.id, item.payload.as_deref().unwrap_or_default())
            }
            EventKind::Retracted(text) | EventKind::Subscription(text) => format!(" {text}"),
            EventKind::Deleted(Some(uri)) => format!(" {uri}"),
            _ => String::new(),
        };
        print(&format!("{}\n", readable(&format!("{node}: {name}{details}"))))
    }
}

fn object(item: &Item) -> Value {
    let Item { id, publisher, payload } = item;
    json!({ "item": id, "publisher": publisher, "payload": payload })
}
