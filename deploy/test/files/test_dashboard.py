"""The Grafana dashboard: what is checked in is what is generated, is well formed, and asks what Prometheus understands."""

import itertools
import re
import subprocess
import tempfile
import unittest

import yaml

import dashboard
from alerts import MONITORING, exposed, groups, path_of, recorded, selectors

# Grafana's own; no plugin is needed.
PANELS = {"row", "stat", "timeseries", "table"}


class DashboardTest(unittest.TestCase):
    def setUp(self):
        self.panels = dashboard.panels()
        self.shown = [panel for panel in self.panels if panel["type"] != "row"]

    def test_it_is_what_the_generator_makes(self):
        made = subprocess.run([MONITORING / "grafana/generate"], check=True, capture_output=True, text=True, timeout=20).stdout
        self.assertTrue(dashboard.DASHBOARD.read_text() == made, "run deploy/monitoring/grafana/generate >monofs.json there")

    def test_panels_have_ids_of_their_own_and_do_not_overlap(self):
        ids = [panel["id"] for panel in self.panels]
        self.assertEqual(len(ids), len(set(ids)))
        for one, other in itertools.combinations([panel["gridPos"] for panel in self.panels], 2):
            apart = (one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
                     or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"])
            self.assertTrue(apart, (one, other))
        self.assertTrue(all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in self.panels))

    def test_panels_are_grafanas_own_with_title_unit_and_the_chosen_data_source(self):
        titles = [panel["title"] for panel in self.shown]
        self.assertEqual(len(titles), len(set(titles)))
        for panel in self.shown:
            self.assertIn(panel["type"], PANELS)
            self.assertTrue(panel["title"] and panel["targets"])
            self.assertTrue(panel["type"] == "table" or panel["fieldConfig"]["defaults"]["unit"], panel["title"])
            for target in panel["targets"]:
                self.assertEqual(target["datasource"]["uid"], "${datasource}")

    def test_every_query_is_narrowed_by_the_variables_that_there_are(self):
        variables = {variable["name"] for variable in dashboard.load()["templating"]["list"]}
        self.assertEqual(variables, {"datasource", "cluster", "job", "instance"})
        for panel in self.shown:
            for target in panel["targets"]:
                for name in ("$cluster", "$job", "$instance"):
                    self.assertIn(name, target["expr"], panel["title"])
                self.assertTrue(set(re.findall(r"\$(\w+)", target["expr"])) <= variables | {"__rate_interval"})

    def test_every_legend_shows_labels_that_its_query_keeps(self):
        for panel in self.shown:
            for target in panel["targets"]:
                kept = re.match(r".*?\bby \(([^)]*)\)", target["expr"])
                for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                    if kept and not target["expr"].startswith(("instance", "monofs", "rate")):
                        self.assertIn(label, kept[1].replace(" ", "").split(","), panel["title"])

    def test_prometheus_parses_every_expression(self):
        rules = [{"record": f"dashboard:{number}", "expr": text} for number, (_, text) in enumerate(dashboard.expressions())]
        with tempfile.TemporaryDirectory() as directory:
            path = path_of(directory, "dashboard.yml", yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
            done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(f"{len(rules)} rules found", done.stdout)

    def test_it_asks_for_metrics_that_there_are(self):
        known = exposed() | recorded() | {"up"}
        for title, text in dashboard.expressions():
            self.assertEqual({name for name, _ in selectors(text)} - known, set(), title)

    def test_it_shows_every_metric_that_there_is(self):
        asked = {name for _, text in dashboard.expressions() for name, _ in selectors(text)}
        for rule in (rule for group in groups() for rule in group["rules"] if "record" in rule):
            asked |= {name for name, _ in selectors(rule["expr"])} if rule["record"] in asked else set()
        families = {re.sub("_(bucket|sum|count)$", "", name) for name in exposed()}
        # A setting, a limit, and what is shown in bytes instead.
        besides = {"monofs_router_refresh_interval_seconds", "process_max_fds", "monofs_cache_evictions_total"}
        shown = {re.sub("_bucket$", "", name) for name in asked} | besides
        self.assertEqual(families - shown, set())


if __name__ == "__main__":
    unittest.main()
