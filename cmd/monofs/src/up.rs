//! `monofs up`: start, ingest, mount, say how to look around, wait, undo.
//!
//! Invariant: whatever ends it, what it made is gone: the mount, a mount point that it created, a
//! temporary directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use monofs_client::Mounted;
use monofs_cluster::{Builder, Cluster, Ingest, Ports};
use monofs_launch::Context;
use monofs_model::{Error, Repository};

use crate::repository::RepositoryToShow;

/// Where the kernel takes mounts.
const FUSE_DEVICE: &str = "/dev/fuse";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  monofs up --repo https://github.com/org/repo.git --mount \
     /mnt/monofs\n  monofs up --temporary --repo .\n  monofs up --repo .=team/tool"
)]
pub(crate) struct Args {
    /// Repositories to ingest, URLs or directories, and where to show them (repeatable)
    ///
    /// A URL is shown at HOST/PATH, a directory at the path of its origin if that is a URL, else at
    /// local/<directory>. `=DISPLAY` names another path.
    #[arg(long = "repo", value_name = "SOURCE[=DISPLAY]")]
    repos: Vec<String>,
    /// Mount point; it is created if missing (default with --temporary: a temporary directory)
    #[arg(long, value_name = "DIRECTORY")]
    mount: Option<PathBuf>,
    /// Do not mount
    #[arg(long, conflicts_with = "mount")]
    no_mount: bool,
    /// Keep everything in a temporary directory that goes away at the end, and use free ports
    #[arg(long)]
    temporary: bool,
    /// Directory of all data (default: $XDG_DATA_HOME/monofs or ~/.local/share/monofs)
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "temporary")]
    dir: Option<PathBuf>,
    /// Nodes to run
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
    /// Serve /metrics of nodes, fetcher and mount too, on free ports that are printed
    #[arg(long)]
    metrics: bool,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    listen: String,
}

/// What is to be undone at the end.
struct Session {
    cluster: Cluster,
    mounted: Option<Mounted>,
    mount_point: Option<PathBuf>,
    created_mount_point: bool,
    _temporary: Option<tempfile::TempDir>,
}

pub(crate) async fn run(args: Args, context: Context) -> anyhow::Result<()> {
    let mut session = start(&args).await?;
    let stop = context.shutdown.clone();
    let worked = tokio::select! {
        worked = show(&args, &mut session) => worked,
        () = stop.cancelled() => Ok(()),
    };
    if worked.is_ok() {
        stop.cancelled().await;
        println!("\nstopping");
    }
    let undone = session.undo().await;
    worked.and(undone)
}

async fn start(args: &Args) -> anyhow::Result<Session> {
    // A temporary run leaves nothing behind and disturbs no other: a directory and free ports.
    let temporary = args
        .temporary
        .then(|| tempfile::Builder::new().prefix("monofs-").tempdir())
        .transpose()?;
    let dir = match (&temporary, &args.dir) {
        (Some(temporary), _) => temporary.path().join("data"),
        (None, Some(dir)) => dir.clone(),
        (None, None) => data_dir()?,
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let ports = if args.temporary {
        Ports::FREE
    } else {
        Ports::DEFAULT
    };

    // Upstreams and members are looked at more often than in a cluster of machines.
    let builder = Builder::new(&dir)
        .nodes(usize::from(args.nodes))
        .listen(&args.listen, ports);
    let builder = if args.metrics {
        builder.metrics()
    } else {
        builder
    };
    let cluster = builder
        .router(|config| config.worker_interval = Duration::from_secs(2))
        .start()
        .await?;

    // Where to mount is decided here; the mount is made once there is something to see.
    let mount_point = match (&args.mount, &temporary, args.no_mount) {
        (_, _, true) => None,
        (Some(mount), ..) => Some(mount.clone()),
        (None, Some(temporary), _) => Some(temporary.path().join("mount")),
        (None, None, _) => None,
    };
    Ok(Session {
        cluster,
        mounted: None,
        mount_point,
        created_mount_point: false,
        _temporary: temporary,
    })
}

async fn show(args: &Args, session: &mut Session) -> anyhow::Result<()> {
    let router = session.cluster.router_address();
    println!(
        "cluster: gRPC {router}, HTTP http://{}",
        session.cluster.http_address()
    );
    for (name, at) in session
        .cluster
        .metrics_addresses()
        .iter()
        .filter(|_| args.metrics)
    {
        println!("metrics of {name}: http://{at}/metrics");
    }

    // Each repository is readable as soon as it is ingested.
    let mut shown = Vec::new();
    for repo in &args.repos {
        let repo = RepositoryToShow::parse(repo)?;
        println!("ingesting {repo}");
        let ingest = Ingest::of(repo.source.as_str()).shown_as(repo.path.as_str());
        let entry = session
            .cluster
            .ingest(ingest)
            .await
            .with_context(|| format!("ingest {}", repo.source))?;
        let snapshot = entry
            .snapshot
            .as_ref()
            .ok_or_else(|| Error::internal("published without a snapshot"))?;
        println!(
            "  {} at {} ({} directories, {} contents)",
            entry.path, snapshot.commit, snapshot.trees, snapshot.blobs
        );
        shown.push(entry);
    }

    // Without a mount the tree is shown through the command line.
    match session.mount_point.clone() {
        None => browse(&router, &shown)?,
        Some(_) if !Path::new(FUSE_DEVICE).exists() => {
            println!(
                "{FUSE_DEVICE} is not here, so nothing is mounted; in a container, add --device \
                 {FUSE_DEVICE} --cap-add SYS_ADMIN"
            );
            browse(&router, &shown)?;
        }
        Some(mount) => {
            session.mount(&mount).await?;
            if args.metrics {
                println!(
                    "metrics of the mount: http://{}/metrics",
                    session.serve_mount_metrics(&args.listen).await?
                );
            }
            how_to_look(&mount, &router, &shown);
        }
    }
    println!("\nCtrl-C ends it.");
    Ok(())
}

impl Session {
    async fn mount(&mut self, at: &Path) -> anyhow::Result<()> {
        if !at.exists() {
            std::fs::create_dir_all(at)
                .with_context(|| format!("create the mount point {}", at.display()))?;
            self.created_mount_point = true;
        }
        let config = monofs_client::Config {
            mount: at.to_owned(),
            ..self.cluster.client_config("client-cache")
        };
        self.mounted = Some(monofs_client::mount(config).await?);
        Ok(())
    }

    async fn serve_mount_metrics(&self, host: &str) -> anyhow::Result<std::net::SocketAddr> {
        let mounted = self.mounted.as_ref().context("nothing is mounted")?;
        let listener = tokio::net::TcpListener::bind(format!("{host}:0"));
        let listener = listener
            .await
            .with_context(|| format!("listen on {host} for metrics"))?;
        Ok(mounted.serve_http(listener)?)
    }

    async fn undo(mut self) -> anyhow::Result<()> {
        let unmounted = match self.mounted.take() {
            Some(mounted) => mounted.unmount().await,
            None => Ok(()),
        };
        if let Some(mount) = self.mount_point.filter(|_| self.created_mount_point) {
            // A mount point that has got contents meanwhile stays.
            let _ = std::fs::remove_dir(mount);
        }
        self.cluster.shutdown().await;
        Ok(unmounted?)
    }
}

fn how_to_look(mount: &Path, router: &str, shown: &[Repository]) {
    println!("mounted at {}", mount.display());
    println!("\nlook around:");
    let first = shown
        .first()
        .map_or(String::new(), |entry| format!("/{}", entry.path));
    println!("  ls {}{first}", mount.display());
    println!("  rg fn {}{first}", mount.display());
    println!("  monofs-admin status --router {router}");
}

/// The tree without a mount: through `monofs-admin`, when it is beside this program.
fn browse(router: &str, shown: &[Repository]) -> anyhow::Result<()> {
    let admin = std::env::current_exe()?.with_file_name("monofs-admin");
    for entry in shown {
        let root = entry.path.as_str();
        let readme = format!("{root}/README.md");
        println!("\nmonofs-admin ls {root} --router {router}");
        if admin.exists() {
            run_admin(&admin, ["ls", root, "--router", router])?;
            println!("\nmonofs-admin cat {readme} --router {router}");
            run_admin(&admin, ["cat", &readme, "--router", router])?;
        }
    }
    Ok(())
}

/// What it prints is for the user; a repository without the file is no reason to end.
fn run_admin(admin: &Path, args: [&str; 4]) -> anyhow::Result<()> {
    std::process::Command::new(admin)
        .args(args)
        .status()
        .with_context(|| format!("run monofs-admin {}", args[0]))?;
    Ok(())
}

fn data_dir() -> anyhow::Result<PathBuf> {
    let base = directory_variable("XDG_DATA_HOME")
        .or_else(|| Some(directory_variable("HOME")?.join(".local/share")));
    Ok(base
        .ok_or_else(|| anyhow::anyhow!("neither XDG_DATA_HOME nor HOME is set; give --dir"))?
        .join("monofs"))
}

/// An environment variable that names a directory; an empty one counts as unset.
fn directory_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}
