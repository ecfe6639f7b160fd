//! `monofs-node`: flags -> config -> spawn -> drain. The role itself is the library `monofs-node`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser};
use monofs_launch::args::{self, Listen};
use monofs_model::NodeId;
use monofs_node::Config;
use tokio::net::TcpListener;

/// Stores repositories and serves their directories and contents.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  monofs-node --node-id node1 --router router.internal:9090")]
struct Args {
    /// Address to listen on
    #[arg(long, default_value = ":9000", value_name = "[HOST]:PORT")]
    addr: Listen,
    /// Address of /health, /ready and /metrics
    #[arg(long, alias = "metrics-addr", value_name = "[HOST]:PORT")]
    http_addr: Option<Listen>,
    /// Unique id of this node; placement depends on it, so keep it
    #[arg(long)]
    node_id: NodeId,
    /// Directory of the LMDB environments
    #[arg(long, default_value = "/var/lib/monofs/node")]
    db_path: PathBuf,
    /// Accepted for compatibility: nodes keep no Git cache
    #[arg(long, hide_default_value = true, value_name = "DIRECTORY")]
    git_cache: Option<PathBuf>,
    /// Routers to register with, host:port
    #[arg(long, value_delimiter = ',', value_parser = args::address, value_name = "HOST:PORT,...")]
    router: Vec<String>,
    /// Fetchers to use besides those that the router names, host:port (repeatable)
    #[arg(long, value_delimiter = ',', value_parser = args::address, value_name = "HOST:PORT,...")]
    fetcher: Vec<String>,
    /// Address to announce (default: the host's name and the listening port)
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "HOST:PORT"
    )]
    advertise: String,
    /// Address for clients outside the private network
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "HOST:PORT"
    )]
    external_addr: String,
    /// Failure domain: copies spread over zones first
    #[arg(long, default_value = "", hide_default_value = true)]
    zone: String,
    /// Share of the repositories relative to other nodes
    #[arg(long, default_value_t = 1.0)]
    weight: f64,
    /// Prediction of reads, which does not exist yet: accepted and not used
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    enable_prediction: bool,
    /// Announced capacity in GB, 0 = not announced
    #[arg(long, default_value = "0", value_parser = args::gigabytes)]
    capacity_gb: u64,
}

fn main() -> ExitCode {
    monofs_launch::run::<Args, _, _>("monofs-node", |args, context| async move {
        if args.git_cache.is_some() {
            tracing::warn!("--git-cache is accepted and ignored: nodes keep no Git cache");
        }
        if args.enable_prediction {
            tracing::warn!(
                "--enable-prediction is accepted and ignored: nodes do not predict reads yet"
            );
        }
        // In Kubernetes it is filled from a label that older versions do not copy to pods.
        if args.zone.is_empty() && std::env::var_os("MONOFS_ZONE").is_some() {
            tracing::warn!(
                "MONOFS_ZONE is empty: this node is in no zone and copies are not spread over zones; \
                 Kubernetes tells it from 1.35 on, before that set --zones of the routers"
            );
        }
        if let Some(warning) = args::temporary("--db-path", &args.db_path, "this node's copies") {
            tracing::warn!("{warning}");
        }
        // Ports are taken before anything else is begun, so that a second process fails at once.
        let listener = TcpListener::from_std(args.addr.bind("--addr")?)?;
        let http = args
            .http_addr
            .map(|address| address.bind("--http-addr"))
            .transpose()?;

        args::data_directory("--db-path", &args.db_path)?;

        // The node runs until a signal.
        let config = Config {
            routers: args.router,
            fetchers: args.fetcher,
            advertise: args.advertise,
            external_address: args.external_addr,
            zone: args.zone,
            weight: args.weight,
            capacity_bytes: args.capacity_gb,
            ..Config::new(args.node_id, args.db_path)
        };
        let node = monofs_node::spawn(config, listener).await?;
        if let Some(http) = http {
            node.serve_http(TcpListener::from_std(http)?)?;
        }
        context.shutdown.cancelled().await;
        node.shutdown(context.shutdown_timeout).await;
        Ok(())
    })
}
