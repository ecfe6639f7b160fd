//! What every command works with: the cluster it asks, how its answer is printed, and what ends it
//! early. With it, what more than one command asks of the cluster.

use anyhow::Result;
use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;
use tokio_util::sync::CancellationToken;

use crate::cluster::{ClusterClient, RouterClient};
use crate::nearest;
use crate::output::OutputFormat;
use crate::text::{clean, shell_word};

/// Repositories that are looked through for what may have been meant.
const SUGGESTED_OF_MAX: usize = 10_000;
/// Members that a hint names.
const MEMBERS_NAMED_MAX: usize = 8;

/// What a command works with.
pub struct CommandSession {
    pub cluster: ClusterClient,
    pub format: OutputFormat,
    /// Cancelled by Ctrl-C.
    pub interrupt: CancellationToken,
}

impl CommandSession {
    /// Whether the answer is a JSON document.
    pub fn json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    /// What the cluster says of itself.
    pub async fn status(&self) -> Result<v1::StatusResponse, Failure> {
        let call = |router: RouterClient| async move {
            router
                .admin()
                .status(router.request(v1::StatusRequest::default()))
                .await
        };
        self.cluster.ask(call).await
    }

    /// The same outcome; if it is a failure about a repository that is not there, with what may
    /// have been meant.
    pub async fn meant_path<T>(
        &self,
        path: &str,
        outcome: Result<T, Failure>,
    ) -> Result<T, Failure> {
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
    pub async fn meant_member<T>(
        &self,
        id: &str,
        outcome: Result<T, Failure>,
    ) -> Result<T, Failure> {
        let failure = match outcome {
            Err(failure) if failure.code == Code::Failed && !id.is_empty() => failure,
            other => return other,
        };
        // It is only about better words: if this fails too, the first failure stands as it is.
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
        // The nearest name, or all of them.
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
    pub async fn repositories(&self, prefix: &str) -> Result<Vec<v1::Repository>, Failure> {
        self.repositories_up_to(prefix, usize::MAX).await
    }

    /// The first repositories at or below `prefix`, at most `max`.
    pub async fn repositories_up_to(
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
            let call = |router: RouterClient| {
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
