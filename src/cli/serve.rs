//! Commands `gjallar serve` and `gjallar check-config`.

use std::process::ExitCode;

use gjallar::{
    config::{Config, log_failed_reload},
    runtime::{run, start_telemetry},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{CliError, ConfigArgs, exit_with};

pub(super) fn check(source: &ConfigArgs) -> Result<(), CliError> {
    Config::load(source.config.as_deref())?.check()?;
    eprintln!("the configuration is in order");
    Ok(())
}

pub(super) fn serve(source: &ConfigArgs) -> ExitCode {
    let config = match Config::load(source.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return exit_with(2, &error),
    };
    if let Err(error) = start_telemetry(&config) {
        return exit_with(2, &error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit_with(1, &error),
    };
    let served = runtime.block_on(async {
        let (tell, stop) = watch::channel(false);
        let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = signals.map(signal) else {
            return exit_with(1, &CliError::Failed("failed to handle signals".into()));
        };
        let (tell_config, configs) = watch::channel(config);
        let serving = run(configs, stop);
        tokio::pin!(serving);
        let ended = loop {
            tokio::select! {
                ended = &mut serving => break ended,
                _ = terminate.recv() => { tell.send_replace(true); break serving.await }
                _ = interrupt.recv() => { tell.send_replace(true); break serving.await }
                _ = hangup.recv() => match Config::load(source.config.as_deref()) {
                    Ok(config) => drop(tell_config.send_replace(config)),
                    Err(error) => log_failed_reload(&error),
                },
            }
        };
        match ended.map_err(CliError::from) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => exit_with(failure.code(), &failure),
        }
    });
    runtime.shutdown_background();
    served
}
