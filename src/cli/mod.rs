//! The command line: arguments to work, and its end to an exit code.

mod affiliation;
mod client;
mod control;
mod doctor;
mod entity;
mod generate;
mod item;
mod node;
mod serve;
mod store;
mod subscription;
mod top;

use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use gjallar::{
    client::ClientError,
    config::{Config, ConfigError},
    migrate::MigrationError,
    migrate::archive::ArchiveError,
    runtime::{RunError, with_causes},
};

use self::control::ServiceArgs;

/// A standalone publish-subscribe service (XEP-0060) for any XMPP server.
#[derive(Debug, Parser)]
#[command(name = "gjallar", version, about, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Connect to the server and serve until SIGTERM or SIGINT
    Serve(ConfigArgs),
    /// Say whether the configuration is in order, without starting anything
    CheckConfig(ConfigArgs),
    /// Compare everything in a store: checksums, indexes, counts
    ///
    /// If a service runs at the store, a copy is compared that it makes between two commits.
    Check(StoreArgs),
    /// Write everything in a store to standard output, as text
    ///
    /// If a service runs at the store, a copy is written that it makes between two commits.
    Export(StoreArgs),
    /// Fill an empty store with what was exported, from standard input, or with what another service kept
    Import(store::Import),
    /// Try whether the server offers what the service relies on
    ///
    /// If a service runs at the store, it tries that on its own connection.
    Doctor(doctor::Examination),
    /// Work at a store that no service has open
    #[command(subcommand)]
    Store(store::Store),
    /// Nodes of the running service
    #[command(subcommand)]
    Node(node::NodeSubcommand),
    /// Items of a node
    #[command(subcommand)]
    Item(item::ItemSubcommand),
    /// Affiliations at a node
    #[command(subcommand)]
    Affiliation(affiliation::AffiliationSubcommand),
    /// Subscriptions at a node, and requests for them
    #[command(subcommand)]
    Subscription(subscription::SubscriptionSubcommand),
    /// Everything of a JID
    #[command(subcommand)]
    Entity(entity::EntitySubcommand),
    /// Say something to all subscribers of a node
    Announce(node::AnnounceArgs),
    /// Publish and subscribe with an account, at a service of any kind
    ///
    /// Elements with a name or a namespace of more than 8 192 bytes cannot be received: an answer that has one fails, and an event lacks the element.
    #[command(subcommand)]
    Client(client::ClientSubcommand),
    /// Show what the running service counts
    Stats(ServiceArgs),
    /// Watch the running service: link, backlog, and the busiest nodes
    Top(top::Top),
    /// Print completions for a shell
    Completions(generate::Completions),
    /// Write man pages into a folder
    Man(generate::Man),
}

#[derive(Clone, Debug, clap::Args)]
struct StoreArgs {
    #[command(flatten)]
    source: ConfigArgs,
    /// The store, such as sled:PATH; without it, the configured one
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
struct ConfigArgs {
    /// The configuration file; without it, only the environment counts
    #[arg(long, short, value_name = "FILE", env = "GJALLAR_CONFIG")]
    config: Option<PathBuf>,
}

impl StoreArgs {
    fn config(&self) -> Result<Config, ConfigError> {
        let config = Config::load(self.source.config.as_deref())?;
        Ok(match &self.store {
            Some(store) => Config { store: store.clone(), ..config },
            None => config,
        })
    }
}

const AFTER_HELP: &str = "\
The shortest start needs no file:

  GJALLAR_JID=pubsub.example.org     the component's JID, as the server knows it
  GJALLAR_SERVER=localhost:5347      the server's component port
  GJALLAR_SECRET=...                 what the server expects (or GJALLAR_SECRET_FILE)
  GJALLAR_STORE=sled:PATH            where nodes are kept; by default in the state
                                     directory; memory: keeps nothing
  GJALLAR_ADMINS=a@example.org,...   who administers the service
  gjallar serve

Every key of the configuration file has such a variable: GJALLAR_LIMITS_MAX_ITEMS is
max_items in [limits]. A variable outweighs the file. config/gjallar.toml and
docs/CONFIGURATION.md explain every key.

Exit codes: 0 done, or stopped in order; 2 wrong arguments or configuration; 3 the
store cannot be opened or is damaged; 4 doctor found something degraded; 1 anything
else, such as what a service refuses.";

/// Does what the arguments say.
pub(crate) fn run() -> ExitCode {
    let done = match Cli::parse().command {
        CliCommand::Serve(source) => return serve::serve(&source),
        CliCommand::CheckConfig(source) => serve::check(&source),
        CliCommand::Check(at) => store::check(&at),
        CliCommand::Export(at) => store::export(&at),
        CliCommand::Import(import) => import.run(),
        CliCommand::Doctor(doctor) => doctor.run(),
        CliCommand::Store(store) => store.run(),
        CliCommand::Node(node) => node.run(),
        CliCommand::Item(item) => item.run(),
        CliCommand::Affiliation(affiliation) => affiliation.run(),
        CliCommand::Subscription(subscription) => subscription.run(),
        CliCommand::Entity(entity) => entity.run(),
        CliCommand::Announce(announce) => announce.run(),
        CliCommand::Client(client) => client.run(),
        CliCommand::Stats(at) => control::stats(&at),
        CliCommand::Top(top) => top.run(),
        CliCommand::Completions(completions) => completions.run(),
        CliCommand::Man(man) => man.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads has enough.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => exit_with(failure.code(), &failure),
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Argument(String),
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    Degraded(String),
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Run(error.into())
    }
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            Self::Argument(_) | Self::Run(RunError::Config(_)) => 2,
            Self::Damaged(_)
            | Self::Run(
                RunError::Store { .. }
                | RunError::Archive(ArchiveError::Store(_))
                | RunError::Foreign(MigrationError::Archive(ArchiveError::Store(_))),
            ) => 3,
            Self::Run(RunError::Archive(_) | RunError::Control(_) | RunError::Foreign(_))
            | Self::Client(_)
            | Self::Failed(_)
            | Self::Output(_) => 1,
            Self::Degraded(_) => 4,
        }
    }
}

fn exit_with(code: u8, error: &dyn Error) -> ExitCode {
    eprintln!("gjallar: {}", with_causes(error));
    ExitCode::from(code)
}

/// Prints a text.
fn print(text: &str) -> Result<(), CliError> {
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_of_every_command_are_in_order() {
        Cli::command().debug_assert();
    }
}
