"""docs/runbooks.md against the alerts, and its commands against the binaries."""

import os
import re
import shlex
import subprocess
import unittest
from concurrent.futures import ThreadPoolExecutor

from alerts import alerts
from roles import BINARIES, PROJECT

RUNBOOKS = PROJECT / "docs/runbooks.md"
URL = "docs/runbooks.md#"
# What monofs-admin ends with when it could not reach a router: by then it has understood the command.
UNREACHABLE = 3
PARTS = ("**Means** (", "**Means**:", "**Hurts**:", "**Do**:", "**Escalate**:")


def anchor(title):
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def sections(text):
    """{title: text} of the sections of the third level."""
    parts = re.split(r"^### (.*)$|^## .*$", text, flags=re.MULTILINE)[1:]
    return {title: body for title, body in zip(parts[::2], parts[1::2]) if title}


def headings(path):
    """Anchors of all headings, code left out."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {anchor(title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def admin_commands(text):
    """Every command line of monofs-admin: of blocks, and between backquotes (which may go over the end of a line)."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            found += [shlex.split(part, comments=True) for part in re.split(r";|\||&&", line) if part.strip().startswith("monofs-admin ")]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = [re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", prose)]
    return found + [shlex.split(code) for code in inline if code.startswith("monofs-admin ") and "..." not in code]


class RunbooksTest(unittest.TestCase):
    def test_every_alert_has_a_section_and_every_section_an_alert(self):
        self.assertEqual(set(sections(RUNBOOKS.read_text())), {rule["alert"] for rule in alerts()})
        for rule in alerts():
            self.assertEqual(rule["annotations"]["runbook_url"], URL + anchor(rule["alert"]))

    def test_sections_say_what_it_means_whom_it_hurts_how_to_look_what_to_do_and_when_to_escalate(self):
        severities = {}
        for rule in alerts():
            severities.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
        for title, body in sections(RUNBOOKS.read_text()).items():
            with self.subTest(title):
                places = [body.find(part) for part in PARTS if part in body] + [body.find("```sh")]
                self.assertEqual(len([place for place in places if place >= 0]), 5)
                means = body[: body.index("**Hurts**")].lower()
                self.assertEqual({word for word in ("warning", "critical") if word in means}, severities[title])

    def test_links_lead_somewhere(self):
        for place, name in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", RUNBOOKS.read_text()):
            target = (RUNBOOKS.parent / place).resolve() if place else RUNBOOKS
            self.assertTrue(target.exists(), place)
            if name:
                self.assertIn(name, headings(target), f"{place}#{name}")

    def test_monofs_admin_understands_every_command(self):
        commands = admin_commands(RUNBOOKS.read_text())
        self.assertGreater(len(commands), 50)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MONOFS_")}
        # Nobody listens on port 1; a command that names a router of its own keeps it, under a name that leads nowhere.
        environment["MONOFS_ROUTER"] = "127.0.0.1:1"

        def run(command):
            words = [re.sub(r"^--router=.*", "--router=127.0.0.1:1", word) for word in command[1:]]
            done = subprocess.run([BINARIES / "monofs-admin", *words], env=environment, stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=60)
            return command, done

        with ThreadPoolExecutor(4) as pool:
            for command, done in pool.map(run, {" ".join(command): command for command in commands}.values()):
                self.assertEqual(done.returncode, UNREACHABLE, f"{' '.join(command)}\n{done.stderr}")


if __name__ == "__main__":
    unittest.main()
