//! The command line: arguments to configuration, configuration to a running process, and its end to an
//! exit code.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use gjallar::process::{Config, RunError, run, start_telemetry};
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
be opened; 1 anything else.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Serve(source) => serve(&source),
        Command::CheckConfig(source) => check(&source),
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
            Err(error @ RunError::Config(_)) => complain(2, &error),
            Err(error @ RunError::Store { .. }) => complain(3, &error),
        }
    });
    runtime.shutdown_background();
    served
}

fn complain(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("gjallar: {error}");
    ExitCode::from(code)
}
