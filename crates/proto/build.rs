//! Compiles the wire protocol with protox, so that no system protoc is needed.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["content", "cluster", "catalog", "node", "fetcher", "admin"]
        .map(|name| format!("monofs/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(
        out.join("monofs.v1.descriptors.bin"),
        descriptors.encode_to_vec(),
    )?;
    let packages = descriptors
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(|service| (file.package(), service)));
    let methods = packages.flat_map(|(package, service)| {
        service.method.iter().map(move |method| {
            (
                format!("{package}.{}", service.name()),
                method.name().to_owned(),
            )
        })
    });
    let methods: Vec<(String, String)> = methods.collect();
    let list = format!(
        "pub const METHODS: [(&str, &str); {}] = {methods:?};",
        methods.len()
    );
    std::fs::write(out.join("monofs.v1.methods.rs"), list)?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    // Apart, so that reflection does not announce services that no role here serves.
    let etcd = protox::compile(["etcd/v3.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .compile_fds(etcd)?;
    Ok(())
}
