//! The one place where a gRPC status, or an error of the cluster, becomes a `Failure` with a code
//! and a hint.

use monofs_launch::exit::{Code, Failure, code_of, hint_of};
use monofs_model::{Error, ErrorKind};
use monofs_rpc::from_status;
use monofs_rpc::status::KIND_KEY;
use tonic::Status;

/// What a call is about: decides what an error of it means, and what is said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallSubject {
    /// Repositories and what they hold.
    Cluster,
    /// An ingest: what is unavailable is the Git remote, or whatever else it needs; the cluster was
    /// reached and the work failed.
    Work,
    /// A node that takes part, or the whole cluster, as an operator wants it.
    Node,
    /// A node that is to be left.
    Leaving,
    /// A member that is to be forgotten.
    Removal,
    /// Moving copies to where they belong.
    Rebalance,
    /// A job.
    Job,
}

/// Whether a router said this, rather than the way to it.
pub fn is_answer(status: &Status) -> bool {
    use tonic::Code::{Cancelled, DeadlineExceeded, Internal, Unavailable, Unknown};
    let transport = matches!(
        status.code(),
        Unavailable | DeadlineExceeded | Cancelled | Unknown | Internal
    );
    status.metadata().contains_key(KIND_KEY) || !transport
}

/// The failure of a command for a router's status.
pub fn answered(status: Status, about: CallSubject) -> Failure {
    if status.code() == tonic::Code::Unimplemented {
        return Failure::new(Code::Failed, "the router does not know this command")
            .hint("compare `monofs-admin --version` with the router's in `monofs-admin status`");
    }
    let told = is_answer(&status);
    explain(
        from_status(status),
        if told { about } else { CallSubject::Cluster },
    )
}

/// The failure of a command for an error of the cluster.
pub fn explain(error: Error, about: CallSubject) -> Failure {
    let code = match (error.kind, about) {
        (ErrorKind::Unavailable, CallSubject::Work) => Code::Failed,
        (kind, _) => code_of(kind),
    };
    Failure::new(code, error.message).hint(hint(error.kind, about))
}

fn hint(kind: ErrorKind, about: CallSubject) -> &'static str {
    match kind {
        ErrorKind::NotFound => not_found(about),
        ErrorKind::Refused => refused(about),
        ErrorKind::Unavailable if about == CallSubject::Work => {
            "check the source and the network, and `monofs-admin status` for nodes and fetchers; \
             then run it again"
        }
        ErrorKind::Unavailable => {
            "`monofs-admin status` shows which members are down and what to do"
        }
        ErrorKind::Corrupt => {
            "`monofs-admin verify` finds damaged copies and says how they are made again"
        }
        ErrorKind::Full => "`monofs-admin nodes` shows free disk space; make room or add a node",
        kind => hint_of(kind),
    }
}

fn not_found(about: CallSubject) -> &'static str {
    match about {
        CallSubject::Work => {
            "check --source, --ref and the path; `monofs-admin repos` lists what is there"
        }
        CallSubject::Cluster => {
            "`monofs-admin repos` lists the repositories, `monofs-admin ls` what is below a path"
        }
        CallSubject::Rebalance => {
            "`monofs-admin repos` lists the repositories, `monofs-admin repo PATH` tells the \
             storage id"
        }
        CallSubject::Node | CallSubject::Leaving => "`monofs-admin nodes` lists the nodes",
        CallSubject::Removal => "`monofs-admin nodes` and `monofs-admin fetchers` list the members",
        CallSubject::Job => "`monofs-admin jobs --all` lists the jobs that are known",
    }
}

fn refused(about: CallSubject) -> &'static str {
    // What stands in the way differs by what was asked for.
    match about {
        CallSubject::Leaving => {
            "change first what the message names, such as by adding a node; --force goes on with \
             fewer copies than wanted"
        }
        CallSubject::Node => {
            "`monofs-admin status` shows what is wanted of each node; change that first"
        }
        CallSubject::Removal => {
            "stop the member, or `monofs-admin drain --node ID` first; `monofs-admin status` shows \
             its state"
        }
        CallSubject::Rebalance => {
            "`monofs-admin status` shows what is in the way, `monofs-admin undrain` ends a \
             maintenance"
        }
        CallSubject::Job => "`monofs-admin jobs --all` shows how it ended",
        CallSubject::Cluster | CallSubject::Work => {
            "change first what the message names; `monofs-admin repos` and `status` show the state"
        }
    }
}
