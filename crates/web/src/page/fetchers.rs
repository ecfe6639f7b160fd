//! Fetchers: their caches, how often those help, and what waits for them.

use askama::Template;
use monofs_model::Member;
use monofs_proto::v1;

use super::parts::{Bar, State};
use super::shell::Shell;
use super::text::{When, clean, number, percent, size};
use monofs_router::parts::Parts;
use monofs_router::status::ago;

struct FetcherRow {
    id: String,
    state: State,
    standing: String,
    address: String,
    version: String,
    figures: Option<Figures>,
}

struct Figures {
    cache: Bar,
    repositories: String,
    hit_ratio: String,
    queue: String,
    done: String,
    failed: u64,
    fetched: String,
}

#[derive(Template)]
#[template(path = "fetchers.html")]
pub(super) struct FetchersPage {
    shell: Shell,
    rows: Vec<FetcherRow>,
    sampled: Option<When>,
    router: String,
}

pub(super) fn page(state: &Parts) -> FetchersPage {
    let view = state.fleet.members.view();
    FetchersPage {
        shell: Shell::new(state, "Fetchers", "/fetchers"),
        rows: view.fetchers().map(|fetcher| row(state, fetcher)).collect(),
        sampled: state
            .work
            .history
            .latest()
            .map(|latest| When::at(latest.at)),
        router: clean(&state.control.own.address),
    }
}

fn row(state: &Parts, fetcher: &Member) -> FetcherRow {
    let stat = state
        .work
        .history
        .sampled(|sample| sample.fetchers.get(&fetcher.id).cloned().flatten())
        .flatten();
    FetcherRow {
        id: clean(fetcher.id.as_str()),
        state: State::of_member(fetcher),
        standing: state
            .fleet
            .members
            .standing_for(&fetcher.id)
            .map_or("–".to_owned(), ago),
        address: clean(&fetcher.address),
        version: clean(&fetcher.version),
        figures: stat.as_ref().map(figures),
    }
}

fn figures(stat: &v1::FetcherStatResponse) -> Figures {
    let waiting = stat.fetches_waiting.min(stat.fetches_running);
    Figures {
        cache: Bar::usage(stat.cache_bytes, stat.cache_bytes_max),
        repositories: number(stat.cached_repositories),
        hit_ratio: percent(stat.cache_hits, stat.cache_hits + stat.cache_misses)
            .unwrap_or_else(|| "nothing asked yet".to_owned()),
        queue: format!(
            "{} run, {} wait",
            number(stat.fetches_running - waiting),
            number(waiting)
        ),
        done: number(stat.fetches_done),
        failed: stat.fetches_failed,
        fetched: size(stat.bytes_fetched),
    }
}
