//! Effects of a shorter list of administrators, also of one that was changed while the service did not run.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use jid::BareJid;
use tokio::sync::watch;
use tracing::warn;

use crate::service::Service;

/// Name of the file in the store's folder with the administrators whose access is up to date, one in each line.
const RECORD: &str = "administrators";

/// Ends the access of entities that are removed from `administrators`, also if they were removed since the last run.
/// `folder` is the folder of the store, if there is one. Runs until dropped.
pub(crate) async fn follow(
    mut administrators: watch::Receiver<Vec<String>>,
    service: Arc<Service>,
    folder: Option<PathBuf>,
) {
    let record = folder.map(|folder| folder.join(RECORD));
    let recorded = record.as_deref().and_then(|path| fs::read_to_string(path).ok());
    let mut known: Vec<String> = match &recorded {
        Some(text) => text.lines().map(str::to_owned).collect(),
        None => administrators.borrow().clone(),
    };
    loop {
        let current = administrators.borrow_and_update().clone();
        let removed = known.iter().filter(|entity| !current.contains(entity));
        let former: Vec<_> = removed.filter_map(|entity| BareJid::new(entity).ok()).collect();
        if !former.is_empty() {
            service.end_access_of_former_administrators(&former).await;
        }
        if let Some(Err(error)) = record.as_deref().map(|path| write(path, &current)) {
            warn!(
                event = "administrators_not_recorded",
                %error,
                "failed to record the administrators; their removal before the next start has no effect on subscriptions"
            );
        }
        known = current;
        if administrators.changed().await.is_err() {
            return;
        }
    }
}

fn write(path: &Path, administrators: &[String]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, administrators.join("\n"))?;
    fs::rename(&new, path)
}
