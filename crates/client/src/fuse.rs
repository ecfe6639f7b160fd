//! The kernel's requests, decoded by fuser: call `fs`, translate, reply. Only this module and those
//! below it know fuser, besides the session that `mount` starts.
//!
//! What is at hand is answered on the thread that read the request. What is not is fetched by a
//! task, which then asks `fs` again; each such task ends by the deadline, and every request gets a
//! reply: the kernel cannot take one back from us, so a process that is killed while it waits is
//! gone with our answer.

mod notify;
mod reply;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::{
    FileHandle, Filesystem, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, Request,
};
use monofs_content::counters::{Operation, Upcall};
use monofs_model::Door;
use monofs_model::limits::NAME_BYTES_MAX;
use monofs_rpc::context;
use parking_lot::Mutex;

use self::reply::{FOREVER, ListingReply, errno, file_attr, reply_entry, reply_xattr};
use crate::errno::Errno;
use crate::fs::Fs;
use crate::fs::attr::BLOCK_BYTES;
use crate::fs::identity::Ino;
use crate::fs::readdir::{DirItem, ListingMode};
use crate::mount::context::MountContext;
use crate::want::{ChunkWant, Miss, Outcome};

pub use self::notify::SessionNotifier;

/// Requests that the kernel may have open ahead of readers.
const BACKGROUND_MAX: u16 = 64;

/// Free space and free inodes that `statfs` reports. Nothing can be written, and what can still be
/// ingested is not known here; a tree without free space would count as a full disk.
const FREE_BYTES: u64 = 1 << 50;
const FREE_FILES: u64 = 1 << 32;

/// The file system as fuser sees it.
pub struct Adapter(pub Arc<MountContext>);

impl Adapter {
    /// Answers at once if everything is at hand, else in a task. `ask` must be repeatable; `answer`
    /// is called once.
    fn answer<T, A, R>(&self, operation: Operation, ask: A, answer: R)
    where
        T: Send + 'static,
        A: Fn(&Fs) -> Outcome<T> + Send + Sync + 'static,
        R: FnOnce(&MountContext, Result<T, Errno>) + Send + 'static,
    {
        let context = &self.0;
        let upcall = context.counters.begin(operation);
        match ask(&context.fs) {
            Ok(value) => answer(context, Ok(value)),
            Err(Miss::Fail(errno)) => answer(context, Err(errno)),
            Err(miss) => {
                return self.later(upcall, move |context| async move {
                    let result = context.retry(miss, |fs| ask(fs)).await;
                    answer(&context, result);
                });
            }
        }
        context.counters.answered(upcall);
    }

    /// Answers in a task, as a request with an id of its own.
    fn later<F: Future<Output = ()> + Send + 'static>(
        &self,
        upcall: Upcall,
        work: impl FnOnce(Arc<MountContext>) -> F,
    ) {
        let work = work(self.0.clone());
        let counters = self.0.counters.clone();
        self.0
            .spawner
            .spawn(context::begin_by(Door::Mount, upcall.name(), async move {
                work.await;
                counters.answered(upcall);
            }));
    }

    /// Tells the kernel never to ask again, and to keep its caches: "not implemented" says so.
    fn open_unseen(&self, operation: Operation, reply: fuser::ReplyOpen) {
        let upcall = self.0.counters.begin(operation);
        reply.error(fuser::Errno::ENOSYS);
        self.0.counters.answered(upcall);
    }

    /// Answers a listing of `ino` from `position` on.
    fn list<R: ListingReply>(&self, upcall: Upcall, ino: Ino, position: u64, mut reply: R) {
        let context = &self.0;
        let mut is_end = true;
        let outcome = {
            let mut add = |item: &DirItem<'_>| {
                is_end = false;
                reply.add(context.owner, item)
            };
            context.fs.readdir(ino, position, R::MODE, &mut add)
        };
        match outcome {
            // The kernel has the inodes of all names now, and the program goes on to read files.
            Ok(()) if is_end && R::MODE == ListingMode::WithAttributes => {
                return self.end_listing(upcall, ino, reply);
            }
            Ok(()) => reply.ok(),
            Err(Miss::Fail(error)) => reply.error(errno(error)),
            Err(miss) => {
                return self.later(upcall, move |context| async move {
                    list_later(&context, miss, ino, position, reply).await;
                });
            }
        }
        context.counters.answered(upcall);
    }

    /// Tells the end of a listing, and before it has the directory's contents put into the page
    /// cache if they are to be.
    fn end_listing<R: ListingReply>(&self, upcall: Upcall, directory: Ino, reply: R) {
        let counters = self.0.counters.clone();
        let answer = move || {
            reply.ok();
            counters.answered(upcall);
        };
        match self.0.filler.get() {
            Some(filler) => filler.fill(directory, answer),
            None => answer(),
        }
    }

    /// Has the chunks fetched that follow what was read, if the reading is sequential.
    fn run_ahead(&self, read: Option<ChunkWant>) {
        let Some(read) = read else { return };
        if let Some(span) = self.0.prefetch.follow(&read.span) {
            let context = self.0.clone();
            let work = async move { context.prefetch.run_ahead(&read.repo, span).await };
            self.0
                .spawner
                .spawn(context::begin_by(Door::Mount, "read ahead", work));
        }
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
        // The kernel takes less if it allows less.
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        let name = name.to_owned();
        self.answer(
            Operation::Lookup,
            move |fs: &Fs| fs.lookup(parent.0, name.as_bytes()),
            |context, answer| reply_entry(context.owner, answer, reply),
        );
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
            |context, attr| match attr {
                Ok(attr) => reply.attr(&FOREVER, &file_attr(context.owner, &attr)),
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
        self.open_unseen(Operation::Open, reply);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: fuser::ReplyOpen) {
        self.open_unseen(Operation::Opendir, reply);
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
        let context = &self.0;
        let upcall = context.counters.begin(Operation::Read);
        // The bytes go to the kernel from where they are, inside the call of `fs`.
        let mut reply = Some(reply);
        let outcome = context.fs.read(ino.0, offset, size, &mut |bytes| {
            if let Some(reply) = reply.take() {
                reply.data(bytes);
            }
        });
        let Some(reply) = reply else {
            context.counters.answered(upcall);
            self.run_ahead(outcome.ok().flatten());
            return;
        };
        // Nothing was sent: it failed, or something is missing.
        match outcome {
            Ok(_) => reply.error(fuser::Errno::EIO),
            Err(Miss::Fail(error)) => reply.error(errno(error)),
            Err(miss) => {
                return self.later(upcall, move |context| async move {
                    read_later(&context, miss, ino.0, offset, size, reply).await;
                });
            }
        }
        context.counters.answered(upcall);
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
        self.list(upcall, ino.0, offset, reply);
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
            self.0.prefetch.listed(ino.0);
        }
        self.list(upcall, ino.0, offset, reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: fuser::ReplyStatfs) {
        let upcall = self.0.counters.begin(Operation::Statfs);
        let volume = self.0.fs.volume();
        let blocks = volume.bytes.div_ceil(u64::from(BLOCK_BYTES));
        let blocks_free = FREE_BYTES / u64::from(BLOCK_BYTES);
        let name_bytes_max = NAME_BYTES_MAX as u32;
        reply.statfs(
            blocks.saturating_add(blocks_free),
            blocks_free,
            blocks_free,
            volume.files.saturating_add(FREE_FILES),
            FREE_FILES,
            BLOCK_BYTES,
            name_bytes_max,
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
        self.answer(
            Operation::Getxattr,
            move |fs: &Fs| fs.getxattr(ino.0, name.as_bytes()),
            move |_, value| reply_xattr(value, size, reply),
        );
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: fuser::ReplyXattr) {
        self.answer(
            Operation::Listxattr,
            move |fs: &Fs| fs.listxattr(ino.0),
            move |_, names| reply_xattr(names, size, reply),
        );
    }
}

/// Fetches what a listing misses, and then answers it.
async fn list_later<R: ListingReply>(
    context: &MountContext,
    miss: Miss,
    ino: Ino,
    position: u64,
    mut reply: R,
) {
    // Until all that it needs is here the directory is listed into a sink that takes no name.
    let probe = move |fs: &Fs| fs.readdir(ino, position, R::MODE, &mut |_: &DirItem<'_>| true);
    if let Err(error) = context.retry(miss, probe).await {
        return reply.error(errno(error));
    }
    let mut add = |item: &DirItem<'_>| reply.add(context.owner, item);
    match context.fs.readdir(ino, position, R::MODE, &mut add) {
        Ok(()) => reply.ok(),
        Err(_) => reply.error(fuser::Errno::EIO),
    }
}

/// Fetches what a read misses, and then answers it.
async fn read_later(
    context: &Arc<MountContext>,
    miss: Miss,
    ino: Ino,
    offset: u64,
    size: u32,
    reply: fuser::ReplyData,
) {
    // What is at hand goes to the kernel from where it is, by the first call that finds it.
    let reply = Mutex::new(Some(reply));
    let ask = |fs: &Fs| {
        fs.read(ino, offset, size, &mut |bytes| {
            let reply = reply.lock().take();
            if let Some(reply) = reply {
                reply.data(bytes);
            }
        })
    };
    let outcome = context.retry(miss, ask).await;
    match (outcome, reply.into_inner()) {
        (Ok(read), None) => Adapter(context.clone()).run_ahead(read),
        (Ok(_), Some(reply)) => reply.error(fuser::Errno::EIO),
        (Err(error), Some(reply)) => reply.error(errno(error)),
        // The deadline came after the answer.
        (Err(_), None) => {}
    }
}
