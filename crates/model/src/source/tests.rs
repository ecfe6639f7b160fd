#![allow(clippy::unwrap_used)]
use super::*;

/// Scheme, user, host, port and path of a source.
fn parts(text: &str) -> (Scheme, String, String, Option<u16>, String) {
    let source = SourceUrl::new(text).unwrap();
    (
        source.scheme(),
        source.user().unwrap_or_default().into_owned(),
        source.host().to_owned(),
        source.port(),
        source.path().into_owned(),
    )
}

#[test]
fn display_paths_follow_the_source() {
    for (source, path) in [
        ("https://github.com/org/repo.git", "github.com/org/repo"),
        ("https://gitlab.com/a/b/c/d/", "gitlab.com/a/b/c/d"),
        ("git@github.com:org/repo.git", "github.com/org/repo"),
        ("ssh://git@host:2222/srv/x.git", "host/srv/x"),
        ("git://127.0.0.1:9418/linux.git", "127.0.0.1/linux"),
        ("ssh://git@[::1]:2222/srv/x.git", "..1/srv/x"),
        ("/srv/work/project/.git", "local/project"),
        ("file:///srv/project.git", "local/project"),
        ("https://Example.COM/Org/Repo", "example.com/Org/Repo"),
        (
            "https://org@dev.azure.com/org/My%20Project/_git/My%20Repo",
            "dev.azure.com/org/My Project/_git/My Repo",
        ),
        ("/dir/c#.git", "local/c#"),
        ("/dir/what?.git", "local/what?"),
        ("/dir/50%off.git", "local/50%off"),
        ("/dir/50%20off.git", "local/50%20off"),
        ("file:///dir/50%20off.git", "local/50 off"),
        ("host:~/x.git", "host/x"),
        ("host:~user/x.git", "host/user/x"),
        ("user@host:team/proj.git", "host/team/proj"),
    ] {
        let shown = SourceUrl::new(source).unwrap().display_path().unwrap();
        assert_eq!(shown.as_str(), path, "{source}");
    }
}

#[test]
fn a_path_behind_a_host_and_a_colon_is_relative_unless_it_starts_with_a_slash() {
    for (text, normal, path, relative) in [
        ("u@Host:team/p.git", "u@host:team/p.git", "team/p.git", true),
        (
            "host:/team/p.git",
            "ssh://host/team/p.git",
            "/team/p.git",
            false,
        ),
        ("host:~/p.git", "ssh://host/~/p.git", "~/p.git", true),
        ("ssh://host/~u/p", "ssh://host/~u/p", "~u/p", true),
        ("[::1]:p q", "[::1]:p q", "p q", true),
        ("u@[h:22]:p", "[u@h:22]:p", "p", true),
        ("[u@h:22]:/p", "ssh://u@h:22/p", "/p", false),
        ("host:50%20off", "host:50%20off", "50%20off", true),
        (
            "host:/50%20off",
            "ssh://host/50%2520off",
            "/50%20off",
            false,
        ),
    ] {
        let source = SourceUrl::new(text).unwrap();
        assert_eq!(source.as_str(), normal, "{text}");
        assert_eq!(source.path(), path, "{text}");
        assert_eq!(source.is_relative(), relative, "{text}");
        assert_eq!(SourceUrl::new(normal).unwrap(), source, "{text}");
    }
}

#[test]
fn addresses_and_ports_are_where_git_finds_them() {
    let of = |user: &str, port, path: &str| {
        (
            Scheme::Ssh,
            user.to_owned(),
            "::1".to_owned(),
            port,
            path.to_owned(),
        )
    };
    assert_eq!(parts("ssh://[::1]/x"), of("", None, "/x"));
    assert_eq!(parts("ssh://u@[0:0::1]:22/x"), of("u", Some(22), "/x"));
    assert_eq!(parts("u@[::1]:x"), of("u", None, "x"));
    assert_eq!(parts("[::1]:22/x"), of("", None, "22/x"));
    assert_eq!(parts("http://[::1]:81/x").2, "::1");
    assert_eq!(parts("git://[::1]/x").2, "::1");
    assert_eq!(parts("ssh://h:/x").3, None);
    for bad in [
        "git://h:99999/x",
        "ssh://h:70000/x",
        "http://h:70000/x",
        "https://h:0/x",
        "ssh://h:+22/x",
        "ssh://h:22:33/x",
        "[u@h:99999]:x",
        "http://[::1]:x/y",
    ] {
        let error = SourceUrl::new(bad).unwrap_err();
        assert!(
            error.message.contains("port that no host has"),
            "{bad}: {error}"
        );
    }
}

#[test]
fn the_user_of_a_web_address_is_a_name_and_never_a_token() {
    assert_eq!(parts("https://org@host/p").1, "org");
    assert_eq!(parts("https://me%40org.example@host/p").1, "me@org.example");
    for secret in [
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "glpat-secretsecret",
        "x".repeat(52).as_str(),
    ] {
        let error = SourceUrl::new(&format!("https://{secret}@host/p")).unwrap_err();
        assert!(!error.message.contains(secret), "{error}");
        assert!(error.message.contains("--credentials"), "{error}");
    }
}

#[test]
fn names_of_package_registries_are_kept_free() {
    for text in [
        "go:golang.org/x/text@v0.14.0",
        "NPM:left-pad",
        "pypi:x",
        "crates:a/b",
    ] {
        let error = SourceUrl::new(text).unwrap_err();
        assert!(error.message.contains("not a source yet"), "{error}");
    }
    assert_eq!(parts("ssh://go/x").2, "go");
    assert_eq!(parts("me@go:x").2, "go");
}

#[test]
fn hostile_sources_are_refused_without_repeating_their_secrets() {
    for bad in [
        "",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c id",
        "ext::sh",
        "https://user:secret@host/x",
        "https:/user:secret@host/x",
        "https://user:secret/secret@host/x",
        "https://host/x?private_token=secret",
        "https://host/x#secret",
        "ssh://user:secret@host/x",
        "user:secret@host:x",
        "https://host/a/../b",
        "https://host/%2e%2e/b",
        "https://host/a%0ab",
        "file:///a/%2E./b",
        "file:///a%0ab",
        "git://h/%2d-x",
        "host:../x",
        "host:-x",
        "file://host/x",
        "ftp://host/x",
        "https:///x",
        "ssh://-oProxyCommand=x/y",
        "ssh://git@[-oProxyCommand=x]:22/y",
        "ssh://-x@host/y",
        "ssh://%2dx@host/y",
        "https://[host]/y",
        "ssh://[::1/y",
        "-oProxyCommand=x:y",
        "git://host/",
        "git://user@host/x",
        "relative/path",
        "https://host/a b",
        "git://host/--x",
        "a b:c",
        "$(id):x",
        "host:a\nb",
        "file:///%ff",
    ] {
        let error = SourceUrl::new(bad).expect_err(bad);
        assert!(!error.message.contains("secret"), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn an_accepted_source_is_its_own_normal_form_and_no_option(
        text in "(https|ssh|git|file|http)?(://|:|)[a-zA-Z0-9@:/.%~?# \\[\\]-]{0,30}"
    ) {
        let Ok(source) = SourceUrl::new(&text) else { return Ok(()) };
        let again = SourceUrl::new(source.as_str()).unwrap();
        proptest::prop_assert_eq!(&again, &source);
        proptest::prop_assert!(!source.as_str().starts_with('-'));
        proptest::prop_assert!(!source.host().starts_with('-'));
        proptest::prop_assert!(!source.path().split('/').any(|segment| segment == ".."));
        proptest::prop_assert_eq!(source.host(), source.host().to_ascii_lowercase());
    }

    #[test]
    fn any_path_of_this_machine_comes_back_as_it_was(name in "[^\\pC/]{1,20}") {
        let path = format!("/dir/{name}/x");
        let Ok(source) = SourceUrl::new(&path) else {
            proptest::prop_assert!(name == ".." || path.contains("://"), "{}", name);
            return Ok(());
        };
        proptest::prop_assert_eq!(source.path(), path);
    }

    #[test]
    fn a_refused_source_never_repeats_its_password(password in "[a-z0-9]{12}") {
        for secret in [
            format!("https://robot:{password}@host/org/x.git"),
            format!("https:/robot:{password}@host/org/x.git"),
            format!("ftp://robot:{password}@host/x y"),
            format!("https://host/x?token={password}"),
        ] {
            let error = SourceUrl::new(&secret).unwrap_err();
            proptest::prop_assert!(!error.message.contains(&password), "{}", error);
        }
    }
}

#[test]
fn a_host_has_one_name_however_it_is_written() {
    let host = |url| SourceUrl::new(url).unwrap().host_name();
    let named = Some("git.example.org".to_owned());
    assert_eq!(host("https://Git.Example.org/a"), named);
    assert_eq!(host("https://GIT.example.org/b"), named);
    assert_eq!(host("http://h:81/a").as_deref(), Some("h:81"));
    assert_eq!(host("/srv/git/x.git"), None);
}
