//! Processes and conditions.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use monofs_testkit::process::Process;
use monofs_testkit::wait::{free_port, require, wait_until};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_process_is_killed_and_started_again() {
    let mut process = Process::spawn_with(
        require("sh"),
        ["-c", "echo started $$; exec sleep 1000"],
        [],
    );
    let first = process.wait_line("started", LIMIT);
    process.kill();
    assert!(!process.is_running());
    process.clear_log();
    process.restart();
    assert_ne!(process.wait_line("started", LIMIT), first);
    assert_eq!(process.terminate(LIMIT).signal(), Some(15));
}

#[test]
#[should_panic(expected = "ended with exit status: 3 before it said 'ready':\nno disk")]
fn a_process_that_ends_early_is_reported_with_its_log() {
    let mut process = Process::spawn_with(
        require("sh"),
        ["-c", "echo no disk >&2; sleep 0.1; exit 3"],
        [],
    );
    process.wait_line("ready", LIMIT);
}

#[test]
#[should_panic(expected = "waited 20ms in vain until pigs fly")]
fn a_condition_that_never_holds_is_named() {
    wait_until("pigs fly", Duration::from_millis(20), || false);
}

#[test]
#[should_panic(
    expected = "this test needs no-such-program: install it with `apt-get install -y \
     no-such-program`"
)]
fn a_missing_program_names_its_package() {
    require("no-such-program");
}

#[test]
fn free_ports_are_free() {
    assert!(std::net::TcpListener::bind(("127.0.0.1", free_port())).is_ok());
}
