//! A TCP proxy that counts what passes and breaks it on purpose, each direction for itself,
//! switchable at run time.
//!
//! Each direction of a connection has a thread that reads and one that writes, with a bounded queue
//! between them, so that a delay does not throttle. A switch reaches open connections, idle ones
//! within a tick of 10 ms.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::netns::Host;

/// How soon a thread that waits for bytes notices a switch.
const TICK: Duration = Duration::from_millis(10);
/// Bytes read at once.
const PIECE_BYTES: usize = 16 << 10;
/// Pieces under way in one direction of one connection: 1 MiB.
const PIECES_MAX: usize = 64;

/// What the proxy does to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Closes each connection after this many bytes.
    CutAfter(u64),
    /// Passes this many bytes of each connection and then nothing, without closing.
    StallAfter(u64),
    /// Flips a bit of the byte at this place of each connection.
    FlipAt(u64),
    /// Every byte comes this much later.
    Delay(Duration),
    /// Bytes that pass in a second.
    Throttle(u64),
    /// Nothing passes and nothing closes; what came meanwhile passes when this ends.
    BlackHole,
    /// Both ends of every connection are reset, new ones too.
    Reset,
    /// The receiver's side of every connection is closed; the sender is not told, and what it sends
    /// is not read. New connections are accepted and lead nowhere.
    HalfOpen,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client, which connected, to the server.
    Asks,
    /// From the server back to the client.
    Answers,
}

/// The proxy; it stops when dropped.
pub struct Proxy {
    address: SocketAddrV4,
    host: Option<Host>,
    shared: Arc<ProxyState>,
}

/// What all connections of a proxy share.
struct ProxyState {
    target: u16,
    asks: Mutex<Fault>,
    answers: Mutex<Fault>,
    stopped: AtomicBool,
    answered: AtomicU64,
    connections: AtomicU64,
}

impl ProxyState {
    fn slot(&self, direction: Direction) -> &Mutex<Fault> {
        match direction {
            Direction::Asks => &self.asks,
            Direction::Answers => &self.answers,
        }
    }

    fn fault(&self, direction: Direction) -> Fault {
        *self.slot(direction).lock()
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

impl Proxy {
    /// A proxy to `port` of the loopback address, with a fault in the answers.
    pub fn to(port: u16, fault: Fault) -> Self {
        Self::serve(None, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), port, fault)
    }

    /// A proxy on a host of a test network: from `port` of its address to `target` of its loopback
    /// address.
    pub fn on(host: &Host, port: u16, target: u16) -> Self {
        Self::serve(
            Some(host.clone()),
            SocketAddrV4::new(host.address(), port),
            target,
            Fault::None,
        )
    }

    fn serve(host: Option<Host>, address: SocketAddrV4, target: u16, fault: Fault) -> Self {
        let shared = Arc::new(ProxyState {
            target,
            asks: Mutex::new(Fault::None),
            answers: Mutex::new(fault),
            stopped: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        });
        let (tell, bound) = sync_channel(1);
        std::thread::spawn({
            let shared = shared.clone();
            let host = host.clone();
            move || {
                // Sockets belong to the network of the thread that makes them; threads begin where
                // their parent is.
                host.iter().for_each(Host::enter);
                let listener = TcpListener::bind(address)
                    .unwrap_or_else(|error| panic!("bind {address}: {error}"));
                let port = listener
                    .local_addr()
                    .expect("a bound listener has an address")
                    .port();
                let _ = tell.send(port);
                accept(&listener, &shared);
            }
        });
        let port = bound.recv().expect("the proxy listens");
        Self {
            address: SocketAddrV4::new(*address.ip(), port),
            host,
            shared,
        }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Bytes of answers passed on so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Switches the fault of one direction, for open connections too. Bytes are counted from the
    /// start of a connection.
    pub fn set(&self, direction: Direction, fault: Fault) {
        *self.shared.slot(direction).lock() = fault;
    }

    /// Switches the fault of both directions.
    pub fn set_both(&self, fault: Fault) {
        self.set(Direction::Asks, fault);
        self.set(Direction::Answers, fault);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees that it should end.
        let address = self.address;
        let host = self.host.take();
        let wake = std::thread::spawn(move || {
            host.iter().for_each(Host::enter);
            TcpStream::connect_timeout(&address.into(), TICK * 100)
        });
        let _ = wake.join();
    }
}

/// Takes connections and joins each to the server with two threads a direction.
fn accept(listener: &TcpListener, shared: &Arc<ProxyState>) {
    for client in listener.incoming().map_while(Result::ok) {
        if shared.is_stopped() {
            return;
        }
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let Ok(server) = TcpStream::connect(("127.0.0.1", shared.target)) else {
            continue;
        };
        for stream in [&client, &server] {
            // Without this small answers wait for acknowledgements that the other side delays.
            let _ = stream.set_nodelay(true);
            // A thread that reads sees a switch this late.
            let _ = stream.set_read_timeout(Some(TICK));
        }
        let connection = Arc::<ProxyConnection>::default();
        for (direction, from, to) in [
            (Direction::Asks, &client, &server),
            (Direction::Answers, &server, &client),
        ] {
            let (Ok(source), Ok(from), Ok(to)) =
                (from.try_clone(), from.try_clone(), to.try_clone())
            else {
                continue;
            };
            let way = OneWay {
                direction,
                shared: shared.clone(),
                connection: connection.clone(),
            };
            let (sender, receiver) = sync_channel(PIECES_MAX);
            let reading = way.clone();
            std::thread::spawn(move || reading.collect(source, &sender));
            std::thread::spawn(move || way.deliver(&from, &to, &receiver));
        }
    }
}

/// Bytes that were read at once.
struct ProxyPiece {
    read_at: Instant,
    bytes: Vec<u8>,
}

/// What the four threads of a connection tell each other.
#[derive(Default)]
struct ProxyConnection {
    /// All four threads drop their sockets; the last one closes them.
    ended: AtomicBool,
    /// One side was closed, and the other must not notice.
    half_open: AtomicBool,
}

/// One direction of one connection.
#[derive(Clone)]
struct OneWay {
    direction: Direction,
    shared: Arc<ProxyState>,
    connection: Arc<ProxyConnection>,
}

impl OneWay {
    fn fault(&self) -> Fault {
        self.shared.fault(self.direction)
    }

    fn is_over(&self) -> bool {
        self.shared.is_stopped() || self.connection.ended.load(Ordering::SeqCst)
    }

    /// Reads until the sender has ended its side, or the pieces have no receiver any more.
    fn collect(&self, mut from: TcpStream, pieces: &SyncSender<ProxyPiece>) {
        let mut buffer = [0; PIECE_BYTES];
        while !self.is_over() {
            // What cannot pass is not read either: the sender's window fills, as with a peer that
            // has gone.
            if matches!(self.fault(), Fault::BlackHole | Fault::HalfOpen) {
                std::thread::sleep(TICK);
                continue;
            }
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    let piece = ProxyPiece {
                        read_at: Instant::now(),
                        bytes: buffer[..count].to_vec(),
                    };
                    if pieces.send(piece).is_err() {
                        return;
                    }
                }
                Err(error) if is_timeout(&error) => {}
                Err(_) => return,
            }
        }
    }

    /// Writes until the sender has said everything or the connection ends.
    fn deliver(&self, from: &TcpStream, to: &TcpStream, pieces: &Receiver<ProxyPiece>) {
        let mut passed = 0;
        // What came just when nothing may pass any more.
        let mut held = None;
        while !self.is_over() {
            // Faults under which nothing passes.
            match self.fault() {
                Fault::Reset => {
                    // It may be gone already, which is as good. The thread that closes it last
                    // sends the reset.
                    for stream in [from, to] {
                        let _ =
                            rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
                    }
                    self.connection.ended.store(true, Ordering::SeqCst);
                    return;
                }
                Fault::HalfOpen => {
                    if !self.connection.half_open.swap(true, Ordering::SeqCst) {
                        let _ = to.shutdown(Shutdown::Both);
                    }
                    std::thread::sleep(TICK);
                    continue;
                }
                Fault::BlackHole => {
                    std::thread::sleep(TICK);
                    continue;
                }
                _ => {}
            }
            // The next piece, unless the fault was switched while it was waited for.
            match held.take().map_or_else(|| pieces.recv_timeout(TICK), Ok) {
                Ok(piece)
                    if matches!(
                        self.fault(),
                        Fault::BlackHole | Fault::HalfOpen | Fault::Reset
                    ) =>
                {
                    held = Some(piece)
                }
                Ok(piece) => {
                    if !self.pass(piece, &mut passed, to) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.is_half_open() => {
                    std::thread::sleep(TICK)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = to.shutdown(Shutdown::Write);
                    // A client that has sent all of its request may still wait for the answer; a
                    // server that has ended its answer is done.
                    if self.direction == Direction::Asks {
                        return;
                    }
                    break;
                }
            }
        }
        if self.connection.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        // Either side may be gone already.
        let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
    }

    fn is_half_open(&self) -> bool {
        let faults = [Direction::Asks, Direction::Answers].map(|way| self.shared.fault(way));
        self.connection.half_open.load(Ordering::SeqCst) && faults.contains(&Fault::HalfOpen)
    }

    /// Passes a piece on, changed, cut or late as the fault says. Gives false when the connection
    /// ends with it.
    fn pass(&self, mut piece: ProxyPiece, passed: &mut u64, mut to: &TcpStream) -> bool {
        let fault = self.fault();
        let end = *passed + piece.bytes.len() as u64;
        // What happens to the piece before it passes.
        match fault {
            Fault::FlipAt(at) if (*passed..end).contains(&at) => {
                piece.bytes[(at - *passed) as usize] ^= 0x10
            }
            Fault::CutAfter(limit) | Fault::StallAfter(limit) if end > limit => {
                piece.bytes.truncate(limit.saturating_sub(*passed) as usize);
            }
            Fault::Delay(delay) => {
                self.wait(
                    fault,
                    (piece.read_at + delay).saturating_duration_since(Instant::now()),
                );
            }
            Fault::Throttle(rate) => {
                self.wait(
                    fault,
                    Duration::from_secs_f64(piece.bytes.len() as f64 / rate.max(1) as f64),
                );
            }
            _ => {}
        }
        if self.direction == Direction::Answers {
            self.shared
                .answered
                .fetch_add(piece.bytes.len() as u64, Ordering::SeqCst);
        }
        if to.write_all(&piece.bytes).is_err() {
            return false;
        }
        *passed = end;
        // Some faults end the connection behind it.
        match fault {
            Fault::CutAfter(limit) => end <= limit,
            Fault::StallAfter(limit) if end > limit => {
                self.until_given_up(fault, to);
                false
            }
            _ => true,
        }
    }

    /// Waits, unless the connection ends or the fault is switched meanwhile.
    fn wait(&self, fault: Fault, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.is_over() && self.fault() == fault {
            std::thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Waits until the receiver has had enough of waiting.
    fn until_given_up(&self, fault: Fault, to: &TcpStream) {
        while !self.is_over() && self.fault() == fault {
            match to.peek(&mut [0]) {
                Ok(0) => return,
                // It still asks.
                Ok(_) => std::thread::sleep(TICK),
                Err(error) if is_timeout(&error) => {}
                Err(_) => return,
            }
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
