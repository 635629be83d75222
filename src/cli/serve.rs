//! `serve` and `check-config`.

use std::process::ExitCode;

use gjallar::process::{Config, run, start_telemetry};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{Failure, Source, complain};

pub(super) fn check(source: &Source) -> Result<(), Failure> {
    Config::load(source.config.as_deref())?.check()?;
    eprintln!("the configuration is in order");
    Ok(())
}

pub(super) fn serve(source: &Source) -> ExitCode {
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
        match ended.map_err(Failure::from) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => complain(failure.code(), &failure),
        }
    });
    runtime.shutdown_background();
    served
}
