# `make demo` shows the system, `make test` proves it, `make check` is what a change must pass, `make bench` measures it
# beside git and ext4, `make bench-growth` measures how it grows.
# Everything that is missing is installed (Debian, as root) or named with the exact command.

REPO ?= .
CARGO ?= cargo
TARGET = $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo figures screenshots test test-deployments test-long test-faults test-api test-compose test-systemd test-monitoring test-otlp check simulate bench bench-growth build fmt fuzz

# The binaries for a deployment, in bin/, with monofs-server as another name of monofs-node; manual pages and completions in
# bin/share/. FEATURES=otlp: with what `--otlp-endpoint` needs.
build:
	$(CARGO) build --release --locked --bins $(if $(FEATURES),--features $(FEATURES))
	scripts/install-binaries $(TARGET)/release bin

# In a profile of its own, which is ready soonest; what `make test` builds is optimised, and shares nothing with it.
demo:
	@scripts/require fuse3 git gcc
	@[ -x $(TARGET)/demo/monofs ] || echo "building MonoFS and about 400 libraries, once; about four minutes on two cores"
	$(CARGO) build --profile demo --locked --package monofs --package monofs-admin --bins
	@$(TARGET)/demo/monofs up --temporary --repo "$(REPO)"

test:
	@scripts/require fuse3 git gcc nginx fcgiwrap openssh-server openssl etcd-server etcd-client iproute2 iptables faketime haproxy bsdutils zsh fish mandoc prometheus chromium chromium-driver python3 rsync
	@scripts/require-cargo
	@CARGO_TARGET_DIR=$(TARGET) scripts/require-axe
# All targets, as nextest builds them: with the binaries alone, dependencies have other features and are compiled twice.
	$(CARGO) build --workspace --all-targets
	scripts/leaves-nothing $(CARGO) nextest run --workspace
	$(MAKE) test-deployments

# The pictures of the web page in docs/screenshots.
screenshots:
	@scripts/require git chromium chromium-driver
	@scripts/require-cargo
	$(CARGO) build --workspace --all-targets
	MONOFS_SCREENSHOTS=$(CURDIR)/docs/screenshots $(CARGO) nextest run --workspace --run-ignored only -E 'binary(web) & test(screenshots)' --no-capture

# The deployment files against the binaries, HAProxy, systemd, Prometheus and Kubernetes' schemas; half a minute.
test-deployments:
	@scripts/require haproxy systemd python3 prometheus prometheus-alertmanager
	BINARIES=$(abspath $(TARGET))/debug scripts/leaves-nothing deploy/test/static

# What takes minutes.
test-long: test-faults test-api test-compose test-systemd test-monitoring test-otlp

# More kinds of faults, and ten minutes of chaos (MONOFS_CHAOS_SECONDS, MONOFS_TEST_SEED).
test-faults:
	@scripts/require fuse3 git iproute2 iptables faketime
	@scripts/require-cargo
	$(CARGO) build --workspace --all-targets
	scripts/leaves-nothing $(CARGO) nextest run --workspace --profile long --run-ignored only --no-capture -E 'not test(screenshots::)'

# The HTTP API: its OpenAPI document, the examples of its manual, and a fuzzer against a cluster. A minute or two.
test-api:
	@scripts/require git curl python3
	$(CARGO) build --workspace --all-targets
	BINARIES=$(abspath $(TARGET))/debug deploy/test/api

# docker-compose.yml, started.
test-compose: build
	@scripts/require docker.io docker-compose debootstrap iptables iproute2 git
	deploy/test/compose

# The systemd units, started.
test-systemd: build
	@scripts/require docker.io debootstrap iptables iproute2 git
	deploy/test/systemd

# Alerts and dashboard against real processes and a real Prometheus; two minutes.
test-monitoring:
	@scripts/require fuse3 git python3 etcd-server docker-compose prometheus prometheus-alertmanager
	$(CARGO) build --workspace --all-targets
	BINARIES=$(abspath $(TARGET))/debug deploy/test/monitoring

# Spans to a collector: in a build that has the feature, which no other test builds.
test-otlp:
	@scripts/require-cargo
	$(CARGO) nextest run -p monofs-launch --features otlp -E 'test(otlp)'
	$(CARGO) clippy -p monofs-launch --features otlp --all-targets -- --deny warnings

# Seconds first: format, walls and import circles, then licences, bans and sources of dependencies.
check:
	$(CARGO) fmt --all --check
	$(CARGO) run --quiet --locked --package monofs-house -- check
	@CARGO_TARGET_DIR=$(TARGET) scripts/require-deny
	$(TARGET)/deny/cargo-deny --all-features --locked check --hide-inclusion-graph bans licenses sources
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings --allow rustdoc::private_intra_doc_links" $(CARGO) doc --workspace --lib --no-deps --document-private-items --quiet

# What the code looks like in numbers; CHECKOUT=directory: of another commit, WHERE=--where: with the places.
CHECKOUT ?= .
figures:
	@$(CARGO) run --quiet --package monofs-house -- figures $(WHERE) "$(CHECKOUT)"

# Membership, placement and reconciler without IO; SIMULATE_NODES, SIMULATE_REPOSITORIES, SIMULATE_DAYS and SIMULATE_SEED
# choose another size.
simulate:
	$(CARGO) test -p monofs-fleet --lib copies::simulation::full -- --exact --ignored --nocapture

bench:
	@scripts/require fuse3 git gcc ripgrep bc python3
	$(CARGO) build --release --bins
	bench/run

bench-growth:
	@scripts/require fuse3 git gcc bc python3 gnuplot-nox
	$(CARGO) build --release --bins
	bench/growth
	bench/growth-repositories
	bench/plot

fmt:
	$(CARGO) fmt --all

# Every decoder of outside bytes, SECONDS each.
SECONDS ?= 30
fuzz:
	@scripts/require g++
	scripts/fuzz $(SECONDS)
