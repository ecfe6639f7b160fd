//! What POSIX says about a read-only file system, asked of a mount.
//!
//! Two tests:
//!
//! - `pjdfstest` nearly always begins by creating files below the directory that it tests, so it
//!   cannot run on a read-only mount at all, except for its `erofs` group, which makes its files
//!   first and then has `mount` remount the directory read-only. In a mount namespace of its own, a
//!   `mount` of ours on its PATH answers that by putting the mount under test over the directory.
//!   So the suite's own read-only assertions (open, mkdir, mkfifo, link, symlink, unlink, rmdir,
//!   rename, chmod, chown, lchown, truncate) are made against the mount. Nothing else of the suite
//!   applies.
//! - The table below: every call that would change something, on names that exist and on names that
//!   do not, in a repository, in the directories above repositories and at the root; and what a
//!   read-only file system must answer to opens, lookups, links, loops, long names, permissions,
//!   seeks, directory positions, attributes, locks and maps.
//!
//! Not covered: other users than the one who mounts, and everything that needs a writable file
//! system.

use std::ffi::{CString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libc::{
    EACCES, EBADF, EEXIST, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENODATA, ENOENT, ENOTDIR,
    ENOTEMPTY, ENXIO, ERANGE, EROFS, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR,
    O_TMPFILE, O_TRUNC, O_WRONLY,
};
use monofs_cluster::Ingest;
use monofs_testkit::Repo;

use crate::system::{System, can_mount, off_thread};

/// The suite's cases that apply: every one of its `erofs` group on Linux.
const ERROR_CASES_MIN: usize = 13;
const OK: c_int = 0;

async fn mounted() -> System {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("file", "contents\n")
            .exec("run", "#!/bin/sh\nexit 7\n")
            .file("dir/inner", "x")
            .file("empty", "");
        c.symlink("link", "file")
            .symlink("dirlink", "dir")
            .symlink("dangling", "nowhere")
            .symlink("loop", "loop");
        c.symlink("ping", "pong")
            .symlink("pong", "ping")
            .many("many", 1000);
    });
    let system = System::start().await;
    system
        .cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/org/repo"))
        .await
        .unwrap();
    system
        .wait_commit("h/org/repo", &repo.rev("main").to_string())
        .await;
    system
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_that_would_change_something_is_refused_as_posix_says() {
    if !can_mount() {
        return;
    }
    let system = mounted().await;
    let (root, repo) = (system.root.clone(), system.at("h/org/repo"));
    off_thread(move || {
        let mut table = Table::default();
        for directory in [
            repo.clone(),
            repo.join("dir"),
            root.join("h/org"),
            root.join("h"),
            root.clone(),
        ] {
            creations(&mut table, &directory);
        }
        for file in ["file", "run", "empty", "dir/inner", "link"] {
            changes_of_a_file(&mut table, &repo, &repo.join(file));
        }
        for directory in [
            repo.join("dir"),
            repo.clone(),
            root.join("h/org"),
            root.join("h"),
            root.clone(),
        ] {
            changes_of_a_directory(&mut table, &repo, &directory);
        }
        changes_of_links_and_missing_names(&mut table, &repo);
        changes_through_descriptors(&mut table, &repo);
        table.finish();
    })
    .await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_that_only_looks_answers_as_posix_says() {
    if !can_mount() {
        return;
    }
    let system = mounted().await;
    let repo = system.at("h/org/repo");
    off_thread(move || {
        let mut table = Table::default();
        opens(&mut table, &repo);
        lookups(&mut table, &repo);
        permissions(&mut table, &repo);
        attributes(&mut table, &repo);
        positions(&mut table, &repo);
        maps_and_locks(&mut table, &repo);
        table.finish();
        directory_positions(&repo.join("many"));
        let status = Command::new(repo.join("run")).status().unwrap();
        assert_eq!(status.code(), Some(7), "an executable does not run");
        let refused = Command::new(repo.join("file")).status().unwrap_err();
        assert_eq!(
            refused.raw_os_error(),
            Some(EACCES),
            "a file that is not executable runs"
        );
    })
    .await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_read_only_cases_of_pjdfstest_pass() {
    if !can_mount() {
        return;
    }
    // SAFETY: takes and changes nothing.
    if unsafe { libc::geteuid() } != 0 {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "CI must run this as root: it needs a mount namespace"
        );
        eprintln!("skipped: only root may put one mount over another");
        return;
    }
    let system = mounted().await;
    let suite = monofs_testkit::wait::find("pjdfstest")
        .or_else(|| {
            std::env::home_dir()
                .map(|home| home.join(".cargo/bin/pjdfstest"))
                .filter(|path| path.is_file())
        })
        .expect(
            "this test needs pjdfstest: install it with `cargo install --locked pjdfstest@0.2.2`",
        );
    let (work, repo) = (system.dir.path().join("pjdfstest"), system.at("h/org/repo"));
    off_thread(move || {
        let output = run_suite(&suite, &work, &repo);
        let passed = output
            .lines()
            .filter(|line| line.contains("erofs") && line.trim_end().ends_with("ok"))
            .count();
        assert!(output.contains(" 0 failed"), "pjdfstest failed:\n{output}");
        assert!(
            passed >= ERROR_CASES_MIN,
            "only {passed} cases ran:\n{output}"
        );
    })
    .await;
    system.stop().await;
}

/// Runs the suite's `erofs` group in a mount namespace, with `repo` as what its directory becomes
/// when read-only.
fn run_suite(suite: &Path, work: &Path, repo: &Path) -> String {
    let (base, bin) = (work.join("base"), work.join("bin"));
    std::fs::create_dir_all(&base).unwrap();
    std::fs::create_dir_all(&bin).unwrap();
    let config = work.join("config.toml");
    let text = "[features]\nposix_fallocate = {}\n[settings]\nnaptime = 0.01\nallow_remount = \
     true\n\
                [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n";
    std::fs::write(&config, text).unwrap();
    let shim = "#!/bin/sh\n# Called as: mount -o remount,ro|rw MOUNTPOINT, below which is one \
     directory of one test.\n\
                case \"$2\" in\n\
                remount,ro) exec /bin/mount --bind \"$UNDER_TEST\" \"$3\"/.tmp*/.tmp* ;;\n\
                remount,rw) exec /bin/umount \"$3\"/.tmp*/.tmp* ;;\n\
                esac\nexit 1\n";
    std::fs::write(bin.join("mount"), shim).unwrap();
    std::fs::set_permissions(
        bin.join("mount"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let script =
        "/bin/mount -t tmpfs none \"$1\" && PATH=\"$2\" exec \"$3\" -c \"$4\" -p \"$1\" erofs";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([
            &base,
            &PathBuf::from(format!("{}:{path}", bin.display())),
            suite,
            &config,
        ])
        .env("UNDER_TEST", repo)
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Calls and what they answered, so that one run shows all that is wrong.
#[derive(Default)]
struct Table {
    calls: usize,
    wrong: Vec<String>,
}

impl Table {
    /// `result` is what a system call returned just now; `expected` an error number, or [`OK`].
    fn row(&mut self, call: &str, path: &Path, result: impl Into<i64>, expected: c_int) {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        let answer = if result.into() < 0 { errno } else { OK };
        self.calls += 1;
        if answer != expected {
            let name = |number| match number {
                OK => "success".to_owned(),
                number => std::io::Error::from_raw_os_error(number).to_string(),
            };
            self.wrong.push(format!(
                "{call} {}: {}, not {}",
                path.display(),
                name(answer),
                name(expected)
            ));
        }
    }

    fn finish(self) {
        assert!(
            self.wrong.is_empty(),
            "{} of {} calls are wrong:\n{}",
            self.wrong.len(),
            self.calls,
            self.wrong.join("\n")
        );
        assert!(self.calls > 0);
    }
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn open(path: &Path, flags: c_int) -> c_int {
    // SAFETY: the string ends with NUL and lives through the call.
    let fd = unsafe { libc::open(c(path).as_ptr(), flags | libc::O_CLOEXEC, 0o644) };
    if fd >= 0 {
        // SAFETY: the descriptor was opened above and is used nowhere else.
        unsafe { libc::close(fd) };
    }
    fd
}

/// A system call with C strings of paths; only calls of that shape are made through it.
macro_rules! sys {
    ($call:ident($($path:expr),+ $(; $($rest:expr),+)?)) => {
        // SAFETY: the strings end with NUL and live through the call; buffers given are as long as
        // announced.
        unsafe { libc::$call($(c($path).as_ptr()),+ $(, $($rest),+)?) }
    };
}

fn creations(table: &mut Table, directory: &Path) {
    let missing = &directory.join("missing");
    table.row(
        "open O_CREAT",
        missing,
        open(missing, O_CREAT | O_WRONLY),
        EROFS,
    );
    table.row(
        "open O_CREAT|O_RDONLY",
        missing,
        open(missing, O_CREAT | O_RDONLY),
        EROFS,
    );
    table.row(
        "open O_CREAT|O_EXCL",
        missing,
        open(missing, O_CREAT | O_EXCL | O_RDWR),
        EROFS,
    );
    table.row(
        "open O_TMPFILE",
        directory,
        open(directory, O_TMPFILE | O_RDWR),
        EROFS,
    );
    table.row("mkdir", missing, sys!(mkdir(missing; 0o755)), EROFS);
    table.row(
        "symlink",
        missing,
        sys!(symlink(Path::new("target"), missing)),
        EROFS,
    );
    for (what, kind) in [
        ("file", libc::S_IFREG),
        ("fifo", libc::S_IFIFO),
        ("socket", libc::S_IFSOCK),
    ] {
        table.row(
            &format!("mknod {what}"),
            missing,
            sys!(mknod(missing; kind | 0o644, 0)),
            EROFS,
        );
    }
    table.row("unlink", missing, sys!(unlink(missing)), EROFS);
    table.row("rmdir", missing, sys!(rmdir(missing)), EROFS);
    table.row(
        "rename",
        missing,
        sys!(rename(missing, &directory.join("other"))),
        EROFS,
    );
}

fn changes_of_a_file(table: &mut Table, repo: &Path, file: &Path) {
    for (what, flags) in [
        ("O_WRONLY", O_WRONLY),
        ("O_RDWR", O_RDWR),
        ("O_RDONLY|O_TRUNC", O_RDONLY | O_TRUNC),
        ("O_WRONLY|O_APPEND", O_WRONLY | libc::O_APPEND),
        ("O_CREAT|O_RDWR", O_CREAT | O_RDWR),
    ] {
        table.row(&format!("open {what}"), file, open(file, flags), EROFS);
    }
    table.row(
        "open O_CREAT|O_EXCL",
        file,
        open(file, O_CREAT | O_EXCL | O_RDWR),
        EEXIST,
    );
    table.row(
        "open O_CREAT|O_RDONLY",
        file,
        open(file, O_CREAT | O_RDONLY),
        OK,
    );
    table.row("mkdir", file, sys!(mkdir(file; 0o755)), EEXIST);
    table.row(
        "symlink",
        file,
        sys!(symlink(Path::new("target"), file)),
        EEXIST,
    );
    table.row(
        "mknod",
        file,
        sys!(mknod(file; libc::S_IFREG | 0o644, 0)),
        EEXIST,
    );
    table.row(
        "link to it",
        file,
        sys!(link(&repo.join("file"), file)),
        EEXIST,
    );
    table.row(
        "link from it",
        file,
        sys!(link(file, &repo.join("missing"))),
        EROFS,
    );
    table.row("unlink", file, sys!(unlink(file)), EROFS);
    table.row("rmdir", file, sys!(rmdir(file)), EROFS);
    table.row(
        "rename",
        file,
        sys!(rename(file, &repo.join("missing"))),
        EROFS,
    );
    table.row(
        "rename over",
        file,
        sys!(rename(&repo.join("dir/inner"), file)),
        EROFS,
    );
    table.row("rename to itself", file, sys!(rename(file, file)), EROFS);
    table.row("truncate", file, sys!(truncate(file; 0)), EROFS);
    table.row(
        "truncate longer",
        file,
        sys!(truncate(file; 1 << 30)),
        EROFS,
    );
    attributes_of(table, file);
}

fn changes_of_a_directory(table: &mut Table, repo: &Path, directory: &Path) {
    for flags in [O_WRONLY, O_RDWR] {
        table.row(
            "open for writing",
            directory,
            open(directory, flags),
            EISDIR,
        );
    }
    table.row("mkdir", directory, sys!(mkdir(directory; 0o755)), EEXIST);
    table.row("truncate", directory, sys!(truncate(directory; 0)), EISDIR);
    if directory.ends_with("dir") {
        table.row("rmdir", directory, sys!(rmdir(directory)), EROFS);
        table.row("unlink", directory, sys!(unlink(directory)), EROFS);
        table.row(
            "rename",
            directory,
            sys!(rename(directory, &repo.join("missing"))),
            EROFS,
        );
        table.row(
            "rename into itself",
            directory,
            sys!(rename(directory, &directory.join("below"))),
            EROFS,
        );
    }
    attributes_of(table, directory);
}

/// Everything that changes an inode and not a name.
fn attributes_of(table: &mut Table, path: &Path) {
    let value: *const libc::c_void = c"value".as_ptr().cast();
    let (name, now) = (c"user.test".as_ptr(), std::ptr::null());
    table.row("chmod", path, sys!(chmod(path; 0o600)), EROFS);
    table.row("chown", path, sys!(chown(path; 1, 1)), EROFS);
    table.row(
        "chown to nobody new",
        path,
        sys!(chown(path; u32::MAX, u32::MAX)),
        EROFS,
    );
    table.row("lchown", path, sys!(lchown(path; 1, 1)), EROFS);
    table.row("utimes", path, sys!(utimes(path; now)), EROFS);
    table.row("lutimes", path, sys!(lutimes(path; now)), EROFS);
    table.row(
        "setxattr",
        path,
        sys!(setxattr(path; name, value, 5, 0)),
        EROFS,
    );
    table.row("removexattr", path, sys!(removexattr(path; name)), EROFS);
    table.row(
        "removexattr of ours",
        path,
        sys!(removexattr(path; c"user.monofs.commit".as_ptr())),
        EROFS,
    );
    table.row("access W_OK", path, sys!(access(path; libc::W_OK)), EROFS);
}

fn changes_of_links_and_missing_names(table: &mut Table, repo: &Path) {
    let dangling = &repo.join("dangling");
    table.row("unlink", dangling, sys!(unlink(dangling)), EROFS);
    table.row(
        "rename",
        dangling,
        sys!(rename(dangling, &repo.join("missing"))),
        EROFS,
    );
    table.row("lchown", dangling, sys!(lchown(dangling; 1, 1)), EROFS);
    table.row(
        "open O_CREAT",
        dangling,
        open(dangling, O_CREAT | O_WRONLY),
        EROFS,
    );
    for missing in [dangling, &repo.join("missing"), &repo.join("missing/below")] {
        table.row("open O_WRONLY", missing, open(missing, O_WRONLY), ENOENT);
        table.row("truncate", missing, sys!(truncate(missing; 0)), ENOENT);
        table.row("chmod", missing, sys!(chmod(missing; 0o600)), ENOENT);
        table.row("chown", missing, sys!(chown(missing; 1, 1)), ENOENT);
        table.row(
            "utimes",
            missing,
            sys!(utimes(missing; std::ptr::null())),
            ENOENT,
        );
        table.row(
            "removexattr",
            missing,
            sys!(removexattr(missing; c"user.test".as_ptr())),
            ENOENT,
        );
    }
    let below = &repo.join("missing/below");
    table.row("mkdir", below, sys!(mkdir(below; 0o755)), ENOENT);
    table.row("unlink", below, sys!(unlink(below)), ENOENT);
    let under = &repo.join("file/below");
    table.row("mkdir", under, sys!(mkdir(under; 0o755)), ENOTDIR);
    table.row(
        "open O_CREAT",
        under,
        open(under, O_CREAT | O_WRONLY),
        ENOTDIR,
    );
    table.row("rmdir", under, sys!(rmdir(under)), ENOTDIR);
    let dot = &repo.join("dir/.");
    table.row("rmdir", dot, sys!(rmdir(dot)), EINVAL);
    let dots = &repo.join("dir/..");
    table.row("rmdir", dots, sys!(rmdir(dots)), ENOTEMPTY);
    table.row(
        "link to another file system",
        repo,
        sys!(link(Path::new("/bin/sh"), &repo.join("missing"))),
        EROFS,
    );
}

fn changes_through_descriptors(table: &mut Table, repo: &Path) {
    use std::os::fd::AsRawFd;
    let path = &repo.join("file");
    let file = std::fs::File::open(path).unwrap();
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor lives through the calls and the buffers are as long as announced.
    unsafe {
        table.row(
            "write",
            path,
            libc::write(fd, c"x".as_ptr().cast(), 1) as i64,
            EBADF,
        );
        table.row("ftruncate", path, libc::ftruncate(fd, 0), EINVAL);
        table.row("fallocate", path, libc::fallocate(fd, 0, 0, 1 << 20), EBADF);
        table.row(
            "fallocate PUNCH_HOLE",
            path,
            libc::fallocate(fd, 3, 0, 1),
            EBADF,
        );
        table.row("fchmod", path, libc::fchmod(fd, 0o600), EROFS);
        table.row("fchown", path, libc::fchown(fd, 1, 1), EROFS);
        table.row(
            "futimens",
            path,
            libc::futimens(fd, std::ptr::null()),
            EROFS,
        );
        table.row(
            "fsetxattr",
            path,
            libc::fsetxattr(fd, c"user.a".as_ptr(), c"b".as_ptr().cast(), 1, 0),
            EROFS,
        );
        table.row("fsync", path, libc::fsync(fd), OK);
    }
}

fn opens(table: &mut Table, repo: &Path) {
    let at = |name: &str| repo.join(name);
    table.row("open", &at("file"), open(&at("file"), O_RDONLY), OK);
    table.row("open", &at("dir"), open(&at("dir"), O_RDONLY), OK);
    table.row(
        "open O_DIRECTORY",
        &at("dir"),
        open(&at("dir"), O_DIRECTORY),
        OK,
    );
    table.row(
        "open O_DIRECTORY",
        &at("dirlink"),
        open(&at("dirlink"), O_DIRECTORY),
        OK,
    );
    table.row(
        "open O_DIRECTORY",
        &at("file"),
        open(&at("file"), O_DIRECTORY),
        ENOTDIR,
    );
    table.row(
        "open O_DIRECTORY",
        &at("link"),
        open(&at("link"), O_DIRECTORY),
        ENOTDIR,
    );
    table.row(
        "open O_NOFOLLOW",
        &at("link"),
        open(&at("link"), O_NOFOLLOW),
        ELOOP,
    );
    table.row(
        "open O_NOFOLLOW|O_PATH",
        &at("link"),
        open(&at("link"), O_NOFOLLOW | libc::O_PATH),
        OK,
    );
    table.row(
        "open O_NOFOLLOW",
        &at("file"),
        open(&at("file"), O_NOFOLLOW),
        OK,
    );
    table.row(
        "open",
        &at("dangling"),
        open(&at("dangling"), O_RDONLY),
        ENOENT,
    );
    for name in ["loop", "ping", "loop/below", "ping/below"] {
        table.row("open", &at(name), open(&at(name), O_RDONLY), ELOOP);
    }
    let mut target = [0 as libc::c_char; 100];
    table.row(
        "readlink",
        &at("loop"),
        sys!(readlink(&at("loop"); target.as_mut_ptr(), 100)) as i64,
        OK,
    );
    table.row(
        "readlink",
        &at("file"),
        sys!(readlink(&at("file"); target.as_mut_ptr(), 100)) as i64,
        EINVAL,
    );
    table.row(
        "readlink",
        &at("missing"),
        sys!(readlink(&at("missing"); target.as_mut_ptr(), 100)) as i64,
        ENOENT,
    );
}

fn lookups(table: &mut Table, repo: &Path) {
    let rows: [(&str, String, c_int); 16] = [
        ("missing", "missing".into(), ENOENT),
        ("below what is missing", "missing/x".into(), ENOENT),
        ("below a file", "file/x".into(), ENOTDIR),
        ("below a link to a file", "link/x".into(), ENOTDIR),
        ("file with a slash", "file/".into(), ENOTDIR),
        ("file with a dot", "file/.".into(), ENOTDIR),
        ("directory with a slash", "dir/".into(), OK),
        ("through a link", "dirlink/inner".into(), OK),
        ("up and down", "dir/../dir/./inner".into(), OK),
        ("up out of a file", "file/../file".into(), ENOTDIR),
        ("longest name", "n".repeat(255), ENOENT),
        ("too long a name", "n".repeat(256), ENAMETOOLONG),
        (
            "too long a name above",
            format!("{}/x", "n".repeat(256)),
            ENAMETOOLONG,
        ),
        ("too long a path", "dir/../".repeat(800), ENAMETOOLONG),
        ("the Git directory", ".git".into(), ENOENT),
        ("a name of bytes", "a\u{fffd}\u{7f}b".into(), ENOENT),
    ];
    for (what, name, expected) in rows {
        let path = &repo.join(&name);
        table.row(
            &format!("access {what}"),
            path,
            sys!(access(path; libc::F_OK)),
            expected,
        );
        // SAFETY: an all-zero `stat` is a valid value to be overwritten.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        table.row(
            &format!("stat {what}"),
            path,
            sys!(stat(path; &mut stat)),
            expected,
        );
        table.row(
            &format!("open {what}"),
            path,
            open(path, O_RDONLY),
            expected,
        );
    }
    let empty = Path::new("");
    table.row("open the empty path", empty, open(empty, O_RDONLY), ENOENT);
    table.row(
        "chdir into a file",
        &repo.join("file"),
        sys!(chdir(&repo.join("file"))),
        ENOTDIR,
    );
}

fn permissions(table: &mut Table, repo: &Path) {
    for (name, mode, expected) in [
        ("file", libc::R_OK, OK),
        ("file", libc::X_OK, EACCES),
        ("link", libc::X_OK, EACCES),
        ("run", libc::R_OK | libc::X_OK, OK),
        ("dir", libc::R_OK | libc::X_OK, OK),
        ("file", libc::R_OK | libc::W_OK, EROFS),
        ("missing", libc::W_OK, ENOENT),
        ("file", 0o10, EINVAL),
    ] {
        let path = &repo.join(name);
        table.row(
            &format!("access {mode:o}"),
            path,
            sys!(access(path; mode)),
            expected,
        );
    }
    // SAFETY: an all-zero `statvfs` is a valid value to be overwritten.
    let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
    table.row("statvfs", repo, sys!(statvfs(repo; &mut about)), OK);
    assert!(
        about.f_flag & libc::ST_RDONLY != 0,
        "the mount does not say that it is read-only"
    );
    assert_eq!(about.f_namemax, 255);
}

fn attributes(table: &mut Table, repo: &Path) {
    let mut value = [0u8; 256];
    let to: *mut libc::c_void = value.as_mut_ptr().cast();
    let (ours, none) = (c"user.monofs.commit".as_ptr(), c"user.none".as_ptr());
    table.row(
        "getxattr",
        repo,
        sys!(getxattr(repo; ours, to, 256)) as i64,
        OK,
    );
    table.row(
        "getxattr for its size",
        repo,
        sys!(getxattr(repo; ours, to, 0)) as i64,
        OK,
    );
    table.row(
        "getxattr into too little",
        repo,
        sys!(getxattr(repo; ours, to, 3)) as i64,
        ERANGE,
    );
    table.row(
        "getxattr of none",
        repo,
        sys!(getxattr(repo; none, to, 256)) as i64,
        ENODATA,
    );
    table.row(
        "listxattr for its size",
        repo,
        sys!(listxattr(repo; to.cast(), 0)) as i64,
        OK,
    );
    table.row(
        "listxattr into too little",
        repo,
        sys!(listxattr(repo; to.cast(), 1)) as i64,
        ERANGE,
    );
    let missing = &repo.join("missing");
    table.row(
        "getxattr",
        missing,
        sys!(getxattr(missing; ours, to, 256)) as i64,
        ENOENT,
    );
}

fn positions(table: &mut Table, repo: &Path) {
    use std::os::fd::AsRawFd;
    let path = &repo.join("file");
    let file = std::fs::File::open(path).unwrap();
    let fd = file.as_raw_fd();
    let mut byte = [0u8; 4];
    let to: *mut libc::c_void = byte.as_mut_ptr().cast();
    let directory = std::fs::File::open(repo).unwrap();
    // SAFETY: the descriptors live through the calls and the buffer is as long as announced.
    unsafe {
        table.row(
            "lseek before the start",
            path,
            libc::lseek(fd, -1, libc::SEEK_SET),
            EINVAL,
        );
        assert_eq!(libc::lseek(fd, 0, libc::SEEK_END), 9);
        assert_eq!(libc::lseek(fd, 0, libc::SEEK_DATA), 0);
        assert_eq!(libc::lseek(fd, 0, libc::SEEK_HOLE), 9);
        table.row(
            "lseek SEEK_DATA at the end",
            path,
            libc::lseek(fd, 9, libc::SEEK_DATA),
            ENXIO,
        );
        assert_eq!(libc::pread(fd, to, 4, 7), 2);
        assert_eq!(libc::pread(fd, to, 4, 9), 0);
        assert_eq!(libc::pread(fd, to, 4, 1 << 40), 0);
        table.row(
            "pread before the start",
            path,
            libc::pread(fd, to, 4, -1) as i64,
            EINVAL,
        );
        table.row(
            "read of a directory",
            repo,
            libc::read(directory.as_raw_fd(), to, 4) as i64,
            EISDIR,
        );
    }
}

fn maps_and_locks(table: &mut Table, repo: &Path) {
    use std::os::fd::AsRawFd;
    let path = &repo.join("file");
    let file = std::fs::File::open(path).unwrap();
    let fd = file.as_raw_fd();
    let map = |protection, flags| {
        // SAFETY: a new map of one page over an open descriptor, given back at once.
        unsafe {
            let at = libc::mmap(std::ptr::null_mut(), 4096, protection, flags, fd, 0);
            if at == libc::MAP_FAILED {
                return -1;
            }
            assert_eq!(
                std::slice::from_raw_parts(at.cast::<u8>(), 9),
                b"contents\n"
            );
            libc::munmap(at, 4096)
        }
    };
    table.row(
        "mmap to read, shared",
        path,
        map(libc::PROT_READ, libc::MAP_SHARED),
        OK,
    );
    table.row(
        "mmap to write, private",
        path,
        map(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE),
        OK,
    );
    table.row(
        "mmap to write, shared",
        path,
        map(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED),
        EACCES,
    );
    // SAFETY: the descriptor lives through the calls.
    unsafe {
        table.row(
            "flock",
            path,
            libc::flock(fd, libc::LOCK_SH | libc::LOCK_NB),
            OK,
        );
        table.row(
            "flock exclusively",
            path,
            libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB),
            OK,
        );
        table.row(
            "posix_fadvise",
            path,
            -libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_WILLNEED),
            OK,
        );
    }
}

/// A position that `telldir` gave leads back to the same entries.
fn directory_positions(directory: &Path) {
    // SAFETY: the stream is closed once, at the end, and entries are copied before the next call.
    unsafe {
        let stream = libc::opendir(c(directory).as_ptr());
        assert!(!stream.is_null());
        let read = || -> Option<Vec<u8>> {
            let entry = libc::readdir(stream);
            (!entry.is_null()).then(|| {
                std::ffi::CStr::from_ptr((*entry).d_name.as_ptr())
                    .to_bytes()
                    .to_vec()
            })
        };
        let first: Vec<_> = (0..500).filter_map(|_| read()).collect();
        let position = libc::telldir(stream);
        let rest: Vec<_> = std::iter::from_fn(read).collect();
        libc::seekdir(stream, position);
        assert!(
            std::iter::from_fn(read).eq(rest.iter().cloned()),
            "a position leads elsewhere"
        );
        libc::rewinddir(stream);
        assert!(
            std::iter::from_fn(read).eq(first.iter().chain(&rest).cloned()),
            "a second pass differs"
        );
        assert_eq!(
            first.len() + rest.len(),
            1002,
            "entries are missing or twice"
        );
        libc::closedir(stream);
    }
}
