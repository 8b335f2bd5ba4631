//! Makes sure that the folder of the built web client exists and that the binary is built again when it
//! changes.

fn main() {
    let dist = "web/dist";
    // A checkout whose client was never built has an empty one; the page then says how to build it.
    if let Err(error) = std::fs::create_dir_all(dist) {
        println!("cargo::warning=cannot make {dist}: {error}");
    }
    println!("cargo::rerun-if-changed={dist}");
    println!("cargo::rerun-if-changed=build.rs");
}
