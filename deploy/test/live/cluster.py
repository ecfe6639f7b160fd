"""A cluster of real processes (etcd, a router, two nodes, a fetcher, a client with its mount) and a Git server on the loopback."""

import os
import shutil
import subprocess

from processes import Processes, free_port, get, wait
from roles import BINARIES

NODES = ("node1", "node2")
PATH = "git/project"
FILES = 40


class Cluster:
    """`targets` are the addresses of /metrics, {job: {name of the process: address}}."""

    def __init__(self):
        self.processes = Processes()
        self.directory = self.processes.directory
        self.mount = self.directory / "mnt"
        self.mount.mkdir()
        self.http = {name: f"127.0.0.1:{free_port()}" for name in ("router", *NODES, "fetcher", "client", "etcd")}
        self.targets = {"monofs-router": {"router": self.http["router"]}, "monofs-node": {node: self.http[node] for node in NODES},
                        "monofs-fetcher": {"fetcher": self.http["fetcher"]}, "monofs-client": {"client": self.http["client"]},
                        "monofs-etcd": {"etcd": self.http["etcd"]}}

    def start(self):
        start = self.processes.start
        router = f"127.0.0.1:{free_port()}"
        peer = f"http://127.0.0.1:{free_port()}"
        etcd = f"http://{self.http['etcd']}"
        start("etcd", "etcd", "--data-dir", self.directory / "etcd", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
              f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}")
        self.repository()
        wait("etcd is healthy", lambda: "true" in get(f"{etcd}/health"), still=self.processes.check)
        start("router", BINARIES / "monofs-router", "--listen=127.0.0.1", f"--port={port(router)}", f"--http-port={port(self.http['router'])}",
              f"--state=etcd://{self.http['etcd']}/monofs", f"--advertise={router}", "--health-interval=500ms", "--unhealthy-threshold=2s",
              "--refresh-interval=2s")
        for node in NODES:
            start(node, BINARIES / "monofs-node", f"--addr=127.0.0.1:{free_port()}", f"--http-addr={self.http[node]}", f"--node-id={node}",
                  f"--db-path={self.directory / node}", f"--router={router}")
        start("fetcher", BINARIES / "monofs-fetcher", f"--addr=127.0.0.1:{free_port()}", f"--http-addr={self.http['fetcher']}",
              f"--cache-dir={self.directory / 'fetcher'}", f"--router={router}")
        self.router = router
        wait("router, nodes and fetcher are healthy", self.healthy, still=self.processes.check)
        self.admin("ingest", f"--source=git://{self.git}/project.git", f"--path={PATH}", "--ref=main", "--consistency=strong", "--wait")
        start("client", BINARIES / "monofs-client", f"--mount={self.mount}", f"--router={router}", f"--cache={self.directory / 'cache'}",
              f"--metrics-addr={self.http['client']}")
        wait("the mount shows the repository", (self.mount / PATH / "file0").exists, still=self.processes.check)

    def repository(self):
        """A repository with some files, served by Git itself."""
        work, served = self.directory / "work", self.directory / "served"
        work.mkdir()
        served.mkdir()
        for number in range(FILES):
            (work / f"file{number}").write_text(f"{number}\n" * 500)
        git(work, "init", "--quiet", "--initial-branch=main")
        self.commit("first")
        git(served, "clone", "--quiet", "--bare", work, "project.git")
        self.git = f"127.0.0.1:{free_port()}"
        self.processes.start("git", "git", "daemon", "--listen=127.0.0.1", f"--port={port(self.git)}", f"--base-path={served}",
                             "--export-all", "--reuseaddr")

    def commit(self, message):
        work = self.directory / "work"
        git(work, "add", "--all")
        git(work, "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--message", message)

    def use(self):
        """Reads everything, publishes a commit, and reads what is new."""
        for number in range(FILES):
            (self.mount / PATH / f"file{number}").read_text()
        (self.directory / "work" / "file0").write_text("changed\n")
        self.commit("second")
        git(self.directory / "work", "push", "--quiet", self.directory / "served/project.git", "main")
        self.admin("refresh", PATH)
        wait("the mount shows the new commit", lambda: (self.mount / PATH / "file0").read_text() == "changed\n", still=self.processes.check)

    def admin(self, *words):
        done = subprocess.run([BINARIES / "monofs-admin", f"--router={self.router}", *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"monofs-admin {words}: {done.stderr}"
        return done.stdout

    def healthy(self):
        """Whether the router has nothing to complain about. A router that is not there is not healthy."""
        return '"healthy"' in get(f"http://{self.http['router']}/health")

    def end(self):
        self.processes.end()
        if os.path.ismount(self.mount):
            subprocess.run(["fusermount3", "-uz", self.mount], check=False, timeout=20)
        shutil.rmtree(self.directory)


def port(address):
    return address.rpartition(":")[2]


def git(directory, *words):
    subprocess.run(["git", "-C", directory, *words], check=True, timeout=60)
