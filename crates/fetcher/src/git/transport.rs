//! Connections to remotes that gix then speaks the Git protocol over.
//!
//! `git` is a TCP stream and `ssh` and `file` are children, all opened here, so that deadlines,
//! process groups and the environment are ours; `http` and `https` are [`GitHttp`].

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gix::protocol::transport::Protocol;
use gix::protocol::transport::client::blocking_io::{Transport, http::Transport as HttpTransport};
use gix::protocol::transport::client::git::{ConnectMode, blocking_io::Connection};
use monofs_model::source::Scheme;
use monofs_model::{Error, Result, SourceUrl};
use parking_lot::Mutex;

use super::child::{self, GitChild};
use super::failure::{RemoteRequest, judge_io, slow_to_connect, unreachable};
use super::http::GitHttp;
use super::http::verdict::HttpVerdict;
use crate::credentials::HostCredentials;
use crate::source::FetchTask;

/// How long one read waits before it looks whether its task was cancelled.
const READ_SLICE: Duration = Duration::from_millis(200);

/// Any transport.
pub type BoxedTransport = Box<dyn Transport + Send>;

/// An open connection.
pub struct OpenRemote {
    pub transport: BoxedTransport,
    /// The process behind it, if there is one: its error output says why a conversation failed.
    pub child: Option<GitChild>,
    /// What our own client saw, over HTTP.
    pub verdict: Option<Arc<Mutex<HttpVerdict>>>,
}

/// Opens a connection to the remote of `asked`. Errors are final: no other implementation would get
/// through.
pub fn open(asked: &RemoteRequest<'_>, task: &Arc<FetchTask>) -> Result<OpenRemote> {
    match asked.source.scheme() {
        Scheme::Git => open_git(asked, task),
        Scheme::Ssh => over_child(
            ssh_command(asked.source, asked.host, task, "git-upload-pack"),
            asked,
            task,
        ),
        Scheme::File => over_child(upload_pack_command(asked.source), asked, task),
        Scheme::Http | Scheme::Https => open_http(asked, task),
    }
}

fn open_git(asked: &RemoteRequest<'_>, task: &Arc<FetchTask>) -> Result<OpenRemote> {
    let host = asked.source.host();
    let port = asked.source.port();
    let port = port
        .or(asked.source.scheme().default_port())
        .expect("git:// has a port of its own");
    let stream = connect(host, port, task.limits.connect_timeout).map_err(|e| match e {
        None => unreachable(asked, "its name cannot be resolved"),
        Some(e) if e.kind() == io::ErrorKind::TimedOut => slow_to_connect(asked),
        Some(e) => judge_io(&e, asked).unwrap_or_else(|| unreachable(asked, &e.to_string())),
    })?;
    // Reads come in slices, so that a cancelled task is noticed.
    let idle = Some(task.limits.idle_timeout);
    let prepared = stream
        .set_read_timeout(Some(READ_SLICE))
        .and_then(|()| stream.set_write_timeout(idle));
    let write = prepared
        .and_then(|()| stream.set_nodelay(true))
        .and_then(|()| stream.try_clone());
    let write =
        write.map_err(|e| Error::internal(format!("set up a connection to {host}:{port}: {e}")))?;
    let path = asked.source.path().into_owned();
    let name = Some((host.to_owned(), asked.source.port()));
    let read = PatientStream {
        stream,
        task: task.clone(),
    };
    let connection = Connection::new(
        read,
        FarewellWriter(write),
        Protocol::V2,
        path,
        name,
        ConnectMode::Daemon,
        false,
    );
    Ok(OpenRemote {
        transport: Box::new(connection),
        child: None,
        verdict: None,
    })
}

/// A stream whose reads end at the idle timeout, or soon after their task was cancelled.
struct PatientStream {
    stream: TcpStream,
    task: Arc<FetchTask>,
}

impl Read for PatientStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        loop {
            match self.stream.read(buffer) {
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    self.task.check().map_err(io::Error::other)?;
                    if began.elapsed() > self.task.limits.idle_timeout {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "the remote was silent for too long",
                        ));
                    }
                }
                result => return result,
            }
        }
    }
}

/// A writer to a remote that may hang up in the middle of our words.
///
/// A server that refuses what it is asked for says so and closes, without reading to the end. The
/// failed write would hide what it said, so such a failure is left to the next read: that finds the
/// last words first, then the end.
struct FarewellWriter<W>(W);

impl<W: Write> Write for FarewellWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).or_else(|e| {
            if has_hung_up(&e) {
                Ok(bytes.len())
            } else {
                Err(e)
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0
            .flush()
            .or_else(|e| if has_hung_up(&e) { Ok(()) } else { Err(e) })
    }
}

fn has_hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Connects to the first address that answers; `None` when there is no address.
fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, Option<io::Error>> {
    let mut last = None;
    for address in (host, port).to_socket_addrs().map_err(|_| None)? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = Some(e),
        }
    }
    Err(last)
}

fn over_child(
    command: Command,
    asked: &RemoteRequest<'_>,
    task: &Arc<FetchTask>,
) -> Result<OpenRemote> {
    let mut child = GitChild::spawn(command, task, |_| {})?;
    let (read, write) = child.take_pipes();
    let path = asked.source.path().into_owned();
    let read: Box<dyn Read + Send> = Box::new(read);
    let write: Box<dyn Write + Send> = Box::new(FarewellWriter(write));
    let connection = Connection::new(
        read,
        write,
        Protocol::V2,
        path,
        None::<(String, Option<u16>)>,
        ConnectMode::Process,
        false,
    );
    Ok(OpenRemote {
        transport: Box::new(connection),
        child: Some(child),
        verdict: None,
    })
}

fn upload_pack_command(source: &SourceUrl) -> Command {
    let mut command = child::git();
    command.env("GIT_PROTOCOL", "version=2");
    command
        .args(["upload-pack", "--end-of-options"])
        .arg(source.path().as_ref());
    command
}

/// `ssh` to the host of `source`, running `program` there on the repository's path.
pub fn ssh_command(
    source: &SourceUrl,
    host: &HostCredentials,
    task: &FetchTask,
    program: &str,
) -> Command {
    let mut command = child::command("ssh");
    command
        .env("GIT_PROTOCOL", "version=2")
        .args(ssh_options(source, host, task));
    let path = source.path().replace('\'', "'\\''");
    command
        .arg("--")
        .arg(source.host())
        .arg(format!("{program} '{path}'"));
    command
}

/// The options that `ssh` gets: never asks, accepts only known hosts, gives up in time.
pub fn ssh_options(source: &SourceUrl, host: &HostCredentials, task: &FetchTask) -> Vec<String> {
    let mut options = Vec::new();
    let mut set = |option: String| options.extend(["-o".to_owned(), option]);

    // For every host: `ssh` never asks, trusts only known hosts and forwards nothing.
    set("BatchMode=yes".to_owned());
    set("StrictHostKeyChecking=yes".to_owned());
    set("SendEnv=GIT_PROTOCOL".to_owned());
    set("ClearAllForwardings=yes".to_owned());
    set("ForwardAgent=no".to_owned());
    set("PermitLocalCommand=no".to_owned());
    set(format!(
        "ConnectTimeout={}",
        task.limits.connect_timeout.as_secs().max(1)
    ));

    // What the entry of the host sets stands alone: its known hosts replace all others, and its key
    // replaces the user's keys, agent and configuration.
    if let Some(known_hosts) = &host.known_hosts {
        set(format!("UserKnownHostsFile=\"{}\"", known_hosts.display()));
        set("GlobalKnownHostsFile=/dev/null".to_owned());
    }
    if let Some(key) = &host.ssh_key {
        set("IdentitiesOnly=yes".to_owned());
        set("IdentityAgent=none".to_owned());
        set("PreferredAuthentications=publickey".to_owned());
        options.extend([
            "-i".to_owned(),
            key.display().to_string(),
            "-F".to_owned(),
            "/dev/null".to_owned(),
        ]);
    }

    // The port is the source's, and the source's user comes before the entry's.
    if let Some(port) = source.port() {
        options.extend(["-p".to_owned(), port.to_string()]);
    }
    let named = source.user().map(|user| user.into_owned());
    if let Some(user) = named.or_else(|| host.user.clone()) {
        options.extend(["-l".to_owned(), user]);
    }
    options
}

fn open_http(asked: &RemoteRequest<'_>, task: &FetchTask) -> Result<OpenRemote> {
    let url = gix::url::parse(asked.source.request_url().as_str())
        .map_err(|e| Error::invalid(format!("source {}: {e}", asked.source)))?;
    let client = GitHttp::new(asked.source, asked.host, &task.limits)?;
    let verdict = client.verdict();
    Ok(OpenRemote {
        transport: Box::new(HttpTransport::new_http(client, url, Protocol::V2, false)),
        child: None,
        verdict: Some(verdict),
    })
}
