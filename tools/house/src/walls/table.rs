//! The rows. Crates from the bottom of the house to its roof; then what only a few may name.

use super::{AllowedLibraries, CrateWall, NameWall};

use AllowedLibraries::{AllBut, Any, Only};

const MODEL: &str = "monofs-model";
const PROTO: &str = "monofs-proto";
const RPC: &str = "monofs-rpc";
const STORE: &str = "monofs-store";
const API: &str = "monofs-api";
const FLEET: &str = "monofs-fleet";
const CONTROL: &str = "monofs-control";
const MEMBERS: &str = "monofs-members";
const ROUTER: &str = "monofs-router";
const WEB: &str = "monofs-web";
const NODE: &str = "monofs-node";
const FETCHER: &str = "monofs-fetcher";
const CONTENT: &str = "monofs-content";
const CLIENT: &str = "monofs-client";
const CLUSTER: &str = "monofs-cluster";
const LAUNCH: &str = "monofs-launch";
const ADMIN: &str = "monofs-admin-commands";

/// What makes a crate wait for a disk, a peer or a clock.
const WAITING: &[&str] = &[
    "tokio",
    "tokio-stream",
    "tokio-util",
    "tonic",
    "prost",
    "axum",
    "rustix",
    "libc",
    "reqwest",
];

pub(super) const CRATES: &[CrateWall] = &[
    // Ids, records and placement: no IO.
    wall(MODEL, &[], AllBut(WAITING)),
    wall(PROTO, &[MODEL], Any),
    wall(STORE, &[MODEL], AllBut(&["tokio", "tonic", "prost"])),
    wall(RPC, &[MODEL, PROTO], Any),
    // The documents of the HTTP API and of the command line: data alone.
    wall(
        API,
        &[MODEL, PROTO],
        Only(&["humantime", "serde", "serde_json", "utoipa"]),
    ),
    // Machines that are stepped: no runtime, no clock, no store.
    wall(FLEET, &[MODEL], AllBut(WAITING)),
    wall(CONTROL, &[MODEL, PROTO, RPC, STORE], Any),
    // Who is there, and calls to them; decides nothing about repositories.
    wall(MEMBERS, &[MODEL, PROTO, RPC, FLEET, CONTROL], Any),
    // The roles: none depends on another, and the router knows no HTML.
    wall(
        ROUTER,
        &[MODEL, PROTO, RPC, STORE, API, FLEET, CONTROL, MEMBERS],
        Any,
    ),
    wall(NODE, &[MODEL, PROTO, RPC, STORE], Any),
    wall(FETCHER, &[MODEL, PROTO, RPC, STORE], Any),
    // What a mount reads, without the kernel.
    wall(CONTENT, &[MODEL, PROTO, RPC, STORE], AllBut(&["fuser"])),
    wall(CLIENT, &[MODEL, PROTO, RPC, STORE, CONTENT], Any),
    wall(
        WEB,
        &[MODEL, PROTO, RPC, API, FLEET, CONTROL, MEMBERS, ROUTER],
        Any,
    ),
    // All roles in one process.
    wall(
        CLUSTER,
        &[
            MODEL, PROTO, RPC, CONTROL, ROUTER, WEB, NODE, FETCHER, CLIENT,
        ],
        Any,
    ),
    // The binaries. The operator's commands know what a router told them, so they reach no role; of
    // the store they know the frames in which contents arrive.
    wall(LAUNCH, &[MODEL, RPC], Any),
    wall(ADMIN, &[LAUNCH, MODEL, PROTO, RPC, STORE, API], Any),
    wall("monofs-admin", &[LAUNCH, ADMIN], Any),
    wall(
        "monofs-router-bin",
        &[LAUNCH, MODEL, CONTROL, FLEET, ROUTER, WEB],
        Any,
    ),
    wall("monofs-node-bin", &[LAUNCH, MODEL, NODE], Any),
    wall("monofs-fetcher-bin", &[LAUNCH, MODEL, RPC, FETCHER], Any),
    wall("monofs-client-bin", &[LAUNCH, CLIENT], Any),
    wall("monofs", &[LAUNCH, MODEL, CLIENT, CLUSTER], Any),
    // What proves them.
    wall("monofs-testkit", &[MODEL], Any),
    wall(
        "monofs-house",
        &[],
        Only(&["anyhow", "proc-macro2", "serde_json", "syn"]),
    ),
];

pub(super) const LIBRARIES: &[NameWall] = &[
    only("heed", &[STORE]),
    only("gix", &[FETCHER]),
    only("reqwest", &[FETCHER]),
    only("rustls", &[FETCHER]),
    only("fuser", &[CLIENT]),
    only("rkyv", &[MODEL]),
    only("rendezvous_hash", &[MODEL]),
    only("prometheus-client", &[RPC]),
    only("backon", &[RPC]),
    only("tonic-reflection", &[RPC]),
    only("tonic-prost-build", &[PROTO]),
    only("protox", &[PROTO]),
    only("opentelemetry", &[LAUNCH]),
    only("opentelemetry_sdk", &[LAUNCH]),
    only("opentelemetry-otlp", &[LAUNCH]),
    only("tracing-subscriber", &[LAUNCH]),
    only("clap_mangen", &[LAUNCH]),
    only("ratatui", &[ADMIN]),
    only("comfy-table", &[ADMIN]),
    only("indicatif", &[ADMIN]),
    only("syn", &["monofs-house"]),
    // HTTP belongs to `web`; `rpc` has the page of /health and /metrics that every role serves.
    only("axum", &[RPC, WEB]),
    only("askama", &[WEB]),
    only("syntect", &[WEB]),
    only("two-face", &[WEB]),
];

pub(super) const MODULES: &[NameWall] = &[
    // What routers share is changed in one place.
    only("monofs_store::state", &[CONTROL]),
    only("monofs_proto::etcd", &[CONTROL]),
];

const fn wall(
    package: &'static str,
    may_use: &'static [&'static str],
    libraries: AllowedLibraries,
) -> CrateWall {
    CrateWall {
        package,
        may_use,
        libraries,
    }
}

const fn only(name: &'static str, users: &'static [&'static str]) -> NameWall {
    NameWall { name, users }
}
