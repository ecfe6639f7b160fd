"""A real Prometheus and Alertmanager with the project's own files, made quick: they look every second, and alerts wait for no
longer than `FOR_MAX_SECONDS`."""

import json
import subprocess
import urllib.parse

import yaml

from alerts import MONITORING, RULE_FILES, seconds
from processes import free_port, get, wait

FOR_MAX_SECONDS = 2


def quick_rules(text):
    """The rule file with every `for` cut to what a test can wait for, and nothing else changed."""
    document = yaml.safe_load(text)
    for group in document["groups"]:
        for rule in group["rules"]:
            if seconds(rule.get("for")) > FOR_MAX_SECONDS:
                rule["for"] = f"{FOR_MAX_SECONDS}s"
    return yaml.safe_dump(document)


def quick_config(text, alertmanager):
    """The scrape configuration, every second, with the target files beside it and this Alertmanager."""
    document = yaml.safe_load(text)
    document["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    document["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    return yaml.safe_dump(document)


class Prometheus:
    """Scrapes `targets` ({job: {name: address}}), and tells Alertmanager."""

    def __init__(self, processes, targets):
        self.processes = processes
        directory = processes.directory / "prometheus"
        (directory / "targets").mkdir(parents=True)
        self.address, self.alertmanager = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        for name in RULE_FILES:
            (directory / name).write_text(quick_rules((MONITORING / name).read_text()))
        config = directory / "prometheus.yml"
        config.write_text(quick_config((MONITORING / "prometheus.yml").read_text(), self.alertmanager))
        for job in yaml.safe_load(config.read_text())["scrape_configs"]:
            (path,) = job["file_sd_configs"][0]["files"]
            groups = [{"targets": list(targets.get(job["job_name"], {}).values()), "labels": {"cluster": "live"}}]
            (directory / path).write_text(yaml.safe_dump(groups))
        checked = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        processes.start("alertmanager", "prometheus-alertmanager", f"--config.file={MONITORING / 'alertmanager.yml'}",
                        f"--storage.path={directory / 'alertmanager'}", f"--web.listen-address={self.alertmanager}",
                        "--cluster.listen-address=")
        processes.start("prometheus", "prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}",
                        f"--web.listen-address={self.address}")
        count = sum(len(addresses) for addresses in targets.values())
        wait("every target is scraped", lambda: self.ready() and len(self.query("up == 1")) == count, still=processes.check)

    def ready(self):
        return get(f"http://{self.address}/-/ready")

    def api(self, path, **parameters):
        return json.loads(get(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))["data"]

    def query(self, expression):
        """The samples of an instant query."""
        return self.api("query", query=expression)["result"]

    def names(self):
        """Names of all series there are."""
        return set(self.api("label/__name__/values"))

    def firing(self):
        """Alerts that fire: [{labels, annotations, ...}]."""
        return [alert for alert in self.api("alerts")["alerts"] if alert["state"] == "firing"]

    def told(self):
        """Alerts that Alertmanager knows as active."""
        return json.loads(get(f"http://{self.alertmanager}/api/v2/alerts"))
