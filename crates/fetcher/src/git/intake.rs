//! A pack on its way in. gix indexes it as it arrives; what gix should not hold in memory (long
//! objects, very many) the installed `git` indexes from a copy of what arrived so far and the rest
//! of the same stream: nothing is sent twice.
//!
//! Invariants: memory is bounded by [`crate::source::FetchLimits::object_bytes_max`] per object and
//! by [`OBJECTS_MAX`], whatever the remote sends; the copy has no name, so nothing is left behind.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;

use gix::odb::pack;
use monofs_model::ObjectFormat;

use super::child::{self, GitChild};
use super::cli;
use super::failure::{GixResult, one_line};
use super::gauge::MeteredPack;
use super::ids::hash_kind;
use crate::source::FetchTask;

/// Most objects of a pack that gix indexes: it keeps some hundred bytes for each.
const OBJECTS_MAX: usize = 500_000;
/// More than what gix keeps for one object while it indexes.
const OBJECT_NOTE_BYTES: usize = 256;
/// Signature, version and number of objects.
const HEADER_BYTES: usize = 12;

/// Where a pack goes.
pub struct PackIntake<'a> {
    /// A bare repository.
    pub into: &'a Path,
    pub format: ObjectFormat,
    /// Whether the pack may leave out bases of deltas that the repository holds.
    pub thin: bool,
    pub task: &'a Arc<FetchTask>,
}

impl PackIntake<'_> {
    /// Stores and indexes the pack that `reader` yields.
    pub fn take(
        &self,
        reader: &mut dyn BufRead,
        progress: &mut dyn gix::DynNestedProgress,
        stop: &std::sync::atomic::AtomicBool,
    ) -> GixResult<()> {
        let mut metered = MeteredPack {
            inner: reader,
            task: self.task,
        };
        let mut header = [0; HEADER_BYTES];
        metered
            .read_exact(&mut header)
            .map_err(gix::Error::from_error)?;
        // A pack of very many objects is git's from the start; what gix refuses later, too.
        let [.., a, b, c, d] = header;
        let objects = u32::from_be_bytes([a, b, c, d]) as usize;
        let git = cli::is_installed();
        let copy = if git {
            Some(tempfile::tempfile_in(self.packs()).map_err(gix::Error::from_error)?)
        } else {
            None
        };
        let mut pack = CopiedPack::new(io::Cursor::new(header).chain(metered), copy, self.task);
        let indexed = if git && objects > OBJECTS_MAX {
            Err(gix::Error::from_error(io::Error::other(format!(
                "{objects} objects are more than {OBJECTS_MAX}"
            ))))
        } else {
            self.index(&mut io::BufReader::new(&mut pack), objects, progress, stop)
        };
        match indexed {
            Err(refused)
                if !pack.broken && self.task.check().is_ok() && !self.task.over_limit() =>
            {
                let Some(copy) = pack.copy.take() else {
                    return Err(refused);
                };
                self.hand_over(copy, &mut pack.inner, refused)
            }
            other => other,
        }
    }

    fn packs(&self) -> std::path::PathBuf {
        self.into.join("objects/pack")
    }

    fn index(
        &self,
        pack: &mut dyn BufRead,
        objects: usize,
        progress: &mut dyn gix::DynNestedProgress,
        stop: &std::sync::atomic::AtomicBool,
    ) -> GixResult<()> {
        let kind = hash_kind(self.format);
        // Without bases gix writes the pack as it comes, and keeps no object of it.
        let open = || gix::odb::at(self.into.join("objects"), kind).map_err(gix::Error::from_error);
        let bases = if self.thin { Some(open()?) } else { None };
        let notes = objects.min(OBJECTS_MAX) * OBJECT_NOTE_BYTES;
        let options = pack::bundle::write::Options {
            alloc_limit_bytes: Some(self.task.limits.object_bytes_max.max(notes)),
            ..pack::bundle::write::Options::default()
        };
        let written = pack::Bundle::write_to_directory(
            pack,
            Some(&self.packs()),
            progress,
            stop,
            bases,
            kind,
            options,
        )?;
        match written.keep_path {
            Some(keep) => std::fs::remove_file(keep).map_err(gix::Error::from_error),
            None => Ok(()),
        }
    }

    /// Lets `git` index what has arrived and what still comes. When it cannot either, the first
    /// reason counts.
    fn hand_over(&self, mut copy: File, rest: &mut dyn Read, refused: gix::Error) -> GixResult<()> {
        let reasons: Vec<String> = refused.iter_errors().map(ToString::to_string).collect();
        tracing::info!(
            reason = one_line(&reasons.join(": ")),
            "gix leaves this pack to the installed git, which indexes what has arrived and the \
             rest of it"
        );
        // The child reads what has arrived, then the rest of the stream.
        copy.rewind().map_err(gix::Error::from_error)?;
        let mut command = child::git();
        command
            .args(["-c", cli::BIG_FILE_THRESHOLD])
            .arg("--git-dir")
            .arg(self.into)
            .args(["index-pack", "-v"]);
        command
            .args(self.thin.then_some("--fix-thin"))
            .arg("--stdin");
        let task = self.task.clone();
        let mut child = GitChild::spawn(command, self.task, move |line| {
            cli::follow_objects(&task, line)
        })
        .map_err(|e| gix::Error::from_error(io::Error::other(e)))?;
        let (mut output, mut input) = child.take_pipes();
        let fed = feed(&mut copy, rest, &mut input);
        drop(input);
        let read = io::copy(&mut output, &mut io::sink());
        let (status, said) = child
            .finish()
            .map_err(|e| gix::Error::from_error(io::Error::other(e)))?;
        match fed {
            Err(FeedError::Pack(error)) => Err(gix::Error::from_error(error)),
            _ if status.success() && read.is_ok() => Ok(()),
            _ => {
                tracing::warn!(said = one_line(&said), "git cannot index the pack either");
                Err(refused)
            }
        }
    }
}

/// How feeding a child ended early.
enum FeedError {
    /// The pack cannot be read.
    Pack(io::Error),
    /// The child takes no more.
    Child,
}

fn feed(
    copy: &mut File,
    rest: &mut dyn Read,
    input: &mut dyn Write,
) -> std::result::Result<(), FeedError> {
    let mut buffer = vec![0; 64 << 10];
    for source in [copy as &mut dyn Read, rest] {
        loop {
            let count = source.read(&mut buffer).map_err(FeedError::Pack)?;
            if count == 0 {
                break;
            }
            input
                .write_all(&buffer[..count])
                .map_err(|_| FeedError::Child)?;
        }
    }
    Ok(())
}

/// A pack that is copied while it is read, and that ends with an error when one object of it gets
/// too long: gix holds the packed bytes of the object that it is at.
struct CopiedPack<'a, R> {
    inner: R,
    copy: Option<File>,
    task: &'a FetchTask,
    /// Bytes read of the object that gix is at, and its number.
    object: (usize, usize),
    /// The pack itself or its copy failed: there is nothing to hand over.
    broken: bool,
}

impl<'a, R: Read> CopiedPack<'a, R> {
    fn new(inner: R, copy: Option<File>, task: &'a FetchTask) -> Self {
        Self {
            inner,
            copy,
            task,
            object: (0, 0),
            broken: false,
        }
    }

    fn note(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(copy) = &mut self.copy else {
            return Ok(());
        };

        // The copy is what the installed git is given when gix refuses the pack.
        if let Err(error) = copy.write_all(bytes) {
            self.broken = true;
            return Err(error);
        }

        // The count of received objects tells which object gix is at, and the bound is for each
        // object.
        let number = self
            .task
            .received
            .load(std::sync::atomic::Ordering::Relaxed);
        if number != self.object.0 {
            self.object = (number, 0);
        }
        self.object.1 += bytes.len();
        if self.object.1 > self.task.limits.object_bytes_max {
            return Err(io::Error::other(
                "an object is too long to be held in memory",
            ));
        }
        Ok(())
    }
}

impl<R: Read> Read for CopiedPack<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        self.broken |= read.is_err();
        let count = read?;
        self.note(&buffer[..count])?;
        Ok(count)
    }
}
