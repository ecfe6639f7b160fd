"""Prometheus, Alertmanager and the compose overlay: their own tools take them, and every target is one that listens there."""

import json
import re
import subprocess
import tempfile
import unittest

import kubernetes_validate
import yaml

from alerts import MONITORING, alerts, path_of
from roles import PROJECT, Started
from test_compose import environment
from test_kubernetes import VERSIONS, of_kind, rendered, workloads

# From deploy/k8s.
STACK = "../monitoring"

# Ports of metrics of what is not ours, and of the client, that docker-compose.yml leaves to the software's defaults.
OTHER_PORTS = {"haproxy": 8404, "etcd": 2379}


def tool(*words):
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60)


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

    def test_pods_become_targets_of_the_job_of_their_role_where_they_serve_metrics(self):
        # Debian's Prometheus cannot ask Kubernetes, so what Kubernetes would say of the pods is given to it.
        config = yaml.safe_load((MONITORING / "kubernetes/prometheus.yml").read_text())
        (job,) = config["scrape_configs"]
        self.assertEqual(job["kubernetes_sd_configs"][0]["role"], "pod")
        listed, expected = [], set()
        for directory, namespace in (("base", "monofs"), ("client", "monofs-client")):
            self.assertIn(namespace, job["kubernetes_sd_configs"][0]["namespaces"]["names"])
            for workload in workloads(directory):
                notes = workload.item["spec"]["template"]["metadata"].get("annotations", {})
                labels = {"namespace": namespace, "pod_name": f"{workload.name}-0", "pod_ip": "10.0.0.7", "pod_phase": "Running",
                          "pod_label_app": workload.labels["app"]}
                labels |= {f"pod_annotation_{re.sub(r'[^a-z]', '_', key)}": value for key, value in notes.items()}
                for port in workload.ports.values():
                    discovered = {f"__meta_kubernetes_{key}": value for key, value in labels.items()}
                    listed.append({"targets": [f"10.0.0.7:{port}"], "labels": discovered})
                name = {"monofs-etcd": "metrics"}.get(workload.name, "http")
                expected.add((workload.name, f"{workload.name}-0", "monofs", f"10.0.0.7:{workload.ports[name]}"))
        ended = {"__meta_kubernetes_pod_phase": "Succeeded", "__meta_kubernetes_pod_annotation_prometheus_io_scrape": "true"}
        listed += [{"targets": ["10.0.0.8:8081"], "labels": ended}, {"targets": ["10.0.0.9:80"], "labels": {}}]
        job["static_configs"] = listed
        del job["kubernetes_sd_configs"]
        with tempfile.TemporaryDirectory() as directory:
            path = path_of(directory, "prometheus.yml", yaml.safe_dump({"scrape_configs": [job]}))
            done = tool("promtool", "check", "service-discovery", "--timeout=1s", path, "monofs-pods")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        found = [target["labels"] for target in json.loads(done.stdout) if target.get("labels")]
        self.assertEqual({(of["job"], of["instance"], of["cluster"], of["__address__"]) for of in found}, expected)

    def test_the_operator_finds_the_same_pods(self):
        for monitor in yaml.safe_load_all((MONITORING / "kubernetes/podmonitor.yaml").read_text()):
            directory = {"monofs": "base", "monofs-client": "client"}[monitor["metadata"]["namespace"]]
            pods, selector = workloads(directory), monitor["spec"]["selector"]
            wanted = {value for e in selector.get("matchExpressions", []) for value in e["values"]} | set(selector.get("matchLabels", {}).values())
            self.assertEqual(wanted, {pod.labels[monitor["spec"]["jobLabel"]] for pod in pods})
            ports = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
            for pod in pods:
                self.assertEqual(len(ports & set(pod.ports)), 1, pod.name)

    def test_the_stack_for_kubernetes_is_valid_and_its_parts_find_each_other(self):
        for item in rendered(STACK):
            for version in VERSIONS:
                kubernetes_validate.validate(item, version, strict=True)
        made = {(item["kind"], item["metadata"]["name"]) for item in rendered(STACK)}
        for item in of_kind(STACK, "Deployment", "StatefulSet"):
            pod = item["spec"]["template"]["spec"]
            for volume in pod["volumes"]:
                self.assertTrue("configMap" not in volume or ("ConfigMap", volume["configMap"]["name"]) in made, volume)
            volumes = {v["name"] for v in [*pod["volumes"], *(claim["metadata"] for claim in item["spec"].get("volumeClaimTemplates", []))]}
            self.assertEqual({mount["name"] for mount in pod["containers"][0]["volumeMounts"]}, volumes)
        services = {item["metadata"]["name"]: item["spec"]["ports"][0]["port"] for item in of_kind(STACK, "Service")}
        self.assertEqual(services, {"prometheus": 9090, "alertmanager": 9093, "grafana": 3000})
        (namespace,) = of_kind(STACK, "Namespace")
        (policy,) = [p for p in of_kind("base", "NetworkPolicy") if p["metadata"]["name"] == "metrics"]
        wanted = policy["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"]
        self.assertEqual(wanted.items() - namespace["metadata"]["labels"].items(), set())

    def test_images_are_the_same_everywhere(self):
        overlay = yaml.safe_load((MONITORING / "docker-compose.monitoring.yml").read_text())["services"]
        of_compose = {re.fullmatch(r"\$\{\w+:-(.*)\}", service["image"])[1] for service in overlay.values()}
        self.assertEqual(of_compose, {item["spec"]["template"]["spec"]["containers"][0]["image"]
                                      for item in of_kind(STACK, "Deployment", "StatefulSet")})

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
