"""The Grafana dashboard: its panels and their expressions as Prometheus gets them."""

import json

from alerts import MONITORING

DASHBOARD = MONITORING / "grafana/monofs.json"
# What Grafana puts in the place of its variables when everything is chosen.
VARIABLES = {"$__rate_interval": "1m", "$cluster": ".*", "$job": ".*", "$instance": ".*"}


def load():
    return json.loads(DASHBOARD.read_text())


def panels():
    return load()["panels"]


def expressions():
    """(title of the panel, expression) of every query."""
    found = []
    for panel in panels():
        for target in panel.get("targets", []):
            text = target["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            found.append((panel["title"], text))
    return found
