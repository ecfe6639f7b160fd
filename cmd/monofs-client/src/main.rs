//! `monofs-client`: flags -> config -> mount -> unmount, and the command `watch`. The role itself is
//! the library `monofs-client`.

mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};
use monofs_client::config::default_cache_dir;
use monofs_client::{AddressChoice, Config};
use monofs_launch::args::{self, Listen};
use tokio::net::TcpListener;

/// Mounts all repositories of a cluster as one directory tree; runs in the foreground until a
/// signal unmounts it.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example:\n  mkdir -p /mnt/monofs && monofs-client --mount /mnt/monofs --router \
     router.internal:9090\n\nThe state of a mount is in its hidden file .monofs/status. \
     `monofs-client watch [PATH]` prints a line for each path that changes in a mount."
)]
struct Args {
    /// Mount point: must exist, be a directory and be empty
    #[arg(long, value_name = "DIRECTORY")]
    mount: PathBuf,
    /// Router or routers, tried in turn
    #[arg(
        long,
        value_delimiter = ',',
        value_parser = args::address,
        default_value = "localhost:9090",
        value_name = "HOST:PORT,..."
    )]
    router: Vec<String>,
    /// Directory of the on-disk cache (default: $XDG_CACHE_HOME/monofs, else ~/.cache/monofs, without a home /var/cache/monofs/client)
    #[arg(long, value_name = "DIRECTORY")]
    cache: Option<PathBuf>,
    /// Bound of the on-disk cache in GB
    #[arg(long, default_value = "10", value_parser = args::gigabytes)]
    max_cache_gb: u64,
    /// Deadline of one file system call: what cannot be had by then is an I/O error
    #[arg(long, default_value = "10s", value_parser = args::duration)]
    rpc_timeout: Duration,
    /// Keep the on-disk cache of earlier mounts; false empties it
    #[arg(
        long,
        default_value = "true",
        action = ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    keep_cache: bool,
    /// Which address of a node to use
    #[arg(long, value_enum, default_value_t = AddressArg::Auto)]
    addresses: AddressArg,
    /// Read through the routers only, where nodes cannot be reached
    #[arg(long)]
    via_router: bool,
    /// Let other users look into the mount (default: only if root mounts it)
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    allow_other: Option<bool>,
    /// Owner of all files (default: the user who mounts)
    #[arg(long)]
    uid: Option<u32>,
    /// Group of all files (default: the group of the user who mounts)
    #[arg(long)]
    gid: Option<u32>,
    /// FUSE threads (default: one for each core, at least 2, at most 4)
    #[arg(long)]
    threads: Option<usize>,
    /// Fetch contents ahead of readers
    #[arg(
        long,
        default_value = "true",
        action = ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    prefetch: bool,
    /// Where to serve /metrics, /health and /ready over HTTP (default: nowhere)
    #[arg(long, alias = "http-addr", value_name = "[HOST]:PORT")]
    metrics_addr: Option<Listen>,
    /// Accepted for compatibility: the client always runs in the foreground
    #[arg(long)]
    foreground: bool,
    /// Write sessions, which do not exist yet: accepted, says so, and mounts read-only
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    writable: bool,
    /// Directory of write sessions, which do not exist yet: accepted and not used
    #[arg(long, value_name = "DIRECTORY")]
    overlay: Option<PathBuf>,
}

impl Args {
    /// Says which of the flags given do nothing yet.
    fn tell_what_is_ignored(&self) {
        if self.writable {
            tracing::warn!(
                "--writable is accepted and ignored: there are no write sessions yet, the mount is \
                 read-only"
            );
        }
        if self.overlay.is_some() {
            tracing::warn!("--overlay is accepted and ignored: there are no write sessions yet");
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AddressArg {
    Auto,
    Internal,
    External,
}

impl From<Args> for Config {
    fn from(args: Args) -> Config {
        Config {
            mount: args.mount,
            routers: args.router,
            cache_dir: args.cache.unwrap_or_else(default_cache_dir),
            max_cache_bytes: args.max_cache_gb,
            rpc_timeout: args.rpc_timeout,
            keep_cache: args.keep_cache,
            addresses: match args.addresses {
                AddressArg::Auto => AddressChoice::Auto,
                AddressArg::Internal => AddressChoice::Internal,
                AddressArg::External => AddressChoice::External,
            },
            via_router: args.via_router,
            allow_other: args.allow_other,
            uid: args.uid,
            gid: args.gid,
            n_threads: args.threads,
            prefetch: args.prefetch,
            ..Config::default()
        }
    }
}

fn main() -> ExitCode {
    // `watch` is a tool with options of its own, so it is told apart before the mount's are parsed.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "watch")
    {
        return watch::main();
    }
    monofs_launch::run::<Args, _, _>("monofs-client", |args, context| async move {
        args.tell_what_is_ignored();

        // The port and the cache are checked before the mount appears: a wrong setting leaves none
        // behind.
        let http = args
            .metrics_addr
            .clone()
            .map(|address| address.bind("--metrics-addr"))
            .transpose()?;
        let config = Config::from(args);
        args::data_directory("--cache", &config.cache_dir)?;
        let mounted = monofs_client::mount(config).await?;
        if let Some(http) = http {
            mounted.serve_http(TcpListener::from_std(http)?)?;
        }

        // A signal ends the mount, and so does an unmount from outside.
        tokio::select! {
            () = context.shutdown.cancelled() => {}
            () = mounted.ended() => {}
        }
        mounted.unmount().await?;
        Ok(())
    })
}
