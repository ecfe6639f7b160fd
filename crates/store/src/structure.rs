//! Proof that a data file's B+trees are whole, read with plain reads rather than through the map.
//!
//! LMDB trusts its pages: a damaged offset or page number makes it read astray through the map,
//! which kills the process (SIGSEGV, SIGBUS). So what comes from disk is walked here first. Layout:
//! `mdb.c` of LMDB 0.9 (data version 1), little-endian, 64-bit: meta pages 0 and 1, then branch,
//! leaf and overflow pages, each but the tail of an overflow run with a 16-byte header {pgno u64,
//! pad u16, flags u16, lower u16, upper u16 | overflow pages u32}.
//!
//! Invariants proved: every reachable page lies within the file and is reached once; headers,
//! offsets, keys' order within a page, depths and numbers of entries agree; free pages are not in
//! use. Contents are not looked at: `check` does that.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const META_PAGES: u64 = 2;
const META_BYTES: usize = 152;
const MAGIC: u32 = 0xBEEF_C0DE;
const DATA_VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const NODE_BYTES: usize = 8;
const DB_BYTES: usize = 48;
const PAGE_BYTES: std::ops::RangeInclusive<u64> = 512..=65_536;
/// A root that is not there.
const NO_PAGE: u64 = u64::MAX;
/// LMDB's own cursor stack.
const DEPTH_MAX: u16 = 32;

const PAGE_BRANCH: u16 = 0x01;
const PAGE_LEAF: u16 = 0x02;
const PAGE_OVERFLOW: u16 = 0x04;
const NODE_BIG: u16 = 0x01;
const NODE_TABLE: u16 = 0x02;
/// Integer keys: LMDB's own table of free pages.
const TABLE_INTEGER_KEY: u16 = 0x08;

/// What is wrong, and on which page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub page: u64,
    pub what: &'static str,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "page {}: {}", self.page, self.what)
    }
}

/// Why a walk ended without a proof.
#[derive(Debug)]
pub(crate) enum Unproved {
    Damage(Damage),
    Io(io::Error),
}

type Proof<T> = Result<T, Unproved>;

fn damage<T>(page: u64, what: &'static str) -> Proof<T> {
    Err(Unproved::Damage(Damage { page, what }))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The root of one table.
#[derive(Debug, Clone, Copy)]
struct Root {
    flags: u16,
    depth: u16,
    index_pages: u64,
    entries: u64,
    page: u64,
}

impl Root {
    /// Of `MDB_db`: pad u32, flags u16, depth u16, branch, leaf and overflow pages, entries, root.
    fn read(db: &[u8]) -> Self {
        Self {
            flags: u16_at(db, 4),
            depth: u16_at(db, 6),
            index_pages: u64_at(db, 8).saturating_add(u64_at(db, 16)),
            entries: u64_at(db, 32),
            page: u64_at(db, 40),
        }
    }
}

/// One of the two meta pages: the start of a consistent view.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    page_bytes: u64,
    free: Root,
    main: Root,
    last_page: u64,
    txn: u64,
}

impl Meta {
    /// The view that LMDB would open, or the one of transaction `txn`; `None` when that is gone
    /// already.
    pub(crate) fn read(file: &File, txn: Option<u64>) -> Proof<Option<Self>> {
        let first = Self::read_at(file, 0, 0)?;
        let second = Self::read_at(file, 1, first.page_bytes)?;
        if first.page_bytes != second.page_bytes {
            return damage(1, "the meta pages disagree on the page size");
        }
        let newest = if first.txn < second.txn {
            second
        } else {
            first
        };
        Ok(match txn {
            None => Some(newest),
            Some(txn) => [first, second].into_iter().find(|meta| meta.txn == txn),
        })
    }

    fn read_at(file: &File, page: u64, offset: u64) -> Proof<Self> {
        let mut bytes = [0; META_BYTES];
        read_exact_at(file, &mut bytes, offset, page)?;
        let meta = &bytes[HEADER_BYTES..];
        if u32_at(meta, 0) != MAGIC || u32_at(meta, 4) != DATA_VERSION {
            return damage(page, "no meta page");
        }
        let page_bytes = u64::from(u32_at(meta, 24));
        if !PAGE_BYTES.contains(&page_bytes) || !page_bytes.is_power_of_two() {
            return damage(page, "the page size is impossible");
        }
        let mut free = Root::read(&meta[24..]);
        // Of this table the flags are the environment's, with its key's kind mixed in.
        free.flags &= TABLE_INTEGER_KEY;
        let main = Root::read(&meta[24 + DB_BYTES..]);
        let (last_page, txn) = (
            u64_at(meta, 24 + 2 * DB_BYTES),
            u64_at(meta, 32 + 2 * DB_BYTES),
        );
        if last_page
            .checked_add(1)
            .and_then(|pages| pages.checked_mul(page_bytes))
            .is_none()
            || last_page < 1
        {
            return damage(page, "the last page is impossible");
        }
        Ok(Self {
            page_bytes,
            free,
            main,
            last_page,
            txn,
        })
    }

    /// Bytes up to the end of the last used page.
    pub(crate) fn needed_bytes(&self) -> u64 {
        (self.last_page + 1) * self.page_bytes
    }
}

fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64, page: u64) -> Proof<()> {
    match file.read_exact_at(bytes, offset) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            damage(page, "lies beyond the end of the file")
        }
        read => read.map_err(Unproved::Io),
    }
}

/// How much of a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Branch and leaf pages: what reads through the map rely on. Nothing at all when there are
    /// more than this many.
    Index { pages_max: u64 },
    /// And the headers of large values, on which only their removal relies.
    Everything,
}

/// Walks all tables of a view. Gives false, and proves nothing, when they have too many pages for
/// `depth`.
pub(crate) fn prove(file: &File, meta: &Meta, depth: Depth) -> Proof<bool> {
    let file_bytes = file.metadata().map_err(Unproved::Io)?.len();
    let used = vec![0; (meta.last_page / 64 + 1) as usize];
    let pages_left = match depth {
        Depth::Index { pages_max } => pages_max,
        Depth::Everything => u64::MAX,
    };
    let file_pages = file_bytes / meta.page_bytes;
    let mut walk = Walk {
        file,
        meta,
        file_pages,
        used,
        pages_left,
        headers: depth == Depth::Everything,
    };
    let mut tables = Vec::new();
    for (root, kind) in [(meta.free, Kind::Free), (meta.main, Kind::Main)] {
        if !walk.table(&root, kind, &mut tables)? {
            return Ok(false);
        }
    }
    for root in std::mem::take(&mut tables) {
        if !walk.table(&root, Kind::Ours, &mut tables)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// LMDB's lists of free pages, by transaction.
    Free,
    /// The tables by name.
    Main,
    /// A named table: bytes to bytes.
    Ours,
}

struct Walk<'f> {
    file: &'f File,
    meta: &'f Meta,
    /// Whole pages in the file.
    file_pages: u64,
    /// A bit per page.
    used: Vec<u64>,
    pages_left: u64,
    /// Whether the headers of large values are read.
    headers: bool,
}

impl Walk<'_> {
    /// Takes a page; none may be taken twice. `on_disk`: it must lie within the file.
    fn take(&mut self, page: u64, on_disk: bool) -> Proof<()> {
        if page < META_PAGES || page > self.meta.last_page {
            return damage(page, "is outside the database");
        }
        if on_disk && page >= self.file_pages {
            return damage(page, "lies beyond the end of the file");
        }
        let (word, bit) = (&mut self.used[(page / 64) as usize], 1 << (page % 64));
        if *word & bit != 0 {
            return damage(page, "is used twice");
        }
        *word |= bit;
        Ok(())
    }

    /// Walks one table; the roots of tables found in it go to `tables`.
    fn table(&mut self, root: &Root, kind: Kind, tables: &mut Vec<Root>) -> Proof<bool> {
        let integer = root.flags & TABLE_INTEGER_KEY != 0;
        if root.flags & !TABLE_INTEGER_KEY != 0 || integer != (kind == Kind::Free) {
            return damage(root.page, "is the root of a table of an unknown kind");
        }
        if root.page == NO_PAGE {
            return if root.entries == 0 {
                Ok(true)
            } else {
                damage(0, "an empty table claims entries")
            };
        }
        if root.depth == 0 || root.depth > DEPTH_MAX {
            return damage(root.page, "is the root of a table of impossible depth");
        }
        if root.index_pages > self.pages_left {
            return Ok(false);
        }
        let mut entries = 0;
        let mut stack = vec![(root.page, 1)];
        let mut page = vec![0; self.meta.page_bytes as usize];
        while let Some((number, level)) = stack.pop() {
            self.take(number, true)?;
            if self.pages_left == 0 {
                return Ok(false);
            }
            self.pages_left -= 1;
            read_exact_at(self.file, &mut page, number * self.meta.page_bytes, number)?;
            let nodes = nodes(
                &page,
                number,
                if level == root.depth {
                    PAGE_LEAF
                } else {
                    PAGE_BRANCH
                },
            )?;
            check_order(&page, number, &nodes, kind, level == root.depth)?;
            for node in &nodes {
                if level < root.depth {
                    stack.push((node.child, level + 1));
                } else {
                    entries += 1;
                    self.leaf(&page, number, node, kind, tables)?;
                }
            }
        }
        if entries != root.entries {
            return damage(
                root.page,
                "is the root of a table with another number of entries",
            );
        }
        Ok(true)
    }

    fn leaf(
        &mut self,
        page: &[u8],
        number: u64,
        node: &Node,
        kind: Kind,
        tables: &mut Vec<Root>,
    ) -> Proof<()> {
        let inline = match node.flags {
            NODE_BIG => 8,
            0 | NODE_TABLE => node.data_len,
            _ => return damage(number, "has an entry of an unknown kind"),
        };
        let data = match page.get(node.data_at..node.data_at + inline) {
            Some(data) => data,
            None => return damage(number, "has an entry that leaves the page"),
        };
        match (kind, node.flags) {
            (Kind::Ours, 0) => Ok(()),
            (Kind::Ours, NODE_BIG) => self.overflow(u64_at(data, 0), node.data_len).map(drop),
            (Kind::Main, NODE_TABLE) if data.len() == DB_BYTES => {
                tables.push(Root::read(data));
                Ok(())
            }
            (Kind::Free, 0) => self.free_list(number, data),
            (Kind::Free, NODE_BIG) => {
                let first = u64_at(data, 0);
                self.overflow(first, node.data_len)?;
                let mut list = vec![0; node.data_len];
                let offset = first * self.meta.page_bytes + HEADER_BYTES as u64;
                read_exact_at(self.file, &mut list, offset, first)?;
                self.free_list(first, &list)
            }
            _ => damage(number, "has an entry of the wrong kind"),
        }
    }

    /// Takes the pages of a large value.
    fn overflow(&mut self, first: u64, bytes: usize) -> Proof<()> {
        let pages = (HEADER_BYTES as u64 - 1 + bytes as u64) / self.meta.page_bytes + 1;
        for page in first..first.saturating_add(pages) {
            self.take(page, true)?;
        }
        if !self.headers {
            return Ok(());
        }
        let mut header = [0; HEADER_BYTES];
        read_exact_at(self.file, &mut header, first * self.meta.page_bytes, first)?;
        if u64_at(&header, 0) != first
            || u16_at(&header, 10) != PAGE_OVERFLOW
            || u64::from(u32_at(&header, 12)) != pages
        {
            return damage(first, "is not the large value it should be");
        }
        Ok(())
    }

    /// A list of free pages: its length, then page numbers in descending order. They may lie beyond
    /// the end of the file.
    fn free_list(&mut self, page: u64, list: &[u8]) -> Proof<()> {
        if list.len() < 8
            || !list.len().is_multiple_of(8)
            || u64_at(list, 0) != list.len() as u64 / 8 - 1
        {
            return damage(page, "has a list of free pages of the wrong length");
        }
        let mut before = u64::MAX;
        for at in (8..list.len()).step_by(8) {
            let free = u64_at(list, at);
            if free >= before {
                return damage(page, "has a list of free pages out of order");
            }
            before = free;
            self.take(free, false)?;
        }
        Ok(())
    }
}

/// One entry of a branch or leaf page.
struct Node {
    key_at: usize,
    key_len: usize,
    flags: u16,
    /// Of a leaf: where the data starts and how long it is (not inline if large).
    data_at: usize,
    data_len: usize,
    /// Of a branch.
    child: u64,
}

/// The entries of a page, after checking its header. Each key lies within the page.
fn nodes(page: &[u8], number: u64, kind: u16) -> Proof<Vec<Node>> {
    let (lower, upper) = (u16_at(page, 12) as usize, u16_at(page, 14) as usize);
    if u64_at(page, 0) != number || u16_at(page, 10) != kind {
        return damage(number, "is not the page it should be");
    }
    if lower <= HEADER_BYTES || !lower.is_multiple_of(2) || lower > upper || upper > page.len() {
        return damage(number, "has an impossible header");
    }
    let mut nodes = Vec::with_capacity((lower - HEADER_BYTES) / 2);
    for pointer in (HEADER_BYTES..lower).step_by(2) {
        let at = u16_at(page, pointer) as usize;
        if at < upper || !at.is_multiple_of(2) || at + NODE_BYTES > page.len() {
            return damage(number, "has an entry that leaves the page");
        }
        let (low, high, flags) = (u16_at(page, at), u16_at(page, at + 2), u16_at(page, at + 4));
        let key_len = u16_at(page, at + 6) as usize;
        let key_at = at + NODE_BYTES;
        if key_at + key_len > page.len() {
            return damage(number, "has a key that leaves the page");
        }
        let data_len = low as usize | (high as usize) << 16;
        let child = data_len as u64 | u64::from(flags) << 32;
        nodes.push(Node {
            key_at,
            key_len,
            flags,
            data_at: key_at + key_len,
            data_len,
            child,
        });
    }
    Ok(nodes)
}

/// Keys ascend within a page; the first of a branch page means "everything before the second" and
/// is not looked at.
fn check_order(page: &[u8], number: u64, nodes: &[Node], kind: Kind, leaf: bool) -> Proof<()> {
    let mut before: Option<&[u8]> = None;
    for node in &nodes[usize::from(!leaf)..] {
        let key = &page[node.key_at..node.key_at + node.key_len];
        if key.is_empty() || (kind == Kind::Free && key.len() != 8) {
            return damage(number, "has a key of impossible length");
        }
        let ascends = match before {
            None => true,
            Some(before) if kind == Kind::Free => u64_at(before, 0) < u64_at(key, 0),
            Some(before) => before < key,
        };
        if !ascends {
            return damage(number, "has keys out of order");
        }
        before = Some(key);
    }
    Ok(())
}
