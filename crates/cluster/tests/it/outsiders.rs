//! Programs and containers that go on while the client's process is replaced.

use std::path::{Path, PathBuf};
use std::process::Command;

use monofs_testkit::process::binary;
use monofs_testkit::remotes::GitDaemon;
use monofs_testkit::{Process, Repo, wait_until};

use crate::processes::Processes;
use crate::system::{SOON, can_mount};

/// Ingests the repository at `h/r` and returns what serves it.
fn ingest(processes: &Processes, repo: &Repo) -> GitDaemon {
    let daemon = GitDaemon::serve(repo.parent());
    let source = daemon.url(repo.path().file_name().unwrap().to_str().unwrap());
    succeed(
        processes,
        &[
            "ingest",
            "--source",
            &source,
            "--ref=main",
            "--path=h/r",
            "--wait",
        ],
    );
    daemon
}

fn succeed(processes: &Processes, args: &[&str]) {
    let done = processes.admin(args);
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{args:?}: {error}");
}

#[test]
fn watch_prints_a_line_for_each_changed_path_and_a_reset_when_the_mount_was_made_anew() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("src/a", "a");
    });
    let processes = Processes::start();
    let _daemon = ingest(&processes, &repo);
    let mount = processes.dir.path().join("mount");
    let mut client = processes.mount(&mount);
    wait_until("the repository is shown", SOON, || {
        mount.join("h/r/src").exists()
    });

    let watched = mount.join("h/r").display().to_string();
    let args = ["watch".to_owned(), watched.clone(), "--json".to_owned()];
    let mut watch = Process::spawn_with(binary("monofs-client"), args, Vec::new());
    watch.wait_line("watching", SOON);
    let commit = repo.commit(|c| {
        c.file("src/a", "changed").file("src/b", "b");
    });
    succeed(&processes, &["refresh", "h/r"]);
    let line = watch.wait_line("src/b", SOON);
    let expected =
        format!("{{\"change\":\"added\",\"path\":\"{watched}/src/b\",\"commit\":\"{commit}\"}}");
    assert_eq!(line, expected);
    let modified = format!("\"modified\",\"path\":\"{watched}/src/a\"");
    assert!(watch.log().iter().any(|line| line.contains(&modified)));

    // It outlives the client and says that it cannot know what happened meanwhile.
    client.kill();
    watch.wait_line("waiting for it", SOON);
    client.restart();
    let reset = format!("{{\"change\":\"reset\",\"path\":\"{watched}\"}}");
    assert_eq!(watch.wait_line("reset", SOON), reset);
    assert!(watch.is_running());
}

/// A directory on which this test mounted something, until it is dropped.
struct MountedHere(PathBuf);

impl MountedHere {
    /// A shared mount of its own, as the parent of a mount point is on a host.
    fn shared(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let at = at.to_owned();
        run(Command::new("mount").arg("--bind").arg(&at).arg(&at));
        run(Command::new("mount").arg("--make-shared").arg(&at));
        Self(at)
    }
}

impl Drop for MountedHere {
    fn drop(&mut self) {
        // Below it nothing is mounted any more; a failure must not hide that of the test.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {done:?}");
}

#[test]
fn a_container_that_binds_the_parent_as_a_slave_sees_the_files_of_the_restarted_client() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("file", "first");
    });
    let processes = Processes::start();
    let _daemon = ingest(&processes, &repo);
    let parent = MountedHere::shared(&processes.dir.path().join("mounts"));
    let mount = parent.0.join("monofs");
    let mut client = processes.mount(&mount);
    wait_until("the file is shown", SOON, || {
        mount.join("h/r/file").exists()
    });

    // Two binds in a mount namespace of its own, as container engines make them: of the parent, and
    // of the mount point itself.
    let inside = processes.dir.path().join("inside");
    std::fs::create_dir_all(inside.join("parent")).unwrap();
    std::fs::create_dir_all(inside.join("mount")).unwrap();
    let script = "mount --rbind \"$1\" parent && mount --make-rslave parent && \
        mount --bind \"$1/monofs\" mount || exit 1
        while sleep 0.1; do
            echo \"parent: $(cat parent/monofs/h/r/file 2>&1)\"
            echo \"mount: $(cat mount/h/r/file 2>&1)\"
        done";
    let script = format!("cd {} && {script}", inside.display());
    let parent_text = parent.0.display().to_string();
    let args = [
        "--mount",
        "--propagation=slave",
        "sh",
        "-c",
        &script,
        "sh",
        &parent_text,
    ];
    let mut container = Process::spawn_with("/usr/bin/unshare".into(), args, Vec::new());
    container.wait_line("parent: first", SOON);
    container.wait_line("mount: first", SOON);

    // The client is killed, the commit changes, and the client comes back.
    client.kill();
    repo.commit(|c| {
        c.file("file", "second");
    });
    succeed(&processes, &["refresh", "h/r"]);
    client.restart();
    container.wait_line("parent: second", SOON);
    container.clear_log();
    // Why the mount point itself is not to be bound: it stays with the client that is gone.
    let stale = container.wait_line("mount: ", SOON);
    assert!(!stale.contains("second"), "{stale}");
}

#[test]
fn a_tool_that_writes_beside_the_sources_works_in_an_overlay_and_leaves_the_mount_alone() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("src/in", "text")
            .exec("build", "#!/bin/sh\nsort src/in >src/out\n");
    });
    let processes = Processes::start();
    let _daemon = ingest(&processes, &repo);
    let mount = processes.dir.path().join("mount");
    let _client = processes.mount(&mount);
    let lower = mount.join("h/r");
    wait_until("the repository is shown", SOON, || {
        lower.join("build").exists()
    });

    // As docs/semantics.md says.
    let [upper, work, tree] = ["upper", "work", "tree"].map(|name| processes.dir.path().join(name));
    for directory in [&upper, &work, &tree] {
        std::fs::create_dir(directory).unwrap();
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let overlay = ["-t", "overlay", "overlay", "-o", &options];
    run(Command::new("mount").args(overlay).arg(&tree));
    let mounted = MountedHere(tree.clone());
    run(Command::new("./build").current_dir(&tree));
    std::fs::write(tree.join("src/in"), "changed").unwrap();
    assert_eq!(std::fs::read(tree.join("src/out")).unwrap(), b"text\n");
    assert_eq!(std::fs::read(lower.join("src/in")).unwrap(), b"text");
    assert!(!lower.join("src/out").exists());
    drop(mounted);
    assert!(upper.join("src/out").exists());
}
