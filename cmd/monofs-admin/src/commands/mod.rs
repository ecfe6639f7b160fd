//! The commands, one file each: what it takes, what it asks, what it prints.

mod accepted;
pub mod bench;
pub mod cat;
pub mod clear_failover;
pub mod completions;
pub mod delete;
pub mod drain;
pub mod failover;
pub mod fetchers;
mod follow;
pub mod ingest;
pub mod jobs;
pub mod ls;
pub mod man;
pub mod node_files;
pub mod nodes;
pub mod rebalance;
pub mod refresh;
pub mod remove_member;
pub mod repo;
pub mod repos;
pub mod stat;
pub mod stats;
pub mod status;
pub mod top;
pub mod trigger_failover;
pub mod undrain;
pub mod verify;

use anyhow::Result;
use monofs_launch::exit::{Code, Failure};
use monofs_model::SourceUrl;
use monofs_proto::v1;
use tokio_util::sync::CancellationToken;

use crate::cli::{Args, Command};
use crate::cluster::{Cluster, Router};
use crate::nearest;
use crate::output::{Format, Mood};
use crate::text::{clean, shell_word};

/// Repositories that are looked through for what may have been meant.
const SUGGESTED_OF_MAX: usize = 10_000;
/// Members that a hint names.
const MEMBERS_NAMED_MAX: usize = 8;

/// What a command works with.
pub struct Session {
    pub cluster: Cluster,
    pub format: Format,
    /// Cancelled by Ctrl-C.
    pub interrupt: CancellationToken,
}

impl Session {
    /// Whether the answer is a JSON document.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// What the cluster says of itself.
    pub async fn status(&self) -> Result<v1::StatusResponse, Failure> {
        let call = |router: Router| async move {
            router
                .admin()
                .status(router.request(v1::StatusRequest::default()))
                .await
        };
        self.cluster.ask(call).await
    }

    /// The same outcome; if it is a failure about a repository that is not there, with what may
    /// have been meant.
    async fn meant_path<T>(&self, path: &str, outcome: Result<T, Failure>) -> Result<T, Failure> {
        let failure = match outcome {
            Err(failure) if failure.code == Code::Failed && !path.is_empty() => failure,
            other => return other,
        };
        // It is only about better words: if this fails too, the first failure stands as it is.
        let Ok(known) = self.repositories_up_to("", SUGGESTED_OF_MAX).await else {
            return Err(failure);
        };
        let known: Vec<&str> = known
            .iter()
            .map(|repository| repository.path.as_str())
            .collect();
        if known.contains(&path) {
            return Err(failure);
        }
        Err(match nearest::path(path, &known) {
            Some(near) => failure.hint(format!(
                "did you mean {}? `monofs-admin repos` lists the repositories",
                shell_word(near)
            )),
            None => failure,
        })
    }

    /// The same outcome; if it is a failure about a member that is not there, with what may have
    /// been meant.
    async fn meant_member<T>(&self, id: &str, outcome: Result<T, Failure>) -> Result<T, Failure> {
        let failure = match outcome {
            Err(failure) if failure.code == Code::Failed && !id.is_empty() => failure,
            other => return other,
        };
        let Ok(status) = self.status().await else {
            return Err(failure);
        };
        let nodes = status.nodes.iter().filter_map(|node| node.member.as_ref());
        let fetchers = status
            .fetchers
            .iter()
            .filter_map(|fetcher| fetcher.member.as_ref());
        let known: Vec<&str> = nodes
            .chain(fetchers)
            .map(|member| member.id.as_str())
            .collect();
        if known.contains(&id) {
            return Err(failure);
        }
        let near = nearest::name(id, known.iter().copied());
        Err(match near {
            Some(near) => failure.hint(format!(
                "did you mean {}? `monofs-admin nodes` lists the nodes",
                shell_word(near)
            )),
            None if known.is_empty() => {
                failure.hint("no node is known yet: start one with `monofs-node --router`")
            }
            None => {
                let some = known
                    .iter()
                    .take(MEMBERS_NAMED_MAX)
                    .map(|id| clean(id))
                    .collect::<Vec<_>>()
                    .join(", ");
                let more = if known.len() > MEMBERS_NAMED_MAX {
                    ", ..."
                } else {
                    ""
                };
                failure.hint(format!(
                    "the members are {some}{more}; `monofs-admin nodes` says more"
                ))
            }
        })
    }

    /// All repositories at or below `prefix`.
    async fn repositories(&self, prefix: &str) -> Result<Vec<v1::Repository>, Failure> {
        self.repositories_up_to(prefix, usize::MAX).await
    }

    /// The first repositories at or below `prefix`, at most `max`.
    async fn repositories_up_to(
        &self,
        prefix: &str,
        max: usize,
    ) -> Result<Vec<v1::Repository>, Failure> {
        let mut all = Vec::new();
        let mut message = v1::ListRepositoriesRequest {
            prefix: prefix.to_owned(),
            ..Default::default()
        };
        loop {
            let call = |router: Router| {
                let request = router.request(message.clone());
                async move { router.admin().list_repositories(request).await }
            };
            let page: v1::ListRepositoriesResponse = self.cluster.ask(call).await?;
            let empty = page.repositories.is_empty();
            all.extend(page.repositories);
            // A router that gives empty pages for ever has nothing more to say.
            if page.next_page_token.is_empty() || empty || all.len() >= max {
                all.truncate(max);
                return Ok(all);
            }
            message.page_token = page.next_page_token;
        }
    }
}

/// Runs what the command line asks for.
pub async fn run(args: Args, interrupt: CancellationToken) -> Result<()> {
    let cluster = Cluster::new(args.global.router, args.global.rpc_timeout);
    let session = Session {
        cluster,
        format: args.global.format,
        interrupt,
    };
    match args.command {
        Command::Ingest(args) => ingest::run(args, &session).await,
        Command::Repos(args) => repos::run(args, &session).await,
        Command::Repo(args) => repo::run(args, &session).await,
        Command::Refresh(args) => refresh::run(args, &session).await,
        Command::Delete(args) => delete::run(args, &session).await,
        Command::Status(args) => status::run(args, &session).await,
        Command::Stats(args) => stats::run(args, &session).await,
        Command::Top(args) => top::run(args, &session).await,
        Command::Nodes(args) => nodes::run(args, &session).await,
        Command::Fetchers(args) => fetchers::run(args, &session).await,
        Command::Drain(args) => drain::run(args, &session).await,
        Command::Undrain(args) => undrain::run(args, &session).await,
        Command::Failover(args) => failover::run(args, &session).await,
        Command::TriggerFailover(args) => trigger_failover::run(args, &session).await,
        Command::ClearFailover(args) => clear_failover::run(args, &session).await,
        Command::Rebalance(args) => rebalance::run(args, &session).await,
        Command::Jobs(args) => jobs::run(args, &session).await,
        Command::RemoveMember(args) => remove_member::run(args, &session).await,
        Command::NodeFiles(args) => node_files::run(args, &session).await,
        Command::Ls(args) => ls::run(args, &session).await,
        Command::Cat(args) => cat::run(args, &session).await,
        Command::Stat(args) => stat::run(args, &session).await,
        Command::Verify(args) => verify::run(args, &session).await,
        Command::Bench(args) => bench::run(args, &session).await,
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args, &session),
    }
}

/// How good a member's state is.
pub fn member_mood(state: v1::MemberState) -> Mood {
    match state {
        v1::MemberState::Active => Mood::Good,
        v1::MemberState::Down => Mood::Bad,
        _ => Mood::Uneasy,
    }
}

/// How good a repository's state is.
fn repository_mood(state: v1::RepositoryState) -> Mood {
    match state {
        v1::RepositoryState::Ready => Mood::Good,
        v1::RepositoryState::Failed => Mood::Bad,
        _ => Mood::Uneasy,
    }
}

/// A display path as a user may write it: slashes around it do not matter. Errors: `Usage` for a
/// URL.
fn display_path(text: &str) -> Result<String, Failure> {
    match where_a_url_leads(text) {
        None => Ok(text.trim_matches('/').to_owned()),
        Some(path) => Err(Failure::new(
            Code::Usage,
            format!("'{}' is a URL; a path in the tree is wanted", clean(text)),
        )
        .hint(path)),
    }
}

/// Where the repository of a URL is, as a hint; `None` for what is no URL.
pub fn where_a_url_leads(text: &str) -> Option<String> {
    let scp = text
        .split_once(':')
        .is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
    if !scp && !text.contains("://") {
        return None;
    }
    let lists = "`monofs-admin repos` lists the paths and their sources";
    let path = SourceUrl::new(text).and_then(|source| source.display_path());
    Some(path.map_or_else(
        |_| lists.to_owned(),
        |path| {
            format!(
                "unless it was added with another --path, it is at {}; {lists}",
                shell_word(path.as_str())
            )
        },
    ))
}
