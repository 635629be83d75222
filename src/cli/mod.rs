//! The command line: parses the arguments, runs the command, and returns its exit code.

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
mod table;
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

/// Standalone publish-subscribe service (XEP-0060) for any XMPP server
#[derive(Debug, Parser)]
#[command(name = "gjallar", version, about, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: CliSubcommand,
}

#[derive(Debug, Subcommand)]
enum CliSubcommand {
    /// Connect to the server and serve until SIGTERM or SIGINT
    #[command(after_help = "\
Examples:
  gjallar serve
  gjallar serve --config /etc/gjallar/gjallar.toml")]
    Serve(ConfigArgs),
    /// Check the configuration without starting the service
    #[command(after_help = "\
Examples:
  gjallar check-config --config /etc/gjallar/gjallar.toml")]
    CheckConfig(ConfigArgs),
    /// Check the checksums, indexes and counts of a store
    ///
    /// If a service is running on the store, the check reads a copy that the service makes between two commits.
    #[command(after_help = "\
Examples:
  gjallar check --config /etc/gjallar/gjallar.toml
  gjallar check --store sled:/var/lib/gjallar/store")]
    Check(StoreArgs),
    /// Export a store to standard output as text
    ///
    /// If a service is running on the store, the export reads a copy that the service makes between two commits.
    #[command(after_help = "\
Examples:
  gjallar export --store sled:/var/lib/gjallar/store > backup
  gjallar export --config /etc/gjallar/gjallar.toml | gzip > backup.gz")]
    Export(StoreArgs),
    /// Import an export, or the data of another service, into an empty store
    Import(store::ImportArgs),
    /// Check that the server meets the requirements of gjallar
    ///
    /// If a service is running on the store, the service tests its own connection.
    Doctor(doctor::DoctorArgs),
    /// Maintain a store that no service has open
    #[command(subcommand)]
    Store(store::StoreSubcommand),
    /// Manage the nodes of the running service
    #[command(subcommand)]
    Node(node::NodeSubcommand),
    /// Manage the items of a node
    #[command(subcommand)]
    Item(item::ItemSubcommand),
    /// Manage the affiliations of a node
    #[command(subcommand)]
    Affiliation(affiliation::AffiliationSubcommand),
    /// Manage the subscriptions of a node and pending requests
    #[command(subcommand)]
    Subscription(subscription::SubscriptionSubcommand),
    /// Show, export or erase the data of a JID
    #[command(subcommand)]
    Entity(entity::EntitySubcommand),
    /// Send a text message to the subscribers of a node
    Announce(node::AnnounceArgs),
    /// Log in with an XMPP account, and publish and subscribe at any pubsub service
    ///
    /// The client cannot receive elements with a name or a namespace of more than 8 192 bytes: a reply with such an
    /// element is an error, and an event is printed without it.
    #[command(subcommand)]
    Client(client::ClientSubcommand),
    /// Show the metrics of the running service
    #[command(after_help = "\
Examples:
  gjallar stats --config /etc/gjallar/gjallar.toml
  gjallar stats --store sled:/var/lib/gjallar/store | grep gjallar_link_up")]
    Stats(ServiceArgs),
    /// Watch the link, the backlog and the busiest nodes of the running service
    Top(top::TopArgs),
    /// Print the completions for a shell
    Completions(generate::CompletionsArgs),
    /// Write the man pages to a folder
    Man(generate::ManArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct StoreArgs {
    #[command(flatten)]
    source: ConfigArgs,
    /// Use this store, such as sled:PATH [default: the configured store]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
struct ConfigArgs {
    /// Read this configuration file [default: environment only]
    #[arg(long, short, value_name = "FILE", env = "GJALLAR_CONFIG")]
    config: Option<PathBuf>,
}

/// Arguments that select the running service.
#[derive(Clone, Debug, clap::Args)]
struct ServiceStoreArgs {
    #[command(flatten)]
    source: ConfigArgs,
    /// Connect to the service of this store, such as sled:PATH [default: the configured store]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

impl StoreArgs {
    fn config(&self) -> Result<Config, ConfigError> {
        self.source.config(self.store.as_ref())
    }
}

impl ServiceStoreArgs {
    fn config(&self) -> Result<Config, ConfigError> {
        self.source.config(self.store.as_ref())
    }
}

impl ConfigArgs {
    /// Reads the configuration, with `store` instead of its store.
    fn config(&self, store: Option<&String>) -> Result<Config, ConfigError> {
        let config = Config::load(self.config.as_deref())?;
        Ok(match store {
            Some(store) => Config { store: store.clone(), ..config },
            None => config,
        })
    }
}

const AFTER_HELP: &str = "\
Environment variables, enough to serve without a configuration file:
  GJALLAR_JID=pubsub.example.org    JID of the component, as the server knows it
  GJALLAR_SERVER=localhost:5347     component port of the server
  GJALLAR_SECRET=...                secret of the component (or GJALLAR_SECRET_FILE)
  GJALLAR_STORE=sled:PATH           store of the nodes [default: in the state directory];
                                    with 'memory:', nodes are lost when the service stops
  GJALLAR_ADMINS=a@example.org,...  administrators of the service

Every key of the configuration file has such a variable: GJALLAR_LIMITS_MAX_ITEMS is
max_items in [limits]. A variable overrides the file. config/gjallar.toml and
docs/CONFIGURATION.md explain every key.

Exit codes:
  0  done, or stopped by SIGTERM or SIGINT
  1  refused by a service, or any other failure
  2  wrong arguments or configuration
  3  the store cannot be opened or is damaged
  4  doctor found a degraded check

Examples:
  gjallar doctor --config /etc/gjallar/gjallar.toml
  gjallar serve --config /etc/gjallar/gjallar.toml
  gjallar node create news --store sled:/var/lib/gjallar/store";

/// Parses the arguments and runs the command.
pub(crate) fn run() -> ExitCode {
    let done = match Cli::parse().command {
        CliSubcommand::Serve(source) => return serve::serve(&source),
        CliSubcommand::CheckConfig(source) => serve::check(&source),
        CliSubcommand::Check(at) => store::check(&at),
        CliSubcommand::Export(at) => store::export(&at),
        CliSubcommand::Import(import) => import.run(),
        CliSubcommand::Doctor(doctor) => doctor.run(),
        CliSubcommand::Store(store) => store.run(),
        CliSubcommand::Node(node) => node.run(),
        CliSubcommand::Item(item) => item.run(),
        CliSubcommand::Affiliation(affiliation) => affiliation.run(),
        CliSubcommand::Subscription(subscription) => subscription.run(),
        CliSubcommand::Entity(entity) => entity.run(),
        CliSubcommand::Announce(announce) => announce.run(),
        CliSubcommand::Client(client) => client.run(),
        CliSubcommand::Stats(at) => control::stats(&at),
        CliSubcommand::Top(top) => top.run(),
        CliSubcommand::Completions(completions) => completions.run(),
        CliSubcommand::Man(man) => man.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of standard output has closed it.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => exit_with(failure.code(), &failure),
    }
}

/// The error of a command.
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
    use clap::{Command, CommandFactory};

    use super::*;

    #[test]
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    /// Collects the subcommands of a command, each with the words that call it.
    fn commands(command: &Command, path: &[String]) -> Vec<(Vec<String>, Command)> {
        let own = [path, &[command.get_name().to_owned()]].concat();
        let below = command.get_subcommands().flat_map(|below| commands(below, &own));
        below.chain([(own.clone(), command.clone())]).collect()
    }

    /// Splits a command line as a shell does, up to a redirection or a pipe.
    fn split(line: &str) -> Vec<String> {
        let (mut words, mut quote) = (vec![String::new()], None);
        for c in line.chars() {
            let last = words.last_mut().unwrap();
            match c {
                _ if quote == Some(c) => quote = None,
                '\'' | '"' if quote.is_none() => quote = Some(c),
                ' ' if quote.is_none() => words.push(String::new()),
                '<' | '>' | '|' if quote.is_none() => break,
                c => last.push(c),
            }
        }
        assert_eq!(quote, None, "{line}");
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn every_example_of_the_help_can_be_parsed() {
        for (path, command) in commands(&Cli::command(), &[]) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = help.split_once("Examples:\n").map_or("", |(_, examples)| examples);
            // Commands with subcommands show no examples, because their subcommands do.
            let is_group = command.has_subcommands() && path.len() > 1;
            assert_eq!(examples.is_empty(), is_group, "{path:?}");
            for example in examples.replace("\\\n", "").lines() {
                let words = split(example);
                assert!(words.starts_with(&path), "{path:?}: {example}");
                if let Err(error) = Cli::try_parse_from(&words) {
                    panic!("{example}: {error}");
                }
            }
        }
    }

    #[test]
    fn every_line_of_the_help_is_a_sentence_without_a_full_stop() {
        for (path, command) in commands(&Cli::command(), &[]) {
            let arguments = command
                .get_arguments()
                .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"));
            let helps = arguments.map(|argument| (argument.get_id().as_str(), argument.get_help()));
            for (name, help) in helps.chain([("the command", command.get_about())]) {
                let help = help.map(ToString::to_string).unwrap_or_default();
                let is_plain = help.starts_with(|c: char| c.is_uppercase())
                    && !help.ends_with('.')
                    && !help.contains(['\n', ';'])
                    && help.len() <= 90;
                assert!(is_plain, "{path:?}, {name}: {help:?}");
            }
        }
    }
}
