//! Contents into the kernel's page cache before they are read.
//!
//! When a program has listed a directory to its end, the kernel knows the inodes of its files, and
//! the program has not come to read any. That moment is used: before the end of the listing is
//! told, the contents that are at hand are stored, and a reader that follows never asks us. A read
//! costs a request, two switches of context and a reply; a store is one call. Only kinds of files
//! that are being read are stored ([`crate::evidence::kinds`]): a program that only lists pays
//! nothing.
//!
//! Storing waits for the lock of a page, which a read in progress holds until we answer it. So it
//! is done by threads that answer nothing but the end of that listing; when those are busy, the
//! listing ends at once.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use monofs_model::{Error, Result};
use monofs_store::frame;
use parking_lot::Mutex;

use crate::evidence::NameKind;
use crate::fs::identity::{Identity, Ino};
use crate::fuse::Shared;
use crate::prefetch::{directory_tree, small_file};
use crate::switch_lock::assert_not_held;

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
struct Job {
    directory: Ino,
    done: Box<dyn FnOnce() + Send>,
}

/// The threads that store. They end when this is dropped.
pub struct Filler {
    jobs: SyncSender<Job>,
}

impl Filler {
    /// Starts the threads.
    pub fn start(kernel: impl PageCache, shared: &Arc<Shared>) -> Result<Self> {
        let (jobs, inbox) = sync_channel(WAITING_MAX);
        let (kernel, inbox) = (Arc::new(kernel), Arc::new(Mutex::new(inbox)));
        for _ in 0..THREADS {
            let (kernel, inbox, shared) = (kernel.clone(), inbox.clone(), Arc::downgrade(shared));
            std::thread::Builder::new()
                .name("monofs-fill".into())
                .spawn(move || run(&*kernel, &inbox, &shared))
                .map_err(|e| {
                    Error::internal(format!("start the threads that fill the page cache: {e}"))
                })?;
        }
        Ok(Self { jobs })
    }

    /// Fills a directory if nobody else keeps the threads busy, and then, in any case, calls
    /// `done`.
    pub fn fill(&self, directory: Ino, done: impl FnOnce() + Send + 'static) {
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        if let Err(Full(job) | Disconnected(job)) = self.jobs.try_send(Job {
            directory,
            done: Box::new(done),
        }) {
            (job.done)();
        }
    }
}

fn run(kernel: &dyn PageCache, inbox: &Mutex<Receiver<Job>>, shared: &Weak<Shared>) {
    let mut raw = Vec::new();
    loop {
        let job = inbox.lock().recv();
        let Ok(job) = job else { return };
        if let Some(shared) = shared.upgrade() {
            fill(kernel, &shared, job.directory, &mut raw);
        }
        (job.done)();
    }
}

/// Stores what is at hand of the small files of a directory.
fn fill(kernel: &dyn PageCache, shared: &Shared, directory: Ino, raw: &mut Vec<u8>) {
    assert_not_held("fill the page cache");
    let fs = &shared.fs;
    let Some(record) = directory_tree(fs, directory).and_then(|tree| fs.cache.record(&tree)) else {
        return;
    };
    for entry in record.iter() {
        let kind = NameKind::of(entry.name);
        if entry.size == 0 || small_file(&entry).is_none() || !fs.kinds.may_store(kind) {
            continue;
        }
        let identity = Identity::entry(directory, entry.name, entry.kind, &entry.oid);
        let Some(ino) = fs.inodes.find(identity) else {
            continue;
        };
        let ready = fs.cache.ready(&entry.oid, 0);
        let bytes: &[u8] = match &ready {
            Some(ready) => ready,
            None => {
                raw.clear();
                match fs
                    .cache
                    .with_frame(&entry.oid, 0, |frame| frame::decode_into(frame, raw))
                {
                    Some(Ok(())) => raw,
                    // Not here, or damaged: whoever reads it sees to that.
                    _ => continue,
                }
            }
        };
        // A record may lie about sizes: the read then says so.
        if bytes.len() as u64 == entry.size && kernel.store(ino, bytes).is_ok() {
            fs.kinds.stored(kind, entry.size);
            fs.marks.used(&entry.oid);
            fs.cache.was_read(&entry.oid, 0);
            shared.counters.stored.one();
            shared.counters.stored_bytes.add(entry.size);
        }
    }
}
