//! A TCP proxy that counts what passes and breaks it on purpose.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the proxy does to the answers of the server behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Closes each connection after this many bytes of answer.
    CutAfter(u64),
    /// Passes this many bytes of answer per connection and then nothing, without closing.
    StallAfter(u64),
    /// Flips a bit of the byte at this place of each answer.
    FlipAt(u64),
}

/// The proxy; it stops when dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: u16,
    fault: Fault,
    stopped: AtomicBool,
    answered: AtomicU64,
    connections: AtomicU64,
    stalled_until: Mutex<Option<Instant>>,
}

impl Proxy {
    /// A proxy to `port` of the loopback address.
    pub fn to(port: u16, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback address has a free port");
        let own = listener.local_addr().expect("a bound listener has an address").port();
        let shared = Arc::new(Shared {
            target: port,
            fault,
            stopped: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            stalled_until: Mutex::new(None),
        });
        std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { port: own, shared }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes of answers passed on so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// From now on and for this long no answer passes; what came meanwhile passes then.
    pub fn stall(&self, time: Duration) {
        *self.shared.stalled_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + time);
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees that it should end.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().map_while(Result::ok) {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let Ok(server) = TcpStream::connect(("127.0.0.1", shared.target)) else { continue };
        // Else small answers wait for acknowledgements that the other side delays.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(client_in), Ok(server_in)) = (client.try_clone(), server.try_clone()) else { continue };
        std::thread::spawn(move || ask(client_in, server_in));
        let shared = shared.clone();
        std::thread::spawn(move || answer(server, client, &shared));
    }
}

fn ask(mut client: TcpStream, mut server: TcpStream) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        if server.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Either side may be gone already.
    let _ = server.shutdown(Shutdown::Write);
}

fn answer(mut server: TcpStream, mut client: TcpStream, shared: &Shared) {
    let mut buffer = [0; 16 << 10];
    let mut passed: u64 = 0;
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let mut bytes = &mut buffer[..count];
        let end = passed + count as u64;
        let limit = match shared.fault {
            Fault::CutAfter(limit) | Fault::StallAfter(limit) => limit,
            _ => u64::MAX,
        };
        if let Fault::FlipAt(at) = shared.fault
            && (passed..end).contains(&at)
        {
            bytes[(at - passed) as usize] ^= 0x10;
        }
        if end > limit {
            bytes = &mut bytes[..(limit - passed) as usize];
        }
        let stalled_until = *shared.stalled_until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = stalled_until {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        shared.answered.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        if client.write_all(bytes).is_err() {
            break;
        }
        passed = end;
        if end > limit {
            if matches!(shared.fault, Fault::StallAfter(_)) {
                // Until the client has had enough.
                let _ = client.read(&mut buffer);
            }
            break;
        }
    }
    // Either side may be gone already.
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
