//! Command `gjallar doctor`: checks that the server meets the requirements of gjallar.

use gjallar::runtime::doctor;
use serde_json::json;

use super::{
    CliError, ServiceStoreArgs, print,
    table::{readable, shown, table},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gjallar doctor --config /etc/gjallar/gjallar.toml
  gjallar doctor --store sled:/var/lib/gjallar/store --json")]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    at: ServiceStoreArgs,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

impl DoctorArgs {
    pub(super) fn run(self) -> Result<(), CliError> {
        let config = self.at.config()?;
        let findings = match doctor::running(&config)? {
            Some(findings) => findings,
            None => {
                config.check().map_err(CliError::from)?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(doctor::connect(&config))?
            }
        };
        if self.json {
            for finding in &findings {
                print(&format!("{}\n", json!(finding)))?;
            }
        } else {
            let mut table = table(&["verdict", "check", "time", "finding"]);
            for finding in &findings {
                let time = finding.millis.map_or_else(String::new, |millis| format!("{millis} ms"));
                table.add_row([&finding.verdict, &finding.check, &time, &readable(&finding.text)]);
            }
            print(&shown(table))?;
        }
        let worst = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
        match (worst("failed"), worst("degraded")) {
            (0, 0) => Ok(()),
            (0, degraded) => Err(CliError::Degraded(format!("degraded: {degraded}"))),
            (failed, _) => Err(CliError::Failed(format!("failed: {failed}"))),
        }
    }
}
