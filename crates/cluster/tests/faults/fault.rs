//! The faults that a server can have, each with its end.

use std::time::Duration;

use monofs_testkit::Process;
use monofs_testkit::netns::Host;
use monofs_testkit::proxy::{self, Direction, Proxy};
use rustix::process::Signal;

use crate::site::Server;

/// What happens to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9; heals by a start.
    Kill,
    /// SIGSTOP: sockets stay open and nothing answers.
    Stop,
    /// Cut off from all other hosts, silently.
    Partition,
    /// Cut off from the client only; all others see a healthy server.
    PartitionFromClient,
    /// What others send does not arrive.
    Deaf,
    /// What it sends does not arrive.
    Mute,
    /// 2 Mbit/s.
    SlowLink,
    /// Every tenth packet is lost.
    Lossy,
    /// No byte is left on its disk.
    FullDisk,
    /// Every connection is reset, new ones too.
    Reset,
    /// Its connections are closed, and their clients are not told.
    HalfOpen,
    /// Connections stay; nothing comes back.
    NoAnswers,
    /// Connections stay; nothing gets there.
    NoAsks,
    /// Every byte takes 150 ms longer, each way.
    Delay,
    /// The wall clock is a day ahead.
    ClockAhead,
    /// The wall clock is a day behind.
    ClockBehind,
}

/// Speed of a slow link in kbit/s.
const SLOW_KBITS: u32 = 2000;
const DAY_SECONDS: i64 = 86_400;
const LATE: Duration = Duration::from_millis(150);

impl Fault {
    /// Begins. `client` is the host of the mount.
    #[track_caller]
    pub fn inflict(self, server: &mut Server, client: &Host) {
        match self {
            Self::Kill => server.process.kill(),
            Self::Stop => server.process.signal(Signal::STOP),
            Self::Partition => {
                server.host.deafen_all();
                server.host.mute_all();
            }
            Self::PartitionFromClient => server.host.partition(client),
            Self::Deaf => server.host.deafen_all(),
            Self::Mute => server.host.mute_all(),
            Self::SlowLink => server.host.slow(SLOW_KBITS),
            Self::Lossy => server.host.lose(0.1),
            Self::FullDisk => server.disk.fill(),
            Self::Reset => proxy(server).set_both(proxy::Fault::Reset),
            Self::HalfOpen => proxy(server).set_both(proxy::Fault::HalfOpen),
            Self::NoAnswers => proxy(server).set(Direction::Answers, proxy::Fault::BlackHole),
            Self::NoAsks => proxy(server).set(Direction::Asks, proxy::Fault::BlackHole),
            Self::Delay => proxy(server).set_both(proxy::Fault::Delay(LATE)),
            Self::ClockAhead => server.clock.jump(DAY_SECONDS),
            Self::ClockBehind => server.clock.jump(-DAY_SECONDS),
        }
    }

    /// Ends.
    #[track_caller]
    pub fn heal(self, server: &mut Server, client: &Host) {
        match self {
            Self::Kill => start_if_ended(&mut server.process),
            Self::Stop => server.process.signal(Signal::CONT),
            Self::PartitionFromClient => {
                server.host.heal();
                client.heal();
            }
            Self::Partition | Self::Deaf | Self::Mute | Self::Lossy => server.host.heal(),
            Self::SlowLink => match server.link_kbits {
                Some(kbits) => server.host.slow(kbits),
                None => server.host.full_speed(),
            },
            Self::FullDisk => {
                server.disk.free();
                start_if_ended(&mut server.process);
            }
            Self::Reset | Self::HalfOpen | Self::NoAnswers | Self::NoAsks | Self::Delay => {
                proxy(server).set_both(proxy::Fault::None);
            }
            Self::ClockAhead | Self::ClockBehind => server.clock.jump(0),
        }
    }
}

#[track_caller]
fn proxy(server: &Server) -> &Proxy {
    server
        .proxy
        .as_ref()
        .expect("the plan puts a proxy before each server")
}

/// As a service manager does.
fn start_if_ended(process: &mut Process) {
    if !process.is_running() {
        process.restart();
    }
}
