# Measurements: each is one line `KEY VALUE` of $results (seconds, megabytes, counts), shown as it is made. Sourced after
# cluster.sh.

note() { # KEY VALUE UNIT
    echo "$1 $2" >>"$results"
    printf '  %-28s %10.3f %s\n' "$1" "$2" "$3" >&2
}

timed() { # KEY COMMAND...: wall-clock seconds of the command, whose output is dropped
    local key=$1 from to
    shift
    from=$(date +%s.%N)
    "$@" >/dev/null || fail "$key: '$*' failed"
    to=$(date +%s.%N)
    note "$key" "$(echo "$to - $from" | bc)" s
}

# Page, dentry and inode caches of the whole machine: of ext4, and of the files that nodes and clients map.
drop_caches() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

# Resident megabytes now (VmRSS), without file-backed pages (RssAnon), or at most so far (VmHWM).
memory() { # NAME FIELD
    awk -v field="$2:" '$1 == field { print $2 / 1024 }' "/proc/${pid[$1]}/status"
}

note_memory() { # KEY NAME FIELD
    note "$1" "$(memory "$2" "$3")" MB
}

declare -A sampler=()
watch_memory() { # NAME...: samples RssAnon of these processes until `note_watched`
    local name
    for name in "$@"; do
        bench/lib/watch-memory "${pid[$name]}" >"$work/watch.$name" &
        sampler[$name]=$!
    done
}

note_watched() { # PREFIX: the highest sample of each process as PREFIX_NAME
    local name
    for name in "${!sampler[@]}"; do
        kill "${sampler[$name]}"
        wait "${sampler[$name]}"
        note "$1_$name" "$(cat "$work/watch.$name")" MB
    done
    sampler=()
}

note_peaks() { # PREFIX NAME...: VmHWM of each process as PREFIX_NAME
    local prefix=$1 name
    shift
    for name in "$@"; do note_memory "${prefix}_$name" "$name" VmHWM; done
}

find_sizes() { find "$1" -type f -size +0; }
rg_all() { rg --no-ignore --hidden --glob '!.git' -c 'EXPORT_SYMBOL_GPL' "$1"; }
# GNU tar skips reading when it writes to /dev/null itself.
tar_all() { tar --exclude=.git -C "$1" -cf - . | cat; }
