"""docker-compose.yml and haproxy.cfg against the binaries."""

import itertools
import re
import unittest

import yaml

from roles import PROJECT, Started


def environment(service):
    """The environment of a service, which may be a list or a table."""
    given = service.get("environment") or {}
    return given if isinstance(given, dict) else dict(item.split("=", 1) for item in given)


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that is there twice, where YAML readers keep the last one without a word."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


class FilesTest(unittest.TestCase):
    def test_no_file_has_a_key_twice(self):
        files = [path for pattern in ("docker-compose*.yml", "haproxy/*.yml", "deploy/**/*.yml", "deploy/**/*.yaml")
                 for path in PROJECT.glob(pattern)]
        self.assertGreater(len(files), 20)
        for path in files:
            with self.subTest(path.relative_to(PROJECT)):
                self.assertTrue(list(yaml.load_all(path.read_text(), StrictLoader)))

    def test_a_key_that_is_there_twice_is_found(self):
        with self.assertRaises(yaml.constructor.ConstructorError):
            yaml.load("client: {a: 1}\nother: 2\nclient: {b: 1}\n", StrictLoader)

    def test_the_image_is_built_without_buildkit_too(self):
        lines = [line for line in (PROJECT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
        text = "\n".join(lines)
        for needs_buildkit in ("--mount", "--link", "--chmod", "--exclude", "<<"):
            self.assertNotIn(needs_buildkit, text)
        # Without BuildKit every stage is run, so none may need what only another way of building has.
        self.assertEqual(text.count("FROM "), 2)
        self.assertNotIn("COPY bin", text)


class ComposeTest(unittest.TestCase):
    def setUp(self):
        self.file = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
        self.services = self.file["services"]
        self.extra = yaml.safe_load((PROJECT / "deploy/test/compose-override.yml").read_text())["services"]
        started = {name: Started.of(name, service.get("command"), environment(service)) for name, service in self.services.items()}
        self.started = {name: role for name, role in started.items() if role}

    def test_it_has_the_parts_that_the_guide_names(self):
        count = lambda prefix: sum(name.startswith(prefix) for name in self.services)
        self.assertEqual({part: count(part) for part in ("etcd", "router", "node", "fetcher", "haproxy", "client")},
                         {"etcd": 1, "router": 2, "node": 5, "fetcher": 2, "haproxy": 1, "client": 1})

    def test_every_flag_and_variable_exists(self):
        overridden = [Started.of(name, service.get("command") or self.services[name]["command"], environment(service))
                      for name, service in self.extra.items()]
        for role in [*self.started.values(), *filter(None, overridden)]:
            self.assertEqual(role.unknown(), [])

    def test_addresses_lead_to_services_that_listen_there(self):
        listening = {name: role.ports()["grpc"] for name, role in self.started.items()}
        listening["haproxy"] = 9090
        for role in self.started.values():
            for host, port in role.peers():
                self.assertEqual(listening[host], port, f"{role.where} is told {host}:{port}")
            for host, port in role.etcd():
                self.assertEqual((self.services[host]["image"].count("etcd"), port), (1, 2379))

    def test_servers_announce_the_name_under_which_the_network_knows_them(self):
        for name, role in self.started.items():
            if role.binary in ("monofs-node", "monofs-fetcher"):
                self.assertEqual(role.value("advertise"), f"{name}:{role.ports()['grpc']}")
                identity = "node-id" if role.binary == "monofs-node" else "fetcher-id"
                self.assertEqual(role.value(identity), name)

    def test_published_ports_are_the_ones_listened_on(self):
        for name, role in self.started.items():
            for published in self.services[name].get("ports", []):
                outside, inside = published.rpartition("}:")[2].split(":")
                self.assertEqual(int(inside), role.ports()["grpc"], name)
                self.assertTrue(role.value("external-addr").endswith(f":{outside}"), name)

    def test_every_service_has_a_health_check_and_restarts(self):
        for name, service in self.services.items():
            self.assertEqual(service["restart"], "unless-stopped", name)
            check = " ".join(service["healthcheck"]["test"])
            port = self.started[name].ports()["http"] if name in self.started else None
            if port:
                self.assertIn(f"http://127.0.0.1:{port}/ready", check, name)

    def test_what_is_kept_is_kept_in_a_named_volume(self):
        for name, role in self.started.items():
            for flag in {"monofs-node": ["db-path"], "monofs-fetcher": ["cache-dir"], "monofs-client": ["cache"]}.get(role.binary, []):
                self.assertTrue(role.value(flag).startswith("/data/"), name)
                volumes = [v.split(":") for v in self.services[name]["volumes"] if isinstance(v, str)]
                self.assertIn("/data", [target for _, target in volumes], name)
                self.assertTrue(all(source in self.file["volumes"] for source, _ in volumes), name)

    def test_the_client_mounts_below_the_shared_directory_so_that_a_restart_is_seen(self):
        client = self.services["client"]
        (bind,) = [v for v in client["volumes"] if isinstance(v, dict)]
        self.assertEqual(bind["bind"]["propagation"], "rshared")
        mount = self.started["client"].value("mount")
        self.assertEqual(mount.rpartition("/")[0], bind["target"])
        # What the comment tells containers that read.
        text = (PROJECT / "docker-compose.yml").read_text()
        self.assertRegex(text, r"#   volumes: \[\{type: bind, .*propagation: rslave")

    def test_tls_is_published_where_haproxy_listens_for_it(self):
        extra = yaml.safe_load((PROJECT / "haproxy/docker-compose.tls.yml").read_text())["services"]["haproxy"]
        listening = re.findall(r"bind \*:(\d+) ssl crt (\S+)", (PROJECT / "haproxy/tls.cfg").read_text())
        self.assertEqual({port for port, _ in listening}, {"9443", "8443"})
        self.assertEqual({published.rpartition(":")[2] for published in extra["ports"]}, {port for port, _ in listening})
        targets = [volume.split(":")[1] for volume in extra["volumes"]]
        configs = re.findall(r"-f (\S+)", extra["command"])
        mounted = [volume.split(":")[1] for volume in self.services["haproxy"]["volumes"]] + targets
        self.assertEqual([config for config in configs if config not in mounted], [])
        for _, certificate in listening:
            self.assertIn(certificate.rpartition("/")[0], targets)

    def test_an_override_of_one_setting_of_a_router_takes_effect(self):
        # Flags win over variables: what people change must not be a flag.
        for name in ("router1", "router2"):
            self.assertEqual(set(self.started[name].arguments), {"port", "http-port"})

    def test_haproxy_knows_the_routers_by_name_and_port(self):
        text = (PROJECT / "haproxy/haproxy.cfg").read_text()
        servers = re.findall(r"^    server (\S+) (\S+):(\d+)( backup)?$", text, re.MULTILINE)
        ports = self.started["router1"].ports()
        expected = [(name, name, str(ports[kind]), backup) for kind, (name, backup) in
                    itertools.product(("grpc", "http"), (("router1", ""), ("router2", " backup")))]
        self.assertEqual(servers, expected)
        self.assertEqual(set(re.findall(r"port (\d+)", text)), {str(ports["http"])})


if __name__ == "__main__":
    unittest.main()
