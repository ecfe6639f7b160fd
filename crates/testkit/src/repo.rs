//! Repositories made for tests: bare, in a temporary directory, byte for byte the same in every
//! run.
//!
//! Commits are written through `git fast-import`, so names and contents are exact bytes and 100,000
//! entries take a second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use monofs_model::{ObjectFormat, Oid};
use tempfile::TempDir;

use crate::git;
use crate::hostile::RawEntry;

/// The branch that generators commit to unless told otherwise, and HEAD of every repository.
pub const MAIN: &str = "main";

/// A bare repository that vanishes with this value.
pub struct Repo {
    dir: TempDir,
    format: ObjectFormat,
    commits: AtomicI64,
}

impl Default for Repo {
    fn default() -> Self {
        Self::new()
    }
}

impl Repo {
    /// An empty SHA-1 repository.
    pub fn new() -> Self {
        Self::with_format(ObjectFormat::Sha1)
    }

    /// An empty repository of the given object format.
    pub fn with_format(format: ObjectFormat) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("monofs-repo-")
            .tempdir()
            .expect("a temporary directory");
        let word = match format {
            ObjectFormat::Sha1 => "sha1",
            ObjectFormat::Sha256 => "sha256",
        };
        let format_flag = format!("--object-format={word}");
        git::run(
            dir.path(),
            [
                "init",
                "-q",
                "--bare",
                "--initial-branch=main",
                &format_flag,
                "repo.git",
            ],
        );
        let repo = Self {
            dir,
            format,
            commits: AtomicI64::new(0),
        };
        // Any commit may be asked for by id, as the public hosts allow.
        repo.git(["config", "uploadpack.allowAnySHA1InWant", "true"]);
        repo.git(["config", "uploadpack.allowFilter", "true"]);
        repo
    }

    /// Where the repository is (`.../repo.git`).
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("repo.git")
    }

    /// The directory that holds it: what a server exports.
    pub fn parent(&self) -> &Path {
        self.dir.path()
    }

    /// `file://` URL of the repository.
    pub fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// The object format it was made with.
    pub fn format(&self) -> ObjectFormat {
        self.format
    }

    /// Runs git in the repository.
    pub fn git<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
        git::run(&self.path(), args)
    }

    /// What a revision means, as an object id.
    pub fn rev(&self, revision: &str) -> Oid {
        let spec = format!("{revision}^{{object}}");
        oid(&git::line(
            &self.path(),
            ["rev-parse", "--verify", "--quiet", &spec],
        ))
    }

    /// Adds a commit to `main` with the changes that `describe` makes to the tree of its parent.
    pub fn commit(&self, describe: impl FnOnce(&mut Changes<'_>)) -> Oid {
        self.commit_on(MAIN, describe)
    }

    /// Adds a commit to `branch`, which starts empty if it does not exist.
    pub fn commit_on(&self, branch: &str, describe: impl FnOnce(&mut Changes<'_>)) -> Oid {
        let mut changes = Changes {
            repo: self,
            stream: Vec::new(),
            modules: BTreeMap::new(),
        };
        describe(&mut changes);
        self.import(branch, changes)
    }

    fn import(&self, branch: &str, mut changes: Changes<'_>) -> Oid {
        changes.add_gitmodules();
        let number = self.commits.fetch_add(1, Ordering::Relaxed);
        let date = git::EPOCH + 60 * number;
        let reference = format!("refs/heads/{branch}");
        let exists = git::command(&self.path())
            .args(["rev-parse", "--verify", "--quiet", &reference])
            .output()
            .is_ok_and(|output| output.status.success());
        // The stream names the commit, its parent if there is one, and then the changes.
        let message = format!("commit {number}");
        let mut stream = format!("commit {reference}\n").into_bytes();
        stream.extend(
            format!(
                "author {} {date} +0000\ncommitter {} {date} +0000\n",
                git::IDENTITY,
                git::IDENTITY
            )
            .bytes(),
        );
        stream.extend(format!("data {}\n{message}\n", message.len()).bytes());
        if exists {
            stream.extend(format!("from {reference}^0\n").bytes());
        }
        stream.extend(changes.stream);
        stream.extend(b"\ndone\n");
        git::feed(
            &self.path(),
            ["fast-import", "--quiet", "--force", "--done"],
            &stream,
        );
        self.rev(&reference)
    }

    /// Points a branch or tag (`refs/...`) at an object, whatever it was before.
    pub fn point(&self, reference: &str, target: &Oid) {
        self.git(["update-ref", reference, &target.to_string()]);
    }

    /// An annotated tag on an object.
    pub fn tag(&self, name: &str, target: &Oid) -> Oid {
        self.git(["tag", "-a", "-m", name, name, &target.to_string()]);
        self.rev(&format!("refs/tags/{name}"))
    }

    /// Writes a blob that no tree names yet.
    pub fn blob(&self, bytes: &[u8]) -> Oid {
        let written = git::feed(
            &self.path(),
            ["hash-object", "-t", "blob", "-w", "--stdin"],
            bytes,
        );
        oid(String::from_utf8_lossy(&written).trim())
    }

    /// Moves everything into one pack, as a server that has been cleaned up.
    pub fn repack(&self) {
        self.git(["repack", "-adfq"]);
        self.git(["prune-packed", "-q"]);
    }

    /// The pack files of the repository.
    pub fn packs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join("objects/pack"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "pack"))
            .collect()
    }
}

/// Parses an object id that git printed.
pub(crate) fn oid(text: &str) -> Oid {
    text.parse()
        .unwrap_or_else(|error| panic!("git printed {text:?} for an object id: {error}"))
}

/// What one commit changes. Paths are bytes with `/` between the names; later changes win. A file
/// written where a directory was replaces it, and the other way round.
pub struct Changes<'a> {
    repo: &'a Repo,
    stream: Vec<u8>,
    modules: BTreeMap<String, String>,
}

impl Changes<'_> {
    /// A plain file.
    pub fn file(&mut self, path: impl AsRef<[u8]>, contents: impl AsRef<[u8]>) -> &mut Self {
        self.inline("100644", path.as_ref(), contents.as_ref())
    }

    /// An executable file.
    pub fn exec(&mut self, path: impl AsRef<[u8]>, contents: impl AsRef<[u8]>) -> &mut Self {
        self.inline("100755", path.as_ref(), contents.as_ref())
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> &mut Self {
        self.inline("120000", path.as_ref(), target.as_ref())
    }

    /// A submodule at a commit, with its `.gitmodules` section. That file lists the submodules of
    /// this commit's changes only, so add all of them in one commit.
    pub fn submodule(&mut self, path: &str, url: &str, commit: &Oid) -> &mut Self {
        self.modules.insert(path.to_owned(), url.to_owned());
        self.gitlink(path, commit)
    }

    /// A submodule entry without a `.gitmodules` section.
    pub fn gitlink(&mut self, path: impl AsRef<[u8]>, commit: &Oid) -> &mut Self {
        self.line(&format!("M 160000 {commit} "), path.as_ref())
    }

    /// Removes a file or a whole directory.
    pub fn delete(&mut self, path: impl AsRef<[u8]>) -> &mut Self {
        self.line("D ", path.as_ref())
    }

    /// Removes everything.
    pub fn delete_all(&mut self) -> &mut Self {
        self.stream.extend(b"deleteall\n");
        self
    }

    /// Moves a file or a whole directory.
    pub fn rename(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> &mut Self {
        self.stream.extend(b"R ");
        quote(&mut self.stream, from.as_ref());
        self.line(" ", to.as_ref())
    }

    /// `count` small files `entry-000000`, ... in one directory, which replaces what was there.
    /// Made outside fast-import, whose directories are linear lists.
    pub fn many(&mut self, directory: &str, count: usize) -> &mut Self {
        let blobs: Vec<Oid> = (0..10)
            .map(|digit| self.repo.blob(format!("contents {digit}\n").as_bytes()))
            .collect();
        let names: Vec<String> = (0..count)
            .map(|index| format!("entry-{index:06}"))
            .collect();
        let entries: Vec<RawEntry<'_>> = names
            .iter()
            .enumerate()
            .map(|(index, name)| RawEntry::file(name.as_bytes(), blobs[index % blobs.len()]))
            .collect();
        let tree = self.repo.raw_tree(&entries);
        self.line(&format!("M 040000 {tree} "), directory.as_bytes())
    }

    /// A file at the end of `depth` nested directories named `d`.
    pub fn deep(&mut self, top: &str, depth: usize) -> &mut Self {
        let mut path = top.to_owned();
        (0..depth).for_each(|_| path.push_str("/d"));
        path.push_str("/file");
        self.file(path, b"deep\n")
    }

    /// One of everything that a mount must show exactly: modes, links, empty and large files,
    /// awkward names.
    pub fn one_of_everything(&mut self) -> &mut Self {
        self.file("README.md", b"# a repository\n")
            .file("empty", b"")
            .exec("bin/run", b"#!/bin/sh\nexit 0\n")
            .symlink("link", b"README.md")
            .symlink("bin/dangling", b"../no/such/file")
            .symlink("absolute", b"/etc/hostname")
            .symlink("loop", b"loop")
            .file("src/nested/deeper/file.rs", b"fn main() {}\n")
            .file(b"latin1-\xe9t\xe9", b"not UTF-8\n")
            .file(b"raw-\xff\xfe-name", b"\x00\x01\x02\xff")
            .file("name with spaces", b"s")
            .file("new\nline", b"n")
            .file("quote\"back\\slash", b"q")
            .file("*?[glob]", b"g")
            .file("-leading-dash", b"d")
            .file("ünïcödé-\u{1f980}", b"u")
            .file("a", b"sorts before a.b and a/")
            .file("a.b", b"sorts before the directory a0")
            .file("a0/x", b"x")
            .file(vec![b'n'; 255], b"longest name")
            .file("exactly-one-chunk", pattern(1 << 20))
            .file("one-chunk-and-a-byte", pattern((1 << 20) + 1))
            .file("large.bin", pattern(3 * (1 << 20) + 12_345))
    }

    fn inline(&mut self, mode: &str, path: &[u8], contents: &[u8]) -> &mut Self {
        self.line(&format!("M {mode} inline "), path);
        self.stream
            .extend(format!("data {}\n", contents.len()).bytes());
        self.stream.extend(contents);
        self.stream.push(b'\n');
        self
    }

    fn line(&mut self, start: &str, path: &[u8]) -> &mut Self {
        self.stream.extend(start.bytes());
        quote(&mut self.stream, path);
        self.stream.push(b'\n');
        self
    }

    fn add_gitmodules(&mut self) {
        if self.modules.is_empty() {
            return;
        }
        let sections = self
            .modules
            .iter()
            .map(|(path, url)| format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n"));
        let text: String = sections.collect();
        self.file(".gitmodules", text);
    }
}

/// A path in fast-import's C style: every byte that is not plain is an octal escape.
fn quote(stream: &mut Vec<u8>, path: &[u8]) {
    stream.push(b'"');
    for &byte in path {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_') {
            stream.push(byte);
        } else {
            stream.extend(format!("\\{byte:03o}").bytes());
        }
    }
    stream.push(b'"');
}

/// `len` bytes that do not repeat at any chunk size and compress a little.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut counter: u64 = 0;
    while bytes.len() < len {
        bytes.extend(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[4..].iter());
        bytes.extend((counter as u32).to_le_bytes());
        counter += 1;
    }
    bytes.truncate(len);
    bytes
}
