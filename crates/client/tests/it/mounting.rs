//! From mount to unmount: what is listed, what attributes say, what a bad mount point and an old
//! mount do.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use monofs_client::{Config, mount};
use monofs_model::{ErrorKind, ObjectFormat};
use monofs_testkit::disk::SmallDisk;
use monofs_testkit::model::xattr;
use monofs_testkit::{ExpectedTree, Repo, assert_matches};

use crate::fake::FakeCluster;
use crate::{blocking, on_mount};

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_listed_and_read_through_the_mount() {
    for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
        let cluster = FakeCluster::start(2).await;
        let repo = Repo::with_format(format);
        repo.commit(|c| {
            c.one_of_everything();
        });
        cluster.publish("example.org/org/repo", &repo, "main");
        let mounted = cluster.mount().await;
        let expected = ExpectedTree::of(&repo, "main");
        on_mount(&mounted, "example.org/org/repo", move |at| {
            assert_matches(at, &expected)
        })
        .await;
        mounted.unmount().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opens_are_never_sent_and_a_second_walk_asks_nothing() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.many("d", 300)
            .file("d/sub/x", "x")
            .file("top", "t")
            .symlink("link", "top");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let walk = |root: &std::path::Path| {
        let script = "find . -size +0 >/dev/null && cat $(find . -type f) link | wc -c";
        let done = Command::new("sh")
            .args(["-c", script])
            .current_dir(root)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        done.stdout
    };
    let first = on_mount(&mounted, "h/r", walk).await;
    assert!(fs::read_link(mounted.path().join("h/r/absent")).is_err());
    let before = mounted.status().unwrap().upcalls;
    let second = on_mount(&mounted, "h/r", walk).await;
    assert!(fs::read_link(mounted.path().join("h/r/absent")).is_err());
    assert_eq!(first, second);
    let after = mounted.status().unwrap().upcalls;
    for kind in [
        "lookup",
        "getattr",
        "readlink",
        "open",
        "opendir",
        "read",
        "readdir",
        "readdirplus",
    ] {
        assert_eq!(before[kind], after[kind], "{kind} requests of a warm walk");
    }
    assert!(
        after["open"] <= 1 && after["opendir"] <= 1,
        "one open each tells the kernel not to ask: {after:?}"
    );
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_name_the_inodes_that_stat_finds() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.one_of_everything();
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    for path in ["", "h", "h/r"] {
        on_mount(&mounted, path, |at| {
            for entry in fs::read_dir(at).unwrap() {
                let entry = entry.unwrap();
                assert_eq!(
                    entry.ino(),
                    fs::symlink_metadata(entry.path()).unwrap().ino(),
                    "{entry:?}"
                );
            }
        })
        .await;
    }
    let me = mounted.path().metadata().unwrap();
    assert_eq!(
        (me.uid(), me.ino()),
        (rustix::process::getuid().as_raw(), 1)
    );
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_names_and_names_that_are_not_text() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    let odd: &[u8] = b"odd-\xff\xfe\x01name";
    repo.commit(|c| {
        c.many("big", 100_000).file([b"odd/", odd].concat(), "odd");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r", move |at| {
        let names: BTreeSet<_> = fs::read_dir(at.join("big"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 100_000);
        let odd = at.join("odd").join(OsStr::from_bytes(odd));
        assert_eq!(fs::read(odd).unwrap(), b"odd");
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_tell_where_things_come_from() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    let module = monofs_model::Oid::from_bytes(&[7; 20]).unwrap();
    let commit = repo.commit(|c| {
        c.file("d/f", "f").gitlink("mod/ule", &module);
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let blob = monofs_model::Oid::of(ObjectFormat::Sha1, monofs_model::ObjectKind::Blob, b"f");
    on_mount(&mounted, "", move |at| {
        let value = |path: &str, name: &str| {
            xattr(&at.join(path), name).map(|v| String::from_utf8(v).unwrap())
        };
        assert_eq!(
            value("h/r/d/f", "user.monofs.oid").unwrap(),
            blob.to_string()
        );
        assert_eq!(
            value("h/r/d", "user.monofs.commit").unwrap(),
            commit.to_string()
        );
        assert_eq!(value("h/r", "user.monofs.repo").unwrap(), "h/r");
        assert_eq!(
            value("h/r/d/f", "user.monofs.source").unwrap(),
            "https://example.org/org/repo.git"
        );
        let submodule = value("h/r/mod/ule", "user.monofs.submodule").unwrap();
        assert_eq!(
            submodule,
            format!("https://example.org/module.git@{module}")
        );
        assert_eq!(fs::read_dir(at.join("h/r/mod/ule")).unwrap().count(), 0);
        for (path, name) in [
            ("h", "user.monofs.oid"),
            ("h/r/d", "user.monofs.submodule"),
            ("h/r", "user.other"),
        ] {
            assert_eq!(
                value(path, name).unwrap_err().raw_os_error(),
                Some(libc::ENODATA),
                "{path} {name}"
            );
        }
        // Only the root of a repository lists them.
        let listed = listed_xattrs(&at.join("h/r"));
        assert_eq!(
            listed,
            ["oid", "commit", "repo", "source"].map(|name| format!("user.monofs.{name}"))
        );
        for path in ["", "h", "h/r/d", "h/r/d/f", "h/r/mod", "h/r/mod/ule"] {
            assert!(listed_xattrs(&at.join(path)).is_empty(), "{path}");
        }
    })
    .await;
    mounted.unmount().await.unwrap();
}

/// The names of the attributes that an entry lists; of a symlink, not of its target.
fn listed_xattrs(path: &Path) -> Vec<String> {
    let mut list = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..len].split(|&b| b == 0);
    names
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8(name.to_vec()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_what_is_in_a_repository_has_no_attributes_of_ours() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("d/f", "f").symlink("link", "d/f").exec("run", "x");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r", |at| {
        let parent = tempfile::tempdir().unwrap();
        let disk_at = parent.path().join("disk");
        let disk = SmallDisk::mount(&disk_at, 16 << 20);
        let copied = Command::new("cp")
            .args(["--archive", "--preserve=xattr", "d", "link", "run"])
            .arg(&disk_at)
            .current_dir(at)
            .output()
            .unwrap();
        assert!(copied.status.success(), "{copied:?}");
        assert_eq!(fs::read(disk_at.join("d/f")).unwrap(), b"f");
        for path in ["d", "d/f", "link", "run"] {
            assert!(listed_xattrs(&disk_at.join(path)).is_empty(), "{path}");
        }
        for path in ["d", "d/f", "run"] {
            assert!(xattr(&at.join(path), "user.monofs.oid").is_ok(), "{path}");
        }
        drop(disk);
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_hidden_live_and_true() {
    let cluster = FakeCluster::start(2).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "f");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "", |at| {
        let status = || fs::read_to_string(at.join(".monofs/status")).unwrap();
        let names: Vec<_> = fs::read_dir(at)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["h"]);
        assert_eq!(fs::read_dir(at.join(".monofs")).unwrap().count(), 1);
        let before = status();
        assert!(
            before.contains("\"repositories\": 1") && before.contains("\"connected\": true"),
            "{before}"
        );
        assert!(
            before.contains("\"node1\"") && before.contains("\"problems\": []"),
            "{before}"
        );
        assert_eq!(fs::metadata(at.join(".monofs/status")).unwrap().nlink(), 1);
        fs::read(at.join("h/r/f")).unwrap();
        let after = status();
        assert!(after.contains("\"chunks_fetched\": 1"), "{after}");
        assert_ne!(before, after);
        assert!(fs::read(at.join(".monofs/other")).is_err());
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_changed() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("d/f", "f");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r", |at| {
        let refusals = [
            fs::write(at.join("new"), "x"),
            fs::write(at.join("d/f"), "x"),
            fs::remove_file(at.join("d/f")),
            fs::create_dir(at.join("x")),
            fs::remove_dir(at.join("d")),
            fs::rename(at.join("d"), at.join("e")),
            fs::hard_link(at.join("d/f"), at.join("g")),
            std::os::unix::fs::symlink("a", at.join("s")),
        ];
        for refusal in refusals {
            assert_eq!(refusal.unwrap_err().raw_os_error(), Some(libc::EROFS));
        }
        let space = rustix::fs::statvfs(at).unwrap();
        let is_read_only = space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
        assert_eq!((is_read_only, space.f_namemax), (true, 255));
        assert!(space.f_blocks > space.f_bfree);
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_mount_point_and_a_busy_cache_are_refused_and_a_busy_mount_is_let_go() {
    let cluster = FakeCluster::start(1).await;
    let mounted = cluster.mount().await;
    let again = mount(cluster.config()).await.map(drop).unwrap_err();
    assert_eq!(again.kind, ErrorKind::Refused);
    assert!(again.message.contains("busy"), "{again}");
    let elsewhere = cluster.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let same_cache = mount(Config {
        mount: elsewhere.clone(),
        ..cluster.config()
    })
    .await
    .map(drop)
    .unwrap_err();
    assert_eq!(same_cache.kind, ErrorKind::Refused);
    // A process that sits in the mount does not keep it.
    let mut sitting = Command::new("sleep")
        .arg("60")
        .current_dir(mounted.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let path = mounted.path().to_owned();
    mounted.unmount().await.unwrap();
    assert!(!is_mounted(&path));
    sitting.kill().unwrap();
    sitting.wait().unwrap();
    // And everything can be had again.
    cluster.mount().await.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_somebody_else_takes_away_ends() {
    let cluster = FakeCluster::start(1).await;
    let mounted = cluster.mount().await;
    let path = mounted.path().to_owned();
    assert!(
        Command::new("umount")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    tokio::time::timeout(std::time::Duration::from_secs(5), mounted.ended())
        .await
        .unwrap();
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_mount_is_not_left_behind() {
    let cluster = FakeCluster::start(1).await;
    let mounted = cluster.mount().await;
    let path = mounted.path().to_owned();
    blocking(move || drop(mounted)).await;
    assert!(!is_mounted(&path));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mount_of_a_dead_client_is_cleared_away() {
    let cluster = FakeCluster::start(1).await;
    let path = cluster.config().mount;
    stale_mount(&path);
    let mounted = cluster.mount().await;
    on_mount(&mounted, "", |at| {
        assert_eq!(fs::read_dir(at).unwrap().count(), 0)
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_mount_whose_attributes_are_still_cached_is_cleared_away() {
    let cluster = FakeCluster::start(1).await;
    let dead = cluster.mount().await;
    let held = on_mount(&dead, "", |at| {
        fs::metadata(at).and_then(|_| fs::File::open(at)).unwrap()
    })
    .await;
    // Force on a mount that is in use ends its connection and leaves it where it is.
    let forced = rustix::mount::unmount(dead.path(), rustix::mount::UnmountFlags::FORCE);
    assert_eq!(forced, Err(rustix::io::Errno::BUSY));
    let mut config = cluster.config();
    config.cache_dir.set_extension("other");
    let mounted = monofs_client::mount(config).await.unwrap();
    on_mount(&mounted, "", |at| {
        assert_eq!(fs::read_dir(at).unwrap().count(), 0)
    })
    .await;
    drop(held);
    mounted.unmount().await.unwrap();
    blocking(move || drop(dead)).await;
}

/// Leaves a FUSE mount whose server is gone: the device is closed while it is mounted.
fn stale_mount(path: &std::path::Path) {
    let device = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&device);
    let options =
        std::ffi::CString::new(format!("fd={fd},rootmode=40000,user_id=0,group_id=0")).unwrap();
    rustix::mount::mount(
        "stale",
        path,
        "fuse",
        rustix::mount::MountFlags::empty(),
        Some(options.as_c_str()),
    )
    .unwrap();
    drop(device);
    assert_eq!(
        fs::metadata(path).unwrap_err().raw_os_error(),
        Some(libc::ENOTCONN)
    );
}

fn is_mounted(path: &std::path::Path) -> bool {
    let path = path.to_str().unwrap();
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(path))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_forgets_is_forgotten() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.many("d", 2000);
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let empty = mounted.status().unwrap().inodes;
    on_mount(&mounted, "h/r/d", |at| {
        assert_eq!(fs::read_dir(at).unwrap().count(), 2000)
    })
    .await;
    assert!(mounted.status().unwrap().inodes >= empty + 2000);
    // Taking the repository away drops its names, and the kernel its inodes.
    cluster.remove("h/r");
    cluster.applied().await;
    crate::until("the inodes are forgotten", || async {
        mounted.status().unwrap().inodes <= empty + 1
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_is_no_full_disk_to_df_and_its_size_is_what_it_uses() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "f");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r", |at| {
        let fields = "--output=pcent,ipcent,used,iused";
        let df = Command::new("df")
            .args(["--block-size=1", fields])
            .arg(at)
            .output()
            .unwrap();
        assert!(df.status.success(), "{df:?}");
        let text = String::from_utf8(df.stdout).unwrap();
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let percent = |field: &str| field.trim_end_matches('%').parse::<u64>().unwrap();
        assert!(percent(row[0]) <= 1 && percent(row[1]) <= 1, "{text}");
        // The published snapshot says 4096 bytes, one tree and one blob.
        assert_eq!((row[2], row[3]), ("4096", "2"), "{text}");
    })
    .await;
    mounted.unmount().await.unwrap();
}
