//! The router's embedded state: revisions, compare-and-set, restarts.

use std::sync::atomic::{AtomicU64, Ordering};

use monofs_model::ErrorKind;
use monofs_store::state::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use monofs_store::{CommitOutcome, Compare, StateEnv, Write};
use tempfile::tempdir;

fn put(key: &str, value: &str) -> Write {
    Write::Put {
        key: key.into(),
        value: value.into(),
    }
}

fn at(key: &str, revision: u64) -> Compare {
    Compare {
        key: key.into(),
        revision,
    }
}

#[test]
fn a_commit_needs_all_its_conditions() {
    let dir = tempdir().unwrap();
    let state = StateEnv::open(dir.path()).unwrap();
    assert_eq!(state.revision().unwrap(), 0);
    assert_eq!(
        state
            .commit(&[at("a", 0)], &[put("a", "1"), put("b", "1")])
            .unwrap(),
        CommitOutcome::Done { revision: 1 }
    );
    assert_eq!(
        state.commit(&[at("a", 0)], &[put("a", "2")]).unwrap(),
        CommitOutcome::Conflict
    );
    assert_eq!(
        state
            .commit(&[at("a", 1), at("b", 7)], &[put("a", "2")])
            .unwrap(),
        CommitOutcome::Conflict
    );
    assert_eq!(state.get(b"a").unwrap().unwrap().value, b"1");
    assert_eq!(state.revision().unwrap(), 1);
    assert_eq!(
        state.commit(&[at("a", 1)], &[put("a", "2")]).unwrap(),
        CommitOutcome::Done { revision: 2 }
    );
    let a = state.get(b"a").unwrap().unwrap();
    assert_eq!((a.value.as_slice(), a.revision), (&b"2"[..], 2));
    assert_eq!(state.get(b"b").unwrap().unwrap().revision, 1);
    // Comparing alone changes nothing, not even the revision.
    assert_eq!(
        state.commit(&[at("a", 2)], &[]).unwrap(),
        CommitOutcome::Done { revision: 2 }
    );
    // A deleted key is absent, whatever it was before.
    let delete = [Write::Delete { key: b"a".to_vec() }];
    assert_eq!(
        state.commit(&[at("a", 2)], &delete).unwrap(),
        CommitOutcome::Done { revision: 3 }
    );
    assert_eq!(state.get(b"a").unwrap(), None);
    assert_eq!(
        state.commit(&[at("a", 0)], &[put("a", "3")]).unwrap(),
        CommitOutcome::Done { revision: 4 }
    );
}

#[test]
fn scans_are_ordered_and_stay_within_their_prefix() {
    let dir = tempdir().unwrap();
    let state = StateEnv::open(dir.path()).unwrap();
    let writes: Vec<_> = ["repo/b", "repo/a", "node/1", "repo", "repo0", "repo/\u{7f}"]
        .map(|key| put(key, key))
        .into();
    state.commit(&[], &writes).unwrap();
    state
        .commit(
            &[],
            &[Write::Put {
                key: vec![0xff, 0xff],
                value: Vec::new(),
            }],
        )
        .unwrap();
    let keys = |prefix: &[u8]| {
        state
            .scan(prefix)
            .unwrap()
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(b"repo/"), [&b"repo/a"[..], b"repo/b", b"repo/\x7f"]);
    assert_eq!(keys(b"").len(), 7);
    assert_eq!(keys(&[0xff]), [vec![0xff, 0xff]]);
    assert_eq!(keys(b"x"), [b""; 0]);
    assert_eq!(keys(&[b'k'; KEY_BYTES_MAX + 1]), [b""; 0]);
    let scan = state.scan_at(b"node/").unwrap();
    assert_eq!((scan.rows.len(), scan.revision), (1, 2));
}

#[test]
fn revisions_and_the_epoch_survive_a_restart_and_a_new_database_has_another_epoch() {
    let dir = tempdir().unwrap();
    let state = StateEnv::open(dir.path()).unwrap();
    state.commit(&[], &[put("a", "1")]).unwrap();
    let epoch = state.epoch();
    assert_eq!(epoch.len(), 32);
    assert_eq!(
        StateEnv::open(dir.path()).err().unwrap().kind,
        ErrorKind::Refused
    );
    drop(state);
    let state = StateEnv::open(dir.path()).unwrap();
    assert_eq!(
        (state.epoch(), state.revision().unwrap()),
        (epoch.clone(), 1)
    );
    assert_eq!(state.get(b"a").unwrap().unwrap().revision, 1);
    let other = tempdir().unwrap();
    assert_ne!(StateEnv::open(other.path()).unwrap().epoch(), epoch);
}

#[test]
fn keys_as_long_as_a_display_path_fit_and_longer_ones_are_refused() {
    let dir = tempdir().unwrap();
    let state = StateEnv::open(dir.path()).unwrap();
    let longest = Write::Put {
        key: vec![b'k'; KEY_BYTES_MAX],
        value: vec![1; 5000],
    };
    state.commit(&[], &[longest]).unwrap();
    assert_eq!(
        state.get(&[b'k'; KEY_BYTES_MAX]).unwrap().unwrap().value,
        [1; 5000]
    );
    for key in [vec![], vec![b'k'; KEY_BYTES_MAX + 1]] {
        assert_eq!(state.get(&key).unwrap(), None);
        let compare = [Compare {
            key: key.clone(),
            revision: 0,
        }];
        assert_eq!(
            state.commit(&compare, &[]).unwrap(),
            CommitOutcome::Done { revision: 1 }
        );
        let write = [Write::Put {
            key,
            value: Vec::new(),
        }];
        assert_eq!(
            state.commit(&[], &write).unwrap_err().kind,
            ErrorKind::Invalid
        );
    }
    let huge = [Write::Put {
        key: b"a".to_vec(),
        value: vec![0; VALUE_BYTES_MAX + 1],
    }];
    assert_eq!(
        state.commit(&[], &huge).unwrap_err().kind,
        ErrorKind::Invalid
    );
}

#[test]
fn concurrent_increments_all_count() {
    const EACH: u64 = 50;
    let dir = tempdir().unwrap();
    let state = StateEnv::open(dir.path()).unwrap();
    let conflicts = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut done = 0;
                while done < EACH {
                    let seen = state.get(b"n").unwrap();
                    let (value, revision) = seen.map_or((0, 0), |row| {
                        (
                            u64::from_be_bytes(row.value.try_into().unwrap()),
                            row.revision,
                        )
                    });
                    let next = Write::Put {
                        key: b"n".to_vec(),
                        value: (value + 1).to_be_bytes().to_vec(),
                    };
                    match state.commit(&[at("n", revision)], &[next]).unwrap() {
                        CommitOutcome::Done { .. } => done += 1,
                        CommitOutcome::Conflict => drop(conflicts.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            });
        }
    });
    assert_eq!(
        state.get(b"n").unwrap().unwrap().value,
        (4 * EACH).to_be_bytes()
    );
    assert_eq!(state.revision().unwrap(), 4 * EACH);
}
