//! A `git://` server of long ago: protocol version 0, and an advertisement without the abilities
//! that a test takes away.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// How much of a conversation may hold the advertisement.
const ADVERTISEMENT_BYTES: usize = 64 << 10;

/// The server; it serves until the test ends.
pub struct OldDaemon {
    port: u16,
}

impl OldDaemon {
    /// Serves the repositories below `base` without these capabilities.
    #[track_caller]
    pub fn serve_without(base: &Path, capabilities: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let hidden: Vec<String> = capabilities.iter().map(|word| format!(" {word}")).collect();
        let hidden = Arc::new(hidden);
        let base = base.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (base, hidden) = (base.clone(), hidden.clone());
                // A client that hangs up ends its thread alone.
                std::thread::spawn(move || {
                    let _ = converse(stream, &base, &hidden);
                });
            }
        });
        Self { port }
    }

    /// The URL of a repository, named relative to the base.
    pub fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }
}

/// Reads the request, runs Git's own server for it, and passes the bytes on.
fn converse(mut stream: TcpStream, base: &Path, hidden: &[String]) -> std::io::Result<()> {
    // `git-upload-pack /NAME\0host=...\0`, behind four digits of its length.
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::from_str_radix(&String::from_utf8_lossy(&length), 16).unwrap_or(4);
    let mut request = vec![0; length - 4];
    stream.read_exact(&mut request)?;
    let text = String::from_utf8_lossy(&request).into_owned();
    let name = text.split(['\0', ' ']).nth(1).unwrap_or_default();
    let repository: PathBuf = base.join(name.trim_start_matches('/'));
    let mut command = Command::new("git");
    command
        .envs(super::server::server_env())
        .env_remove("GIT_PROTOCOL");
    let mut child = command
        .arg("upload-pack")
        .arg(repository)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().expect("piped");
    let mut output = child.stdout.take().expect("piped");
    let mut asking = stream.try_clone()?;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = asking.read(&mut buffer) {
            if input.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    });
    // A capability becomes a word of the same length that stands for none.
    let mut passed = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = output.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        if passed < ADVERTISEMENT_BYTES {
            hide(&mut buffer[..count], hidden);
        }
        passed += count;
        stream.write_all(&buffer[..count])?;
    }
    child.wait()?;
    stream.shutdown(Shutdown::Both)
}

fn hide(bytes: &mut [u8], hidden: &[String]) {
    for word in hidden {
        let word = word.as_bytes();
        for at in 0..bytes.len().saturating_sub(word.len()) {
            if bytes[at..].starts_with(word) {
                bytes[at + 1..at + word.len()].fill(b'x');
            }
        }
    }
}
