"""What the binaries themselves say about their settings, and what a deployment sets.

Every deployment file is read into `Started`: one binary with its arguments and variables, whatever starts it.
"""

import dataclasses
import functools
import os
import pathlib
import re
import shlex
import subprocess

PROJECT = pathlib.Path(__file__).resolve().parents[3]
BINARIES = pathlib.Path(os.environ.get("BINARIES", PROJECT / "target/debug"))
# The name of the guide for a node.
OTHER_NAMES = {"monofs-server": "monofs-node"}
# A flag with its variable and default, as clap prints them.
FLAG = re.compile(r"^ {2,8}(?:-\w, )?--([a-z][a-z-]*)")


@dataclasses.dataclass(frozen=True)
class Flag:
    variable: str | None
    default: str | None


@functools.cache
def flags(binary):
    """All flags of a binary from its `--help`."""
    text = subprocess.run([BINARIES / binary, "--help"], check=True, capture_output=True, text=True, timeout=20).stdout
    found, name, lines = {}, None, []
    for line in [*text.splitlines(), "      --end"]:
        match = FLAG.match(line)
        if not match:
            lines.append(line)
            continue
        if name:
            about = "\n".join(lines)
            variable = re.search(r"\[env: (MONOFS_\w+)", about)
            default = re.search(r"\[default: (.*)\]", about)
            found[name] = Flag(variable and variable[1], default and default[1])
        name, lines = match[1], []
    assert "config" in found, f"{binary} --help is not understood:\n{text}"
    return found


@dataclasses.dataclass
class Started:
    """A binary as a deployment file starts it."""

    where: str
    binary: str
    arguments: dict
    variables: dict

    @classmethod
    def of(cls, where, command, variables):
        """`command`: the words of a command line, or one string of them. None when it starts none of ours."""
        words = shlex.split(command) if isinstance(command, str) else list(command or [])
        if not words or not words[0].rpartition("/")[2].startswith("monofs-"):
            return None
        name = words[0].rpartition("/")[2]
        arguments = {}
        for word in words[1:]:
            match = re.fullmatch(r"--([a-z-]+)=(.*)", word)
            assert match, f"{where}: '{word}' is not --flag=value"
            arguments[match[1]] = match[2]
        ours = {key: str(value) for key, value in (variables or {}).items() if key.startswith("MONOFS_")}
        return cls(where, OTHER_NAMES.get(name, name), arguments, ours)

    def unknown(self):
        """Flags and variables that the binary does not have."""
        have = flags(self.binary)
        variables = {flag.variable for flag in have.values()}
        wrong = [f"{self.where}: {self.binary} has no --{name}" for name in self.arguments if name not in have]
        return wrong + [f"{self.where}: {self.binary} reads no {name}" for name in self.variables if name not in variables]

    def value(self, flag):
        """What a flag is in the end: given, else from the environment, else its default."""
        known = flags(self.binary)[flag]
        return self.arguments.get(flag, self.variables.get(known.variable, known.default))

    def ports(self):
        """Where it listens: {"grpc": port, "http": port or None}."""
        match self.binary:
            case "monofs-router":
                return {"grpc": port_of(self.value("port")), "http": port_of(self.value("http-port"))}
            case "monofs-node":
                return {"grpc": port_of(self.value("addr")), "http": port_of(self.value("http-addr"))}
            case "monofs-fetcher":
                return {"grpc": port_of(self.value("addr") or self.value("port")), "http": port_of(self.value("http-addr"))}
        return {"grpc": None, "http": None}

    def peers(self):
        """Addresses of others of the cluster that it is told: (host, port) pairs."""
        told = [self.value(flag) for flag in ("router", "nodes", "fetcher-addrs", "peer-routers") if flag in flags(self.binary)]
        told = [word.rpartition("=")[2] for value in told if value for word in value.split(",")]
        return [split(address) for address in told]

    def etcd(self):
        """The etcd addresses in a router's state."""
        state = self.value("state") if self.binary == "monofs-router" else None
        match = re.fullmatch(r"etcd://([^/]+)/\w+", state or "")
        assert match or not (state or "").startswith("etcd:"), f"{self.where}: --state '{state}'"
        return [split(address) for address in match[1].split(",")] if match else []


def split(address):
    host, _, port = address.rpartition(":")
    return host, int(port)


def port_of(address):
    return int(address.rpartition(":")[2]) if address else None
