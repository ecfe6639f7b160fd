//! What breaks things on purpose: it breaks them, and it stops.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use monofs_testkit::clock::WallClock;
use monofs_testkit::disk::SmallDisk;
use monofs_testkit::netns::Net;
use monofs_testkit::proxy::{Direction, Fault, Proxy};
use monofs_testkit::wait::{require, wait_until};
use monofs_testkit::{Process, wait::wait_for};

const LIMIT: Duration = Duration::from_secs(20);

/// Answers each byte with the same byte.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    port
}

/// Sends a byte and gives what comes back within half a second: bytes read, or the error.
fn say(mut stream: &TcpStream) -> std::io::Result<usize> {
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(b"x")?;
    stream.read(&mut [0; 16])
}

fn is_silent(result: &std::io::Result<usize>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn a_proxy_is_switched_under_an_open_connection() {
    let proxy = Proxy::to(echo(), Fault::None);
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    assert_eq!(say(&stream).unwrap(), 1);
    for direction in [Direction::Asks, Direction::Answers] {
        proxy.set(direction, Fault::BlackHole);
        assert!(is_silent(&say(&stream)), "{direction:?} passed");
        proxy.set(direction, Fault::None);
        // One is held back in each round; they come one by one or together.
        let mut come = say(&stream).unwrap();
        wait_until("what was held back comes", LIMIT, || {
            come += if come < 2 {
                (&stream).read(&mut [0; 16]).unwrap_or(0)
            } else {
                0
            };
            come == 2
        });
    }
    proxy.set(Direction::Answers, Fault::Delay(Duration::from_millis(200)));
    let from = Instant::now();
    say(&stream).unwrap();
    assert!(
        from.elapsed() >= Duration::from_millis(190),
        "{:?}",
        from.elapsed()
    );
    proxy.set_both(Fault::Reset);
    wait_until("the connection is reset", LIMIT, || {
        say(&stream).is_err_and(|error| !matches!(error.kind(), std::io::ErrorKind::WouldBlock))
    });
}

#[test]
fn the_asking_side_of_a_half_open_connection_hears_nothing() {
    let proxy = Proxy::to(echo(), Fault::None);
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    assert_eq!(say(&stream).unwrap(), 1);
    proxy.set(Direction::Asks, Fault::HalfOpen);
    for _ in 0..3 {
        assert!(is_silent(&say(&stream)));
    }
}

#[test]
fn a_throttled_direction_passes_so_many_bytes_a_second() {
    let proxy = Proxy::to(echo(), Fault::Throttle(100_000));
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    let from = Instant::now();
    stream.write_all(&[7; 50_000]).unwrap();
    stream.read_exact(&mut [0; 50_000]).unwrap();
    let took = from.elapsed();
    assert!(
        took > Duration::from_millis(400) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[test]
fn hosts_reach_each_other_until_they_are_parted() {
    let mut net = Net::new();
    let (one, two) = (net.host("one"), net.host("two"));
    let reaches = |from: &monofs_testkit::netns::Host, to: &monofs_testkit::netns::Host| {
        let (enter, address) = (from.clone(), to.address());
        let dial = move || {
            enter.enter();
            // No program listens there, so a refusal came from that host.
            let error =
                TcpStream::connect_timeout(&(address, 9).into(), Duration::from_millis(500))
                    .unwrap_err();
            error.kind() == std::io::ErrorKind::ConnectionRefused
        };
        std::thread::spawn(dial).join().unwrap()
    };
    assert!(reaches(&one, &two) && reaches(&two, &one));
    one.partition(&two);
    assert!(!reaches(&one, &two) && !reaches(&two, &one));
    one.heal();
    assert!(!reaches(&one, &two), "two is still deaf");
    two.heal();
    assert!(reaches(&one, &two));
    one.mute_all();
    assert!(!reaches(&one, &two));
}

#[test]
fn a_network_leaves_nothing_behind_even_after_a_panic() {
    let names = || {
        std::fs::read_dir("/run/netns").map_or(0, |dir| {
            let own = format!("monofs-{}-", std::process::id());
            dir.flatten()
                .filter(|name| name.file_name().to_string_lossy().starts_with(&own))
                .count()
        })
    };
    let panicked = std::thread::spawn(move || {
        let mut net = Net::new();
        let host = net.host("one");
        // Only the network ends it.
        std::mem::forget(host.spawn_program(require("sleep"), ["1000"], []));
        assert!(names() > 0);
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(names(), 0);
}

#[test]
fn a_small_disk_is_full_until_it_is_freed() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("disk");
    let disk = SmallDisk::mount(&at, 1 << 20);
    disk.fill();
    assert!(std::fs::write(at.join("more"), [0; 100_000]).is_err());
    disk.free();
    std::fs::write(at.join("more"), [0; 100_000]).unwrap();
    drop(disk);
    assert_eq!(
        std::fs::read_dir(&at).unwrap().count(),
        0,
        "it is unmounted"
    );
}

#[test]
fn a_wall_clock_jumps_under_a_running_process() {
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::new(dir.path(), "sh");
    let script = "while true; do date +year-%Y; sleep 0.1; done";
    let process = Process::spawn_with(require("sh"), ["-c", script], clock.envs());
    let year = |process: &Process| -> Option<u64> {
        process.log().last()?.strip_prefix("year-")?.parse().ok()
    };
    let now = wait_for("it tells the year", LIMIT, || year(&process));
    clock.jump(10 * 366 * 86_400);
    wait_until("it is ten years later", LIMIT, || {
        year(&process).is_some_and(|year| year >= now + 10)
    });
}
