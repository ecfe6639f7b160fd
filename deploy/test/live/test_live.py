"""Rules and dashboard against the metrics of real processes, and alerts against what happens to them."""

import re
import signal
import subprocess
import time
import unittest

import dashboard
from alerts import groups, recorded, selectors
from cluster import NODES, Cluster
from processes import get, wait
from prometheus import Prometheus

# From the end of a process to the alert: a scrape, an evaluation, the `for` of the test, and as much again for a busy machine.
FIRES_WITHIN_SECONDS = 20
# From its start: until it is registered, caught up and scraped.
RESOLVES_WITHIN_SECONDS = 40
# What these say is true of the machine that runs the test.
OF_THE_MACHINE = {"MonofsDiskFull"}
# Values that are there only after something failed.
ONLY_AFTER_FAILURES = re.compile(r'(?:code|outcome)\s*(?:=~|=|!=|!~)\s*"[^"]*",?\s*')

cluster = prometheus = None


def setUpModule():
    global cluster, prometheus
    cluster = Cluster()
    unittest.addModuleCleanup(cluster.end)
    cluster.start()
    prometheus = Prometheus(cluster.processes, cluster.targets)
    cluster.use()


def expressions():
    """(where, expression) of all rules and panels."""
    ruled = [(rule.get("alert") or rule["record"], rule["expr"]) for group in groups() for rule in group["rules"]]
    return ruled + [(f"panel '{title}'", text) for title, text in dashboard.expressions()]


class LiveTest(unittest.TestCase):
    """On a healthy cluster: nothing fires, before and after."""

    maxDiff = None

    def setUp(self):
        self.quiet()

    def take_away(self, name, how=signal.SIGTERM):
        """Ends a process; it is there again for the next test, whatever becomes of this one."""
        self.addCleanup(self.bring_back, name)
        cluster.processes.stop(name, how)

    def bring_back(self, name):
        if name not in cluster.processes.running:
            cluster.processes.again(name)

    def quiet(self):
        """Waits until nothing fires."""
        def firing():
            return [alert["annotations"]["summary"] for alert in prometheus.firing()
                    if alert["labels"]["alertname"] not in OF_THE_MACHINE]

        try:
            wait("nothing fires", lambda: not firing(), RESOLVES_WITHIN_SECONDS, cluster.processes.check)
        except AssertionError as error:
            raise AssertionError(f"{error}; firing: {firing()}") from None

    def fires(self, **labels):
        """Waits for an alert with these labels and returns it."""
        def found():
            return next((alert for alert in prometheus.firing() if labels.items() <= alert["labels"].items()), None)

        began = time.monotonic()
        alert = wait(f"{labels} fires", found, FIRES_WITHIN_SECONDS, cluster.processes.check)
        print(f"{labels['alertname']} after {time.monotonic() - began:.1f} s: {alert['annotations']['summary']}")
        return alert

    def resolves(self):
        """Waits until nothing fires and the cluster says that it is well."""
        began = time.monotonic()
        self.quiet()
        print(f"resolved after {time.monotonic() - began:.1f} s")
        wait("the cluster is healthy", cluster.healthy, RESOLVES_WITHIN_SECONDS, cluster.processes.check)


# unittest takes classes by name: first what is there, then what happens when something goes away, after which counters are gone.
class AllThere(LiveTest):
    def test_every_metric_that_rules_and_panels_name_is_there(self):
        wanted = {name: where for where, text in expressions() for name, _ in selectors(text)}
        self.assertGreater(len(wanted), 80)

        def missing():
            return {name: where for name, where in wanted.items() if name not in prometheus.names()}

        # What is recorded needs two scrapes and an evaluation.
        try:
            wait("every metric is there", lambda: not missing(), 20)
        except AssertionError:
            self.fail("\n".join(f"{name}, of {where}, is not there" for name, where in sorted(missing().items())))

    def test_every_selection_finds_something(self):
        wanted = {}
        for where, text in expressions():
            for name, matchers in selectors(text):
                wanted[name + ONLY_AFTER_FAILURES.sub("", matchers)] = where

        def lost():
            return {query: where for query, where in wanted.items() if not prometheus.query(query)}

        # What is recorded needs two scrapes and an evaluation.
        try:
            wait("every selection finds something", lambda: not lost(), 20)
        except AssertionError:
            self.assertEqual(lost(), {}, "metrics have other labels or values than rules and panels think")

    def test_prometheus_answers_every_panel(self):
        for title, text in dashboard.expressions():
            with self.subTest(title):
                # An expression that it cannot evaluate is an HTTP error.
                self.assertIsInstance(prometheus.query(text), list)

    def test_every_rule_is_evaluated_without_an_error(self):
        rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
        self.assertEqual({rule["name"] for rule in rules if rule["type"] == "recording"}, recorded())
        self.assertEqual({rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")}, {})
        self.assertEqual({rule["health"] for rule in rules}, {"ok"})

    def test_promtool_has_nothing_to_say_about_what_we_expose(self):
        for job, targets in cluster.targets.items():
            for address in targets.values():
                if job == "monofs-etcd":
                    continue
                done = subprocess.run(["promtool", "check", "metrics"], input=get(f"http://{address}/metrics"),
                                      capture_output=True, text=True, timeout=60)
                self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""), job)


class SomebodyLost(LiveTest):
    def test_a_killed_node_is_named_and_its_alert_resolved_when_it_is_back(self):
        node = NODES[1]
        self.take_away(node, signal.SIGKILL)
        alert = self.fires(alertname="MonofsNodeDown", severity="warning", instance=cluster.http[node], cluster="live")
        self.assertIn(cluster.http[node], alert["annotations"]["summary"])
        self.assertNotIn("<no value>", "".join(alert["annotations"].values()))
        self.fires(alertname="MonofsUnhealthyNodes", severity="warning", cluster="live")
        down = {alert["labels"]["instance"] for alert in prometheus.firing() if alert["labels"]["alertname"] == "MonofsNodeDown"}
        self.assertEqual(down, {cluster.http[node]})
        told = lambda: [a for a in prometheus.told() if a["labels"].get("instance") == cluster.http[node]]
        wait("Alertmanager is told", told, FIRES_WITHIN_SECONDS)
        self.bring_back(node)
        self.resolves()

    def test_a_stopped_fetcher_is_named_and_its_alerts_resolved_when_it_is_back(self):
        self.take_away("fetcher")
        alert = self.fires(alertname="MonofsFetcherDown", instance=cluster.http["fetcher"])
        self.assertIn(cluster.http["fetcher"], alert["annotations"]["summary"])
        self.fires(alertname="MonofsNoFetcher", severity="critical")
        self.bring_back("fetcher")
        self.resolves()

    def test_the_loss_of_the_only_router_is_critical_and_silences_what_follows_from_it(self):
        self.take_away("router", signal.SIGKILL)
        self.fires(alertname="MonofsNoRouter", severity="critical")
        self.fires(alertname="MonofsRouterDown", severity="warning")
        self.fires(alertname="MonofsClientDisconnected", instance=cluster.http["client"])

        def silenced():
            return {a["labels"]["alertname"] for a in prometheus.told() if a["status"]["inhibitedBy"]}

        expected = {"MonofsRouterDown", "MonofsClientDisconnected"}
        wait("Alertmanager keeps the rest back", lambda: silenced() >= expected, FIRES_WITHIN_SECONDS)
        self.bring_back("router")
        self.resolves()


if __name__ == "__main__":
    unittest.main()
