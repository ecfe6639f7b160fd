//! Looking around before the load: which directories and files the repositories have, and whether
//! nodes hold the contents.
//!
//! Everything kept is bounded, and so is what is asked for: a larger cluster is sampled, and the
//! report says so.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use anyhow::Result;
use monofs_launch::exit::{Code, Failure};
use monofs_model::Oid;
use monofs_model::limits::TREE_CLOSURE_BYTES;
use monofs_model::tree::{EntryKind, TreeRecord};
use monofs_rpc::ChannelPool;

use super::call::LoadCaller;
use super::corpus::{Corpus, KnownDirectory, KnownFile, KnownRepository};
use super::operation::LoadOperation;
use super::peers::LoadPeers;
use super::rng::SeededRng;
use crate::cluster::{CallSubject, explain};
use crate::text::clean;

/// Most repositories whose trees are looked into, drawn at random when there are more.
const SURVEYED_MAX: usize = 1_000;
/// Most directories known, over all repositories.
const DIRECTORIES_MAX: usize = 200_000;
/// Most small and most large files known, over all repositories.
const FILES_MAX: usize = 200_000;
/// Every repository may have this many of each, however many there are.
const SHARE_MIN: usize = 64;
/// Directories asked for in one request.
const OIDS_PER_REQUEST: usize = 1024;
/// Files of a repository whose presence is probed before contents are read.
const PROBES: usize = 8;
/// Largest small file, in bytes.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Large files are larger than this, in bytes.
const LARGE_BYTES_MIN: u64 = 1 << 20;

/// Learns the directories and files of the repositories from their trees. `tell` is called after
/// each repository, with how much is known by then. Errors: a tree cannot be had.
pub async fn survey(
    corpus: &mut Corpus,
    timeout: Duration,
    rng: &mut SeededRng,
    mut tell: impl FnMut(&Corpus),
) -> Result<()> {
    // Of more repositories than can be looked into, a random part is.
    let mut order: Vec<u32> = (0..corpus.repositories.len() as u32).collect();
    rng.shuffle(&mut order);
    corpus.sampled |= order.len() > SURVEYED_MAX;
    order.truncate(SURVEYED_MAX);

    // What may be known in all is divided among them.
    let servers = SurveyServers::new(timeout);
    let directories = (DIRECTORIES_MAX / order.len()).max(SHARE_MIN);
    let files = (FILES_MAX / order.len()).max(SHARE_MIN);
    for number in order {
        let quota = WalkQuota {
            directories,
            small_files: files,
            large_files: files,
        };
        CorpusWalk::new(number, quota).run(corpus, &servers).await?;
        tell(corpus);
    }
    Ok(())
}

/// Makes sure that contents come from the nodes and not, one by one, from the Git remote. Errors: a
/// repository's contents are nowhere; those of a lazy one are told apart.
pub async fn probe(corpus: &Corpus, timeout: Duration, operation: LoadOperation) -> Result<()> {
    let chosen = match operation {
        LoadOperation::Resolve | LoadOperation::Lookup | LoadOperation::List => return Ok(()),
        LoadOperation::ReadSmall => &corpus.small,
        LoadOperation::ReadLarge => &corpus.large,
    };
    let servers = SurveyServers::new(timeout);
    let caller = servers.caller(corpus);
    for group in chosen.chunk_by(|a, b| a.repository == b.repository) {
        // A few files, spread over the repository, stand for all of it.
        let spacing = (group.len() / PROBES).max(1);
        let mut held = false;
        for file in group.iter().step_by(spacing).take(PROBES) {
            let answer = caller.holds(file).await;
            held |= answer.map_err(|error| explain(error, CallSubject::Cluster))?;
        }
        if !held {
            return Err(no_contents(corpus.repository_of(&group[0])).into());
        }
    }
    Ok(())
}

/// The servers while they are looked at: connections, and who failed lately.
struct SurveyServers {
    peers: LoadPeers,
    channels: ChannelPool,
    timeout: Duration,
}

impl SurveyServers {
    fn new(timeout: Duration) -> Self {
        Self {
            peers: LoadPeers::default(),
            channels: ChannelPool::default(),
            timeout,
        }
    }

    fn caller<'a>(&'a self, corpus: &'a Corpus) -> LoadCaller<'a> {
        LoadCaller {
            corpus,
            peers: &self.peers,
            channels: &self.channels,
            timeout: self.timeout,
        }
    }
}

/// How much more of one repository is taken.
struct WalkQuota {
    directories: usize,
    small_files: usize,
    large_files: usize,
}

/// The walk over the tree of one repository, breadth first.
struct CorpusWalk {
    /// Which repository of the corpus.
    repository: u32,
    quota: WalkQuota,
    /// Directories that are to be asked for.
    waiting: VecDeque<Oid>,
    /// Directories that were ever in `waiting`.
    seen: HashSet<Oid>,
    /// Directories that were answered, asked for or not.
    answered: HashSet<Oid>,
    /// Files that are in the corpus.
    files: HashSet<Oid>,
}

impl CorpusWalk {
    fn new(repository: u32, quota: WalkQuota) -> Self {
        Self {
            repository,
            quota,
            waiting: VecDeque::new(),
            seen: HashSet::new(),
            answered: HashSet::new(),
            files: HashSet::new(),
        }
    }

    /// Walks until the tree ends or the quota is used up; what is found goes into the corpus.
    async fn run(mut self, corpus: &mut Corpus, servers: &SurveyServers) -> Result<()> {
        self.want(Oid::from_bytes(
            &corpus.repositories[self.repository as usize].root,
        )?);
        while self.quota.directories > 0 && !self.waiting.is_empty() {
            // A request names many directories; its answer brings those below them along.
            let batch = self.waiting.len().min(OIDS_PER_REQUEST);
            let oids: Vec<Oid> = self.waiting.drain(..batch).collect();
            for (oid, record) in self.ask(corpus, servers, &oids).await? {
                if !self.answered.insert(oid) {
                    continue;
                }
                if self.quota.directories == 0 {
                    corpus.sampled = true;
                    break;
                }
                self.quota.directories -= 1;
                self.learn(corpus, oid, &record);
            }
            let answered = &self.answered;
            self.waiting.retain(|oid| !answered.contains(oid));
        }
        corpus.sampled |= !self.waiting.is_empty();
        Ok(())
    }

    fn want(&mut self, directory: Oid) {
        if self.seen.insert(directory) {
            self.waiting.push_back(directory);
        }
    }

    async fn ask(
        &self,
        corpus: &Corpus,
        servers: &SurveyServers,
        oids: &[Oid],
    ) -> Result<Vec<(Oid, TreeRecord)>> {
        let repository = &corpus.repositories[self.repository as usize];
        let answer = servers
            .caller(corpus)
            .closure(repository, oids, TREE_CLOSURE_BYTES)
            .await;
        answer.map_err(|error| {
            let path = clean(&repository.path);
            explain(
                error.context(format!("looking into {path}")),
                CallSubject::Cluster,
            )
            .into()
        })
    }

    /// Takes a directory and its files into the corpus, and wants the directories below.
    fn learn(&mut self, corpus: &mut Corpus, oid: Oid, record: &TreeRecord) {
        corpus.directories.push(KnownDirectory {
            repository: self.repository,
            oid,
            entries: record.len() as u32,
        });
        // Files between the two sizes are asked for by no operation.
        for entry in record.iter() {
            let file = KnownFile {
                repository: self.repository,
                oid: entry.oid,
                size: entry.size,
            };
            match entry.kind {
                EntryKind::Directory => self.want(entry.oid),
                EntryKind::File | EntryKind::Executable if entry.size <= SMALL_BYTES_MAX => {
                    let left = &mut self.quota.small_files;
                    corpus.sampled |= !take(file, &mut corpus.small, left, &mut self.files);
                }
                EntryKind::File | EntryKind::Executable if entry.size > LARGE_BYTES_MIN => {
                    let left = &mut self.quota.large_files;
                    corpus.sampled |= !take(file, &mut corpus.large, left, &mut self.files);
                }
                _ => {}
            }
        }
    }
}

/// Adds a file that is not known yet; false when there was no room for it.
fn take(
    file: KnownFile,
    into: &mut Vec<KnownFile>,
    left: &mut usize,
    known: &mut HashSet<Oid>,
) -> bool {
    if *left == 0 {
        return false;
    }
    if known.insert(file.oid) {
        *left -= 1;
        into.push(file);
    }
    true
}

fn no_contents(repository: &KnownRepository) -> Failure {
    let path = clean(&repository.path);
    let why = if repository.lazy {
        " (its contents are lazy: nodes get them on first read)"
    } else {
        ""
    };
    Failure::new(
        Code::Refused,
        format!("no node holds contents of {path} yet{why}"),
    )
    .hint(
        "ingest it with --content=eager --wait, or read it through a mount first; list and lookup \
         need no contents",
    )
}
