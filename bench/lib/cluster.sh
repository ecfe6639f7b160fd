# Processes of a benchmark, each on a free port of the loopback interface and with a directory below $work: a git daemon,
# a cluster (router, nodes, fetcher) and one client. Sourced from the repository's root; sets `work`, `mnt` and the variables
# that users may give (see bench/run), and removes everything at exit.

bin=${BENCH_BIN:-$PWD/target/release}
base=${BENCH_DIR:-$PWD/target/bench}
corpus=${BENCH_CORPUS:-$base/corpus}
rounds=${BENCH_ROUNDS:-5}
results=${BENCH_RESULTS:-/dev/null}
mkdir -p "$base"
work=$(mktemp -d "$base/run.XXXXXX")
mnt=$work/mnt
mkdir "$mnt"
declare -A pid=()
host=127.0.0.1 # where the roles listen
client_in=()   # the command before the client's: where it runs

cleanup() {
    local name
    [ -z "${pid[client]:-}" ] || stop client
    for name in "${!pid[@]}"; do stop "$name"; done
    ! mountpoint -q "$mnt" || umount -l "$mnt"
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

start() { # NAME COMMAND...
    local name=$1
    shift
    RUST_LOG=warn "$@" >"$work/$name.log" 2>&1 &
    pid[$name]=$!
}

stop() { # NAME: asks it to end, and waits for that
    kill "${pid[$1]}" 2>/dev/null || true
    wait "${pid[$1]}" 2>/dev/null || true
    unset "pid[$1]"
}

fail() { # MESSAGE
    echo "bench: $1" >&2
    tail -n 5 "$work"/*.log >&2
    exit 1
}

start_git_daemon() { # DIRECTORY: serves the repositories in it as git://$git_host/NAME
    git_host=$host:$(free_port)
    start daemon git daemon --listen="$host" --port="${git_host#*:}" --base-path="$1" --export-all --reuseaddr
}

start_router() { # [STATE-DIRECTORY]
    router=$host:$(free_port)
    start router "$bin/monofs-router" --listen "$host" --port "${router#*:}" --http-port "$(free_port)" \
        --state-dir "${1:-$work/router}" --refresh-interval 0s
}

node_names=(node1 node2)
start_cluster() { # a router, the nodes and a fetcher, until all of them are active
    local node
    start_router
    for node in "${node_names[@]}"; do
        start "$node" "$bin/monofs-node" --addr "$host:$(free_port)" --node-id "$node" --db-path "$work/$node" --router "$router"
    done
    start fetcher "$bin/monofs-fetcher" --addr "$host:$(free_port)" --cache-dir "$work/fetcher" --router "$router"
    until [ "$(admin status --format json 2>/dev/null | grep -c '"state": "active"')" -eq $((${#node_names[@]} + 1)) ]; do
        alive router
        sleep 0.05
    done
}

stop_cluster() { # ends it and removes what it stored
    local name
    for name in fetcher "${node_names[@]}" router; do
        stop "$name"
        rm -rf "${work:?}/$name"
    done
}

alive() { kill -0 "${pid[$1]}" 2>/dev/null || fail "$1 ended"; }

admin() { "$bin/monofs-admin" --router "$router" "$@" 2>>"$work/admin.log"; }

# Waits until every node holds FILES contents. It asks for what hydration is doing, which costs a node nothing, and counts
# what is held only when that is over.
wait_for_contents() { # FILES
    local queued held
    while true; do
        queued=$(admin stats --format json | awk -F'[:,]' '/"hydrations_queued"/ { print $2 + 0 }')
        if [ "$queued" = 0 ]; then
            held=$(contents_on_nodes)
            [ "$held" = $(($1 * ${#node_names[@]})) ] && return
        fi
        alive router
        sleep 0.05
    done
}

contents_on_nodes() { admin node-files --node-id all --format json | awk -F'[:,]' '/"files"/ { sum += $2 } END { print sum + 0 }'; }

repository() { echo "$mnt/${git_host%:*}/$1"; } # NAME: where NAME.git of the git daemon appears in the mount

mount_client() { # DIRECTORY, one of the mount: mounts, and returns when `ls` of it answers
    start client "${client_in[@]}" "$bin/monofs-client" --mount "$mnt" --router "$router" --cache "$work/client"
    until ls "$1" >/dev/null 2>&1; do
        alive client
        sleep 0.002
    done
}

mount_empty_client() { # DIRECTORY: the same with an empty cache
    rm -rf "$work/client"
    mount_client "$1"
}

unmount_client() { stop client; }

client_status() { # EXPRESSION over the status document `s`, in Python
    python3 -c "import json; s = json.load(open('$mnt/.monofs/status')); print($1)"
}
