//! Preloaded libraries between the real service and libc.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
};

/// Compiles a file of `tests/support/preload` once.
pub fn compile(source: &str) -> PathBuf {
    static FOLDER: OnceLock<(tempfile::TempDir, Mutex<()>)> = OnceLock::new();
    let (folder, lock) = FOLDER.get_or_init(|| (tempfile::tempdir().unwrap(), Mutex::new(())));
    let _one = lock.lock().unwrap();
    let path = folder.path().join(source).with_extension("so");
    if !path.exists() {
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/preload").join(source);
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&path, &source])
            .status();
        assert!(compiled.unwrap().success());
    }
    path
}
