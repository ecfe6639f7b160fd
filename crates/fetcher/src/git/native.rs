//! Git remotes through gix: no subprocess for `git`, `http` and `https`; `ssh` and `git
//! upload-pack` as bare pipes.
//!
//! It asks for one commit by id at depth 1, names what it already has, and hands the pack to
//! `intake`. gix computes every object's id from its bytes, so an indexed pack never holds an
//! object under a wrong id.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use gix::ObjectId;
use gix::protocol::credentials;
use gix::protocol::fetch::{Arguments, Negotiate, Response, Shallow, Tags, negotiate};
use gix::protocol::handshake::Ref;
use gix::protocol::ls_refs::RefPrefixes;
use gix::protocol::transport::{Protocol, Service};
use gix::protocol::{Handshake, LsRefsCommand};
use monofs_model::{Error, ObjectFormat, Oid, RefName, SourceUrl};

use super::advert::{self, AdvertisedRef, RefChoice};
use super::failure::{
    GixResult, GixVerdict, RemoteRequest, is_withheld, judge_gix, judge_http, judge_text,
    over_limit,
};
use super::gauge::ProgressGauge;
use super::ids::{from_gix, to_gix};
use super::intake::PackIntake;
use super::transport::{self, OpenRemote};
use crate::credentials::Credentials;
use crate::source::{CommitWant, FetchTask, ResolvedRef};

/// How far back a short commit id is looked for, in commits of the default branch.
const HISTORY_COMMITS_MAX: u32 = 20_000;

/// An open conversation with a remote.
pub struct GixSession<'a> {
    remote: OpenRemote,
    handshake: Handshake,
    asked: RemoteRequest<'a>,
    task: &'a Arc<FetchTask>,
}

fn agent() -> (&'static str, Option<String>) {
    (
        "agent",
        Some(gix::protocol::agent(concat!(
            "monofs/",
            env!("CARGO_PKG_VERSION")
        ))),
    )
}

impl<'a> GixSession<'a> {
    /// Connects and shakes hands.
    pub fn open(
        source: &'a SourceUrl,
        ref_name: &'a RefName,
        commit: Option<Oid>,
        credentials: &'a Credentials,
        task: &'a Arc<FetchTask>,
    ) -> std::result::Result<Self, GixVerdict> {
        // A cancelled fetch opens no connection.
        task.check().map_err(GixVerdict::Clear)?;
        let asked = RemoteRequest {
            source,
            ref_name,
            commit,
            host: credentials.of(source),
            limits: task.limits,
        };
        let mut remote = transport::open(&asked, task).map_err(GixVerdict::Clear)?;

        // No login is offered here: the transport has it already. The verdict needs the transport,
        // which knows what came over the wire.
        let service = Service::UploadPack;
        let shaken = gix::protocol::handshake(
            &mut remote.transport,
            service,
            no_login,
            Vec::new(),
            &mut gix::progress::Discard,
        );
        match shaken {
            Ok(handshake) => Ok(Self {
                remote,
                handshake,
                asked,
                task,
            }),
            Err(e) => Err(judge(remote, &asked, task, None, &e)),
        }
    }

    /// What the remote calls its objects' hash.
    fn format(&self) -> ObjectFormat {
        let named = self.handshake.capabilities.capability("object-format");
        match named.and_then(|c| c.value().map(|v| v == "sha256")) {
            Some(true) => ObjectFormat::Sha256,
            _ => ObjectFormat::Sha1,
        }
    }

    /// The refs that begin with one of `prefixes`, or all.
    fn list_refs(&mut self, prefixes: &[String]) -> GixResult<Vec<AdvertisedRef>> {
        let listed = match self.handshake.refs.take() {
            Some(refs) => refs,
            None => {
                let prefixes = (!prefixes.is_empty()).then(|| {
                    let mut wanted = RefPrefixes::new();
                    wanted.extend(prefixes.iter().map(|p| p.as_str().into()));
                    wanted
                });
                LsRefsCommand::new(prefixes, &self.handshake.capabilities, agent())
                    .invoke_blocking(
                        &mut self.remote.transport,
                        &mut gix::progress::Discard,
                        false,
                    )?
            }
        };
        Ok(listed.iter().filter_map(advertised).collect())
    }

    /// Receives the pack of `fetch` into the bare repository at `into`.
    fn receive(
        &mut self,
        mut fetch: ExactFetch<'_>,
        depth: u32,
        into: &Path,
        format: ObjectFormat,
    ) -> GixResult<()> {
        // Exactly this depth, no tags, and a pack that our intake takes.
        let shallow = Shallow::DepthAtRemote(NonZeroU32::new(depth).unwrap_or(NonZeroU32::MIN));
        let options = gix::protocol::fetch::Options {
            shallow_file: into.join("shallow"),
            shallow: &shallow,
            tags: Tags::None,
            reject_shallow_remote: false,
        };
        let intake = PackIntake {
            into,
            format,
            thin: !fetch.have.is_empty(),
            task: self.task,
        };
        let task = self.task;
        let consume =
            |reader: &mut dyn std::io::BufRead,
             progress: &mut dyn gix::DynNestedProgress,
             stop: &std::sync::atomic::AtomicBool|
             -> GixResult<bool> { intake.take(reader, progress, stop).map(|()| true) };
        let context = gix::protocol::fetch::Context {
            handshake: &mut self.handshake,
            transport: &mut self.remote.transport,
            user_agent: agent(),
            trace_packetlines: false,
        };
        gix::protocol::fetch(
            &mut fetch,
            consume,
            ProgressGauge::new(task),
            task.cancelled(),
            context,
            options,
        )?;
        Ok(())
    }

    fn end(mut self) {
        if self.handshake.server_protocol_version == Protocol::V2 {
            // A farewell: the remote may be gone already.
            let _ = gix::protocol::indicate_end_of_interaction(&mut self.remote.transport, false);
        }
    }

    fn fail(self, error: &gix::Error) -> GixVerdict {
        let protocol = Some(self.handshake.server_protocol_version);
        judge(self.remote, &self.asked, self.task, protocol, error)
    }
}

/// gix asks this for a login; ours is part of the connection already.
fn no_login(_: credentials::helper::Action) -> GixResult<Option<credentials::protocol::Outcome>> {
    Ok(None)
}

/// Understands a failed conversation: what a child said on its way out counts most.
fn judge(
    remote: OpenRemote,
    asked: &RemoteRequest<'_>,
    task: &FetchTask,
    protocol: Option<Protocol>,
    error: &gix::Error,
) -> GixVerdict {
    if let Err(cancelled) = task.check() {
        return GixVerdict::Clear(cancelled);
    }
    if task.over_limit() {
        return GixVerdict::Clear(over_limit(asked));
    }
    // Our own client knows best what came over HTTP.
    if let Some(verdict) = &remote.verdict {
        let verdict = verdict.lock();
        if let Some(failure) = &verdict.failure {
            return judge_http(failure, verdict.proxy.as_deref(), asked);
        }
    }
    // What a child said on its way out counts more than how the connection ended.
    if let Some(child) = remote.child {
        drop(remote.transport);
        if child.timed_out() {
            return GixVerdict::Clear(super::failure::silent(asked));
        }
        task.hear(&child.abort());
    }
    let said = task.heard();
    // With protocol 2 Git's own server hands out every commit that it has.
    let texts: Vec<String> = error.iter_errors().map(ToString::to_string).collect();
    let told = format!("{said}: {}", texts.join(": "));
    let has_not = protocol == Some(Protocol::V2) && told.contains("upload-pack: not our ref");
    if asked.commit.is_some() && !has_not && is_withheld(&told) {
        return GixVerdict::Withheld(told);
    }
    match judge_text(&said, asked) {
        Some(error) => GixVerdict::Clear(error),
        None => judge_gix(error, asked),
    }
}

fn advertised(r: &Ref) -> Option<AdvertisedRef> {
    let (name, object, target) = match r {
        Ref::Peeled {
            full_ref_name,
            object,
            ..
        }
        | Ref::Direct {
            full_ref_name,
            object,
        } => (full_ref_name, object, None),
        Ref::Symbolic {
            full_ref_name,
            target,
            object,
            ..
        } => (full_ref_name, object, Some(target.to_string())),
        Ref::Unborn { .. } => return None,
    };
    // A ref whose name is not UTF-8 cannot be asked for.
    let name = std::str::from_utf8(name).ok()?.to_owned();
    Some(AdvertisedRef {
        name,
        object: from_gix(object),
        target,
    })
}

/// Which commit a ref is at.
pub fn resolve(
    source: &SourceUrl,
    ref_name: &RefName,
    credentials: &Credentials,
    task: &Arc<FetchTask>,
) -> std::result::Result<ResolvedRef, GixVerdict> {
    let mut session = GixSession::open(source, ref_name, None, credentials, task)?;
    let refs = match session.list_refs(&advert::prefixes(ref_name)) {
        Ok(refs) => refs,
        Err(e) => return Err(session.fail(&e)),
    };
    let mut choice = advert::choose(source, ref_name, &refs);
    // Of a remote that listed only what was asked for, the rest is needed to say what there is.
    if choice.is_err()
        && session.handshake.server_protocol_version == Protocol::V2
        && let Ok(more) = session.list_refs(&advert::prefixes_for_advice())
    {
        choice = advert::choose(source, ref_name, &more);
    }
    match choice.map_err(GixVerdict::Clear)? {
        RefChoice::Found(resolved) => {
            session.end();
            Ok(resolved)
        }
        RefChoice::PerhapsCommit => search_history(session, source, ref_name, &refs),
    }
}

/// Brings in one commit.
pub fn fetch(
    want: &CommitWant<'_>,
    credentials: &Credentials,
    task: &Arc<FetchTask>,
) -> std::result::Result<(), GixVerdict> {
    // A remote of the other object format cannot have the commit.
    let mut session = GixSession::open(
        want.source,
        want.ref_name,
        Some(want.commit),
        credentials,
        task,
    )?;
    let told = session.format();
    let format = want.commit.format();
    if told != format {
        let message = format!(
            "{}: the remote's objects are {told:?}, but {} is {format:?}",
            want.source, want.commit
        );
        return Err(GixVerdict::Clear(Error::invalid(message)));
    }
    // The commits that are here are named, so that only the rest is sent.
    let have: Vec<ObjectId> = want.have.iter().map(to_gix).collect();
    let exact = ExactFetch {
        want: to_gix(&want.commit),
        have: &have,
        filter: None,
    };
    match session.receive(exact, 1, want.into, format) {
        Ok(()) => {
            session.end();
            Ok(())
        }
        Err(e) => Err(session.fail(&e)),
    }
}

/// Looks for a short commit id in the history of the default branch, fetching commits without
/// trees.
fn search_history(
    mut session: GixSession<'_>,
    source: &SourceUrl,
    ref_name: &RefName,
    refs: &[AdvertisedRef],
) -> std::result::Result<ResolvedRef, GixVerdict> {
    // Only a remote that can leave trees out is asked for its history.
    let fetch_features = session.handshake.capabilities.capability("fetch");
    let can_filter = fetch_features.is_some_and(|f| f.supports("filter").unwrap_or(false))
        || session.handshake.capabilities.contains("filter");
    let tip = refs
        .iter()
        .find(|r| r.name == "HEAD")
        .or_else(|| refs.iter().find(|r| r.name.starts_with("refs/heads/")));
    let not_found = |why: &str| {
        let message = format!(
            "{source}: no branch, tag or advertised commit is '{ref_name}', and {why}; give the \
             full commit id"
        );
        GixVerdict::Clear(Error::not_found(message))
    };
    let Some(tip) = tip else {
        return Err(not_found("the remote advertises no branch"));
    };
    if !can_filter {
        return Err(not_found(
            "the remote cannot list commits without their contents",
        ));
    }
    let directory = tempfile::tempdir()
        .map_err(|e| GixVerdict::Clear(Error::internal(format!("temporary directory: {e}"))))?;
    let format = tip.object.format();
    super::layout::create(directory.path(), format).map_err(GixVerdict::Clear)?;
    let exact = ExactFetch {
        want: to_gix(&tip.object),
        have: &[],
        filter: Some("tree:0"),
    };
    if let Err(e) = session.receive(exact, HISTORY_COMMITS_MAX, directory.path(), format) {
        return Err(session.fail(&e));
    }
    let ids = super::layout::packed_ids(directory.path(), format).map_err(GixVerdict::Clear)?;
    let short = ref_name.as_str().to_ascii_lowercase();
    let mut matches = ids
        .into_iter()
        .filter(|id| id.to_string().starts_with(&short));
    match (matches.next(), matches.next()) {
        (Some(commit), None) => Ok(ResolvedRef {
            commit,
            full_ref: String::new(),
        }),
        (Some(_), Some(_)) => {
            let message = format!(
                "{source}: the short commit id '{ref_name}' is ambiguous; give more digits"
            );
            Err(GixVerdict::Clear(Error::invalid(message)))
        }
        (None, _) => Err(not_found(&format!(
            "none of the last {HISTORY_COMMITS_MAX} commits of the default branch begins so"
        ))),
    }
}

/// Wants one object and says once what is here: no rounds of negotiation.
struct ExactFetch<'a> {
    want: ObjectId,
    have: &'a [ObjectId],
    filter: Option<&'a str>,
}

impl Negotiate for ExactFetch<'_> {
    fn mark_complete_and_common_ref(&mut self) -> GixResult<negotiate::Action> {
        Ok(negotiate::Action::MustNegotiate {
            remote_ref_target_known: Vec::new(),
        })
    }

    fn add_wants(&mut self, arguments: &mut Arguments, _known: &[bool]) -> bool {
        arguments.want(self.want);
        if let Some(filter) = self.filter {
            arguments.filter(filter);
        }
        true
    }

    fn one_round(
        &mut self,
        _state: &mut negotiate::one_round::State,
        arguments: &mut Arguments,
        _previous: Option<&Response>,
    ) -> GixResult<(negotiate::Round, bool)> {
        for id in self.have {
            arguments.have(id);
        }
        let round = negotiate::Round {
            haves_sent: self.have.len(),
            in_vain: 0,
            haves_to_send: self.have.len(),
            previous_response_had_at_least_one_in_common: false,
        };
        Ok((round, true))
    }
}
