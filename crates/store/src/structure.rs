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
/// The root of an empty table.
const NO_PAGE: u64 = u64::MAX;
/// Levels of a tree; LMDB's own cursors have room for as many.
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
pub(crate) struct PageDamage {
    pub page: u64,
    pub what: &'static str,
}

impl std::fmt::Display for PageDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "page {}: {}", self.page, self.what)
    }
}

/// Why a walk ended without a proof.
#[derive(Debug)]
pub(crate) enum ProofError {
    Damage(PageDamage),
    Io(io::Error),
}

type ProofResult<T> = Result<T, ProofError>;

fn damage<T>(page: u64, what: &'static str) -> ProofResult<T> {
    Err(ProofError::Damage(PageDamage { page, what }))
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
struct TableRoot {
    flags: u16,
    depth: u16,
    index_pages: u64,
    entries: u64,
    page: u64,
}

impl TableRoot {
    /// Reads an `MDB_db`: pad u32, flags u16, depth u16, branch, leaf and overflow pages, entries, root.
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
pub(crate) struct MetaPage {
    page_bytes: u64,
    free: TableRoot,
    main: TableRoot,
    last_page: u64,
    txn: u64,
}

impl MetaPage {
    /// The view that LMDB would open, or the one of transaction `txn`; `None` when that is gone
    /// already.
    pub(crate) fn read(file: &File, txn: Option<u64>) -> ProofResult<Option<Self>> {
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

    fn read_at(file: &File, page: u64, offset: u64) -> ProofResult<Self> {
        let mut bytes = [0; META_BYTES];
        read_exact_at(file, &mut bytes, offset, page)?;
        let meta = &bytes[HEADER_BYTES..];
        // Nothing else of the page means anything before these two and the page size are right.
        if u32_at(meta, 0) != MAGIC || u32_at(meta, 4) != DATA_VERSION {
            return damage(page, "no meta page");
        }
        let page_bytes = u64::from(u32_at(meta, 24));
        if !PAGE_BYTES.contains(&page_bytes) || !page_bytes.is_power_of_two() {
            return damage(page, "the page size is impossible");
        }
        // The roots of LMDB's own two tables, and how far the file is in use.
        let mut free = TableRoot::read(&meta[24..]);
        // The flags stored with this table are the environment's and its own key's kind together.
        free.flags &= TABLE_INTEGER_KEY;
        let main = TableRoot::read(&meta[24 + DB_BYTES..]);
        let last_page = u64_at(meta, 24 + 2 * DB_BYTES);
        let txn = u64_at(meta, 32 + 2 * DB_BYTES);
        let needed_bytes = last_page
            .checked_add(1)
            .and_then(|pages| pages.checked_mul(page_bytes));
        if needed_bytes.is_none() || last_page < 1 {
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

fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64, page: u64) -> ProofResult<()> {
    match file.read_exact_at(bytes, offset) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            damage(page, "lies beyond the end of the file")
        }
        read => read.map_err(ProofError::Io),
    }
}

/// How much of a file a proof reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProofDepth {
    /// Branch and leaf pages, which reads through the map rely on. When there are more than this
    /// many, nothing is read at all.
    Index { pages_max: u64 },
    /// Branch and leaf pages, and the headers of large values, on which only their removal relies.
    Everything,
}

/// Walks all tables of a view. Gives false, and proves nothing, when they have too many pages for
/// `depth`.
pub(crate) fn prove(file: &File, meta: &MetaPage, depth: ProofDepth) -> ProofResult<bool> {
    let file_bytes = file.metadata().map_err(ProofError::Io)?.len();
    let used = vec![0; (meta.last_page / 64 + 1) as usize];
    let pages_left = match depth {
        ProofDepth::Index { pages_max } => pages_max,
        ProofDepth::Everything => u64::MAX,
    };
    let file_pages = file_bytes / meta.page_bytes;
    let mut walk = TableWalk {
        file,
        meta,
        file_pages,
        used,
        pages_left,
        headers: depth == ProofDepth::Everything,
    };
    // LMDB's own tables come first: one of them names all the others.
    let mut tables = Vec::new();
    for (root, kind) in [(meta.free, TableKind::Free), (meta.main, TableKind::Main)] {
        if !walk.table(&root, kind, &mut tables)? {
            return Ok(false);
        }
    }
    for root in std::mem::take(&mut tables) {
        if !walk.table(&root, TableKind::Ours, &mut tables)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TableKind {
    /// LMDB's lists of free pages, by transaction.
    Free,
    /// The tables by name.
    Main,
    /// A named table: bytes to bytes.
    Ours,
}

struct TableWalk<'f> {
    file: &'f File,
    meta: &'f MetaPage,
    /// Whole pages in the file.
    file_pages: u64,
    /// A bit per page.
    used: Vec<u64>,
    pages_left: u64,
    /// Whether the headers of large values are read.
    headers: bool,
}

impl TableWalk<'_> {
    /// Takes a page; none may be taken twice. With `on_disk` it must lie within the file.
    fn take(&mut self, page: u64, on_disk: bool) -> ProofResult<()> {
        if page < META_PAGES || page > self.meta.last_page {
            return damage(page, "is outside the database");
        }
        if on_disk && page >= self.file_pages {
            return damage(page, "lies beyond the end of the file");
        }
        let word = &mut self.used[(page / 64) as usize];
        let bit = 1 << (page % 64);
        if *word & bit != 0 {
            return damage(page, "is used twice");
        }
        *word |= bit;
        Ok(())
    }

    /// Walks one table; the roots of tables found in it go to `tables`.
    fn table(
        &mut self,
        root: &TableRoot,
        kind: TableKind,
        tables: &mut Vec<TableRoot>,
    ) -> ProofResult<bool> {
        // What the root says of the table is checked before any of its pages is read.
        let integer = root.flags & TABLE_INTEGER_KEY != 0;
        if root.flags & !TABLE_INTEGER_KEY != 0 || integer != (kind == TableKind::Free) {
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
        // Each page is read, checked and left again; its children wait on the stack.
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
            let page_flag = if level == root.depth {
                PAGE_LEAF
            } else {
                PAGE_BRANCH
            };
            let nodes = nodes(&page, number, page_flag)?;
            check_order(&page, number, &nodes, kind, page_flag)?;
            for node in &nodes {
                if level < root.depth {
                    stack.push((node.child, level + 1));
                } else {
                    entries += 1;
                    self.leaf(&page, number, node, kind, tables)?;
                }
            }
        }
        // The root also says how many entries its leaves hold.
        if entries != root.entries {
            return damage(
                root.page,
                "is the root of a table with another number of entries",
            );
        }
        Ok(true)
    }

    /// Checks one entry of a leaf page: that its data lies within the page, or within the large
    /// value that it names, and is of the kind that the table holds.
    fn leaf(
        &mut self,
        page: &[u8],
        number: u64,
        node: &PageEntry,
        kind: TableKind,
        tables: &mut Vec<TableRoot>,
    ) -> ProofResult<()> {
        // How many bytes of the entry's data lie in the page itself.
        let inline = match node.flags {
            NODE_BIG => 8,
            0 | NODE_TABLE => node.data_len,
            _ => return damage(number, "has an entry of an unknown kind"),
        };
        let data = match page.get(node.data_at..node.data_at + inline) {
            Some(data) => data,
            None => return damage(number, "has an entry that leaves the page"),
        };
        // Each kind of table allows its own kinds of data.
        match (kind, node.flags) {
            (TableKind::Ours, 0) => Ok(()),
            (TableKind::Ours, NODE_BIG) => self.overflow(u64_at(data, 0), node.data_len).map(drop),
            (TableKind::Main, NODE_TABLE) if data.len() == DB_BYTES => {
                tables.push(TableRoot::read(data));
                Ok(())
            }
            (TableKind::Free, 0) => self.free_list(number, data),
            (TableKind::Free, NODE_BIG) => {
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
    fn overflow(&mut self, first: u64, bytes: usize) -> ProofResult<()> {
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
    fn free_list(&mut self, page: u64, list: &[u8]) -> ProofResult<()> {
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
struct PageEntry {
    key_at: usize,
    key_len: usize,
    flags: u16,
    /// In a leaf: where the data starts and how long it is. Large data lies on pages of its own.
    data_at: usize,
    data_len: usize,
    /// In a branch: the page below.
    child: u64,
}

/// The entries of a page, after checking its header. Each key lies within the page.
fn nodes(page: &[u8], number: u64, page_flag: u16) -> ProofResult<Vec<PageEntry>> {
    // The header: pointers to entries fill the page up to `lower`, entries begin at `upper`.
    let lower = u16_at(page, 12) as usize;
    let upper = u16_at(page, 14) as usize;
    if u64_at(page, 0) != number || u16_at(page, 10) != page_flag {
        return damage(number, "is not the page it should be");
    }
    if lower <= HEADER_BYTES || !lower.is_multiple_of(2) || lower > upper || upper > page.len() {
        return damage(number, "has an impossible header");
    }
    // Each pointer leads to an entry: data length (or child) in two halves, flags, key length, key.
    let mut nodes = Vec::with_capacity((lower - HEADER_BYTES) / 2);
    for pointer in (HEADER_BYTES..lower).step_by(2) {
        let at = u16_at(page, pointer) as usize;
        if at < upper || !at.is_multiple_of(2) || at + NODE_BYTES > page.len() {
            return damage(number, "has an entry that leaves the page");
        }
        let low = u16_at(page, at);
        let high = u16_at(page, at + 2);
        let flags = u16_at(page, at + 4);
        let key_len = u16_at(page, at + 6) as usize;
        let key_at = at + NODE_BYTES;
        if key_at + key_len > page.len() {
            return damage(number, "has a key that leaves the page");
        }
        let data_len = low as usize | (high as usize) << 16;
        let child = data_len as u64 | u64::from(flags) << 32;
        nodes.push(PageEntry {
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
fn check_order(
    page: &[u8],
    number: u64,
    nodes: &[PageEntry],
    kind: TableKind,
    page_flag: u16,
) -> ProofResult<()> {
    let unchecked = usize::from(page_flag == PAGE_BRANCH);
    let mut before: Option<&[u8]> = None;
    for node in &nodes[unchecked..] {
        let key = &page[node.key_at..node.key_at + node.key_len];
        if key.is_empty() || (kind == TableKind::Free && key.len() != 8) {
            return damage(number, "has a key of impossible length");
        }
        let ascends = match before {
            None => true,
            Some(before) if kind == TableKind::Free => u64_at(before, 0) < u64_at(key, 0),
            Some(before) => before < key,
        };
        if !ascends {
            return damage(number, "has keys out of order");
        }
        before = Some(key);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::env::{DATA_FILE, EnvOptions, Environment, IfMissing};

    /// Rows of the sample: enough for branch pages.
    const ROWS: u32 = 2000;

    /// A database with branch, leaf and overflow pages, and a list of free pages.
    fn sample(dir: &Path) -> Vec<u8> {
        let env = Environment::open(dir, &EnvOptions::default(), 4, IfMissing::Create).unwrap();
        let [table] = env.tables("sample", ["rows"], IfMissing::Create).unwrap();
        env.write("fill", |wtxn| {
            for row in 0..ROWS {
                let value = vec![7; if row % 500 == 0 { 10_000 } else { 20 }];
                table.put(wtxn, &row.to_be_bytes(), &value)?;
            }
            Ok(())
        })
        .unwrap();
        env.write("free pages", |wtxn| {
            for row in 0..ROWS / 2 {
                table.delete(wtxn, &row.to_be_bytes())?;
            }
            Ok(())
        })
        .unwrap();
        drop(env);
        std::fs::read(dir.join(DATA_FILE)).unwrap()
    }

    /// The proof of a file with these bytes.
    fn proof(dir: &Path, bytes: &[u8]) -> ProofResult<bool> {
        let path = dir.join("copy");
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        let meta = MetaPage::read(&file, None)?.expect("no transaction was asked for");
        prove(&file, &meta, ProofDepth::Everything)
    }

    /// What is wrong with a file with these bytes.
    #[track_caller]
    fn damage_of(dir: &Path, bytes: &[u8]) -> PageDamage {
        match proof(dir, bytes).unwrap_err() {
            ProofError::Damage(damage) => damage,
            ProofError::Io(error) => panic!("{error}"),
        }
    }

    /// Offsets of the pages with this flag whose header names themselves.
    fn pages(bytes: &[u8], flag: u16) -> Vec<usize> {
        let page_bytes = u32_at(bytes, HEADER_BYTES + 24) as usize;
        (2 * page_bytes..bytes.len())
            .step_by(page_bytes)
            .filter(|&at| u64_at(bytes, at) == (at / page_bytes) as u64)
            .filter(|&at| u16_at(bytes, at + 10) == flag)
            .collect()
    }

    #[test]
    fn a_whole_database_is_proved_as_deep_as_it_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = sample(dir.path());
        assert!(proof(dir.path(), &bytes).unwrap());
        let file = File::open(dir.path().join(DATA_FILE)).unwrap();
        let meta = MetaPage::read(&file, None).unwrap().unwrap();
        assert!(meta.needed_bytes() <= bytes.len() as u64);
        let index = |pages_max| prove(&file, &meta, ProofDepth::Index { pages_max }).unwrap();
        assert!(index(1000));
        assert!(!index(3), "too many pages prove nothing");
    }

    #[test]
    fn each_kind_of_damage_is_named_with_its_page() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = sample(dir.path());
        let leaf = *pages(&bytes, PAGE_LEAF).last().unwrap();
        let cases: [(usize, &[u8], &str); 4] = [
            (leaf, &[0xff], "is not the page it should be"),
            (leaf + 12, &[0, 0], "has an impossible header"),
            (leaf + 16, &[1, 0], "has an entry that leaves the page"),
            (leaf + 10, &[2, 1], "is not the page it should be"),
        ];
        for (at, wrong, what) in cases {
            let mut damaged = bytes.clone();
            damaged[at..at + wrong.len()].copy_from_slice(wrong);
            let found = damage_of(dir.path(), &damaged);
            assert_eq!(found.what, what);
            assert!(found.to_string().contains(&found.page.to_string()));
        }
    }

    #[test]
    fn a_file_that_is_no_database_or_was_cut_off_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = sample(dir.path());
        assert_eq!(damage_of(dir.path(), &[0; 8192]).what, "no meta page");
        let cut = damage_of(dir.path(), &bytes[..bytes.len() / 2]);
        assert_eq!(cut.what, "lies beyond the end of the file");
        assert_eq!(damage_of(dir.path(), b"").page, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_flipped_bit_makes_the_proof_panic(flips in prop::collection::vec(any::<(u64, u8)>(), 1..4)) {
            thread_local! {
                static SAMPLE: (tempfile::TempDir, Vec<u8>) = {
                    let dir = tempfile::tempdir().unwrap();
                    let bytes = sample(dir.path());
                    (dir, bytes)
                };
            }
            SAMPLE.with(|(dir, bytes)| {
                let mut damaged = bytes.clone();
                for (at, bit) in &flips {
                    let at = (at % damaged.len() as u64) as usize;
                    damaged[at] ^= 1 << (bit % 8);
                }
                let _ = proof(dir.path(), &damaged);
            });
        }
    }
}
