//! `fetchers`: the fetchers and what each says of itself.

use anyhow::Result;
use monofs_api::ListPage;
use monofs_api::members::{FetcherDocument, FetcherList, MemberCondition};
use monofs_proto::v1;

use crate::mood::{Mood, member_mood, plain};
use crate::output::{TextTable, emit, emit_json};
use crate::session::CommandSession;
use crate::text::{percent, size};

const AFTER_HELP: &str = "\
Examples:
  monofs-admin fetchers
  monofs-admin fetchers --format=json";

/// List the fetchers: state, address, cache, work
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct FetchersArgs {}

pub async fn run(_: FetchersArgs, session: &CommandSession) -> Result<()> {
    let status = session.status().await?;
    if session.json() {
        return emit_json(&FetcherList {
            fetchers: FetcherDocument::of_status(&status),
            page: ListPage::whole(status.fetchers.len()),
        });
    }
    emit(&table(&status.fetchers))
}

/// The fetchers as a table.
pub fn table(fetchers: &[v1::FetcherStatus]) -> String {
    let headings = [
        "FETCHER", "STATE", "ADDRESS", "VERSION", ">CACHE", ">OF", ">HITS", ">RUNNING", ">WAITING",
        ">DONE", ">FAILED", "ERROR",
    ];
    let mut rows = TextTable::new(&headings);
    if fetchers.is_empty() {
        return "no fetchers\n".to_owned();
    }
    // Figures of a fetcher that could not be asked are dashes.
    for fetcher in fetchers {
        let member = fetcher.member.clone().unwrap_or_default();
        let stat = fetcher.stat.as_ref();
        let figure = |of: fn(&v1::FetcherStatResponse) -> String| {
            plain(stat.map_or_else(|| "-".to_owned(), of))
        };
        rows.row_with([
            plain(member.id.clone()),
            (
                MemberCondition::from(member.state()).word().to_owned(),
                member_mood(member.state()),
            ),
            plain(member.address.clone()),
            plain(member.version.clone()),
            figure(|stat| size(stat.cache_bytes)),
            figure(|stat| size(stat.cache_bytes_max)),
            figure(|stat| {
                percent(
                    stat.cache_hits,
                    stat.cache_hits.saturating_add(stat.cache_misses),
                )
            }),
            figure(|stat| stat.fetches_running.to_string()),
            figure(|stat| stat.fetches_waiting.to_string()),
            figure(|stat| stat.fetches_done.to_string()),
            figure(|stat| stat.fetches_failed.to_string()),
            (fetcher.error.clone(), Mood::Bad),
        ]);
    }
    rows.render()
}
