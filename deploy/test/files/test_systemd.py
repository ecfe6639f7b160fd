"""The systemd units and their environment files against the binaries and systemd itself."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from roles import BINARIES, PROJECT, Started

UNITS = PROJECT / "deploy/systemd"
ROLES = ("router", "node", "fetcher", "client")
# The worst mark of `systemd-analyze security` (0 to 10) that a unit may have. A client mounts, so it may do more.
EXPOSURE_MAX = {"router": 2.0, "node": 2.0, "fetcher": 2.0, "client": 5.0}
SYSTEM = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache"}


def settings(text):
    """KEY=VALUE lines, without comments."""
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))


class SystemdTest(unittest.TestCase):
    def setUp(self):
        self.units = {role: (UNITS / f"monofs-{role}.service").read_text() for role in ROLES}
        self.started = {}
        for role, unit in self.units.items():
            path = settings(unit)["EnvironmentFile"]
            self.assertEqual(path, f"/etc/monofs/{role}.env")
            variables = settings((UNITS / f"env/{role}.env").read_text())
            self.started[role] = Started.of(f"monofs-{role}.service", settings(unit)["ExecStart"], variables)

    def test_there_is_a_unit_for_every_environment_file(self):
        self.assertEqual({path.stem for path in (UNITS / "env").iterdir()}, set(ROLES))
        self.assertEqual({path.name for path in UNITS.glob("*.service")}, {f"monofs-{role}.service" for role in ROLES})

    def test_every_variable_exists(self):
        for role in self.started.values():
            self.assertEqual(role.unknown(), [])

    def test_variables_in_comments_exist_too(self):
        for role in ROLES:
            told = re.findall(r"^#   (MONOFS_\w+)=", (UNITS / f"env/{role}.env").read_text(), re.MULTILINE)
            self.assertEqual(Started(role, f"monofs-{role}", {}, dict.fromkeys(told, "")).unknown(), [])

    def test_ports_are_the_documented_ones_and_do_not_collide_on_one_host(self):
        ports = {role: started.ports() for role, started in self.started.items() if role != "client"}
        self.assertEqual(ports, {"router": {"grpc": 9090, "http": 8080}, "node": {"grpc": 9000, "http": 8081},
                                 "fetcher": {"grpc": 9200, "http": 8082}})

    def test_directories_are_ones_that_systemd_makes_for_the_unit(self):
        flag = {"router": "state-dir", "node": "db-path", "fetcher": "cache-dir", "client": "cache"}
        for role, unit in self.units.items():
            made = [f"{SYSTEM[key]}/{name}" for key, name in settings(unit).items() if key in SYSTEM]
            self.assertEqual([self.started[role].value(flag[role])], made)

    def test_systemd_takes_the_units(self):
        with tempfile.TemporaryDirectory() as directory:
            for role, unit in self.units.items():
                # The binaries that are here, so that the path is one that can be executed.
                (Path(directory) / f"monofs-{role}.service").write_text(unit.replace("/usr/local/bin", str(BINARIES)))
            units = sorted(Path(directory).iterdir())
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60)
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_units_are_hardened(self):
        for role in ROLES:
            threshold = str(int(EXPOSURE_MAX[role] * 10))
            done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={threshold}",
                                   UNITS / f"monofs-{role}.service"], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stdout[-300:] + done.stderr)

    def test_servers_are_not_root(self):
        for role in ("router", "node", "fetcher"):
            self.assertEqual(settings(self.units[role])["User"], "monofs")
        self.assertIn("\nu monofs ", (UNITS / "monofs.sysusers").read_text())


    def test_the_servers_directory_is_made_for_units_that_name_none(self):
        # The deployment guide's own unit: the user monofs, --db-path=/var/lib/monofs/db, and no StateDirectory=.
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            (root / "etc").mkdir()
            (root / "etc/passwd").write_text(f"monofs:x:{os.getuid()}:{os.getgid()}::/:/bin/false\n")
            (root / "etc/group").write_text(f"monofs:x:{os.getgid()}:\n")
            subprocess.run(["systemd-tmpfiles", "--create", f"--root={root}", UNITS / "monofs.tmpfiles"],
                           check=True, capture_output=True, text=True, timeout=60)
            made = root / "var/lib/monofs"
            self.assertEqual((made.stat().st_uid, made.stat().st_mode & 0o777), (os.getuid(), 0o755))

    def test_everything_that_a_machine_needs_is_copied_with_the_binaries(self):
        script = (PROJECT / "scripts/install-binaries").read_text()
        self.assertIn('cp -r deploy/systemd "$to/share/systemd"', script)
        guide = (PROJECT / "docs/deployment.md").read_text()
        for path in UNITS.rglob("*"):
            if path.suffix in (".sysusers", ".tmpfiles"):
                self.assertIn(f"share/systemd/{path.name}", guide)


if __name__ == "__main__":
    assert shutil.which("systemd-analyze"), "install the package systemd"
    unittest.main()
