//! Conversions between the wire (`v1`) and `model`.
//!
//! Invariant: `model -> wire` cannot fail; `wire -> model` checks everything and fails with
//! [`monofs_model::ErrorKind::Invalid`].

use std::time::Duration;

use bytes::Bytes;
use monofs_model as model;
use monofs_model::view::Role;
use monofs_model::{DisplayPath, Error, GenerationRef, NodeId, Oid, RefName, Result, SourceUrl};

use crate::v1;

/// The wire form of an object id.
pub fn oid_bytes(oid: &Oid) -> Bytes {
    Bytes::copy_from_slice(oid.as_bytes())
}

/// The ids of a repeated field.
pub fn oids(raw: &[Bytes]) -> Result<Vec<Oid>> {
    raw.iter().map(|bytes| Oid::from_bytes(bytes)).collect()
}

impl From<&model::HostPause> for v1::HostPause {
    fn from(pause: &model::HostPause) -> Self {
        Self {
            host: pause.host.clone(),
            cause: pause.cause.clone(),
            retry_after_ms: u64::try_from(pause.retry_after.as_millis()).unwrap_or(u64::MAX),
            next_try_at: 0,
        }
    }
}

impl From<&v1::HostPause> for model::HostPause {
    fn from(wire: &v1::HostPause) -> Self {
        Self {
            host: wire.host.clone(),
            cause: wire.cause.clone(),
            retry_after: Duration::from_millis(wire.retry_after_ms),
        }
    }
}

/// The wire form of the generations of a tree.
pub fn generation_bytes(generations: &GenerationRef) -> Bytes {
    let mut bytes = Vec::new();
    generations.encode_to(&mut bytes);
    bytes.into()
}

/// The generations of a tree; `None` for an absent field. Errors: `Corrupt`.
pub fn generations(raw: &[u8]) -> Result<Option<GenerationRef>> {
    match raw {
        [] => Ok(None),
        raw => GenerationRef::decode(raw).map(Some),
    }
}

macro_rules! enums {
    ($($wire:ident <=> $model:path { $($variant:ident),* $(,)? })*) => {
        $(
            impl From<$model> for v1::$wire {
                fn from(value: $model) -> Self {
                    type M = $model;
                    match value { $(M::$variant => Self::$variant),* }
                }
            }

            impl TryFrom<v1::$wire> for $model {
                type Error = Error;
                fn try_from(value: v1::$wire) -> Result<Self> {
                    match value {
                        v1::$wire::Unspecified => Err(Error::invalid(concat!(stringify!($wire), " is not set"))),
                        $(v1::$wire::$variant => Ok(Self::$variant)),*
                    }
                }
            }
        )*
    };
}

enums! {
    RepositoryState <=> model::RepositoryState { Ingesting, Ready, Failed }
    ContentMode <=> model::ContentMode { Eager, Lazy }
    Consistency <=> model::Consistency { Eventual, Strong }
    MemberState <=> model::MemberState { Joining, Active, Suspect, Down, Recovering, Draining, Drained }
    Role <=> Role { Node, Fetcher }
}

impl From<&model::Snapshot> for v1::Snapshot {
    fn from(snapshot: &model::Snapshot) -> Self {
        let submodules = snapshot
            .submodules
            .iter()
            .map(|module| v1::Submodule {
                path: module.path.clone().into(),
                url: module.url.clone(),
            })
            .collect();
        Self {
            commit: oid_bytes(&snapshot.commit),
            root: oid_bytes(&snapshot.root),
            commit_time: snapshot.commit_time,
            trees: snapshot.trees,
            blobs: snapshot.blobs,
            bytes: snapshot.bytes,
            submodules,
            // A field of no bytes stands for generations that are not known.
            generations: snapshot
                .generations
                .as_ref()
                .map(generation_bytes)
                .unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Snapshot> for model::Snapshot {
    type Error = Error;

    fn try_from(wire: v1::Snapshot) -> Result<Self> {
        // Each id is checked by itself here; that they are of one format is checked after.
        let snapshot = Self {
            commit: Oid::from_bytes(&wire.commit)?,
            root: Oid::from_bytes(&wire.root)?,
            commit_time: wire.commit_time,
            trees: wire.trees,
            blobs: wire.blobs,
            bytes: wire.bytes,
            submodules: wire
                .submodules
                .into_iter()
                .map(|module| model::Submodule {
                    path: module.path.to_vec(),
                    url: module.url,
                })
                .collect(),
            generations: generations(&wire.generations)?,
        };
        if snapshot.commit.format() != snapshot.root.format() {
            return Err(Error::invalid("a snapshot mixes object formats"));
        }
        Ok(snapshot)
    }
}

impl From<&model::Repository> for v1::Repository {
    fn from(repository: &model::Repository) -> Self {
        // The storage id follows from the path: it is sent for readers, and the way back ignores
        // it.
        Self {
            path: repository.path.to_string(),
            storage_id: repository.storage_id().to_string(),
            source: repository.source.to_string(),
            ref_name: repository.ref_name.as_str().to_owned(),
            state: v1::RepositoryState::from(repository.state).into(),
            snapshot: repository.snapshot.as_ref().map(v1::Snapshot::from),
            generation: repository.generation,
            generation_time: repository.generation_time,
            root_time: repository.root_time,
            holders: repository.holders.iter().map(NodeId::to_string).collect(),
            content: v1::ContentMode::from(repository.content).into(),
            consistency: v1::Consistency::from(repository.consistency).into(),
            created_at: repository.created_at,
            refreshed_at: repository.refreshed_at,
            last_error: repository.last_error.clone(),
            shadowed_by: repository
                .shadowed_by
                .as_ref()
                .map_or_else(String::new, DisplayPath::to_string),
        }
    }
}

impl TryFrom<v1::Repository> for model::Repository {
    type Error = Error;

    fn try_from(wire: v1::Repository) -> Result<Self> {
        // A source was accepted when it was recorded, perhaps under older rules; all else is
        // checked as new.
        Ok(Self {
            path: DisplayPath::new(&wire.path)?,
            source: SourceUrl::of_record(&wire.source)?,
            ref_name: RefName::new(&wire.ref_name)?,
            state: wire.state().try_into()?,
            content: wire.content().try_into()?,
            consistency: wire.consistency().try_into()?,
            snapshot: wire.snapshot.map(model::Snapshot::try_from).transpose()?,
            generation: wire.generation,
            generation_time: wire.generation_time,
            root_time: wire.root_time,
            holders: wire
                .holders
                .iter()
                .map(|id| NodeId::new(id))
                .collect::<Result<_>>()?,
            created_at: wire.created_at,
            refreshed_at: wire.refreshed_at,
            last_error: wire.last_error,
            shadowed_by: (!wire.shadowed_by.is_empty())
                .then(|| DisplayPath::new(&wire.shadowed_by))
                .transpose()?,
        })
    }
}

impl From<&model::Member> for v1::Member {
    fn from(member: &model::Member) -> Self {
        Self {
            id: member.id.to_string(),
            role: v1::Role::from(member.role).into(),
            address: member.address.clone(),
            external_address: member.external_address.clone(),
            weight: member.weight,
            zone: member.zone.clone(),
            state: v1::MemberState::from(member.state).into(),
            version: member.version.clone(),
            capacity_bytes: member.capacity_bytes,
            used_bytes: member.used_bytes,
            incarnation: member.incarnation,
            share_percent: member.share_percent,
            failed_over: member.failed_over,
        }
    }
}

impl TryFrom<v1::Member> for model::Member {
    type Error = Error;

    fn try_from(wire: v1::Member) -> Result<Self> {
        // A weight that is no number is not even equal to itself: the view would change for ever.
        if !wire.weight.is_finite() || wire.weight < 0.0 {
            return Err(Error::invalid(format!(
                "the weight of '{}' is {}; set --weight to a number over 0",
                wire.id.escape_debug(),
                wire.weight
            )));
        }
        Ok(Self {
            id: NodeId::new(&wire.id)?,
            role: wire.role().try_into()?,
            state: wire.state().try_into()?,
            address: wire.address,
            external_address: wire.external_address,
            weight: wire.weight,
            zone: wire.zone,
            version: wire.version,
            capacity_bytes: wire.capacity_bytes,
            used_bytes: wire.used_bytes,
            incarnation: wire.incarnation,
            share_percent: if wire.share_percent == 0 {
                100
            } else {
                wire.share_percent.min(100)
            },
            failed_over: wire.failed_over,
        })
    }
}

impl From<&model::ClusterView> for v1::ClusterView {
    fn from(view: &model::ClusterView) -> Self {
        Self {
            number: view.number,
            members: view.members.iter().map(v1::Member::from).collect(),
            replication_factor: view.replication_factor,
        }
    }
}

impl TryFrom<v1::ClusterView> for model::ClusterView {
    type Error = Error;

    fn try_from(wire: v1::ClusterView) -> Result<Self> {
        let members = wire
            .members
            .into_iter()
            .map(model::Member::try_from)
            .collect::<Result<_>>()?;
        Ok(Self {
            number: wire.number,
            members,
            replication_factor: wire.replication_factor,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_survives_the_wire() {
        let oid = |byte: u8| Oid::from_bytes(&[byte; 20]).expect("twenty bytes");
        let snapshot = model::Snapshot {
            commit: oid(1),
            root: oid(2),
            commit_time: -5,
            trees: 3,
            blobs: 4,
            bytes: 5,
            submodules: vec![model::Submodule {
                path: b"x\xff".to_vec(),
                url: "https://h/x".into(),
            }],
            generations: Some(GenerationRef::Node {
                own: 6,
                id: Oid::from_bytes(&[9; 32]).expect("thirty-two bytes"),
            }),
        };
        let repository = model::Repository {
            path: DisplayPath::new("h/org/x").expect("valid"),
            source: SourceUrl::new("https://h/org/x.git").expect("valid"),
            ref_name: RefName::new("main").expect("valid"),
            state: model::RepositoryState::Ready,
            snapshot: Some(snapshot),
            generation: 7,
            generation_time: Some(-3),
            root_time: Some(-4),
            holders: vec![NodeId::new("node1").expect("valid")],
            content: model::ContentMode::Lazy,
            consistency: model::Consistency::Strong,
            created_at: 8,
            refreshed_at: 9,
            last_error: "no".into(),
            shadowed_by: Some(DisplayPath::new("host/org").expect("valid")),
        };
        let back = model::Repository::try_from(v1::Repository::from(&repository)).expect("valid");
        assert_eq!(back, repository);
        let unset = v1::Repository {
            state: 0,
            ..v1::Repository::from(&repository)
        };
        assert!(model::Repository::try_from(unset).is_err());
    }

    fn member() -> v1::Member {
        v1::Member {
            id: "node-1".into(),
            role: v1::Role::Node.into(),
            state: v1::MemberState::Draining.into(),
            address: "10.0.0.1:9000".into(),
            external_address: "node-1.example:9000".into(),
            weight: 0.5,
            zone: "z".into(),
            version: "0.1.0".into(),
            capacity_bytes: 2,
            used_bytes: 1,
            incarnation: 3,
            share_percent: 25,
            failed_over: true,
        }
    }

    #[test]
    fn a_view_survives_the_wire() {
        let wire = v1::ClusterView {
            number: 9,
            members: vec![member()],
            replication_factor: 2,
        };
        let view = model::ClusterView::try_from(wire.clone()).expect("valid");
        assert_eq!(v1::ClusterView::from(&view), wire);
    }

    #[test]
    fn a_member_that_says_no_share_has_the_whole_one() {
        let shares = [(0, 100), (25, 25), (100, 100), (400, 100)];
        for (sent, understood) in shares {
            let wire = v1::Member {
                share_percent: sent,
                ..member()
            };
            let member = model::Member::try_from(wire).expect("valid");
            assert_eq!(member.share_percent, understood);
        }
    }

    #[test]
    fn a_weight_that_is_no_number_is_refused() {
        for weight in [f64::NAN, f64::INFINITY, -1.0] {
            let wire = v1::Member { weight, ..member() };
            let error = model::Member::try_from(wire).expect_err("no weight");
            assert!(error.message.contains("--weight"), "{error}");
        }
    }

    #[test]
    fn a_member_of_an_unknown_role_or_state_is_refused() {
        let no_role = v1::Member {
            role: 0,
            ..member()
        };
        assert!(model::Member::try_from(no_role).is_err());
        let newer_state = v1::Member {
            state: 99,
            ..member()
        };
        assert!(model::Member::try_from(newer_state).is_err());
    }

    #[test]
    fn a_snapshot_of_two_object_formats_is_refused() {
        let wire = v1::Snapshot {
            commit: Bytes::from_static(&[1; 20]),
            root: Bytes::from_static(&[2; 32]),
            ..v1::Snapshot::default()
        };
        let error = model::Snapshot::try_from(wire).expect_err("mixed");
        assert!(error.message.contains("formats"), "{error}");
        assert!(oids(&[Bytes::from_static(&[1; 19])]).is_err());
    }
}
