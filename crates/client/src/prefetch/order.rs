//! The orders in which a tree may be walked, and where its readers are.
//!
//! Programs visit the directories of a tree depth first: a directory before what is below it, its
//! children in the order of the listing (`find`, `tar`, `grep -r`) or in the reverse (a stack of
//! work, as ripgrep has it); programs with several threads do so in several places at once. Each
//! such place is a [`WalkReader`]: its order, how far it is, and what was fetched ahead of it.
//!
//! Pure bookkeeping: no IO, no clock, no locks. Used by `walk`.

use std::collections::{HashMap, VecDeque};

use monofs_model::Oid;

/// A directory, by its place in the order of the listing.
pub type Node = u32;

/// Readers that are followed; beyond, the one that moved least lately is given up.
pub const READERS_MAX: usize = 3;
/// How far from where it is expected a reader may turn up and still be the same.
const SLACK: u32 = 8;
/// Steps of a reader that decide its order.
const VOTES_MAX: i8 = 3;

/// All directories of a snapshot, and both orders.
pub struct DirectoryOrders {
    nodes: Vec<Oid>,
    index: HashMap<Oid, Node>,
    /// `sequence[o][rank]` is a node, `rank[o][node]` its rank; order 0 is that of the listing, 1
    /// visits children in reverse.
    sequence: [Vec<Node>; 2],
    rank: [Vec<u32>; 2],
}

impl DirectoryOrders {
    /// From the directories in the order of the listing, each with the number of directories below
    /// it.
    pub fn new(nodes: Vec<Oid>, below: &[u32]) -> Self {
        // A tree that occurs again is found where it occurs first.
        let index = nodes
            .iter()
            .enumerate()
            .rev()
            .map(|(n, tree)| (*tree, n as Node))
            .collect();
        let forward: Vec<Node> = (0..nodes.len() as Node).collect();
        let reverse = reversed(below);
        let mut rank = vec![0; nodes.len()];
        reverse
            .iter()
            .enumerate()
            .for_each(|(at, &node)| rank[node as usize] = at as u32);
        Self {
            nodes,
            index,
            rank: [forward.clone(), rank],
            sequence: [forward, reverse],
        }
    }

    /// The directory with this tree.
    pub fn find(&self, tree: &Oid) -> Option<Node> {
        self.index.get(tree).copied()
    }

    /// The tree of a directory.
    pub fn oid(&self, node: Node) -> &Oid {
        &self.nodes[node as usize]
    }
}

/// Depth first with children in reverse, given how many directories are below each one in the order
/// of the listing.
fn reversed(below: &[u32]) -> Vec<Node> {
    let mut order = Vec::with_capacity(below.len());
    let mut pending = vec![(0, below.len() as u32)];
    // Runs of siblings, the last of which comes next.
    while let Some((from, to)) = pending.pop() {
        if from == to {
            continue;
        }
        let mut last = from;
        while last + 1 + below[last as usize] < to {
            last += 1 + below[last as usize];
        }
        order.push(last);
        pending.push((from, last));
        pending.push((last + 1, to));
    }
    order
}

/// One reader.
#[derive(Debug)]
pub struct WalkReader {
    order: usize,
    /// Where the reader is.
    node: Node,
    /// The rank that is to be fetched next.
    next: u32,
    votes: [i8; 2],
    /// What was fetched and not reached yet: rank and bytes.
    ahead: VecDeque<(u32, u64)>,
    ahead_bytes: u64,
    window: u64,
}

impl WalkReader {
    /// A reader that may be one at random: nothing is fetched for it before it has moved on.
    fn new(order: usize, node: Node, tree: &DirectoryOrders) -> Self {
        let next = tree.rank[order][node as usize];
        Self {
            order,
            node,
            next,
            votes: [0; 2],
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            window: 0,
        }
    }

    fn is_near(&self, node: Node, tree: &DirectoryOrders) -> bool {
        let rank = &tree.rank[self.order];
        let at = rank[node as usize];
        let reader = rank[self.node as usize];
        at + SLACK >= reader && at <= self.next.max(reader) + SLACK
    }

    /// The reader is at `node` now. Returns the bytes it went past.
    fn advance(&mut self, node: Node, tree: &DirectoryOrders) -> u64 {
        for (votes, rank) in self.votes.iter_mut().zip(&tree.rank) {
            let step = i64::from(rank[node as usize]) - i64::from(rank[self.node as usize]);
            let vote = if (1..=i64::from(SLACK)).contains(&step) {
                1
            } else {
                -1
            };
            *votes = (*votes + vote).clamp(-VOTES_MAX, VOTES_MAX);
        }
        self.node = node;
        // The other order explains its steps better: what was fetched in this one is passed.
        let other = 1 - self.order;
        if self.votes[other] > self.votes[self.order] + 1 {
            self.order = other;
            self.next = tree.rank[other][node as usize];
            self.ahead.clear();
            return std::mem::take(&mut self.ahead_bytes);
        }
        let at = tree.rank[self.order][node as usize];
        self.next = self.next.max(at);
        self.pass(|rank, _| rank <= at)
    }

    /// Goes on from this rank.
    fn rewind(&mut self, next: u32) {
        while let Some((_, bytes)) = self.ahead.pop_back_if(|(rank, _)| *rank >= next) {
            self.ahead_bytes -= bytes;
        }
        self.next = next;
    }

    /// Goes past what is ahead as long as that is so for the next rank, with the bytes up to and
    /// with it. Returns the bytes.
    fn pass(&mut self, is_past: impl Fn(u32, u64) -> bool) -> u64 {
        let mut passed = 0;
        while let Some((rank, bytes)) = self
            .ahead
            .pop_front_if(|(rank, bytes)| is_past(*rank, passed + *bytes))
        {
            debug_assert!(rank < self.next);
            passed += bytes;
        }
        self.ahead_bytes -= passed;
        passed
    }
}

/// How much was fetched of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FetchedPart {
    Nothing,
    /// What readers seemed to pass over was left out.
    Part,
    All,
}

/// Bytes that are fetched ahead of one reader.
#[derive(Debug, Clone, Copy)]
pub struct WindowBounds {
    /// Once it has moved on for the first time.
    pub first_bytes: u64,
    /// Once it has used what was ahead of it often enough.
    pub bytes_max: u64,
}

/// All readers of a tree, the one that moved last first.
#[derive(Debug)]
pub struct WalkReaders {
    readers: VecDeque<WalkReader>,
    fetched: Vec<FetchedPart>,
    window: WindowBounds,
    /// Bytes more ahead of all readers together.
    wider: u64,
    /// Bytes read of directories that were not read to their end.
    read: u64,
}

impl WalkReaders {
    /// No reader yet.
    pub fn new(tree: &DirectoryOrders, window: WindowBounds) -> Self {
        Self {
            readers: VecDeque::new(),
            fetched: vec![FetchedPart::Nothing; tree.nodes.len()],
            window,
            wider: 0,
            read: 0,
        }
    }

    /// So many bytes more may be ahead of all readers together.
    pub fn widen(&mut self, bytes: u64) {
        self.wider = bytes;
    }

    /// A reader turned to a directory.
    pub fn visit(&mut self, node: Node, tree: &DirectoryOrders) {
        let mut reader = match self
            .readers
            .iter()
            .position(|reader| reader.is_near(node, tree))
        {
            Some(at) => self.readers.remove(at).expect("found just now"),
            None => {
                self.readers.truncate(READERS_MAX - 1);
                let order = self.readers.front().map_or(0, |reader| reader.order);
                WalkReader::new(order, node, tree)
            }
        };
        let moved = reader.node != node;
        if reader.advance(node, tree) > 0 {
            let wider = self.wider / (self.readers.len() as u64 + 1);
            reader.window = (reader.window * 2).min(self.window.bytes_max + wider);
        } else if moved {
            reader.window = reader.window.max(self.window.first_bytes);
        }
        self.readers.push_front(reader);
    }

    /// A reader turned to a directory and did not find a file there. If that may be one of those
    /// left out, it was wrong to do so: what follows is fetched once more, as far as it lacks
    /// something.
    pub fn missed(&mut self, node: Node, tree: &DirectoryOrders) {
        self.visit(node, tree);
        if self.fetched[node as usize] != FetchedPart::Part {
            return;
        }
        let reader = &mut self.readers[0];
        let from = tree.rank[reader.order][node as usize];
        let to = reader.next.max(from + 1);
        for &node in &tree.sequence[reader.order][from as usize..to as usize] {
            let fetched = &mut self.fetched[node as usize];
            if *fetched == FetchedPart::Part {
                *fetched = FetchedPart::Nothing;
            }
        }
        reader.rewind(from);
    }

    /// Something is left out of what is fetched of the directory that [`WalkReaders::next`] gave.
    pub fn left_out(&mut self, node: Node) {
        self.fetched[node as usize] = FetchedPart::Part;
    }

    /// So many bytes were read by readers that were not seen to turn to a directory. A directory
    /// counts as read once it is read to its end.
    pub fn consume(&mut self, bytes: u64) {
        self.read += bytes;
        for reader in &mut self.readers {
            self.read -= reader.pass(|_, passed| passed <= self.read);
        }
        let begun = self
            .readers
            .iter()
            .filter_map(|reader| reader.ahead.front());
        self.read = self
            .read
            .min(begun.map(|(_, bytes)| *bytes).max().unwrap_or(0));
    }

    /// The next directory to fetch for a reader that has room in its window. It is fetched once.
    pub fn next(&mut self, tree: &DirectoryOrders) -> Option<(usize, Node)> {
        for (n, reader) in self.readers.iter_mut().enumerate() {
            while reader.ahead_bytes < reader.window {
                let Some(&node) = tree.sequence[reader.order].get(reader.next as usize) else {
                    break;
                };
                reader.next += 1;
                let fetched = &mut self.fetched[node as usize];
                if *fetched == FetchedPart::Nothing {
                    *fetched = FetchedPart::All;
                    return Some((n, node));
                }
            }
        }
        None
    }

    /// So many bytes are fetched of the directory that [`WalkReaders::next`] gave last for this
    /// reader.
    pub fn fetched(&mut self, reader: usize, bytes: u64) {
        if let Some(reader) = self.readers.get_mut(reader).filter(|_| bytes > 0) {
            reader.ahead.push_back((reader.next - 1, bytes));
            reader.ahead_bytes += bytes;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// 0 has 1, 4 and 5; 1 has 2 and 3; 5 has 6.
    const BELOW: [u32; 7] = [6, 2, 0, 0, 0, 1, 0];

    fn tree(below: &[u32]) -> DirectoryOrders {
        let oid = |n: usize| {
            Oid::from_bytes(&[&[1; 16][..], &(n as u32).to_be_bytes()].concat()).unwrap()
        };
        DirectoryOrders::new((0..below.len()).map(oid).collect(), below)
    }

    fn window(first_bytes: u64, bytes_max: u64) -> WindowBounds {
        WindowBounds {
            first_bytes,
            bytes_max,
        }
    }

    fn flat(len: u32) -> DirectoryOrders {
        let mut below = vec![0; len as usize];
        below[0] = len - 1;
        tree(&below)
    }

    fn fetch(readers: &mut WalkReaders, tree: &DirectoryOrders) -> Vec<Node> {
        std::iter::from_fn(|| {
            let (reader, node) = readers.next(tree)?;
            readers.fetched(reader, 10);
            Some(node)
        })
        .collect()
    }

    fn is_fetched(readers: &WalkReaders, node: usize) -> bool {
        readers.fetched[node] != FetchedPart::Nothing
    }

    #[test]
    fn both_orders_visit_everything_once() {
        let tree = tree(&BELOW);
        assert_eq!(tree.sequence[1], [0, 5, 6, 4, 1, 3, 2]);
        assert_eq!(tree.sequence[0], [0, 1, 2, 3, 4, 5, 6]);
        assert!((0..7).all(|node| tree.sequence[1][tree.rank[1][node] as usize] == node as u32));
        assert_eq!(tree.find(tree.oid(5)), Some(5));
        assert!(reversed(&[]).is_empty());
    }

    #[test]
    fn a_reader_is_kept_ahead_of_by_a_window_that_grows() {
        let tree = flat(1000);
        let mut readers = WalkReaders::new(&tree, window(30, 1000));
        readers.visit(0, &tree);
        assert!(fetch(&mut readers, &tree).is_empty());
        readers.visit(1, &tree);
        assert_eq!(fetch(&mut readers, &tree), [1, 2, 3]);
        assert!(fetch(&mut readers, &tree).is_empty());
        readers.visit(2, &tree);
        // 1 and 2 are behind, 3 is ahead, and the window has doubled.
        assert_eq!(fetch(&mut readers, &tree), [4, 5, 6, 7, 8]);
        assert_eq!(readers.readers[0].window, 60);
    }

    #[test]
    fn a_reader_with_a_stack_of_work_is_recognised() {
        let tree = flat(1000);
        let mut readers = WalkReaders::new(&tree, window(20, 20));
        readers.visit(0, &tree);
        for node in (990..1000).rev() {
            readers.visit(node, &tree);
            fetch(&mut readers, &tree);
        }
        readers.visit(989, &tree);
        assert!(is_fetched(&readers, 988) && is_fetched(&readers, 989));
        assert!(!is_fetched(&readers, 900));
    }

    #[test]
    fn two_readers_do_not_disturb_each_other() {
        let tree = flat(1000);
        let mut readers = WalkReaders::new(&tree, window(20, 20));
        for step in 0..100 {
            readers.visit(100 + step, &tree);
            fetch(&mut readers, &tree);
            readers.visit(600 + step, &tree);
            fetch(&mut readers, &tree);
            let next = step as usize + 1;
            assert!(
                step == 0 || is_fetched(&readers, 100 + next) && is_fetched(&readers, 600 + next)
            );
        }
        assert_eq!(readers.readers.len(), 2);
        let fetched = readers
            .fetched
            .iter()
            .filter(|fetched| **fetched != FetchedPart::Nothing)
            .count();
        assert!(fetched < 210, "{fetched}");
    }

    #[test]
    fn readers_are_bounded_and_silent_ones_are_followed_by_what_they_use() {
        let tree = flat(10_000);
        let mut readers = WalkReaders::new(&tree, window(20, 20));
        for n in 0..50 {
            readers.visit(n * 100, &tree);
            assert!(
                fetch(&mut readers, &tree).is_empty(),
                "one visit is no walk"
            );
            readers.visit(n * 100 + 1, &tree);
            fetch(&mut readers, &tree);
        }
        assert_eq!(readers.readers.len(), READERS_MAX);
        let before = readers.readers[0].next;
        readers.consume(20);
        fetch(&mut readers, &tree);
        assert_eq!(readers.readers[0].next, before + 2);
        // Reading a directory bit by bit is not reading several.
        (0..10).for_each(|_| readers.consume(2));
        fetch(&mut readers, &tree);
        assert_eq!(readers.readers[0].next, before + 4);
    }

    #[test]
    fn what_was_left_out_wrongly_is_fetched_again_from_where_it_is_missed() {
        let tree = flat(1000);
        let mut readers = WalkReaders::new(&tree, window(100, 100));
        readers.visit(0, &tree);
        readers.visit(1, &tree);
        let fetch = |readers: &mut WalkReaders, leaves_out: fn(Node) -> bool| -> Vec<Node> {
            std::iter::from_fn(|| {
                let (reader, node) = readers.next(&tree)?;
                if leaves_out(node) {
                    readers.left_out(node);
                } else {
                    readers.fetched(reader, 10);
                }
                Some(node)
            })
            .collect()
        };
        assert_eq!(
            fetch(&mut readers, |node| node > 3).last(),
            Some(&999),
            "with nothing to fetch the way is long"
        );
        readers.missed(2, &tree);
        assert!(
            fetch(&mut readers, |_| false).is_empty(),
            "of that one all is fetched: it is on its way"
        );
        readers.missed(6, &tree);
        assert_eq!(fetch(&mut readers, |_| false), (6..16).collect::<Vec<_>>());
        assert_eq!(readers.readers[0].ahead_bytes, 100);
    }
}
