//! `check`, `export` and `import`: work at a store, with a bar that shows how far it is.

use std::{
    fs,
    io::{self, BufReader, BufWriter},
    time::Duration,
};

use gjallar::{archive::Summary, process::offline};
use indicatif::{ProgressBar, ProgressStyle};

use super::{AtStore, Failure};

pub(super) fn check(at: &AtStore) -> Result<(), Failure> {
    let config = at.config()?;
    let bar = bar(None, "{spinner} comparing, {elapsed}");
    let problems = runtime()?.block_on(offline::check(&config));
    bar.finish_and_clear();
    match problems?.as_slice() {
        [] => {
            eprintln!("the store is in order");
            Ok(())
        }
        problems => Err(Failure::Damaged(problems.join("\n"))),
    }
}

pub(super) fn export(at: &AtStore) -> Result<(), Failure> {
    let config = at.config()?;
    let bar = bar(None, "{spinner} wrote {bytes}, {bytes_per_sec}");
    let mut out = bar.wrap_write(BufWriter::new(io::stdout().lock()));
    let summary = runtime()?.block_on(offline::export(&config, &mut out));
    bar.finish_and_clear();
    summarize("wrote", &summary?);
    Ok(())
}

pub(super) fn import(at: &AtStore) -> Result<(), Failure> {
    let config = at.config()?;
    // How much there is to read is known if it comes from a file.
    let length = fs::metadata("/dev/stdin").ok().filter(fs::Metadata::is_file);
    let bar = match length {
        Some(file) => bar(Some(file.len()), "{bar:40} {bytes} of {total_bytes}, {eta} left"),
        None => bar(None, "{spinner} read {bytes}, {bytes_per_sec}"),
    };
    let mut text = BufReader::new(bar.wrap_read(io::stdin()));
    let summary = runtime()?.block_on(offline::import(&config, &mut text));
    bar.finish_and_clear();
    summarize("read", &summary?);
    Ok(())
}

fn summarize(verb: &str, summary: &Summary) {
    let Summary { nodes, subscriptions, items, events } = summary;
    eprintln!(
        "{verb} {nodes} nodes, {subscriptions} subscriptions, {items} items, {events} events that \
         are owed"
    );
}

/// A bar on standard error, which is only seen on a terminal.
fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
