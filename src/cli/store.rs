//! Commands `gjallar check`, `export`, `import` and `store …`: work on a whole store, with a progress bar.

use std::{
    fs,
    io::{self, BufReader, BufWriter},
    time::Duration,
};

use clap::ValueEnum;
use gjallar::{
    migrate::archive::ArchiveSummary,
    migrate::{MigrationReport, MigrationSource, SourceKind},
    runtime::store_tools,
};
use indicatif::{ProgressBar, ProgressStyle};
use jid::BareJid;
use serde_json::json;

use super::{
    CliError, StoreArgs, print,
    table::{shown, table},
};

/// Maintenance of a store that no service has open.
#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum StoreSubcommand {
    /// Give every node a new epoch in its event ids, after the restore of a snapshot
    #[command(after_help = REBASE_HELP)]
    Rebase(StoreArgs),
}

const REBASE_HELP: &str = "\
A restored copy lacks the newest events, but clients and archives already know their
ids. Without new epochs, new events would get the same ids. `gjallar import` changes the
epochs too.
After an interruption repeat the command: the service does not start before it is
complete.

Examples:
  gjallar store rebase --store sled:/var/lib/gjallar/store";

impl StoreSubcommand {
    pub(super) fn run(&self) -> Result<(), CliError> {
        let Self::Rebase(at) = self;
        let nodes = runtime()?.block_on(store_tools::rebase(&at.config()?))?;
        eprintln!("{nodes} nodes have a new epoch");
        Ok(())
    }
}

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = IMPORT_HELP)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    at: StoreArgs,
    /// Keep the epochs of event ids (only safe if the service has not run since the export)
    #[arg(long, conflicts_with = "from")]
    same_epoch: bool,
    /// Import the data of this service [default: an export from standard input]
    #[arg(long, value_name = "SERVICE", requires = "source")]
    from: Option<SourceService>,
    /// Read this postgres:// URL, SQLite file, or data folder of Prosody
    #[arg(long, env = "GJALLAR_IMPORT_SOURCE", hide_env_values = true, requires = "from")]
    source: Option<String>,
    /// Import the service that has this JID [default: the configured JID]
    #[arg(long, value_name = "JID", requires = "from")]
    service: Option<BareJid>,
    /// Report what would be imported, and leave the store as it is
    #[arg(long, requires = "from")]
    dry_run: bool,
    /// Print the report as one JSON object
    #[arg(long, requires = "from")]
    json: bool,
}

const IMPORT_HELP: &str = "\
Stop the other service before the import: later changes would be missing. The import only
reads its data. Put a URL with a password into GJALLAR_IMPORT_SOURCE, since other users see
the arguments of a command.

Examples:
  gjallar import --store sled:/var/lib/gjallar/store < backup
  gjallar import --from prosody --source /var/lib/prosody --service pubsub.example.org --dry-run
  gjallar import --from ejabberd --source postgres://ejabberd@localhost/ejabberd \\
      --service pubsub.example.org --store sled:/var/lib/gjallar/store";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SourceService {
    /// mod_pubsub with db_type: sql, in PostgreSQL or SQLite
    Ejabberd,
    /// Idavoll 0.9, in PostgreSQL
    Idavoll,
    /// mod_pubsub, in files, PostgreSQL or SQLite
    Prosody,
}

impl SourceService {
    fn kind(self) -> SourceKind {
        match self {
            Self::Ejabberd => SourceKind::Ejabberd,
            Self::Idavoll => SourceKind::Idavoll,
            Self::Prosody => SourceKind::Prosody,
        }
    }
}

impl ImportArgs {
    pub(super) fn run(self) -> Result<(), CliError> {
        match (self.from, &self.source) {
            (Some(from), Some(source)) => self.migrate(from.kind(), source.clone()),
            _ => import(&self.at, self.same_epoch),
        }
    }

    fn migrate(&self, kind: SourceKind, source: String) -> Result<(), CliError> {
        let config = self.at.config()?;
        let configured = || BareJid::new(&config.jid).ok();
        let Some(service) = self.service.clone().or_else(configured) else {
            return Err(CliError::Argument(
                "--service is required: the JID of the service to import".into(),
            ));
        };
        let origin = MigrationSource { kind, source, service };
        let bar = bar(Some(0), "{bar:40} {pos} of {len} nodes, {eta} left");
        let progress = |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        };
        let taken = store_tools::migrate(&config, &origin, self.dry_run, progress);
        let taken = runtime()?.block_on(taken);
        bar.finish_and_clear();
        self.report(&taken?)
    }

    fn report(&self, taken: &MigrationReport) -> Result<(), CliError> {
        let MigrationReport { summary, warnings } = taken;
        if self.json {
            let left = warnings.iter().map(|(what, warning)| {
                json!({ "what": what, "times": warning.times, "places": warning.places })
            });
            let report = json!({
                "nodes": summary.nodes, "subscriptions": summary.subscriptions, "items": summary.items,
                "left": left.collect::<Vec<_>>(),
            });
            return print(&format!("{report}\n"));
        }
        if warnings.iter().next().is_some() {
            let mut table = table(&["times", "not imported, or changed", "examples"]);
            for (what, warning) in warnings.iter() {
                let times = warning.times.to_string();
                table.add_row([times, what.to_owned(), warning.places.join(", ")]);
            }
            print(&shown(table))?;
        }
        summarize(if self.dry_run { "would read" } else { "read" }, summary);
        Ok(())
    }
}

pub(super) fn check(at: &StoreArgs) -> Result<(), CliError> {
    let config = at.config()?;
    let bar = bar(None, "{spinner} comparing, {elapsed}");
    let problems = runtime()?.block_on(store_tools::check(&config));
    bar.finish_and_clear();
    match problems?.as_slice() {
        [] => {
            eprintln!("the store is in order");
            Ok(())
        }
        problems => Err(CliError::Damaged(problems.join("\n"))),
    }
}

pub(super) fn export(at: &StoreArgs) -> Result<(), CliError> {
    let config = at.config()?;
    let bar = bar(None, "{spinner} wrote {bytes}, {bytes_per_sec}");
    let mut out = bar.wrap_write(BufWriter::new(io::stdout().lock()));
    let summary = runtime()?.block_on(store_tools::export(&config, &mut out));
    bar.finish_and_clear();
    summarize("wrote", &summary?);
    Ok(())
}

fn import(at: &StoreArgs, same_epoch: bool) -> Result<(), CliError> {
    let config = at.config()?;
    // The size of the input is known if it is a file.
    let length = fs::metadata("/dev/stdin").ok().filter(fs::Metadata::is_file);
    let bar = match length {
        Some(file) => bar(Some(file.len()), "{bar:40} {bytes} of {total_bytes}, {eta} left"),
        None => bar(None, "{spinner} read {bytes}, {bytes_per_sec}"),
    };
    let mut text = BufReader::new(bar.wrap_read(io::stdin()));
    let summary = runtime()?.block_on(store_tools::import(&config, &mut text, same_epoch));
    bar.finish_and_clear();
    summarize("read", &summary?);
    Ok(())
}

fn summarize(verb: &str, summary: &ArchiveSummary) {
    let ArchiveSummary { nodes, subscriptions, items, events } = summary;
    eprintln!(
        "{verb} {nodes} nodes, {subscriptions} subscriptions, {items} items, {events} events that \
         are owed"
    );
}

/// Progress bar on standard error, visible only on a terminal.
fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
