"""Real processes for one test: started on free ports of the loopback, followed in log files, and all of them ended with it."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

# prctl(2): the signal that a process gets when its parent dies.
PR_SET_PDEATHSIG = 1
# Where a machine is slow, a wait that would succeed must not fail; what is measured has limits of its own.
PATIENCE_SECONDS = 60


def free_port():
    """A port that nobody listens on. Somebody else may take it before it is used; then the process says so and the test fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(what, condition, seconds=PATIENCE_SECONDS, still=lambda: None):
    """Waits until a condition holds and returns what it returned. `still` raises when waiting has no sense any more."""
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            last = condition()
            if last:
                return last
        except OSError as error:
            last = error
        still()
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}; last: {last}")
        time.sleep(0.1)


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def die_with_parent():
    """Run in a new process: it is killed should this one be."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Processes:
    """Processes by name, with a directory for what they write."""

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="monofs-monitoring."))
        self.commands, self.running = {}, {}
        # So that everything is ended and removed, too, when this is told to end.
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    def start(self, name, *words):
        self.commands[name] = [str(word) for word in words]
        self.again(name)

    def again(self, name):
        """Starts it with the same command and ports as before."""
        log = open(self.log(name), "ab")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MONOFS_")}
        self.running[name] = subprocess.Popen(self.commands[name], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment,
                                              preexec_fn=die_with_parent)
        log.close()

    def log(self, name):
        return self.directory / f"{name}.log"

    def check(self):
        """Raises when one of them has ended that was not stopped here."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise AssertionError(f"{name} ended with {process.returncode}:\n{self.log(name).read_text()[-2000:]}")

    def stop(self, name, how=signal.SIGTERM):
        process = self.running.pop(name)
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def end(self):
        """Ends all of them, the last one first."""
        for name in reversed(list(self.running)):
            try:
                self.stop(name)
            except subprocess.TimeoutExpired:
                print(f"{name} had to be killed", file=sys.stderr)
