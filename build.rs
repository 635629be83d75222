//! Compiles `src/store/sled/fdatasync_shim.c`, which makes sled's writes survive a loss of power.

fn main() {
    println!("cargo:rerun-if-changed=src/store/sled/fdatasync_shim.c");
    #[allow(clippy::disallowed_methods)] // a build script is told so what it builds for
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if is_linux {
        cc::Build::new()
            .file("src/store/sled/fdatasync_shim.c")
            .warnings_into_errors(true)
            // Nothing in Rust names the function, so the linker must not leave it out.
            .link_lib_modifier("+whole-archive")
            .compile("durable");
    }
}
