# A container engine for one test, in namespaces of its own (network, mounts, processes): it needs no registry and no free
# port, changes nothing outside, and the kernel ends all of it with the test. Sourced by tests, which define `test_inside`, and
# `collect_logs DIRECTORY` for when it fails, and then call `run_test "$@"`.
# Needs root. KEEP_LOGS=DIRECTORY keeps the logs of a test that passes, LIMIT is the longest that it may take.

# Debian's client before any other: it builds with BuildKit without a plugin.
PATH=/usr/sbin:/usr/bin:$PATH

# First in the world as it is, where the base image is made, then once more in the namespaces.
run_test() {
    if [ "${1:-}" = inside ]; then
        trap finish EXIT
        step "starting the engine"
        start_engine
        test_inside
        step "done"
        return
    fi
    [ "$(id -u)" -eq 0 ] || { echo "error: needs root, for namespaces and a container engine" >&2; exit 1; }
    [ -x bin/monofs-server ] || { echo "error: no binaries in bin/; run 'make build' first" >&2; exit 1; }
    BASE=$(deploy/test/base-image target/deploy-test)
    # Short, since a socket's path is short; on a real file system, since overlays do not stack.
    TEST_DIRECTORY=$(mktemp -d "${TMPDIR:-/tmp}/monofs-test.XXXXXX")
    export BASE TEST_DIRECTORY
    trap 'rm -rf --one-file-system "$TEST_DIRECTORY"' EXIT
    timeout --kill-after=30 "${LIMIT:-15m}" unshare --net --mount --pid --fork --kill-child --mount-proc "$0" inside
}

step() { printf '%4ds  %s\n' "$SECONDS" "$*"; }

# Runs a command until it succeeds. Usage: eventually SECONDS WHAT COMMAND...
eventually() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >"$TEST_DIRECTORY/last" 2>&1; do
        if [ "$SECONDS" -ge "$end" ]; then
            echo "error: not within the time allowed: $what" >&2
            tail -20 "$TEST_DIRECTORY/last" >&2
            return 1
        fi
        sleep 0.5
    done
}

start_engine() {
    ip link set lo up
    # Mounts made in containers are to be seen here.
    mount --make-rshared /
    export DOCKER_HOST=unix://$TEST_DIRECTORY/docker.sock
    dockerd --host "$DOCKER_HOST" --data-root "$TEST_DIRECTORY/data" --exec-root "$TEST_DIRECTORY/exec" \
        --pidfile "$TEST_DIRECTORY/dockerd.pid" >"$TEST_DIRECTORY/dockerd.log" 2>&1 &
    eventually 60 "the engine answers" docker info || { tail -20 "$TEST_DIRECTORY/dockerd.log" >&2; return 1; }
    base=$(docker import "$BASE")
}

finish() {
    local code=$?
    if [ "$code" -ne 0 ] || [ -n "${KEEP_LOGS:-}" ]; then
        local logs=${KEEP_LOGS:-target/deploy-test/logs}
        mkdir -p "$logs"
        cp "$TEST_DIRECTORY"/*.log "$logs"
        collect_logs "$logs" || true
        [ "$code" -eq 0 ] || echo "failed; logs are in $logs" >&2
    fi
    docker ps --quiet | xargs --no-run-if-empty docker kill >/dev/null 2>&1 || true
    if [ -s "$TEST_DIRECTORY/dockerd.pid" ]; then
        kill "$(cat "$TEST_DIRECTORY/dockerd.pid")" && wait || true
    fi
    exit "$code"
}
