//! `monofs up`: check, start, mount, ingest, say how to look around, wait, undo.
//!
//! Invariants: whatever ends it, what it made is gone: the mount, a mount point that it made, a
//! temporary directory; only what a kill -9 leaves has to wait for the next start. Nothing is made
//! before mount point and ports are known to be good, and no repository ends the run that serves
//! others.

mod ingests;
mod place;
mod ports;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use monofs_client::Mounted;
use monofs_cluster::{Builder, Cluster, Ports};
use monofs_launch::Context;
use monofs_launch::exit::{Code, Failure, describe};

use self::ingests::{IngestOutcome, counted, ingest_all};
use self::place::{MountPlace, NoMount, is_missing};
use self::ports::PortChoice;
use crate::leftovers;
use crate::run_file::{self, RunFile, RunRecord};
use crate::say::{say, shell_path};

/// What is logged unless `RUST_LOG` says otherwise.
const QUIET_FILTER: &str = "warn,monofs_router::ingest=error,monofs_fleet::members=error";
/// How long a repository that was ingested may take to be seen in the mount.
const SHOWN_WAIT: Duration = Duration::from_secs(5);
/// Pause between two looks.
const SHOWN_POLL: Duration = Duration::from_millis(20);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  monofs up --temporary --repo https://github.com/org/repo.git\n  \
     monofs up --mount ~/code --repo https://github.com/org/repo.git@v1.2\n  monofs up --temporary \
     --repo .\n  monofs up --repo .=team/tool"
)]
pub(crate) struct Args {
    /// Repositories to ingest, URLs or directories, at which ref, and where to show them
    /// (repeatable)
    ///
    /// A URL is shown at HOST/PATH, a directory at the path of its origin if that is a URL, else at
    /// local/<directory>. `=DISPLAY` names another path, `@REF` another branch, tag or commit than
    /// HEAD, with %2F for each slash in it. What exists as a path is a source as a whole.
    #[arg(long = "repo", value_name = "SOURCE[@REF][=DISPLAY]")]
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
    /// gRPC port of the router, 0 = a free one (default: 9090; with --temporary a free one)
    #[arg(long)]
    port: Option<u16>,
    /// Port of the web page and the HTTP API, 0 = a free one (default: 8080; with --temporary a free
    /// one)
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
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

impl Args {
    fn port_choice(&self) -> PortChoice {
        let usual = match self.temporary {
            true => Ports::FREE,
            false => Ports::DEFAULT,
        };
        PortChoice {
            router: self.port.unwrap_or(usual.router),
            http: self.http_port.unwrap_or(usual.http),
            nodes: self.nodes,
        }
    }
}

/// What is to be undone at the end. The order of the fields is the order in which they are dropped
/// when there is no time for more.
struct Session {
    mounted: Option<Mounted>,
    place: MountPlace,
    /// The mount point was not there before.
    made_mount_point: bool,
    cluster: Option<Cluster>,
    directory: PathBuf,
    temporary: Option<tempfile::TempDir>,
    /// `None`: no private directory could be had for it.
    run_file: Option<RunFile>,
}

/// Whether somebody asked for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionEnd {
    Asked,
    Failed,
}

pub(crate) async fn run(args: Args, context: Context) -> anyhow::Result<()> {
    // What fails is said at the end, once; the router would say it, too, and that members of a run
    // with free ports are at others than before.
    if std::env::var_os("RUST_LOG").is_none() {
        context.log.set(QUIET_FILTER)?;
    }
    let cleared = tokio::task::spawn_blocking(leftovers::clear).await?;
    cleared.iter().for_each(|line| say(line));

    // A start goes on to its end, since a half of it could not be undone.
    let stop = context.shutdown.clone();
    let (mut session, ports) = Session::begin(&args).await?;
    let worked = match session.start(&args, ports).await {
        Ok(()) => tokio::select! {
            worked = session.serve(&args) => worked,
            () = stop.cancelled() => Ok(()),
        },
        Err(error) => Err(error),
    };
    let end = match worked {
        Ok(()) => SessionEnd::Asked,
        Err(_) => SessionEnd::Failed,
    };
    let undone = session.undo(end).await;
    worked.and(undone)
}

impl Session {
    /// Checks ports and mount point, and makes the directory and the run file. Errors: another run
    /// has the directory; a port or the mount point cannot be had.
    async fn begin(args: &Args) -> anyhow::Result<(Self, Ports)> {
        let kept = match (args.temporary, &args.dir) {
            (true, _) => None,
            (false, Some(dir)) => Some(std::path::absolute(dir)?),
            (false, None) => Some(data_dir()?),
        };
        if let Some(directory) = &kept {
            check_alone(directory)?;
        }
        let ports = args.port_choice().checked(&args.listen)?;
        let asked = args.mount.clone();
        let beside = kept.clone();
        let asked = match asked {
            Some(mount) => {
                let check = move || MountPlace::checked(&mount, beside.as_deref());
                Some(tokio::task::spawn_blocking(check).await??)
            }
            None => None,
        };

        // From here on there is something to undo.
        let temporary = match args.temporary {
            true => {
                let mut builder = tempfile::Builder::new();
                Some(builder.prefix(leftovers::TEMPORARY_PREFIX).tempdir()?)
            }
            false => None,
        };
        let directory = match (kept, &temporary) {
            (Some(kept), _) => kept,
            (None, Some(temporary)) => temporary.path().join("data"),
            (None, None) => data_dir()?,
        };
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("create the data directory {}", directory.display()))?;
        let directory = directory.canonicalize()?;
        let place = match (asked, &temporary) {
            (Some(place), _) => place,
            (None, _) if args.no_mount => MountPlace::None(NoMount::Asked),
            (None, Some(temporary)) => MountPlace::temporary(temporary.path()),
            (None, None) => MountPlace::None(NoMount::NoPlace),
        };
        let run_file = write_run_file(&directory, temporary.as_ref(), &place);
        let session = Self {
            mounted: None,
            place,
            made_mount_point: false,
            cluster: None,
            directory,
            temporary,
            run_file,
        };
        Ok((session, ports))
    }

    /// Starts the cluster, and mounts. Errors: what cannot be started; a mount point that the user
    /// named and the kernel refuses.
    async fn start(&mut self, args: &Args, ports: Ports) -> anyhow::Result<()> {
        // Upstreams and members are looked at more often than in a cluster of machines.
        let builder = Builder::new(&self.directory)
            .nodes(usize::from(args.nodes))
            .listen(&args.listen, ports)
            .router(|config| config.worker_interval = Duration::from_secs(2));
        let builder = match args.metrics {
            true => builder.metrics(),
            false => builder,
        };
        let cluster = builder.start().await?;
        let router = cluster.router_address();
        let http = cluster.http_address();
        say(&format!(
            "cluster: gRPC {router}, HTTP http://{http}, data in {}",
            self.directory.display()
        ));
        for (name, at) in cluster.metrics_addresses().iter().filter(|_| args.metrics) {
            say(&format!("metrics of {name}: http://{at}/metrics"));
        }
        if let Some(run_file) = &mut self.run_file {
            run_file.record.router = router;
            run_file.record.http = http;
        }
        self.write_run_file();
        self.cluster = Some(cluster);

        // Before anything is ingested, so that each repository can be read as soon as it is there.
        let mounted = match self.place.path().map(Path::to_owned) {
            Some(at) => self.mount(&at).await,
            None => return Ok(()),
        };
        if let Err(error) = mounted {
            if matches!(self.place, MountPlace::Asked(_)) {
                return Err(error);
            }
            self.place = MountPlace::None(NoMount::Failed(describe(&error).message));
        }
        if args.metrics && self.mounted.is_some() {
            let at = self.serve_mount_metrics(&args.listen).await?;
            say(&format!("metrics of the mount: http://{at}/metrics"));
        }
        Ok(())
    }

    async fn mount(&mut self, at: &Path) -> anyhow::Result<()> {
        let cluster = self.cluster.as_ref().context("the cluster runs")?;
        if is_missing(at) {
            self.made_mount_point = true;
            if let Some(run_file) = &mut self.run_file {
                run_file.record.made_mount_point = true;
            }
            self.write_run_file();
            std::fs::create_dir_all(at)
                .with_context(|| format!("create the mount point {}", at.display()))?;
        }
        let config = monofs_client::Config {
            mount: at.to_owned(),
            ..cluster.client_config("client-cache")
        };
        self.mounted = Some(monofs_client::mount(config).await?);
        Ok(())
    }

    async fn serve_mount_metrics(&self, host: &str) -> anyhow::Result<std::net::SocketAddr> {
        let mounted = self.mounted.as_ref().context("nothing is mounted")?;
        let listener = tokio::net::TcpListener::bind((host, 0)).await;
        let listener = listener.with_context(|| format!("listen on {host} for metrics"))?;
        Ok(mounted.serve_http(listener)?)
    }

    /// Ingests, tells how to look around, and goes on until it is dropped. Errors: nothing is
    /// served.
    async fn serve(&self, args: &Args) -> anyhow::Result<()> {
        let cluster = self.cluster.as_ref().context("the cluster runs")?;
        let outcome = ingest_all(cluster, &args.repos).await;
        let ready = cluster.status().await?.repositories_ready;
        let ready = ready.max(outcome.served.len() as u64);
        self.wait_shown(&outcome.served).await;
        outcome.failed.iter().for_each(|line| say(line));
        if ready == 0 && !outcome.failed.is_empty() {
            let message = match outcome.failed.len() {
                1 => "the repository cannot be served".to_owned(),
                count => format!("none of the {count} repositories can be served"),
            };
            let hint = "the lines that begin with 'failed' say why";
            return Err(Failure::new(Code::Failed, message).hint(hint).into());
        }
        self.say_last_lines(cluster, &outcome, ready, args.repos.len());

        // A mount that somebody else takes away is no reason to end.
        match &self.mounted {
            Some(mounted) => mounted.ended().await,
            None => std::future::pending().await,
        }
        say("the mount was taken away; the rest goes on until Ctrl-C or `monofs down`");
        std::future::pending().await
    }

    /// Five lines, the addresses last: they are what stays in sight.
    fn say_last_lines(&self, cluster: &Cluster, outcome: &IngestOutcome, ready: u64, asked: usize) {
        let repositories = counted(ready, "repository", "repositories");
        let failed = match outcome.failed.len() {
            0 => String::new(),
            count => format!("; {count} of {asked} failed"),
        };
        let router = cluster.router_address();
        let first = outcome.served.first().map(String::as_str);
        say(&format!("serving {repositories}{failed}"));
        say(&self.place.how_to_look(first, &router));
        say("Ctrl-C ends it, or `monofs down`");
        say(&format!(
            "router: {router} (monofs-admin status --router {router})"
        ));
        say(&format!("page: http://{}/", cluster.http_address()));
    }

    /// Waits until the mount shows what was ingested, so that what the user types next works. One
    /// that does not is no reason to wait for ever.
    async fn wait_shown(&self, paths: &[String]) {
        let Some(mounted) = &self.mounted else {
            return;
        };
        let mount = mounted.path().to_owned();
        let all_shown = async {
            for path in paths {
                let at = mount.join(path);
                while tokio::fs::symlink_metadata(&at).await.is_err() {
                    tokio::time::sleep(SHOWN_POLL).await;
                }
            }
        };
        let _ = tokio::time::timeout(SHOWN_WAIT, all_shown).await;
    }

    fn write_run_file(&self) {
        if let Some(Err(error)) = self.run_file.as_ref().map(RunFile::write) {
            tracing::warn!(%error, "the run file is out of date");
        }
    }

    /// Unmounts, ends the cluster and takes away what was made.
    async fn undo(mut self, end: SessionEnd) -> anyhow::Result<()> {
        // Nobody reads through a mount whose cluster is gone.
        let unmounted = match self.mounted.take() {
            Some(mounted) => mounted.unmount().await,
            None => Ok(()),
        };
        if end == SessionEnd::Asked {
            say("stopping");
        }
        if let Some(mount) = self.place.path().filter(|_| self.made_mount_point) {
            // What got contents meanwhile stays.
            let _ = std::fs::remove_dir(mount);
        }
        if let Some(cluster) = self.cluster.take() {
            cluster.shutdown().await;
        }
        let removed = match self.temporary.take() {
            Some(temporary) => {
                let at = shell_path(temporary.path());
                temporary
                    .close()
                    .with_context(|| format!("remove the temporary directory {at}"))
            }
            None => Ok(()),
        };
        if let Some(run_file) = self.run_file.take() {
            run_file.remove();
        }
        unmounted?;
        removed
    }
}

/// Refuses a directory that another run has.
fn check_alone(directory: &Path) -> Result<(), Failure> {
    let full = directory
        .canonicalize()
        .unwrap_or_else(|_| directory.to_owned());
    let runs = run_file::running();
    let Some(run) = runs.iter().find(|run| run.directory == full) else {
        return Ok(());
    };
    let message = format!(
        "another `monofs up` (process {}) runs with its data in {}",
        run.process.pid,
        full.display()
    );
    Err(Failure::new(Code::Refused, message).hint(
        "use it (`monofs status` shows its addresses), end it (`monofs down`), or start this one \
         beside it: with --temporary, or with --dir, --port and --http-port of its own",
    ))
}

/// The run file; without one the run goes on, and cannot be seen or ended by others.
fn write_run_file(
    directory: &Path,
    temporary: Option<&tempfile::TempDir>,
    place: &MountPlace,
) -> Option<RunFile> {
    let record = RunRecord::new(directory).map(|mut record| {
        record.temporary = temporary.map(|temporary| temporary.path().to_owned());
        record.mount = place.path().map(Path::to_owned);
        record
    });
    match record.and_then(RunFile::create) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!(
                directory = %crate::runtime::path().display(),
                %error,
                "no run file: `monofs status` and `monofs down` will not see this run"
            );
            None
        }
    }
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
