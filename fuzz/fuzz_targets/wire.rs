//! Messages of other processes: decoded, converted to the model, used, and converted back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monofs_model::view::Role;
use monofs_model::{ClusterView, DisplayPath, NodeId, Repository, Snapshot};
use monofs_proto::v1;
use prost::Message;

fuzz_target!(init: seed(), |data: &[u8]| {
    if let Ok(wire) = v1::Repository::decode(data)
        && let Ok(repository) = Repository::try_from(wire)
    {
        assert_eq!(Repository::try_from(v1::Repository::from(&repository)).as_ref(), Ok(&repository));
    }
    if let Ok(wire) = v1::Snapshot::decode(data)
        && let Ok(snapshot) = Snapshot::try_from(wire)
    {
        assert_eq!(Snapshot::try_from(v1::Snapshot::from(&snapshot)).as_ref(), Ok(&snapshot));
    }
    if let Ok(wire) = v1::ClusterView::decode(data)
        && let Ok(view) = ClusterView::try_from(wire)
    {
        check_view(&view);
    }
    // What servers receive; tonic hands these over as they are.
    let _ = (v1::WatchRequest::decode(data), v1::HeartbeatRequest::decode(data), v1::IngestRequest::decode(data));
    let _ = (v1::WatchResponse::decode(data), v1::CatalogDelta::decode(data));
    if let Ok(request) = v1::GetTreesRequest::decode(data) {
        let _ = monofs_proto::convert::oids(&request.oids);
    }
    let _ = (v1::GetBlobsRequest::decode(data), v1::GetBlobsResponse::decode(data));
});

fn check_view(view: &ClusterView) {
    let key = DisplayPath::new("h/x").expect("valid").storage_id();
    let holders: Vec<NodeId> = view
        .members
        .iter()
        .map(|member| member.id.clone())
        .collect();
    let readers = view.readers(&key, &holders);
    assert!(
        readers
            .iter()
            .all(|member| member.role == Role::Node && member.state.serves())
    );
    let _ = view.fetchers_for(&key);
    let back = ClusterView::try_from(v1::ClusterView::from(view)).expect(
        "what was taken can be \
     sent on",
    );
    assert_eq!(back.members.len(), view.members.len());
}

/// One good message of each kind that is converted.
fn seed() {
    let snapshot = v1::Snapshot {
        commit: vec![1; 20].into(),
        root: vec![2; 20].into(),
        commit_time: 3,
        submodules: vec![v1::Submodule {
            path: b"a".to_vec().into(),
            url: "https://h/a".into(),
        }],
        ..Default::default()
    };
    monofs_fuzz::keep("wire", "snapshot", &snapshot.encode_to_vec());
    let repository = v1::Repository {
        path: "h/org/x".into(),
        source: "https://h/org/x.git".into(),
        ref_name: "main".into(),
        state: 2,
        content: 1,
        consistency: 1,
        snapshot: Some(snapshot),
        holders: vec!["node1".into()],
        ..Default::default()
    };
    monofs_fuzz::keep("wire", "repository", &repository.encode_to_vec());
    let members = vec![
        member("node1", 1, 1.0),
        member("node2", 1, f64::NAN),
        member("fetcher1", 2, -1.0),
    ];
    let view = v1::ClusterView {
        number: 1,
        members,
        replication_factor: 2,
    };
    monofs_fuzz::keep("wire", "view", &view.encode_to_vec());
}

fn member(id: &str, role: i32, weight: f64) -> v1::Member {
    v1::Member {
        id: id.into(),
        role,
        address: "h:1".into(),
        weight,
        state: 2,
        ..Default::default()
    }
}
