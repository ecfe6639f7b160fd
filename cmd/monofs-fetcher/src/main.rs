//! `monofs-fetcher`: flags -> config -> spawn -> drain. The role itself is the library
//! `monofs-fetcher`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Parser};
use monofs_fetcher::{Config, Credentials};
use monofs_launch::args::{self, Listen};
use monofs_model::{Error, Result};
use tokio::net::TcpListener;

/// Fetches Git repositories for the nodes and caches them. The only role that holds credentials for
/// remotes.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example:\n  monofs-fetcher --credentials /etc/monofs/credentials.toml --router \
     router.internal:9090"
)]
struct Args {
    /// Port to listen on, on every address
    #[arg(long, default_value_t = 9200)]
    port: u16,
    /// Address to listen on, instead of --port
    #[arg(long, value_name = "[HOST]:PORT")]
    addr: Option<Listen>,
    /// Address of /health, /ready and /metrics
    #[arg(long, alias = "metrics-addr", value_name = "[HOST]:PORT")]
    http_addr: Option<Listen>,
    /// Id under which routers know this fetcher (default: fetcher-HOST-PORT)
    #[arg(long, default_value = "", hide_default_value = true)]
    fetcher_id: String,
    /// Directory of the cache; one fetcher each
    #[arg(
        long,
        default_value = "/var/cache/monofs/fetcher",
        value_name = "DIRECTORY"
    )]
    cache_dir: PathBuf,
    /// Bound of the cache; the repositories used least recently go first
    #[arg(long, default_value = "50", value_parser = args::gigabytes)]
    max_cache_gb: u64,
    /// Repositories that are not requested for this long leave the cache
    #[arg(long, default_value = "2", value_parser = hours, value_name = "HOURS")]
    cache_age_hours: Duration,
    /// Fetches that may run at once
    #[arg(long, default_value_t = 4)]
    prefetch_workers: usize,
    /// Go module proxy (Go modules cannot be fetched yet)
    #[arg(long, value_name = "URL")]
    gomod_proxy: Option<String>,
    /// File with the login for each host (TOML)
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Allow file:// sources: users who may ingest can then read this host's repositories
    #[arg(
        long,
        default_value = "true",
        action = ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    allow_file: bool,
    /// How long to try to connect to a remote
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    connect_timeout: Duration,
    /// How long a remote may be silent
    #[arg(long, default_value = "60s", value_parser = args::duration)]
    idle_timeout: Duration,
    /// Routers to register with, host:port
    #[arg(long, value_delimiter = ',', value_parser = args::address, value_name = "HOST:PORT,...")]
    router: Vec<String>,
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
}

/// Hours, whole or fractional.
fn hours(text: &str) -> Result<Duration> {
    let hours: Option<f64> = text.trim().parse().ok();
    hours
        .and_then(|hours| Duration::try_from_secs_f64(hours * 3600.0).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| Error::invalid("write a number of hours over 0, such as 2 or 0.5"))
}

fn main() -> ExitCode {
    monofs_launch::run::<Args, _, _>("monofs-fetcher", |args, context| async move {
        if args.gomod_proxy.is_some() {
            tracing::warn!(
                "--gomod-proxy is accepted and not used yet: Go modules cannot be fetched"
            );
        }

        // Ports are taken before anything else is begun, so that a second process fails at once.
        let bound = match args.addr {
            Some(addr) => addr.bind("--addr")?,
            None => Listen::any(args.port).bind("--port")?,
        };
        let listener = TcpListener::from_std(bound)?;
        let http = args
            .http_addr
            .map(|addr| addr.bind("--http-addr"))
            .transpose()?
            .map(TcpListener::from_std)
            .transpose()?;
        let port = listener.local_addr()?.port();
        args::data_directory("--cache-dir", &args.cache_dir)?;

        // The role runs until a signal.
        let credentials = args
            .credentials
            .as_deref()
            .map(Credentials::load)
            .transpose()?
            .unwrap_or_default();
        let config = Config {
            fetcher_id: if args.fetcher_id.is_empty() {
                default_id(port)
            } else {
                args.fetcher_id
            },
            cache_dir: args.cache_dir,
            cache_bytes_max: args.max_cache_gb,
            cache_age: args.cache_age_hours,
            fetch_workers: args.prefetch_workers,
            credentials,
            allow_file: args.allow_file,
            connect_timeout: args.connect_timeout,
            idle_timeout: args.idle_timeout,
            routers: args.router,
            advertise: args.advertise,
            external_addr: args.external_addr,
            ..Config::default()
        };
        let fetcher = monofs_fetcher::spawn(config, listener).await?;
        if let Some(http) = http {
            fetcher.serve_http(http)?;
        }
        context.shutdown.cancelled().await;
        fetcher.shutdown(context.shutdown_timeout).await;
        Ok(())
    })
}

/// An id that stays the same as long as the host and the port do.
fn default_id(port: u16) -> String {
    let host: String = monofs_rpc::host::name()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    format!("fetcher-{host}-{port}")
}
