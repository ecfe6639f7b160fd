//! What a mount says about itself to probes and Prometheus; see [`monofs_content::counters`] for what is
//! counted where.

use monofs_content::counters::Counters;
use monofs_rpc::metrics::Samples;
use monofs_rpc::operations::Operations;

use crate::catalog::RouterLink;
use crate::mount::context::MountContext;
use crate::status::StatusSource;

impl Operations for StatusSource {
    fn role(&self) -> &'static str {
        "client"
    }

    fn problems(&self) -> Vec<String> {
        self.status().map_or_else(
            || vec!["the mount is gone".to_owned()],
            |status| status.problems,
        )
    }

    fn samples(&self, out: &mut Samples) {
        // Of a mount that is gone there is nothing to tell.
        let Some((context, link)) = self.parts() else {
            return;
        };
        kernel(&context.counters, out);
        catalogue(&context, link, out);
        caches(&context, out);
        fetching(&context.counters, out);
        context.content.channels().calls().made(out);
    }
}

/// What the kernel asked and was told.
fn kernel(counters: &Counters, out: &mut Samples) {
    // Requests, and how long their answers took.
    let asked = counters.operations().map(|(name, count)| ([name], count));
    out.counters_by(
        "monofs_fuse_upcalls_total",
        "Requests of the kernel, by operation.",
        ["op"],
        asked,
    );
    let took = counters.durations().map(|(name, took)| ([name], took));
    let help = "Time until the kernel had its answer.";
    out.histograms_by("monofs_fuse_upcall_duration_seconds", help, ["op"], took);
    let help = "Requests of the kernel that failed because content could not be had.";
    out.counter("monofs_fuse_failed_total", help, counters.failed.get());
    out.counters_by(
        "monofs_client_invalidations_total",
        "What the kernel was told to forget: single names, listings of directories, and all names \
         at once.",
        ["kind"],
        [
            (["name"], counters.names_invalidated.get()),
            (["directory"], counters.directories_invalidated.get()),
            (["all_names"], counters.all_names_dropped.get()),
        ],
    );
}

/// How far what is shown follows the catalogue.
fn catalogue(context: &MountContext, link: &RouterLink, out: &mut Samples) {
    // As of now, without holding the connection's state.
    let state = link.state().clone();
    let view = context.content.replicas().view();
    out.counter(
        "monofs_client_flips_total",
        "Repositories switched to another commit.",
        context.counters.flips.get(),
    );
    out.counter(
        "monofs_client_late_flips_total",
        "Repositories switched so late that the names show the time of the switch.",
        context.counters.late_flips.get(),
    );
    out.gauge(
        "monofs_client_inodes",
        "Inodes that the kernel knows.",
        context.fs.inode_count(),
    );
    let connected = state.connected_since.is_some();
    out.gauge(
        "monofs_client_router_connected",
        "1: the watch of a router is open.",
        connected,
    );
    out.gauge(
        "monofs_client_view_number",
        "Number of the cluster view in use.",
        view.number,
    );
    if let Some(last) = state.last_message {
        let help =
            "Time since a router was heard: what is shown may be this old. Absent until one was.";
        out.gauge(
            "monofs_client_view_age_seconds",
            help,
            last.elapsed().as_secs_f64(),
        );
    }
    let help = "Repositories shown at an older commit than the catalogue says.";
    out.gauge(
        "monofs_client_lagging_repositories",
        help,
        state.lagging.len(),
    );
}

/// How often each tier of the cache had what was looked for, and how full it is.
fn caches(context: &MountContext, out: &mut Samples) {
    let counters = &context.counters;
    let cache = &context.fs.cache;
    let ready = counters.contents_ready.get();
    let frames_memory = counters.frames_in_memory.get();
    let frames_disk = counters.frames_on_disk.get();
    let no_frame = counters.frames_missed.get();
    let records_memory = counters.records_in_memory.get();
    let records_disk = counters.records_on_disk.get();
    let no_record = counters.records_missed.get();
    // A tier is asked when the one above it does not have it, so the hits of those below are its
    // misses.
    let tiers = [
        ("ready", ready, frames_memory + frames_disk + no_frame),
        ("frames_memory", frames_memory, frames_disk + no_frame),
        ("frames_disk", frames_disk, no_frame),
        ("records_memory", records_memory, records_disk + no_record),
        ("records_disk", records_disk, no_record),
    ];
    let help = "Records and contents that were looked for and found, by tier.";
    out.counters_by(
        "monofs_cache_hits_total",
        help,
        ["tier"],
        tiers.map(|(tier, hits, _)| ([tier], hits)),
    );
    let help = "Records and contents that were looked for and not found in this tier.";
    out.counters_by(
        "monofs_cache_misses_total",
        help,
        ["tier"],
        tiers.map(|(tier, _, misses)| ([tier], misses)),
    );
    let full = cache.tiers();
    out.gauges_by(
        "monofs_cache_bytes",
        "Bytes in the cache.",
        ["tier"],
        full.map(|tier| ([tier.name], tier.bytes)),
    );
    let limits = full.map(|tier| ([tier.name], tier.limit_bytes));
    out.gauges_by(
        "monofs_cache_limit_bytes",
        "Bytes that the cache may have.",
        ["tier"],
        limits,
    );
    let (evicted, bytes) = cache.evicted();
    let help = "Halves of the cache on disk that were dropped to make room.";
    out.counters_by(
        "monofs_cache_evictions_total",
        help,
        ["tier"],
        [(["disk"], evicted)],
    );
    out.counters_by(
        "monofs_cache_evicted_bytes_total",
        "Bytes of what was dropped.",
        ["tier"],
        [(["disk"], bytes)],
    );
}

/// What was asked of nodes and routers, and ahead of readers.
fn fetching(counters: &Counters, out: &mut Samples) {
    // All of these are plain counters.
    for (name, help, counter) in [
        (
            "monofs_prefetch_blobs_total",
            "Files fetched before they were asked for.",
            &counters.prefetched,
        ),
        (
            "monofs_prefetch_bytes_total",
            "Bytes of files fetched before they were asked for.",
            &counters.prefetched_bytes,
        ),
        (
            "monofs_prefetch_used_total",
            "Files fetched ahead that were read.",
            &counters.prefetch_used,
        ),
        (
            "monofs_prefetch_wasted_total",
            "Files fetched ahead and forgotten unread.",
            &counters.prefetch_wasted,
        ),
        (
            "monofs_client_hedges_total",
            "Second requests sent because the first was slow.",
            &counters.hedges,
        ),
        (
            "monofs_client_hedges_won_total",
            "Second requests whose answer came first.",
            &counters.hedges_won,
        ),
        (
            "monofs_client_corrupt_total",
            "Answers and cached frames that did not match their ids.",
            &counters.corrupt,
        ),
        (
            "monofs_client_fetched_bytes_total",
            "Bytes of records and frames received.",
            &counters.bytes_fetched,
        ),
    ] {
        out.counter(name, help, counter.get());
    }
}
