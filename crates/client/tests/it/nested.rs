//! Repositories inside repositories, through a mount: what is listed, looked up and read is what the
//! outer one has, and where it has nothing what lies inside.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use monofs_client::Mounted;
use monofs_testkit::Repo;
use monofs_testkit::random::{Rng, seed_or};

use crate::fake::FakeCluster;
use crate::on_mount;

/// Directories, and files with what is in them, by path.
type Shown = BTreeMap<String, Option<String>>;

fn walk(top: &Path, at: &Path, shown: &mut Shown) {
    for entry in fs::read_dir(at).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
        if entry.file_type().unwrap().is_dir() {
            shown.insert(name, None);
            walk(top, &path, shown);
        } else {
            shown.insert(name, Some(fs::read_to_string(&path).unwrap()));
        }
    }
}

async fn shown(mounted: &Mounted) -> Shown {
    on_mount(mounted, "", |at| {
        let mut shown = Shown::new();
        walk(at, at, &mut shown);
        shown
    })
    .await
}

/// A repository with these files; a path that ends with `@` is a submodule.
fn repository(files: &[&str], content: &str) -> Repo {
    let repo = Repo::new();
    commit(&repo, files, content);
    repo
}

fn commit(repo: &Repo, files: &[&str], content: &str) {
    let module = monofs_model::Oid::from_bytes(&[7; 20]).unwrap();
    repo.commit(|c| {
        c.delete_all();
        for file in files {
            match file.strip_suffix('@') {
                Some(path) => c.gitlink(path, &module),
                None => c.file(file, content),
            };
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_inside_another_is_shown_whichever_comes_first() {
    let outer = repository(&["core/main.mk", "envsetup.sh", "blueprint@"], "build");
    let soong = repository(&["Android.bp"], "soong");
    let blueprint = repository(&["doc.go"], "blueprint");
    let files = [
        ("platform/build/Android.bp", None),
        ("platform/build/core/main.mk", Some("build")),
        ("platform/build/envsetup.sh", Some("build")),
        ("platform/build/soong/Android.bp", Some("soong")),
        ("platform/build/blueprint/doc.go", Some("blueprint")),
        ("platform/build/core/deep/x/Android.bp", Some("soong")),
    ];
    let all = [
        ("platform/build", &outer),
        ("platform/build/soong", &soong),
        ("platform/build/blueprint", &blueprint),
        ("platform/build/core/deep/x", &soong),
    ];
    for backwards in [false, true] {
        let cluster = FakeCluster::start(1).await;
        let mounted = cluster.mount().await;
        let mut order: Vec<_> = all.into();
        if backwards {
            order.reverse();
        }
        for (path, repo) in order {
            // What is not there yet is remembered by the kernel as absent.
            on_mount(&mounted, "", move |at| {
                for (file, _) in files {
                    let _ = fs::metadata(at.join(file));
                }
            })
            .await;
            cluster.publish(path, repo, "main");
            cluster.applied().await;
        }
        on_mount(&mounted, "", move |at| {
            for (file, content) in files {
                let read = fs::read_to_string(at.join(file)).ok();
                assert_eq!(read.as_deref(), content, "{file}");
            }
            let mut names: Vec<_> = fs::read_dir(at.join("platform/build"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(names, ["blueprint", "core", "envsetup.sh", "soong"]);
        })
        .await;

        // The inner one goes, then the outer one under those that stay.
        cluster.remove("platform/build/soong");
        cluster.applied().await;
        cluster.remove("platform/build");
        cluster.applied().await;
        let left = shown(&mounted).await;
        let left: Vec<_> = left.iter().filter(|(_, is)| is.is_some()).collect();
        let expected = [
            ("platform/build/blueprint/doc.go", "blueprint"),
            ("platform/build/core/deep/x/Android.bp", "soong"),
        ];
        assert_eq!(left.len(), expected.len(), "{left:?}");
        for ((path, is), (file, content)) in left.into_iter().zip(expected) {
            assert_eq!((path.as_str(), is.as_deref()), (file, Some(content)));
        }
        mounted.unmount().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_brings_the_name_shadows_what_lies_there_until_the_name_goes() {
    let cluster = FakeCluster::start(1).await;
    let outer = repository(&["f"], "outer 1");
    let inner = repository(&["x"], "inner 1");
    cluster.publish("h/o", &outer, "main");
    cluster.publish("h/o/lib", &inner, "main");
    let mounted = cluster.mount().await;
    let reads = |file: &'static str| {
        on_mount(&mounted, "h/o", move |at| {
            fs::read_to_string(at.join(file)).ok()
        })
    };
    assert_eq!(reads("lib/x").await.as_deref(), Some("inner 1"));

    commit(&outer, &["f", "lib/own"], "outer 2");
    cluster.publish("h/o", &outer, "main");
    cluster.applied().await;
    assert_eq!(reads("lib/x").await, None);
    assert_eq!(reads("lib/own").await.as_deref(), Some("outer 2"));

    // An update of what is not shown changes nothing of what is.
    commit(&inner, &["x"], "inner 2");
    cluster.publish("h/o/lib", &inner, "main");
    cluster.applied().await;
    assert_eq!(reads("lib/x").await, None);
    assert_eq!(reads("lib/own").await.as_deref(), Some("outer 2"));

    commit(&outer, &["f"], "outer 3");
    cluster.publish("h/o", &outer, "main");
    cluster.applied().await;
    assert_eq!(reads("lib/x").await.as_deref(), Some("inner 2"));
    assert_eq!(reads("lib/own").await, None);
    commit(&inner, &["x"], "inner 3");
    cluster.publish("h/o/lib", &inner, "main");
    cluster.applied().await;
    assert_eq!(reads("lib/x").await.as_deref(), Some("inner 3"));
    mounted.unmount().await.unwrap();
}

/// What a mount must show of repositories with these files: a repository is there unless one around
/// it that is there has something of its own at that path, a submodule aside.
fn expected(repositories: &BTreeMap<String, (Vec<&str>, String)>) -> Shown {
    let mut shown = Shown::new();
    // What repositories have of their own, submodules aside.
    let mut own = Shown::new();
    let mut by_depth: Vec<_> = repositories.iter().collect();
    by_depth.sort_by_key(|(path, _)| path.len());
    for (path, (files, content)) in by_depth {
        let ends = path.match_indices('/').map(|(end, _)| end);
        let is_file = |end| own.get(&path[..end]).is_some_and(Option::is_some);
        if own.contains_key(path) || ends.clone().any(is_file) {
            continue;
        }
        for end in ends.chain([path.len()]) {
            shown.entry(path[..end].to_owned()).or_default();
        }
        for file in files {
            let (file, is_module) = match file.strip_suffix('@') {
                Some(file) => (format!("{path}/{file}"), true),
                None => (format!("{path}/{file}"), false),
            };
            for (end, _) in file.match_indices('/').filter(|(end, _)| *end > path.len()) {
                own.insert(file[..end].to_owned(), None);
                shown.insert(file[..end].to_owned(), None);
            }
            if is_module {
                shown.insert(file, None);
            } else {
                own.insert(file.clone(), Some(content.clone()));
                shown.insert(file, Some(content.clone()));
            }
        }
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_changes_a_mount_shows_what_the_repositories_around_leave_free() {
    const PATHS: [&str; 6] = ["h/o", "h/o/a", "h/o/a/b", "h/o/c/d", "h/o/a/b/c", "h/p"];
    const FILES: [&[&str]; 8] = [
        &["f"],
        &["a/f", "g"],
        &["a/b", "c/f"],
        &["a", "c/d/f"],
        &["a@", "c@"],
        &["a/b@", "d"],
        &["a/b/c/f"],
        &["c/d@", "b/f"],
    ];
    let seed = seed_or(7);
    let mut rng = Rng::new(seed);
    let cluster = FakeCluster::start(1).await;
    let mounted = cluster.mount().await;
    let mut all: BTreeMap<String, (Vec<&str>, String)> = BTreeMap::new();
    for step in 0..60 {
        for _ in 0..=rng.below(2) {
            let path = *rng.pick(&PATHS).unwrap();
            if all.contains_key(path) && rng.one_in(3) {
                all.remove(path);
                cluster.remove(path);
                continue;
            }
            let files = *rng.pick(&FILES).unwrap();
            let content = format!("{path} at step {step}");
            let repo = repository(files, &content);
            cluster.publish(path, &repo, "main");
            all.insert(path.to_owned(), (files.to_vec(), content));
        }
        cluster.applied().await;
        let expected = expected(&all);
        // By name first, so that not only listings make the kernel know something.
        let by_name = expected.clone();
        on_mount(&mounted, "", move |at| {
            for (path, is) in by_name {
                let found = fs::symlink_metadata(at.join(&path));
                let found =
                    found.unwrap_or_else(|e| panic!("seed {seed}, step {step}: {path}: {e}"));
                assert_eq!(
                    found.is_dir(),
                    is.is_none(),
                    "seed {seed}, step {step}: {path}"
                );
            }
        })
        .await;
        assert_eq!(
            shown(&mounted).await,
            expected,
            "seed {seed}, step {step}: {all:?}"
        );
    }
    mounted.unmount().await.unwrap();
}
