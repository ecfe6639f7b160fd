//! Repositories inside repositories, from their remotes to a mount: when one is added, refused,
//! shadowed and shown again.

use monofs_cluster::Ingest;
use monofs_model::{ErrorKind, Oid, Repository};
use monofs_testkit::Repo;
use monofs_testkit::wait::wait_until_async;

use crate::system::{SOON, System, can_mount, off_thread};

const OUTER: &str = "gerrit/platform/build";
const INNER: &str = "gerrit/platform/build/soong";

/// A repository with these files; a path that ends with `@` is a submodule.
fn repository(files: &[&str]) -> Repo {
    let repo = Repo::new();
    commit(&repo, files);
    repo
}

fn commit(repo: &Repo, files: &[&str]) {
    let module = Oid::from_bytes(&[7; 20]).unwrap();
    repo.commit(|c| {
        c.delete_all();
        for file in files {
            match file.strip_suffix('@') {
                Some(path) => c.gitlink(path, &module),
                None => c.file(file, *file),
            };
        }
    });
}

async fn ingest(system: &System, repo: &Repo, path: &str) -> monofs_model::Result<Repository> {
    let what = Ingest::of(repo.url()).at("main").shown_as(path);
    system.cluster.ingest(what).await
}

/// Waits until the mount shows these files below the outer repository, and no others.
async fn assert_files(system: &System, files: &[&str]) {
    let at = system.at(OUTER);
    let expected: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
    let shows = || {
        let at = at.clone();
        let expected = expected.clone();
        async move {
            off_thread(move || {
                let mut command = std::process::Command::new("find");
                let found = command.args([".", "-type", "f", "-printf", "%P\n"]);
                let found = found.current_dir(&at).output().unwrap();
                let mut found: Vec<_> = String::from_utf8(found.stdout)
                    .unwrap()
                    .lines()
                    .map(str::to_owned)
                    .collect();
                found.sort();
                found == expected
            })
            .await
        }
    };
    wait_until_async(&format!("the mount shows {files:?}"), SOON, shows).await;
}

async fn wait_shadowed_by(system: &System, outer: Option<&str>) {
    let is_so = || async {
        let inner = system.cluster.repository(INNER).await.unwrap();
        inner.shadowed_by.as_ref().map(|path| path.as_str()) == outer
    };
    wait_until_async("the inner repository is shadowed or shown", SOON, is_so).await;
    let status = system.cluster.status().await.unwrap();
    let told = status.problems.iter().any(|line| {
        line.contains("shadowed") && line.contains(&format!("monofs-admin repo {INNER}"))
    });
    assert_eq!(told, outer.is_some(), "{:?}", status.problems);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_of_the_repository_around_shadows_and_shows_again() {
    if !can_mount() {
        return;
    }
    let outer = repository(&["core/main.mk", "envsetup.sh"]);
    let inner = repository(&["Android.bp"]);
    let system = System::start().await;
    ingest(&system, &outer, OUTER).await.unwrap();
    let added = ingest(&system, &inner, INNER).await.unwrap();
    assert_eq!(added.shadowed_by, None);
    let both = ["core/main.mk", "envsetup.sh", "soong/Android.bp"];
    assert_files(&system, &both).await;
    wait_shadowed_by(&system, None).await;

    // The name comes: the outer one flips, and the inner one is kept.
    commit(&outer, &["core/main.mk", "soong/own.go"]);
    system.cluster.refresh(OUTER).await.unwrap();
    assert_files(&system, &["core/main.mk", "soong/own.go"]).await;
    wait_shadowed_by(&system, Some(OUTER)).await;

    // It is still updated, and a copy of it is still wanted.
    commit(&inner, &["Android.bp", "new.bp"]);
    let updated = system.cluster.refresh(INNER).await.unwrap();
    assert_eq!(updated.snapshot.unwrap().commit, inner.rev("main"));
    wait_shadowed_by(&system, Some(OUTER)).await;
    assert_files(&system, &["core/main.mk", "soong/own.go"]).await;

    // The name goes.
    commit(&outer, &["core/main.mk"]);
    system.cluster.refresh(OUTER).await.unwrap();
    let all = ["core/main.mk", "soong/Android.bp", "soong/new.bp"];
    assert_files(&system, &all).await;
    wait_shadowed_by(&system, None).await;

    // The outer one goes and comes again around the inner one; then the inner one goes.
    system.cluster.delete(OUTER).await.unwrap();
    assert_files(&system, &["soong/Android.bp", "soong/new.bp"]).await;
    ingest(&system, &outer, OUTER).await.unwrap();
    assert_files(&system, &all).await;
    system.cluster.delete(INNER).await.unwrap();
    assert_files(&system, &["core/main.mk"]).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_is_refused_where_one_around_it_has_the_name() {
    if !can_mount() {
        return;
    }
    let outer = repository(&["a/b/f", "file", "module@"]);
    let inner = repository(&["x"]);
    let system = System::start().await;
    ingest(&system, &outer, OUTER).await.unwrap();
    for taken in ["a", "a/b", "a/b/f", "file", "file/below"] {
        let path = format!("{OUTER}/{taken}");
        let error = ingest(&system, &inner, &path).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{path}: {error}");
        let names_it = error.message.contains(&format!("'{OUTER}' around it"));
        assert!(names_it, "{path}: {error}");
        assert!(system.cluster.repository(&path).await.is_err(), "{path}");
    }
    for free in ["a/c", "a/b/c/d", "module", "z"] {
        ingest(&system, &inner, &format!("{OUTER}/{free}"))
            .await
            .unwrap_or_else(|e| panic!("{free}: {e}"));
    }
    // What lies in one of these is looked for there.
    let deeper = format!("{OUTER}/z/x");
    let error = ingest(&system, &inner, &deeper).await.unwrap_err();
    assert!(error.message.contains("/z' around it"), "{error}");
    let files = ["a/b/c/d/x", "a/b/f", "a/c/x", "file", "module/x", "z/x"];
    assert_files(&system, &files).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_repository_around_may_come_later_and_have_the_name() {
    if !can_mount() {
        return;
    }
    let outer = repository(&["soong/own.go"]);
    let inner = repository(&["Android.bp"]);
    let system = System::start().await;
    ingest(&system, &inner, INNER).await.unwrap();
    assert_files(&system, &["soong/Android.bp"]).await;
    ingest(&system, &outer, OUTER).await.unwrap();
    assert_files(&system, &["soong/own.go"]).await;
    wait_shadowed_by(&system, Some(OUTER)).await;
    system.cluster.delete(OUTER).await.unwrap();
    assert_files(&system, &["soong/Android.bp"]).await;
    wait_shadowed_by(&system, None).await;
    system.stop().await;
}
