"""The alert and recording rules, and what their expressions name."""

import pathlib
import re

import yaml

from roles import PROJECT

MONITORING = PROJECT / "deploy/monitoring"
RULE_FILES = ("recording.yml", "alerts.yml")


def groups():
    """All rule groups."""
    return [group for name in RULE_FILES for group in yaml.safe_load((MONITORING / name).read_text())["groups"]]


def alerts():
    """All alert rules, in order; one name may be there with two severities."""
    return [rule for group in groups() for rule in group["rules"] if "alert" in rule]


def recorded():
    """Names that the recording rules make."""
    return {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}


def exposed():
    """Names of all series that the roles have, by the lists that their own tests keep."""
    lines = [line for path in (PROJECT / "crates/cluster/tests/golden/metrics").glob("*.txt") for line in path.read_text().splitlines()]
    families = [re.fullmatch(r"(\w+)\{.*\} (\w+)", line).groups() for line in lines]
    return {name + end for name, kind in families for end in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))}


def needed(rule):
    """Groups with this rule alone and the recording rules that it asks, and those ask, in the order of the files."""
    names, added = {name for name, _ in selectors(rule["expr"])}, True
    while added:
        asked = {name for group in groups() for other in group["rules"] if other.get("record") in names for name, _ in selectors(other["expr"])}
        added = asked - names
        names |= asked
    kept = [{"name": group["name"], "rules": [other for other in group["rules"] if other.get("record") in names]} for group in groups()]
    return [group for group in kept if group["rules"]] + [{"name": "alert", "rules": [rule]}]


def seconds(duration):
    """A duration of Prometheus: 30s, 5m, 1h30m."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration or "0s"))


# A name of ours with its matchers: those of Prometheus's language begin with nothing of this.
SELECTOR = re.compile(r"(?<![\w:])((?:monofs_|process_)\w+|up|(?:\w+:)+\w+)(?![\w:(])\s*(\{[^}]*\})?")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")


def selectors(expression):
    """(name, matchers) of each metric in an expression; matchers as written in braces, maybe empty."""
    # Strings are taken out while names are looked for, since they may hold anything, and put back.
    strings = []

    def keep(match):
        strings.append(match[0])
        return f"\"{len(strings) - 1}\""

    bare = GROUPING.sub(" ", re.sub(r'"(?:[^"\\]|\\.)*"', keep, expression))
    found = []
    for name, matchers in SELECTOR.findall(bare):
        found.append((name, re.sub(r'"(\d+)"', lambda match: strings[int(match[1])], matchers or "")))
    assert found or not re.search("monofs|process_", expression), expression
    return found


def path_of(directory, name, text):
    """Writes a file; returns its path."""
    path = pathlib.Path(directory) / name
    path.write_text(text)
    return path
