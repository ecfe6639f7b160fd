# A catalogue of many repositories, written by the router's example `seed_catalogue` in its real format; no node runs, so what
# is measured is router and client alone. Sourced after measure.sh.

# The port is looked at before it is asked: monofs-admin is patient with a router that is not there.
until_answered() {
    until (: <"/dev/tcp/${router%:*}/${router#*:}") 2>/dev/null; do
        alive router
        sleep 0.002
    done
    admin repos --format json >/dev/null
}

# Start of the router, mount, `ls` of the host that has nine tenths of them, `stat` of 500 drawn at random, memory of both.
measure_catalogue() { # PREFIX REPOSITORIES
    local state=$work/state
    cargo run --quiet --release -p monofs-control --example seed_catalogue -- --state-dir "$state" --repositories "$2" >&2
    sync
    start_router_and_wait() { start_router "$state" && until_answered; }
    timed "$1router_start" start_router_and_wait

    rm -rf "$work/client"
    timed "$1mount" mount_client "$mnt/.monofs"
    timed "$1ls_host" ls "$mnt/$(ls "$mnt" | head -n 1)"
    unmount_client
    mount_empty_client "$mnt/.monofs"
    admin repos --format json | bench/lib/draw-repositories 500 >"$work/drawn"
    (cd "$mnt" && xargs "$OLDPWD/bench/lib/stat-seconds" <"$work/drawn") | sort -g >"$work/samples"
    note "$1stat_p50" "$(sed -n 250p "$work/samples")" s
    note "$1stat_p99" "$(sed -n 495p "$work/samples")" s

    note_memory "$1router_mb" router VmRSS
    note_memory "$1client_mb" client VmRSS
    unmount_client
    stop router
    rm -rf "$state"
}
