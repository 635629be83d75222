//! The command line: arguments to configuration, configuration to a running process, and its end to an
//! exit code.

use std::{
    io::{BufReader, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use gjallar::{
    archive,
    archive::Summary,
    process::{self, Config, RunError, run, start_telemetry},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// A standalone publish-subscribe service (XEP-0060) for any XMPP server.
#[derive(Debug, Parser)]
#[command(version, about, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect to the server and serve until SIGTERM or SIGINT
    Serve(Source),
    /// Say whether the configuration is in order, without starting anything
    CheckConfig(Source),
    /// Compare everything in a store: checksums, indexes, counts
    ///
    /// If a service runs at the store, a copy is compared that it makes between two commits.
    Check(AtStore),
    /// Write everything in a store to standard output, as text
    ///
    /// If a service runs at the store, a copy is written that it makes between two commits.
    Export(AtStore),
    /// Fill an empty store with what was exported, from standard input
    Import(AtStore),
    /// Show what the running service counts, as OpenMetrics text
    Stats(AtStore),
}

#[derive(Debug, clap::Args)]
struct AtStore {
    #[command(flatten)]
    source: Source,
    /// The store, such as sled:PATH; without it, the configured one
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Source {
    /// The configuration file; without it, only the environment counts
    #[arg(long, short, value_name = "FILE", env = "GJALLAR_CONFIG")]
    config: Option<PathBuf>,
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

Exit codes: 0 stopped in order; 2 wrong arguments or configuration; 3 the store cannot
be opened or is damaged; 1 anything else.";

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Serve(source) => serve(&source),
        Command::CheckConfig(source) => check(&source),
        Command::Check(store) => at_store(&store, Work::Check),
        Command::Export(store) => at_store(&store, Work::Export),
        Command::Import(store) => at_store(&store, Work::Import),
        Command::Stats(store) => at_store(&store, Work::Stats),
    }
}

fn check(source: &Source) -> ExitCode {
    let checked = Config::load(source.config.as_deref()).and_then(|config| config.check());
    match checked {
        Ok(()) => {
            eprintln!("the configuration is in order");
            ExitCode::SUCCESS
        }
        Err(error) => complain(2, &error),
    }
}

#[derive(Clone, Copy)]
enum Work {
    Check,
    Export,
    Import,
    Stats,
}

fn at_store(store: &AtStore, work: Work) -> ExitCode {
    let config = Config::load(store.source.config.as_deref());
    let config = match (config, &store.store) {
        (Ok(config), Some(store)) => Config { store: store.clone(), ..config },
        (Ok(config), None) => config,
        (Err(error), _) => return complain(2, &error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(1, &error),
    };
    let through = |verb: &str, summary: Summary| {
        let Summary { nodes, subscriptions, items, events } = summary;
        eprintln!(
            "{verb} {nodes} nodes, {subscriptions} subscriptions, {items} items, {events} events \
             that are owed"
        );
        ExitCode::SUCCESS
    };
    let done = runtime.block_on(async {
        match work {
            Work::Check => process::offline::check(&config).await.map(|problems| {
                for problem in &problems {
                    eprintln!("{problem}");
                }
                if problems.is_empty() {
                    eprintln!("the store is in order");
                    ExitCode::SUCCESS
                } else {
                    ExitCode::from(3)
                }
            }),
            Work::Export => {
                let mut out = BufWriter::new(std::io::stdout().lock());
                let summary = process::offline::export(&config, &mut out).await;
                summary.map(|summary| through("wrote", summary))
            }
            Work::Import => {
                let mut text = BufReader::new(std::io::stdin());
                let summary = process::offline::import(&config, &mut text).await;
                summary.map(|summary| through("read", summary))
            }
            Work::Stats => process::offline::stats(&config).map(|text| print(&text)),
        }
    });
    done.unwrap_or_else(|error| complain(code(&error), &error))
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(1, &error),
    }
}

fn code(error: &RunError) -> u8 {
    match error {
        RunError::Config(_) => 2,
        RunError::Store { .. } | RunError::Archive(archive::ArchiveError::Store(_)) => 3,
        RunError::Archive(_) | RunError::Control(_) => 1,
    }
}

fn serve(source: &Source) -> ExitCode {
    let config = match Config::load(source.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return complain(2, &error),
    };
    if let Err(error) = start_telemetry(&config) {
        return complain(2, &error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(1, &error),
    };
    let served = runtime.block_on(async {
        let (tell, stop) = watch::channel(false);
        let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            return complain(1, &"signals cannot be handled");
        };
        let serving = run(&config, stop);
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => ended,
            _ = terminate.recv() => { tell.send_replace(true); serving.await }
            _ = interrupt.recv() => { tell.send_replace(true); serving.await }
        };
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(code(&error), &error),
        }
    });
    runtime.shutdown_background();
    served
}

fn complain(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("gjallar: {error}");
    ExitCode::from(code)
}
