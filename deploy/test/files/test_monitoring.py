"""Prometheus, Alertmanager and the compose overlay: their own tools take them, and every target is one that listens there."""

import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

from alerts import MONITORING, alerts
from roles import PROJECT, Started
from test_compose import environment

# Ports of metrics of what is not ours, and of the client, that docker-compose.yml leaves to the software's defaults.
OTHER_PORTS = {"haproxy": 8404, "etcd": 2379}


def tool(*words):
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60)


def uncommented(text):
    """The scrape configuration with the commented jobs for Kubernetes in place of the others."""
    before, _, commented = text.partition("  # (begin of Kubernetes)\n")
    block = commented.partition("  # (end of Kubernetes)")[0]
    return before.partition("scrape_configs:\n")[0] + "scrape_configs:\n" + re.sub(r"^  # ", "  ", block, flags=re.MULTILINE)


class MonitoringTest(unittest.TestCase):
    def setUp(self):
        self.config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        self.services = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]

    def targets(self, job):
        """(name, port) of all targets of a job."""
        (file,) = [path for scrape in self.config["scrape_configs"] if scrape["job_name"] == f"monofs-{job}"
                   for source in scrape["file_sd_configs"] for path in source["files"]]
        groups = yaml.safe_load((MONITORING / file).read_text())
        for group in groups:
            self.assertIn("cluster", group["labels"], file)
        return [(name, int(port)) for group in groups for name, port in (target.split(":") for target in group["targets"])]

    def test_prometheus_takes_its_configuration(self):
        done = tool("promtool", "check", "config", "--lint-fatal", MONITORING / "prometheus.yml")
        self.assertEqual((done.returncode, "WARNING" in done.stdout), (0, False), done.stdout + done.stderr)

    def test_prometheus_takes_the_jobs_for_kubernetes(self):
        with tempfile.TemporaryDirectory() as directory:
            shutil.copytree(MONITORING, directory, dirs_exist_ok=True)
            path = Path(directory) / "prometheus.yml"
            path.write_text(uncommented(path.read_text()))
            self.assertEqual([job["job_name"] for job in yaml.safe_load(path.read_text())["scrape_configs"]], ["monofs-pods"])
            # `--syntax-only`: it would look for the account of a pod.
            done = tool("promtool", "check", "config", "--syntax-only", path)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_alertmanager_takes_its_configuration(self):
        done = tool("amtool", "check-config", MONITORING / "alertmanager.yml")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_what_alertmanager_silences_are_alerts_that_exist(self):
        names = {rule["alert"] for rule in alerts()}
        rules = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())["inhibit_rules"]
        matchers = [matcher for rule in rules for key in ("source_matchers", "target_matchers") for matcher in rule[key]]
        patterns = [match[1] for match in map(re.compile(r'alertname=~?"(.*)"').fullmatch, matchers) if match]
        for pattern in patterns:
            for alternative in re.split(r"\|(?![^(]*\))", pattern):
                self.assertTrue(any(re.fullmatch(alternative, name) for name in names), alternative)

    def test_targets_are_the_services_of_compose_at_the_ports_where_they_serve_metrics(self):
        for role in ("router", "node", "fetcher"):
            expected = []
            for name, service in self.services.items():
                started = Started.of(name, service.get("command"), environment(service))
                if started and started.binary == f"monofs-{role}":
                    expected.append((name, started.ports()["http"]))
            self.assertTrue(expected)
            self.assertEqual(self.targets(role), expected)
        for name, port in OTHER_PORTS.items():
            self.assertEqual(self.targets(name), [(name, port)])
        self.assertIn(f"bind *:{OTHER_PORTS['haproxy']}", (PROJECT / "haproxy/haproxy.cfg").read_text())

    def test_every_job_that_alerts_name_is_scraped(self):
        jobs = {job["job_name"] for job in self.config["scrape_configs"]}
        named = {name for rule in alerts() for name in re.findall(r'job="(monofs-[\w-]+)"', rule["expr"])}
        self.assertTrue(named <= jobs, named - jobs)

    def test_hosts_are_written_with_the_ports_of_the_systemd_units(self):
        text = (MONITORING / "targets/hosts.example.yml").read_text()
        told = {role: int(port) for role, port in re.findall(r"(router|node|fetcher|client) (\d+)", text)}
        for role in ("router", "node", "fetcher"):
            variables = dict(re.findall(r"^(\w+)=(.*)$", (PROJECT / f"deploy/systemd/env/{role}.env").read_text(), re.MULTILINE))
            self.assertEqual(told[role], Started(role, f"monofs-{role}", {}, variables).ports()["http"])
        self.assertTrue(all({"targets", "labels"} == set(group) for group in yaml.safe_load(text)))

    def test_compose_mounts_files_that_are_there_and_reaches_the_cluster(self):
        overlay = yaml.safe_load((MONITORING / "docker-compose.monitoring.yml").read_text())
        self.assertEqual(overlay["version"], yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["version"])
        for name, service in overlay["services"].items():
            if "image" not in service:
                continue
            self.assertEqual((service["restart"], service["networks"]), ("unless-stopped", ["monofs"]), name)
            self.assertIn("healthcheck", service)
            for volume in service["volumes"]:
                source = volume.split(":")[0]
                self.assertTrue((PROJECT / source).exists() if source.startswith(".") else source in overlay["volumes"], volume)
            for published in service["ports"]:
                self.assertTrue(published.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:"), published)

    def test_grafana_finds_prometheus_and_the_dashboard(self):
        overlay = yaml.safe_load((MONITORING / "docker-compose.monitoring.yml").read_text())["services"]
        provisioning = MONITORING / "grafana/provisioning"
        (source,) = yaml.safe_load((provisioning / "datasources/monofs.yml").read_text())["datasources"]
        self.assertEqual(source["url"], "http://prometheus:9090")
        self.assertEqual(source["jsonData"]["timeInterval"], self.config["global"]["scrape_interval"])
        (provider,) = yaml.safe_load((provisioning / "dashboards/monofs.yml").read_text())["providers"]
        places = [volume.split(":")[1] for volume in overlay["grafana"]["volumes"]]
        self.assertIn(f"{provider['options']['path']}/monofs.json", places)
        (alertmanager,) = self.config["alerting"]["alertmanagers"]
        self.assertEqual(alertmanager["static_configs"], [{"targets": ["alertmanager:9093"]}])


if __name__ == "__main__":
    unittest.main()
