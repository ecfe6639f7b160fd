"""Alert and recording rules with promtool: they load, and each alert fires at its threshold, after its time, and not below."""

import math
import re
import subprocess
import tempfile
import unittest

import yaml

from alerts import MONITORING, RULE_FILES, alerts, exposed, groups, needed, path_of, recorded, seconds, selectors
from roles import PROJECT

CASES = yaml.safe_load((PROJECT / "deploy/test/files/alert-cases.yml").read_text())
# How long a condition that must not raise an alert is watched: longer than most windows of rates; it would become pending
# at once.
WATCHED_MINUTES = 45


def tool(*words):
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=100)


def cases():
    """(alert, severity, case) of every case, and the rule it is about."""
    rules = {(rule["alert"], rule["labels"]["severity"]): rule for rule in alerts()}
    return [(rules[name, severity], case) for name, severities in CASES.items() for severity, case in severities.items()]


def series(values, minutes):
    return [{"series": name, "values": value if isinstance(value, str) else f"{value}x{minutes}"} for name, value in values.items()]


def queries(rule, at, labels, state):
    """What promtool is to find of an alert at a minute: it fires with these labels, or (None) it is not there."""
    name, severity = rule["alert"], rule["labels"]["severity"]
    expected = []
    if labels is not None:
        pairs = {"alertname": name, "alertstate": state, "severity": severity} | labels
        expected = [{"labels": "ALERTS{" + ", ".join(f'{key}="{value}"' for key, value in pairs.items()) + "}", "value": 1}]
    matchers = f'alertname="{name}", severity="{severity}"' + (f', alertstate="{state}"' if state else "")
    return {"expr": f"ALERTS{{{matchers}}}", "eval_time": f"{at}m", "exp_samples": expected}


def document(rule, case, rules, path):
    """The unit tests of one alert, in promtool's format; one sample and one evaluation a minute. `rules` are in the file `path`."""
    return {"rule_files": [str(path)], "evaluation_interval": "1m",
            # What is recorded is there when alerts look.
            "group_eval_order": [group["name"] for group in rules], "tests": unit_tests(rule, case)}


def unit_tests(rule, case):
    lasts = math.ceil(seconds(rule.get("for")) / 60)
    begins = case.get("from", 0)
    fires_at = begins + lasts
    checked = [queries(rule, fires_at, case["labels"], "firing")]
    if fires_at > 0:
        checked.append(queries(rule, fires_at - 1, None, "firing"))
    if begins > 0:
        checked.append(queries(rule, begins - 1, None, ""))
    tests = [{"interval": "1m", "input_series": series(case["fires"], fires_at + 1), "promql_expr_test": checked}]
    for kind, state, until in (("quiet", "", WATCHED_MINUTES), ("passing", "firing", lasts + WATCHED_MINUTES)):
        for values in case.get(kind, []):
            # Looked at in between, too: what fires and goes away again must be seen.
            watched = [queries(rule, at, None, state) for at in range(0, until + 1, 5)]
            tests.append({"interval": "1m", "input_series": series(values, until), "promql_expr_test": watched})
    return tests


class AlertsTest(unittest.TestCase):
    def test_rules_load(self):
        done = tool("promtool", "check", "rules", "--lint-fatal", *(MONITORING / name for name in RULE_FILES))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_rules_ask_for_metrics_that_there_are(self):
        known = exposed() | recorded() | {"up"}
        for rule in (rule for group in groups() for rule in group["rules"]):
            self.assertEqual({name for name, _ in selectors(rule["expr"])} - known, set(), rule.get("alert") or rule["record"])

    def test_every_alert_and_severity_has_cases_and_no_case_is_left_over(self):
        ruled = [(rule["alert"], rule["labels"]["severity"]) for rule in alerts()]
        self.assertEqual(len(ruled), len(set(ruled)), "an alert is there twice with one severity")
        self.assertEqual(sorted(ruled), sorted((name, severity) for name in CASES for severity in CASES[name]))
        for rule, case in cases():
            self.assertTrue(case["fires"] and case["quiet"], rule["alert"])

    def test_alerts_fire_at_their_thresholds_and_not_below(self):
        with tempfile.TemporaryDirectory() as directory:
            documents = []
            for number, (rule, case) in enumerate(cases()):
                # That alert alone and what it asks, since every rule that is there is evaluated every minute of the test.
                rules = needed(rule)
                path = path_of(directory, f"rules-{number}.yml", yaml.safe_dump({"groups": rules}))
                tests = document(rule, case, rules, path)
                name = f"{number}-{rule['alert']}-{rule['labels']['severity']}.yml"
                documents.append(path_of(directory, name, yaml.safe_dump(tests, width=1000)))
            done = tool("promtool", "test", "rules", *documents)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_alerts_say_where_how_much_and_what_to_do_first(self):
        for rule, case in cases():
            told = rule["annotations"]
            with self.subTest(rule["alert"]):
                self.assertEqual(set(told), {"summary", "description", "runbook_url"})
                self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
                self.assertIn("First: ", told["description"])
                text = told["summary"] + told["description"]
                named = set(re.findall(r"\$labels\.(\w+)", text))
                self.assertTrue(named, "it says nothing of where")
                # Labels that the alert does not have would be shown as nothing.
                self.assertEqual(named - set(case["labels"]), set())
                self.assertTrue("$value" in text or "== 0" in rule["expr"] or "absent" in rule["expr"], "it says no number")


if __name__ == "__main__":
    unittest.main()
