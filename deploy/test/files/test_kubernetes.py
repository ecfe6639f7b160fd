"""The Kubernetes manifests, as kustomize renders them, against the API's schemas and the binaries."""

import base64
import functools
import ipaddress
import pathlib
import subprocess
import tomllib
import unittest

import kubernetes_validate
import yaml

from roles import PROJECT, Started, split

DIRECTORIES = ("base", "overlays/small", "overlays/kind", "overlays/example", "client")
# The oldest version that the manifests are for, and one that is new.
VERSIONS = ("1.30", "1.35")
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")


@functools.cache
def rendered(directory):
    """All objects of a kustomization."""
    done = subprocess.run(["kubectl", "kustomize", PROJECT / "deploy/k8s" / directory],
                          check=True, capture_output=True, text=True, timeout=60)
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def of_kind(directory, *kinds):
    return [item for item in rendered(directory) if item["kind"] in kinds]


def matches(selector, labels):
    """Whether a label selector (matchLabels, `In` expressions) takes these labels."""
    alike = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return alike and all(labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))


class Workload:
    """A pod template with its only container."""

    def __init__(self, directory, item):
        self.item, self.name = item, item["metadata"]["name"]
        template = item["spec"]["template"]
        self.labels, self.pod = template["metadata"]["labels"], template["spec"]
        (self.container,) = self.pod["containers"]
        self.ports = {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}
        variables = {}
        for source in self.container.get("envFrom", []):
            (config,) = [c for c in of_kind(directory, "ConfigMap") if c["metadata"]["name"] == source["configMapRef"]["name"]]
            variables |= {source["prefix"] + key: value for key, value in config["data"].items()}
        # What comes from the pod itself is a value that only a cluster knows.
        variables |= {e["name"]: e.get("value", "from-the-pod") for e in self.container.get("env", [])}
        self.started = Started.of(self.name, self.container.get("args"), variables)


def workloads(directory):
    return [Workload(directory, item) for item in of_kind(directory, *WORKLOADS)]


def everywhere(test):
    """Runs a test on each kustomization."""
    def run(self):
        for directory in DIRECTORIES:
            with self.subTest(directory):
                test(self, directory)
    return run


class KubernetesTest(unittest.TestCase):
    @everywhere
    def test_every_object_is_valid_in_its_schema(self, directory):
        self.assertGreater(len(rendered(directory)), 1)
        for item in rendered(directory):
            for version in VERSIONS:
                kubernetes_validate.validate(item, version, strict=True)

    def test_the_parts_that_the_deployment_has(self):
        kinds = {(item["kind"], item["metadata"]["name"]) for item in rendered("base")}
        parts = ("etcd", "router", "node", "fetcher")
        wanted = {("Service", f"monofs-{part}") for part in parts} | {("PodDisruptionBudget", f"monofs-{part}") for part in parts}
        wanted |= {("StatefulSet", "monofs-node"), ("StatefulSet", "monofs-etcd"), ("Deployment", "monofs-router"),
                   ("HorizontalPodAutoscaler", "monofs-fetcher"), ("Namespace", "monofs"), ("ConfigMap", "monofs-config")}
        self.assertEqual(wanted - kinds, set())

    @everywhere
    def test_every_flag_and_variable_exists(self, directory):
        ours = [w.started for w in workloads(directory) if w.container["image"].rpartition("/")[2].startswith("monofs")]
        self.assertTrue(ours and all(ours))
        for role in ours:
            self.assertEqual(role.unknown(), [])

    @everywhere
    def test_container_ports_are_the_ones_listened_on(self, directory):
        for workload in workloads(directory):
            if workload.started and workload.started.binary != "monofs-client":
                self.assertEqual(workload.ports, workload.started.ports(), workload.name)

    @everywhere
    def test_probes_ask_ports_and_paths_that_exist(self, directory):
        for workload in workloads(directory):
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                http = workload.container.get(kind, {}).get("httpGet")
                if http:
                    self.assertIn(http["port"], workload.ports, workload.name)
                    self.assertIn(http["path"].split("?")[0], ("/ready", "/metrics", "/health"), workload.name)
                    if workload.started:
                        self.assertEqual(http["port"], "http")
            self.assertIn("readinessProbe", workload.container, workload.name)
            for annotation, value in workload.item["spec"]["template"]["metadata"].get("annotations", {}).items():
                if annotation == "prometheus.io/port":
                    self.assertEqual(int(value), workload.ports.get("http") or workload.ports["metrics"])

    @everywhere
    def test_services_lead_to_ports_of_their_pods(self, directory):
        for service in of_kind(directory, "Service"):
            (target,) = [w for w in workloads(directory) if matches({"matchLabels": service["spec"]["selector"]}, w.labels)]
            for port in service["spec"]["ports"]:
                self.assertEqual(target.ports[port["name"]], port["port"])
                self.assertEqual(port.get("targetPort", port["name"]), port["name"])

    @everywhere
    def test_addresses_lead_to_services(self, directory):
        base = {s["metadata"]["name"]: s for s in of_kind("base", "Service")}
        for workload in workloads(directory):
            if not workload.started:
                continue
            for host, port in workload.started.peers() + [split_pod(address) for address in workload.started.etcd()]:
                name = host.removesuffix(".monofs.svc")
                self.assertIn(port, [p["port"] for p in base[name]["spec"]["ports"]], f"{workload.name}: {host}")

    def test_routers_know_every_member_of_etcd(self):
        for directory in ("base", "overlays/small"):
            parts = {w.name: w for w in workloads(directory)}
            count = parts["monofs-etcd"].item["spec"]["replicas"]
            port = parts["monofs-etcd"].ports["client"]
            expected = [(f"monofs-etcd-{n}.monofs-etcd", port) for n in range(count)]
            self.assertEqual(parts["monofs-router"].started.etcd(), expected)
            (cluster,) = [e["value"] for e in parts["monofs-etcd"].container["env"] if e["name"] == "INITIAL_CLUSTER"]
            self.assertEqual(cluster, ",".join(f"monofs-etcd-{n}=http://monofs-etcd-{n}.monofs-etcd:2380" for n in range(count)))

    @everywhere
    def test_names_that_members_announce_are_names_of_the_headless_service(self, directory):
        services = {s["metadata"]["name"]: s["spec"] for s in of_kind(directory, "Service")}
        for workload in workloads(directory):
            if workload.item["kind"] != "StatefulSet":
                continue
            service = workload.item["spec"]["serviceName"]
            self.assertEqual(services[service]["clusterIP"], "None")
            if workload.started:
                announced = f"$(POD_NAME).{service}.$(POD_NAMESPACE).svc:{workload.ports['grpc']}"
                self.assertEqual(workload.started.value("advertise"), announced)
                self.assertTrue({"POD_NAME", "POD_NAMESPACE"} <= {e["name"] for e in workload.container["env"]})

    @everywhere
    def test_selectors_take_pods_that_exist(self, directory):
        pods = workloads(directory)
        for item in of_kind(directory, *WORKLOADS, "PodDisruptionBudget"):
            self.assertTrue(any(matches(item["spec"]["selector"], pod.labels) for pod in pods), item["metadata"])
        for item in of_kind(directory, "HorizontalPodAutoscaler"):
            target = item["spec"]["scaleTargetRef"]
            (scaled,) = [pod for pod in pods if (pod.item["kind"], pod.name) == (target["kind"], target["name"])]
            self.assertNotIn("replicas", scaled.item["spec"], "applying again would undo the autoscaler")

    @everywhere
    def test_network_policies_open_the_ports_that_pods_listen_on(self, directory):
        pods = workloads(directory)
        opened = {pod.name: set() for pod in pods}
        for policy in of_kind(directory, "NetworkPolicy"):
            chosen = [pod for pod in pods if matches(policy["spec"]["podSelector"], pod.labels)]
            self.assertTrue(chosen, policy["metadata"])
            for rule in policy["spec"].get("ingress", []):
                for source in rule["from"]:
                    selector = source.get("podSelector")
                    self.assertTrue(selector is None or any(matches(selector, pod.labels) for pod in pods))
                for pod in chosen:
                    opened[pod.name] |= {port["port"] for port in rule["ports"]}
        for pod in pods:
            if of_kind(directory, "NetworkPolicy"):
                self.assertTrue(set(pod.ports.values()) <= opened[pod.name], pod.name)

    @everywhere
    def test_an_image_that_was_loaded_into_the_machines_is_not_pulled(self, directory):
        for workload in workloads(directory):
            if workload.started:
                self.assertEqual(workload.container["imagePullPolicy"], "IfNotPresent", workload.name)

    @everywhere
    def test_everything_is_in_the_namespace_of_its_pods(self, directory):
        (namespace,) = [item["metadata"]["name"] for item in of_kind(directory, "Namespace")]
        for item in rendered(directory):
            if item["kind"] != "Namespace":
                self.assertEqual(item["metadata"].get("namespace"), namespace, (item["kind"], item["metadata"]["name"]))

    def test_one_machine_is_enough_where_the_overlay_says_so(self):
        for directory in ("overlays/small", "overlays/kind"):
            for workload in workloads(directory):
                spread = workload.pod.get("affinity", {}).get("podAntiAffinity", {})
                if "requiredDuringSchedulingIgnoredDuringExecution" in spread:
                    self.assertEqual(workload.item["spec"]["replicas"], 1, f"{directory}: {workload.name}")

    def test_the_overlay_for_kind_asks_for_nothing_that_is_not_in_kubernetes(self):
        self.assertEqual(of_kind("overlays/kind", "HorizontalPodAutoscaler"), [])
        (fetcher,) = [w for w in workloads("overlays/kind") if w.name == "monofs-fetcher"]
        self.assertEqual(fetcher.item["spec"]["replicas"], 1)

    def test_fetchers_may_reach_remotes_at_any_port_but_not_the_credentials_of_the_machine(self):
        (policy,) = [item for item in of_kind("base", "NetworkPolicy") if item["metadata"]["name"] == "fetcher"]
        (rule,) = policy["spec"]["egress"]
        self.assertEqual([(port["port"], port["endPort"]) for port in rule["ports"]], [(1, 65535)])
        excepted = [ipaddress.ip_network(net) for to in rule["to"] for net in to["ipBlock"]["except"]]
        for metadata in ("169.254.169.254", "fd00:ec2::254"):
            self.assertTrue(any(ipaddress.ip_address(metadata) in net for net in excepted), metadata)

    def test_a_collector_can_be_reached_from_every_role_that_is_told_one(self):
        for workload in workloads("overlays/example"):
            if not workload.started:
                continue
            host, port = split(workload.started.value("otlp-endpoint").removeprefix("http://"))
            self.assertTrue(host.endswith(".svc"), workload.name)
            open_ports = [p["port"] for policy in of_kind("overlays/example", "NetworkPolicy")
                          if policy["metadata"]["name"] == "tracing" and matches(policy["spec"]["podSelector"], workload.labels)
                          for rule in policy["spec"]["egress"] for p in rule["ports"]]
            self.assertIn(port, open_ports, workload.name)

    def test_the_credentials_that_fetchers_are_told_are_in_the_secret_that_they_mount(self):
        (fetcher,) = [w for w in workloads("overlays/example") if w.name == "monofs-fetcher"]
        (secret,) = of_kind("overlays/example", "Secret")
        (volume,) = [v for v in fetcher.pod["volumes"] if "secret" in v]
        self.assertEqual(volume["secret"]["secretName"], secret["metadata"]["name"])
        (mount,) = [m for m in fetcher.container["volumeMounts"] if m["name"] == volume["name"]]
        data = {name: base64.b64decode(text).decode() for name, text in secret.get("data", {}).items()} | secret.get("stringData", {})
        path = pathlib.PurePath(fetcher.started.value("credentials"))
        self.assertEqual(str(path.parent), mount["mountPath"])
        for host, login in tomllib.loads(data[path.name])["hosts"].items():
            named = pathlib.PurePath(login["token_file"])
            self.assertEqual(str(named.parent), mount["mountPath"], host)
            self.assertIn(named.name, data, host)

    def test_routers_outside_of_the_cluster_are_reachable_where_their_service_is(self):
        (service,) = [s for s in of_kind("overlays/example", "Service") if s["metadata"]["name"] == "monofs-router"]
        self.assertEqual((service["spec"]["type"], service["spec"]["externalTrafficPolicy"]), ("LoadBalancer", "Local"))
        (policy,) = [p for p in of_kind("overlays/example", "NetworkPolicy") if p["metadata"]["name"] == "router-from-outside"]
        (rule,) = policy["spec"]["ingress"]
        self.assertEqual([f["ipBlock"]["cidr"] for f in rule["from"]], service["spec"]["loadBalancerSourceRanges"])
        self.assertEqual({p["port"] for p in rule["ports"]}, {p["port"] for p in service["spec"]["ports"]})

    @everywhere
    def test_every_router_has_the_shared_state(self, directory):
        for workload in workloads(directory):
            if workload.started and workload.started.binary == "monofs-router":
                self.assertTrue(workload.started.value("state").startswith("etcd://"), "replicas would have a catalogue each")

    def test_a_pod_that_reads_through_the_host_sees_the_mount_of_a_restarted_client(self):
        (client,) = workloads("client")
        (mount,) = [m for m in client.container["volumeMounts"] if m["name"] == "mounts"]
        self.assertEqual(mount["mountPropagation"], "Bidirectional")
        point = pathlib.PurePath(client.started.value("mount"))
        self.assertEqual(str(point.parent), mount["mountPath"], "the mount point is below what is shared, not what is shared")
        # What the comment tells readers to mount: the parent, with propagation.
        text = (PROJECT / "deploy/k8s/client/client.yaml").read_text()
        (host,) = [v["hostPath"]["path"] for v in client.pod["volumes"] if v["name"] == "mounts"]
        self.assertIn(f"hostPath: {{path: {host}}}", text)
        self.assertIn("mountPropagation: HostToContainer", text)

    @everywhere
    def test_pods_are_as_restricted_as_their_role_allows(self, directory):
        for workload in workloads(directory):
            self.assertIs(workload.pod["enableServiceLinks"], False, "links would set MONOFS_ROUTER_PORT and the like")
            self.assertIn("requests", workload.container["resources"])
            if workload.name != "monofs-client":
                self.assertIs(workload.pod["securityContext"]["runAsNonRoot"], True)
                inside = workload.container["securityContext"]
                self.assertEqual((inside["readOnlyRootFilesystem"], inside["allowPrivilegeEscalation"]), (True, False))
                self.assertEqual(inside["capabilities"], {"drop": ["ALL"]})

    @everywhere
    def test_what_is_written_is_on_a_volume(self, directory):
        for workload in workloads(directory):
            mounts = [mount["mountPath"] for mount in workload.container.get("volumeMounts", [])]
            named = {mount["name"] for mount in workload.container.get("volumeMounts", [])}
            volumes = {v["name"] for v in workload.pod.get("volumes", [])}
            volumes |= {v["metadata"]["name"] for v in workload.item["spec"].get("volumeClaimTemplates", [])}
            self.assertEqual(named, volumes, workload.name)
            flag = {"monofs-node": "db-path", "monofs-fetcher": "cache-dir", "monofs-client": "cache"}
            if workload.started and workload.started.binary in flag:
                path = workload.started.value(flag[workload.started.binary])
                self.assertTrue(any(path == mount or path.startswith(mount + "/") for mount in mounts), workload.name)


def split_pod(address):
    """The service of the address of a pod of a StatefulSet: `pod.service`."""
    host, port = address
    return host.partition(".")[2], port


if __name__ == "__main__":
    unittest.main()
