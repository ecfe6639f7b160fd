//! Contents into the kernel's page cache before they are read.
//!
//! When a program has listed a directory to its end, the kernel knows the inodes of its files, and
//! the program has not come to read any. That moment is used: before the end of the listing is
//! told, the contents that are at hand are stored, and a reader that follows never asks us. A read
//! costs a request, two switches of context and a reply; a store is one call. Only kinds of files
//! that are being read are stored ([`monofs_content::evidence::kinds`]): a program that only lists pays
//! nothing.
//!
//! Storing waits for the lock of a page, which a read in progress holds until we answer it. So it
//! is done by threads that answer nothing but the end of that listing; when those are busy, the
//! listing ends at once.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use monofs_content::counters::Counters;
use monofs_content::evidence::NameKind;
use monofs_content::names::DirectoryNames;
use monofs_content::switch_lock::assert_not_held;
use monofs_model::{Error, Oid, Result};
use monofs_store::frame;
use parking_lot::Mutex;

use crate::fs::Fs;
use crate::fs::identity::{Identity, Ino};
use crate::prefetch::select::small_file;

/// Threads that store.
const THREADS: usize = 2;
/// Listings that may wait for their directory to be filled.
const WAITING_MAX: usize = 16;

/// The kernel's page cache.
pub trait PageCache: Send + Sync + 'static {
    /// Stores a whole file. Errors: the kernel does not know the inode (any more), or the mount is
    /// gone.
    fn store(&self, ino: Ino, bytes: &[u8]) -> io::Result<()>;
}

/// A directory, and what is to be done when it is filled.
struct FillJob {
    directory: Ino,
    done: Box<dyn FnOnce() + Send>,
}

/// The threads that store. They end when this is dropped.
pub struct Filler {
    jobs: SyncSender<FillJob>,
}

impl Filler {
    /// Starts the threads, which store contents of `fs`.
    pub fn start(kernel: impl PageCache, fs: &Arc<Fs>, counters: &Arc<Counters>) -> Result<Self> {
        let (jobs, inbox) = sync_channel(WAITING_MAX);
        let kernel: Arc<dyn PageCache> = Arc::new(kernel);
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..THREADS {
            let thread = FillThread {
                kernel: kernel.clone(),
                inbox: inbox.clone(),
                fs: Arc::downgrade(fs),
                counters: counters.clone(),
                raw: Vec::new(),
            };
            std::thread::Builder::new()
                .name("monofs-fill".into())
                .spawn(move || thread.run())
                .map_err(|e| {
                    Error::internal(format!("start the threads that fill the page cache: {e}"))
                })?;
        }
        Ok(Self { jobs })
    }

    /// Fills a directory unless the threads are busy with others, and then, in any case, calls
    /// `done`.
    pub fn fill(&self, directory: Ino, done: impl FnOnce() + Send + 'static) {
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        let job = FillJob {
            directory,
            done: Box::new(done),
        };
        if let Err(Full(job) | Disconnected(job)) = self.jobs.try_send(job) {
            (job.done)();
        }
    }
}

/// One of the threads.
struct FillThread {
    kernel: Arc<dyn PageCache>,
    inbox: Arc<Mutex<Receiver<FillJob>>>,
    fs: Weak<Fs>,
    counters: Arc<Counters>,
    /// The content that was decoded last.
    raw: Vec<u8>,
}

impl FillThread {
    fn run(mut self) {
        loop {
            let job = self.inbox.lock().recv();
            let Ok(job) = job else { return };
            if let Some(fs) = self.fs.upgrade() {
                self.fill(&fs, job.directory);
            }
            (job.done)();
        }
    }

    /// Stores what is at hand of the small files of a directory.
    fn fill(&mut self, fs: &Fs, directory: Ino) {
        assert_not_held("fill the page cache");
        let names = fs
            .shown_of(directory)
            .and_then(|shown| DirectoryNames::at_hand(&fs.cache, &shown));
        let Some(names) = names else { return };
        for named in names.iter() {
            let entry = named.entry;
            let kind = NameKind::of(entry.name);
            if entry.size == 0 || small_file(&entry).is_none() || !fs.kinds.may_store(kind) {
                continue;
            }
            // Files that the kernel does not know yet cannot be stored.
            let identity = Identity::entry(directory, &named);
            let Some(ino) = fs.inodes.find(identity) else {
                continue;
            };
            let ready = fs.cache.ready(&entry.oid, 0);
            let bytes = match &ready {
                Some(ready) => ready,
                None if self.decode(fs, &entry.oid) => &self.raw[..],
                // Not here, or damaged: a read finds that out and has it fetched.
                None => continue,
            };
            // A record may be wrong about a size: a read then says so.
            if bytes.len() as u64 == entry.size && self.kernel.store(ino, bytes).is_ok() {
                fs.kinds.stored(kind, entry.size);
                fs.marks.used(&entry.oid);
                fs.cache.was_read(&entry.oid, 0);
                self.counters.stored.one();
                self.counters.stored_bytes.add(entry.size);
            }
        }
    }

    /// Makes `raw` the content of a blob of one chunk. False: it is not here, or damaged.
    fn decode(&mut self, fs: &Fs, blob: &Oid) -> bool {
        self.raw.clear();
        let raw = &mut self.raw;
        let decoded = fs
            .cache
            .with_frame(blob, 0, |frame| frame::decode_into(frame, raw));
        matches!(decoded, Some(Ok(())))
    }
}
