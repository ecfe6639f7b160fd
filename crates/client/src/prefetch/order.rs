//! The orders in which a tree may be walked, and where its readers are.
//!
//! Programs visit the directories of a tree depth first: a directory before what is below it, its
//! children in the order of the listing (`find`, `tar`, `grep -r`) or in the reverse (a stack of
//! work, as ripgrep has it); programs with several threads do so in several places at once. Each
//! such place is a [`Stream`]: it knows the order of its reader, how far the reader is, and what
//! was fetched ahead of it.
//!
//! Pure bookkeeping: no IO, no clock, no locks. Used by `walk`.

use std::collections::{HashMap, VecDeque};

use monofs_model::Oid;

/// A directory, by its place in the order of the listing.
pub type Node = u32;

/// Readers that are followed; beyond, the one that moved least lately is given up.
pub const STREAMS_MAX: usize = 3;
/// How far from where it is expected a reader may turn up and still be the same.
const SLACK: u32 = 8;
/// Steps of a reader that decide its order.
const VOTES_MAX: i8 = 3;

/// All directories of a snapshot, and both orders.
pub struct Tree {
    nodes: Vec<Oid>,
    index: HashMap<Oid, Node>,
    /// `sequence[o][rank]` is a node, `rank[o][node]` its rank; order 0 is that of the listing, 1
    /// visits children in reverse.
    sequence: [Vec<Node>; 2],
    rank: [Vec<u32>; 2],
}

impl Tree {
    /// From the directories in the order of the listing, each with the number of directories below
    /// it.
    pub fn new(nodes: Vec<Oid>, below: &[u32]) -> Self {
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
pub struct Stream {
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

impl Stream {
    /// A reader that may be one at random: nothing is fetched for it before it has moved on.
    fn new(order: usize, node: Node, tree: &Tree) -> Self {
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

    fn is_near(&self, node: Node, tree: &Tree) -> bool {
        let rank = &tree.rank[self.order];
        let (at, reader) = (rank[node as usize], rank[self.node as usize]);
        at + SLACK >= reader && at <= self.next.max(reader) + SLACK
    }

    /// The reader is at `node` now. Returns the bytes it went past.
    fn advance(&mut self, node: Node, tree: &Tree) -> u64 {
        for (votes, rank) in self.votes.iter_mut().zip(&tree.rank) {
            let step = i64::from(rank[node as usize]) - i64::from(rank[self.node as usize]);
            *votes = (*votes
                + if (1..=i64::from(SLACK)).contains(&step) {
                    1
                } else {
                    -1
                })
            .clamp(-VOTES_MAX, VOTES_MAX);
        }
        self.node = node;
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

/// What was fetched of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetched {
    Nothing,
    /// What readers seemed to pass over was left out.
    Part,
    All,
}

/// All readers of a tree, the one that moved last first.
#[derive(Debug)]
pub struct Streams {
    streams: VecDeque<Stream>,
    fetched: Vec<Fetched>,
    /// Bytes ahead of a reader: at first, and at most.
    window: (u64, u64),
    /// Bytes more ahead of all readers together.
    wider: u64,
    /// Bytes read of directories that were not read to their end.
    read: u64,
}

impl Streams {
    /// No reader yet; `window`: bytes ahead of one, at first and at most.
    pub fn new(tree: &Tree, window: (u64, u64)) -> Self {
        Self {
            streams: VecDeque::new(),
            fetched: vec![Fetched::Nothing; tree.nodes.len()],
            window,
            wider: 0,
            read: 0,
        }
    }

    /// So many bytes more may be ahead of all readers together.
    pub fn widen(&mut self, bytes: u64) {
        self.wider = bytes;
    }

    /// Somebody turned to a directory.
    pub fn visit(&mut self, node: Node, tree: &Tree) {
        let mut stream = match self
            .streams
            .iter()
            .position(|stream| stream.is_near(node, tree))
        {
            Some(at) => self.streams.remove(at).expect("found just now"),
            None => {
                self.streams.truncate(STREAMS_MAX - 1);
                let order = self.streams.front().map_or(0, |stream| stream.order);
                Stream::new(order, node, tree)
            }
        };
        let moved = stream.node != node;
        if stream.advance(node, tree) > 0 {
            let wider = self.wider / (self.streams.len() as u64 + 1);
            stream.window = (stream.window * 2).min(self.window.1 + wider);
        } else if moved {
            stream.window = stream.window.max(self.window.0);
        }
        self.streams.push_front(stream);
    }

    /// Somebody turned to a directory and did not find a file there. If that may be one of those
    /// left out, it was wrong to do so: what follows is fetched once more, as far as it lacks
    /// something.
    pub fn missed(&mut self, node: Node, tree: &Tree) {
        self.visit(node, tree);
        if self.fetched[node as usize] != Fetched::Part {
            return;
        }
        let stream = &mut self.streams[0];
        let from = tree.rank[stream.order][node as usize];
        for &node in &tree.sequence[stream.order][from as usize..stream.next.max(from + 1) as usize]
        {
            let fetched = &mut self.fetched[node as usize];
            *fetched = if *fetched == Fetched::Part {
                Fetched::Nothing
            } else {
                *fetched
            };
        }
        stream.rewind(from);
    }

    /// Something is left out of what is fetched of the directory that [`Streams::next`] gave.
    pub fn left_out(&mut self, node: Node) {
        self.fetched[node as usize] = Fetched::Part;
    }

    /// This much was read by readers that did not say where they are. Directories count once they
    /// are read to their end.
    pub fn consume(&mut self, bytes: u64) {
        self.read += bytes;
        for stream in &mut self.streams {
            self.read -= stream.pass(|_, passed| passed <= self.read);
        }
        let begun = self
            .streams
            .iter()
            .filter_map(|stream| stream.ahead.front());
        self.read = self
            .read
            .min(begun.map(|(_, bytes)| *bytes).max().unwrap_or(0));
    }

    /// The next directory to fetch for a reader that has room in its window. It is fetched once.
    pub fn next(&mut self, tree: &Tree) -> Option<(usize, Node)> {
        for (n, stream) in self.streams.iter_mut().enumerate() {
            while stream.ahead_bytes < stream.window {
                let Some(&node) = tree.sequence[stream.order].get(stream.next as usize) else {
                    break;
                };
                stream.next += 1;
                let fetched = &mut self.fetched[node as usize];
                if *fetched == Fetched::Nothing {
                    *fetched = Fetched::All;
                    return Some((n, node));
                }
            }
        }
        None
    }

    /// So much is fetched of the directory that [`Streams::next`] gave last for this reader.
    pub fn fetched(&mut self, stream: usize, bytes: u64) {
        if let Some(stream) = self.streams.get_mut(stream).filter(|_| bytes > 0) {
            stream.ahead.push_back((stream.next - 1, bytes));
            stream.ahead_bytes += bytes;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// 0 has 1, 4 and 5; 1 has 2 and 3; 5 has 6.
    const BELOW: [u32; 7] = [6, 2, 0, 0, 0, 1, 0];

    fn tree(below: &[u32]) -> Tree {
        let oid = |n: usize| {
            Oid::from_bytes(&[&[1; 16][..], &(n as u32).to_be_bytes()].concat()).unwrap()
        };
        Tree::new((0..below.len()).map(oid).collect(), below)
    }

    fn flat(len: u32) -> Tree {
        let mut below = vec![0; len as usize];
        below[0] = len - 1;
        tree(&below)
    }

    fn fetch(streams: &mut Streams, tree: &Tree) -> Vec<Node> {
        std::iter::from_fn(|| {
            let (stream, node) = streams.next(tree)?;
            streams.fetched(stream, 10);
            Some(node)
        })
        .collect()
    }

    fn is_fetched(streams: &Streams, node: usize) -> bool {
        streams.fetched[node] != Fetched::Nothing
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
        let mut streams = Streams::new(&tree, (30, 1000));
        streams.visit(0, &tree);
        assert!(fetch(&mut streams, &tree).is_empty());
        streams.visit(1, &tree);
        assert_eq!(fetch(&mut streams, &tree), [1, 2, 3]);
        assert!(fetch(&mut streams, &tree).is_empty());
        streams.visit(2, &tree);
        // 1 and 2 are behind, 3 is ahead, and the window has doubled.
        assert_eq!(fetch(&mut streams, &tree), [4, 5, 6, 7, 8]);
        assert_eq!(streams.streams[0].window, 60);
    }

    #[test]
    fn a_reader_with_a_stack_of_work_is_recognised() {
        let tree = flat(1000);
        let mut streams = Streams::new(&tree, (20, 20));
        streams.visit(0, &tree);
        for node in (990..1000).rev() {
            streams.visit(node, &tree);
            fetch(&mut streams, &tree);
        }
        streams.visit(989, &tree);
        assert!(is_fetched(&streams, 988) && is_fetched(&streams, 989));
        assert!(!is_fetched(&streams, 900));
    }

    #[test]
    fn two_readers_do_not_disturb_each_other() {
        let tree = flat(1000);
        let mut streams = Streams::new(&tree, (20, 20));
        for step in 0..100 {
            streams.visit(100 + step, &tree);
            fetch(&mut streams, &tree);
            streams.visit(600 + step, &tree);
            fetch(&mut streams, &tree);
            let next = step as usize + 1;
            assert!(
                step == 0 || is_fetched(&streams, 100 + next) && is_fetched(&streams, 600 + next)
            );
        }
        assert_eq!(streams.streams.len(), 2);
        let fetched = streams
            .fetched
            .iter()
            .filter(|fetched| **fetched != Fetched::Nothing)
            .count();
        assert!(fetched < 210, "{fetched}");
    }

    #[test]
    fn readers_are_bounded_and_silent_ones_are_followed_by_what_they_use() {
        let tree = flat(10_000);
        let mut streams = Streams::new(&tree, (20, 20));
        for n in 0..50 {
            streams.visit(n * 100, &tree);
            assert!(
                fetch(&mut streams, &tree).is_empty(),
                "one visit is no walk"
            );
            streams.visit(n * 100 + 1, &tree);
            fetch(&mut streams, &tree);
        }
        assert_eq!(streams.streams.len(), STREAMS_MAX);
        let before = streams.streams[0].next;
        streams.consume(20);
        fetch(&mut streams, &tree);
        assert_eq!(streams.streams[0].next, before + 2);
        // Reading a directory bit by bit is not reading several.
        (0..10).for_each(|_| streams.consume(2));
        fetch(&mut streams, &tree);
        assert_eq!(streams.streams[0].next, before + 4);
    }

    #[test]
    fn what_was_left_out_wrongly_is_fetched_again_from_where_it_is_missed() {
        let tree = flat(1000);
        let mut streams = Streams::new(&tree, (100, 100));
        streams.visit(0, &tree);
        streams.visit(1, &tree);
        let fetch = |streams: &mut Streams, leaves_out: fn(Node) -> bool| -> Vec<Node> {
            std::iter::from_fn(|| {
                let (stream, node) = streams.next(&tree)?;
                if leaves_out(node) {
                    streams.left_out(node);
                } else {
                    streams.fetched(stream, 10);
                }
                Some(node)
            })
            .collect()
        };
        assert_eq!(
            fetch(&mut streams, |node| node > 3).last(),
            Some(&999),
            "with nothing to fetch the way is long"
        );
        streams.missed(2, &tree);
        assert!(
            fetch(&mut streams, |_| false).is_empty(),
            "of that one all is fetched: it is on its way"
        );
        streams.missed(6, &tree);
        assert_eq!(fetch(&mut streams, |_| false), (6..16).collect::<Vec<_>>());
        assert_eq!(streams.streams[0].ahead_bytes, 100);
    }
}
