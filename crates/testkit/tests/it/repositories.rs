//! Generators against the reference model, with plain checkouts in the place of mounts.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use monofs_model::{ObjectFormat, Oid};
use monofs_testkit::hostile;
use monofs_testkit::model::{Checks, ExpectedKind, ExpectedTree, assert_matches_with, differences};
use monofs_testkit::random::{self, Rng};
use monofs_testkit::{Repo, git};

const CHECKOUT: Checks = Checks {
    mount: false,
    contents: true,
    exact_times: true,
};

/// A checkout without `.git` in a directory that lives as long as the repository.
fn checkout(repo: &Repo, name: &str) -> PathBuf {
    let dir = repo.parent().join(name);
    std::fs::create_dir(&dir).unwrap();
    let work_tree = format!("--work-tree={}", dir.display());
    git::run(
        &repo.path(),
        [
            "-c",
            "core.bare=false",
            &work_tree,
            "checkout",
            "-q",
            "-f",
            "main",
            "--",
            ".",
        ],
    );
    dir
}

#[test]
fn one_of_everything_is_what_git_checks_out() {
    for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
        let repo = Repo::with_format(format);
        let commit = repo.commit(|c| {
            c.one_of_everything();
        });
        assert_eq!(commit.format(), format);
        let expected = ExpectedTree::of(&repo, "main");
        assert_eq!(
            (expected.commit, expected.commit_time),
            (commit, git::EPOCH)
        );
        assert!(matches!(
            expected.entries[&b"bin/run"[..]].kind,
            ExpectedKind::File { exec: true, .. }
        ));
        assert!(matches!(
            expected.entries[&b"raw-\xff\xfe-name"[..]].kind,
            ExpectedKind::File {
                exec: false,
                size: 4
            }
        ));
        assert_matches_with(&checkout(&repo, "out"), &expected, CHECKOUT);
    }
}

#[test]
fn the_same_generator_makes_the_same_commit() {
    let make = || {
        Repo::new().commit(|c| {
            c.one_of_everything();
        })
    };
    assert_eq!(make(), make());
    let random = || random::populate(&Repo::new(), &mut Rng::new(7), 30);
    assert_eq!(random(), random());
}

#[test]
fn every_difference_is_seen() {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("plain", "12345")
            .exec("run", "x")
            .symlink("link", "plain")
            .file("dir/a", "a")
            .file("dir/b", "b");
    });
    let expected = ExpectedTree::of(&repo, "main");
    let dir = checkout(&repo, "out");
    assert!(differences(&dir, &expected, CHECKOUT).is_empty());
    let changes: [(&str, &dyn Fn()); 7] = [
        ("plain: its 5 bytes are object", &|| {
            std::fs::write(dir.join("plain"), "12346").unwrap()
        }),
        ("plain: has 4 bytes, should have 5", &|| {
            std::fs::write(dir.join("plain"), "1234").unwrap()
        }),
        ("run: has mode", &|| {
            std::fs::set_permissions(dir.join("run"), PermissionsExt::from_mode(0o644)).unwrap()
        }),
        ("dir/a: is missing", &|| {
            std::fs::remove_file(dir.join("dir/a")).unwrap()
        }),
        ("dir: lists extra", &|| {
            std::fs::write(dir.join("dir/extra"), "").unwrap()
        }),
        ("link: is FileType", &|| {
            std::fs::remove_file(dir.join("link")).unwrap();
            std::fs::write(dir.join("link"), "plain").unwrap();
        }),
        ("dir: cannot be listed", &|| {
            std::fs::remove_dir_all(dir.join("dir")).unwrap()
        }),
    ];
    for (said, change) in changes {
        change();
        let found = differences(&dir, &expected, CHECKOUT);
        assert!(
            found.iter().any(|line| line.starts_with(said)),
            "{said}: {found:?}"
        );
    }
    let attributes = differences(
        &checkout(&repo, "again"),
        &expected,
        Checks {
            mount: true,
            contents: false,
            exact_times: true,
        },
    );
    assert!(
        attributes
            .iter()
            .any(|line| line.contains("user.monofs.oid")),
        "{attributes:?}"
    );
    assert!(
        attributes.iter().any(|line| line.contains("mtime")),
        "{attributes:?}"
    );
}

#[test]
fn commits_replace_files_by_directories_and_back() {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("x", "file")
            .file("y/z", "in a directory")
            .file("old", "moves")
            .file("gone", "");
    });
    repo.commit(|c| {
        c.file("x/inside", "now a directory")
            .file("y", "now a file")
            .rename("old", "n/new")
            .delete("gone");
    });
    let expected = ExpectedTree::of(&repo, "main");
    let paths: Vec<String> = expected
        .entries
        .keys()
        .map(|path| String::from_utf8(path.clone()).unwrap())
        .collect();
    assert_eq!(paths, ["n", "n/new", "x", "x/inside", "y"]);
    assert_eq!(expected.commit_time, git::EPOCH + 60);
    assert_ne!(repo.rev("main~1"), expected.commit);
    assert_matches_with(&checkout(&repo, "out"), &expected, CHECKOUT);
}

#[test]
fn random_edits_stay_what_git_checks_out() {
    let seed = random::seed_or(42);
    let repo = Repo::new();
    let mut rng = Rng::new(seed);
    random::populate(&repo, &mut rng, 60);
    let mut last = ExpectedTree::of(&repo, "main");
    for round in 0..8 {
        random::edit(&repo, &mut rng, 15);
        let next = ExpectedTree::of(&repo, "main");
        assert_ne!(last.root, next.root, "seed {seed}, round {round}");
        assert_matches_with(&checkout(&repo, &format!("out-{round}")), &next, CHECKOUT);
        last = next;
    }
    assert!(last.entries.len() > 20, "seed {seed}");
}

/// A change must not name what an earlier one of the same commit took away: Git refuses the whole
/// commit. And no name may be longer than file systems allow.
#[test]
fn every_commit_of_random_edits_can_be_shown() {
    let (repo, mut rng) = (Repo::new(), random::Rng::new(7));
    random::populate(&repo, &mut rng, 60);
    for _ in 0..20 {
        random::edit(&repo, &mut rng, 40);
        let paths = ExpectedTree::of(&repo, "main").entries.into_keys();
        let longest = paths
            .flat_map(|path| path.split(|&byte| byte == b'/').map(<[u8]>::len).max())
            .max();
        assert!(longest.is_some_and(|len| len <= 255), "{longest:?}");
    }
}

#[test]
fn huge_and_deep_directories_are_made_quickly() {
    let repo = Repo::new();
    repo.commit(|c| {
        c.many("huge", 100_000).deep("deep", 1000);
    });
    let expected = ExpectedTree::of(&repo, "main");
    // The directory, its entries, the thousand levels with their top and the file at the end.
    assert_eq!(expected.entries.len(), 1 + 100_000 + 1 + 1000 + 1);
}

#[test]
fn submodules_know_their_urls() {
    let repo = Repo::new();
    let commit: Oid = "1111111111111111111111111111111111111111".parse().unwrap();
    repo.commit(|c| {
        c.submodule("ext/lib", "https://example.com/lib.git", &commit)
            .gitlink("bare", &commit);
    });
    let expected = ExpectedTree::of(&repo, "main");
    let url = Some("https://example.com/lib.git".to_owned());
    assert_eq!(
        expected.entries[&b"ext/lib"[..]].kind,
        ExpectedKind::Submodule { url }
    );
    assert_eq!(
        expected.entries[&b"bare"[..]].kind,
        ExpectedKind::Submodule { url: None }
    );
    assert!(expected.entries.contains_key(&b".gitmodules"[..]));
}

#[test]
fn hostile_repositories_hold_what_they_say() {
    let all = hostile::refused_trees();
    assert!(all.len() >= 15);
    for made in &all {
        assert_eq!(made.repo.rev("main"), made.commit, "{}", made.what);
    }
    let twice = all
        .iter()
        .find(|made| made.what == "the same name twice")
        .unwrap();
    let raw = twice.repo.git(["cat-file", "tree", "main^{tree}"]);
    assert_eq!(
        raw.windows(5).filter(|window| window == b"same\0").count(),
        2
    );
    let link = hostile::long_symlink(1 << 20);
    assert!(matches!(
        ExpectedTree::of(&link.repo, "main").entries[&b"link"[..]].kind,
        ExpectedKind::Symlink { size: 1_048_576 }
    ));
    let (made, victim) = hostile::mismatched_blob();
    let checked = git::command(&made.repo.path())
        .args(["fsck", "--full"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(
        !checked.status.success() && said.contains(&victim.to_string()[2..]),
        "{said}"
    );
}

#[test]
fn damaged_packs_are_damaged() {
    let repo = Repo::new();
    repo.commit(|c| {
        c.one_of_everything();
    });
    repo.damage_pack(|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
    });
    assert_eq!(repo.packs().len(), 1);
    assert!(
        !git::command(&repo.path())
            .args(["fsck", "--full"])
            .output()
            .unwrap()
            .status
            .success()
    );
}
