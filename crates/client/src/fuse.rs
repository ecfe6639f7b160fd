//! The kernel's requests, decoded by fuser: call `fs`, translate, reply. The only module that knows
//! fuser.
//!
//! What is at hand is answered on the thread that read the request. What is not is fetched by a
//! task, which then asks `fs` again; each such task ends by the deadline, and every request gets a
//! reply: the kernel cannot take one back from us, so a process that is killed while it waits is
//! gone with our answer.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, Request,
};
use monofs_model::Door;
use monofs_rpc::context;
use parking_lot::Mutex;

use crate::content::Content;
use crate::counters::{Counters, Operation, Upcall};
use crate::errno::Errno;
use crate::fill::{Filler, PageCache};
use crate::fs::readdir::DirItem;
use crate::fs::{Attr, BLOCK_BYTES, FileKind, Found, Fs, Trust};
use crate::invalidate::Kernel;
use crate::prefetch::Prefetch;
use crate::spawner::Spawner;
use crate::want::{ChunkWant, Miss, Outcome};

/// As good as for ever: what changes is announced.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How often a task may find that something else is missing before it gives up: a walk down needs
/// one record at a time.
const FETCHES_MAX: usize = 8;
/// Requests that the kernel may have open ahead of readers.
const BACKGROUND_MAX: u16 = 64;
/// Names are at most this long.
const NAME_BYTES_MAX: u32 = 255;

/// What all threads and tasks of a mount share.
pub struct Shared {
    pub fs: Fs,
    pub content: Content,
    pub prefetch: Prefetch,
    pub counters: Arc<Counters>,
    pub uid: u32,
    pub gid: u32,
    pub timeout: Duration,
    pub(crate) spawner: Spawner,
    /// Set once the kernel has mounted; never, when nothing is to be fetched ahead.
    pub(crate) filler: OnceLock<Filler>,
}

impl Shared {
    /// Gets what is missing.
    async fn fetch(self: &Arc<Self>, miss: Miss) -> Result<(), Errno> {
        let result = match &miss {
            Miss::Fail(errno) => return Err(*errno),
            Miss::Tree(want) => self.prefetch.list(&self.fs, want).await,
            Miss::Chunks(want) => self.prefetch.serve(self, want).await,
        };
        result.map_err(|error| {
            tracing::warn!(%error, "a read failed");
            Errno::from(&error)
        })
    }

    /// Asks again and again, fetching what is missing in between, for at most the timeout.
    async fn retry<T>(
        self: &Arc<Self>,
        miss: Miss,
        ask: impl Fn(&Fs) -> Outcome<T>,
    ) -> Result<T, Errno> {
        self.counters.waited.one();
        let work = async {
            let mut miss = miss;
            for _ in 0..FETCHES_MAX {
                self.fetch(miss).await?;
                match ask(&self.fs) {
                    Ok(answer) => return Ok(answer),
                    Err(Miss::Fail(errno)) => return Err(errno),
                    Err(next) => miss = next,
                }
            }
            Err(Errno::IO)
        };
        let result = tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or(Err(Errno::IO));
        if result.is_err() {
            self.counters.failed.one();
        }
        result
    }

    fn file_attr(&self, attr: &Attr) -> FileAttr {
        let seconds = Duration::from_secs(attr.mtime.unsigned_abs());
        let time: SystemTime = if attr.mtime < 0 {
            UNIX_EPOCH - seconds
        } else {
            UNIX_EPOCH + seconds
        };
        FileAttr {
            ino: INodeNo(attr.ino),
            size: attr.size,
            blocks: attr.size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: file_type(attr.kind),
            perm: attr.kind.permissions(),
            // For a directory, 1 means "not counted": a wrong count makes `find` skip
            // subdirectories.
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        }
    }
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::File | FileKind::Executable => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
    }
}

fn time_to_live(trust: Trust) -> Duration {
    match trust {
        Trust::Forever => FOREVER,
        Trust::Once => Duration::ZERO,
    }
}

fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.0)
}

/// The file system as fuser sees it.
pub struct Adapter(pub Arc<Shared>);

impl Adapter {
    /// Answers at once if everything is at hand, else in a task. `ask` must be repeatable; `answer`
    /// is called once.
    fn answer<T, A, R>(&self, operation: Operation, ask: A, answer: R)
    where
        T: Send + 'static,
        A: Fn(&Fs) -> Outcome<T> + Send + Sync + 'static,
        R: FnOnce(&Shared, Result<T, Errno>) + Send + 'static,
    {
        let shared = &self.0;
        let upcall = shared.counters.begin(operation);
        match ask(&shared.fs) {
            Ok(value) => answer(shared, Ok(value)),
            Err(Miss::Fail(errno)) => answer(shared, Err(errno)),
            Err(miss) => {
                return self.later(upcall, move |shared| async move {
                    let result = shared.retry(miss, |fs| ask(fs)).await;
                    answer(&shared, result);
                });
            }
        }
        shared.counters.answered(upcall);
    }

    /// Answers in a task, as a request with an id of its own.
    fn later<F: Future<Output = ()> + Send + 'static>(
        &self,
        upcall: Upcall,
        work: impl FnOnce(Arc<Shared>) -> F,
    ) {
        let (work, counters) = (work(self.0.clone()), self.0.counters.clone());
        self.0
            .spawner
            .spawn(context::begin_by(Door::Mount, upcall.name(), async move {
                work.await;
                counters.answered(upcall);
            }));
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without the first two every open would be a request; the others are for speed only.
        let required = InitFlags::FUSE_NO_OPEN_SUPPORT | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        if config.add_capabilities(required).is_err() {
            tracing::warn!(
                "this kernel asks for every open; expect slow walks (Linux 5.1 or later does \
                 better)"
            );
        }
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        ] {
            if config.add_capabilities(wanted).is_err() {
                tracing::info!(?wanted, "the kernel lacks a capability");
            }
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        let name = name.to_owned();
        let ask = move |fs: &Fs| fs.lookup(parent.0, name.as_bytes());
        self.answer(Operation::Lookup, ask, |shared, found| match found {
            Ok(Found::Inode(attr, trust)) => {
                reply.entry_with_ttls(
                    &FOREVER,
                    &time_to_live(trust),
                    &shared.file_attr(&attr),
                    Generation(0),
                );
            }
            Ok(Found::Nothing) => {
                // Number zero: there is no such name, and the kernel may remember that.
                let nothing = Attr {
                    ino: 0,
                    kind: FileKind::File,
                    size: 0,
                    mtime: 0,
                };
                reply.entry(&FOREVER, &shared.file_attr(&nothing), Generation(0));
            }
            Err(error) => reply.error(errno(error)),
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        let upcall = self.0.counters.begin(Operation::Forget);
        self.0.fs.forget(ino.0, nlookup);
        self.0.counters.answered(upcall);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: fuser::ReplyAttr) {
        self.answer(
            Operation::Getattr,
            move |fs: &Fs| fs.getattr(ino.0),
            |shared, attr| match attr {
                Ok(attr) => reply.attr(&FOREVER, &shared.file_attr(&attr)),
                Err(error) => reply.error(errno(error)),
            },
        );
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: fuser::ReplyData) {
        let ask = move |fs: &Fs| {
            let mut target = Vec::new();
            fs.readlink(ino.0, &mut |bytes| target.extend_from_slice(bytes))
                .map(|()| target)
        };
        self.answer(Operation::Readlink, ask, |_, target| match target {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: fuser::ReplyOpen) {
        let upcall = self.0.counters.begin(Operation::Open);
        // "Not implemented" tells the kernel never to ask again and to keep its caches.
        reply.error(fuser::Errno::ENOSYS);
        self.0.counters.answered(upcall);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: fuser::ReplyOpen) {
        let upcall = self.0.counters.begin(Operation::Opendir);
        reply.error(fuser::Errno::ENOSYS);
        self.0.counters.answered(upcall);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: fuser::ReplyData,
    ) {
        let shared = &self.0;
        let upcall = shared.counters.begin(Operation::Read);
        let mut reply = Some(reply);
        let outcome = shared.fs.read(ino.0, offset, size, &mut |bytes| {
            if let Some(reply) = reply.take() {
                reply.data(bytes);
            }
        });
        let Some(reply) = reply else {
            shared.counters.answered(upcall);
            self.run_ahead(outcome.ok().flatten());
            return;
        };
        match outcome {
            Ok(_) => reply.error(fuser::Errno::EIO),
            Err(Miss::Fail(error)) => reply.error(errno(error)),
            Err(miss) => {
                return self.later(upcall, move |shared| async move {
                    read_later(&shared, miss, ino.0, offset, size, reply).await;
                });
            }
        }
        shared.counters.answered(upcall);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: fuser::ReplyDirectory,
    ) {
        let upcall = self.0.counters.begin(Operation::Readdir);
        let mut reply = reply;
        let mut add = |item: &DirItem<'_>| {
            reply.add(
                INodeNo(item.ino),
                item.next,
                file_type(item.kind),
                OsStr::from_bytes(item.name),
            )
        };
        match self.0.fs.readdir(ino.0, offset, false, &mut add) {
            Ok(()) => reply.ok(),
            Err(Miss::Fail(error)) => reply.error(errno(error)),
            Err(miss) => {
                return self.later(upcall, move |shared| async move {
                    let wanted = move |fs: &Fs| {
                        fs.readdir(ino.0, offset, false, &mut |_: &DirItem<'_>| true)
                    };
                    if let Err(error) = shared.retry(miss, wanted).await {
                        return reply.error(errno(error));
                    }
                    let mut add = |item: &DirItem<'_>| {
                        reply.add(
                            INodeNo(item.ino),
                            item.next,
                            file_type(item.kind),
                            OsStr::from_bytes(item.name),
                        )
                    };
                    match shared.fs.readdir(ino.0, offset, false, &mut add) {
                        Ok(()) => reply.ok(),
                        Err(_) => reply.error(fuser::Errno::EIO),
                    }
                });
            }
        }
        self.0.counters.answered(upcall);
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: fuser::ReplyDirectoryPlus,
    ) {
        let upcall = self.0.counters.begin(Operation::Readdirplus);
        if offset == 0 {
            self.0.prefetch.listed(&self.0.fs, ino.0);
        }
        let mut reply = reply;
        let mut names = false;
        let mut add = |item: &DirItem<'_>| {
            names = true;
            add_plus(&self.0, &mut reply, item)
        };
        match self.0.fs.readdir(ino.0, offset, true, &mut add) {
            Ok(()) => match self.0.filler.get() {
                Some(filler) if !names => {
                    let counters = self.0.counters.clone();
                    return filler.fill(ino.0, move || {
                        reply.ok();
                        counters.answered(upcall);
                    });
                }
                _ => reply.ok(),
            },
            Err(Miss::Fail(error)) => reply.error(errno(error)),
            Err(miss) => {
                return self.later(upcall, move |shared| async move {
                    let wanted = move |fs: &Fs| {
                        fs.readdir(ino.0, offset, false, &mut |_: &DirItem<'_>| true)
                    };
                    if let Err(error) = shared.retry(miss, wanted).await {
                        return reply.error(errno(error));
                    }
                    let mut add = |item: &DirItem<'_>| add_plus(&shared, &mut reply, item);
                    match shared.fs.readdir(ino.0, offset, true, &mut add) {
                        Ok(()) => reply.ok(),
                        Err(_) => reply.error(fuser::Errno::EIO),
                    }
                });
            }
        }
        self.0.counters.answered(upcall);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: fuser::ReplyStatfs) {
        let upcall = self.0.counters.begin(Operation::Statfs);
        let volume = self.0.fs.volume();
        let blocks = volume.bytes.div_ceil(u64::from(BLOCK_BYTES));
        reply.statfs(
            blocks,
            0,
            0,
            volume.files,
            0,
            BLOCK_BYTES,
            NAME_BYTES_MAX,
            BLOCK_BYTES,
        );
        self.0.counters.answered(upcall);
    }

    fn getxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: fuser::ReplyXattr,
    ) {
        let name = name.to_owned();
        let ask = move |fs: &Fs| fs.getxattr(ino.0, name.as_bytes());
        self.answer(Operation::Getxattr, ask, move |_, value| {
            reply_xattr(value, size, reply)
        });
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: fuser::ReplyXattr) {
        let ask = move |fs: &Fs| fs.listxattr(ino.0);
        self.answer(Operation::Listxattr, ask, move |_, value| {
            reply_xattr(value, size, reply)
        });
    }
}

impl Adapter {
    fn run_ahead(&self, read: Option<ChunkWant>) {
        let Some(read) = read else { return };
        if let Some(span) = self.0.prefetch.follow(&read.span) {
            let shared = self.0.clone();
            let work = async move { shared.prefetch.run_ahead(&shared.fs, read, span).await };
            self.0
                .spawner
                .spawn(context::begin_by(Door::Mount, "read ahead", work));
        }
    }
}

async fn read_later(
    shared: &Arc<Shared>,
    miss: Miss,
    ino: u64,
    offset: u64,
    size: u32,
    reply: fuser::ReplyData,
) {
    let reply = Mutex::new(Some(reply));
    let take = || reply.lock().take();
    // What is at hand goes to the kernel from where it is.
    let ask = |fs: &Fs| {
        fs.read(ino, offset, size, &mut |bytes| {
            take().into_iter().for_each(|reply| reply.data(bytes))
        })
    };
    let outcome = shared.retry(miss, ask).await;
    match (outcome, take()) {
        (Ok(read), None) => Adapter(shared.clone()).run_ahead(read),
        (Ok(_), Some(reply)) => reply.error(fuser::Errno::EIO),
        (Err(error), reply) => reply
            .into_iter()
            .for_each(|reply| reply.error(errno(error))),
    }
}

fn add_plus(shared: &Shared, reply: &mut fuser::ReplyDirectoryPlus, item: &DirItem<'_>) -> bool {
    let dots = Attr {
        ino: item.ino,
        kind: item.kind,
        size: 0,
        mtime: 0,
    };
    // The kernel ignores attributes and lifetime of `.` and `..`.
    let (attr, trust) = item.attr.unwrap_or((dots, Trust::Once));
    let name = OsStr::from_bytes(item.name);
    let ino = INodeNo(item.ino);
    reply.add(
        ino,
        item.next,
        name,
        &time_to_live(trust),
        &shared.file_attr(&attr),
        Generation(0),
    )
}

fn reply_xattr(value: Result<Vec<u8>, Errno>, size: u32, reply: fuser::ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(fuser::Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(error)),
    }
}

/// The kernel's side of a mounted session.
pub struct Notifier {
    notifier: fuser::Notifier,
    device: OwnedFd,
}

impl Notifier {
    /// `device` is a duplicate of the session's: fuser has no call for dropping all names.
    pub fn new(notifier: fuser::Notifier, device: OwnedFd) -> Self {
        Self { notifier, device }
    }
}

impl PageCache for fuser::Notifier {
    fn store(&self, ino: u64, bytes: &[u8]) -> io::Result<()> {
        self.store(INodeNo(ino), 0, bytes)
    }
}

impl Kernel for Notifier {
    fn drop_name(&self, directory: u64, name: &OsStr) -> io::Result<()> {
        self.notifier.inval_entry(INodeNo(directory), name)
    }

    fn drop_listing(&self, directory: u64) -> io::Result<()> {
        self.notifier.inval_inode(INodeNo(directory), 0, 0)
    }

    fn drop_all_names(&self) -> io::Result<()> {
        // struct fuse_out_header { u32 len; i32 error; u64 unique }, a notification when `unique`
        // is 0; `error` is then FUSE_NOTIFY_INC_EPOCH (linux/uapi/linux/fuse.h, since 6.16).
        const INC_EPOCH: i32 = 8;
        let mut message = [0u8; 16];
        message[..4].copy_from_slice(&16u32.to_ne_bytes());
        message[4..8].copy_from_slice(&INC_EPOCH.to_ne_bytes());
        rustix::io::write(&self.device, &message)?;
        Ok(())
    }
}
