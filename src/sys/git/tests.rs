use std::io;

use super::super::tool;
use super::*;

/// A repository with one commit on `main`.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new() -> Option<Self> {
        if tool::find("git").is_none() {
            eprintln!("skipped: git is not installed");
            return None;
        }
        let repository = Self(tempfile::tempdir().unwrap());
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.commit("fleet.toml", "one\r\n");
        Some(repository)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn url(&self) -> &str {
        self.path().to_str().unwrap()
    }

    fn git(&self, args: &[&str]) -> String {
        let tool = Tool::new("git").args(["-c", "user.name=t", "-c", "user.email=t@example.org"]);
        let tool = tool.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory");
        let tool = tool.env("GIT_CONFIG_VALUE_0", "*").args(args).dir(self.path());
        tool.text().unwrap().trim().to_owned()
    }

    fn commit(&self, file: &str, text: &str) -> String {
        fs::write(self.path().join(file), text).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "change"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn each_commit_of_the_branch_comes_out_whole_and_unchanged() {
    let Some(source) = Repository::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mirror = dir.path().join("state/mirror");
    let first = update_mirror(source.url(), "main", &mirror).unwrap();
    source.commit(".gitattributes", "secret export-ignore\n* text=auto\n");
    let second = source.commit("secret", "kept");
    assert_eq!(update_mirror(source.url(), "main", &mirror).unwrap(), second);

    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    checkout(&mirror, &first, &old).unwrap();
    checkout(&mirror, &second, &new).unwrap();
    assert_eq!(names(&old), ["fleet.toml"]);
    assert_eq!(fs::read_to_string(old.join("fleet.toml")).unwrap(), "one\r\n");
    assert_eq!(names(&new), [".gitattributes", "fleet.toml", "secret"]);
    assert!(matches!(checkout(&mirror, &first, &new), Err(GitError::NotEmpty { .. })));
}

#[test]
fn only_keys_that_are_allowed_sign_a_commit() {
    let Some(source) = Repository::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for name in ["team", "stranger"] {
        let keygen = Tool::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]);
        keygen.arg(at(name)).run().unwrap();
    }
    let team = fs::read_to_string(at("team.pub")).unwrap();
    fs::write(at("signers"), format!("t@example.org namespaces=\"git\" {team}")).unwrap();
    let signed = |name: &str, file: &str| {
        fs::write(source.path().join(file), "x").unwrap();
        source.git(&["add", "--all"]);
        let key = format!("user.signingkey={}", text(&at(name)));
        source.git(&["-c", "gpg.format=ssh", "-c", &key, "commit", "-S", "--quiet", "--message", "change"]);
        source.git(&["rev-parse", "HEAD"])
    };
    let mirror = at("mirror");
    let verify = |commit: &str, signers: &str| {
        update_mirror(source.url(), "main", &mirror).unwrap();
        verify(&mirror, commit, &at(signers)).map_err(|error| error.to_string())
    };
    let good = signed("team", "a");
    assert_eq!(verify(&good, "signers"), Ok(()));
    let stranger = verify(&signed("stranger", "b"), "signers").unwrap_err();
    assert!(stranger.contains("by t <t@example.org> is not signed by a key of"), "{stranger}");
    let unsigned = verify(&source.commit("c", "x"), "signers").unwrap_err();
    assert!(unsigned.contains("it has no signature"), "{unsigned}");
    // Somebody else's words under a signature that is good.
    let forged = source.git(&["cat-file", "commit", &good]).replace("change", "chance");
    fs::write(at("forged"), forged + "\n").unwrap();
    let forged = source.git(&["hash-object", "-t", "commit", "-w", at("forged").to_str().unwrap()]);
    source.git(&["update-ref", "refs/heads/main", &forged]);
    assert!(verify(&forged, "signers").is_err());
    // Of no file and of an empty one nobody is allowed.
    assert!(verify(&good, "absent").unwrap_err().contains("cannot read"));
    fs::write(at("empty"), "").unwrap();
    assert!(verify(&good, "empty").is_err());
    // A key that is allowed to sign other things signs no commit.
    fs::write(at("others"), format!("t@example.org namespaces=\"file\" {team}")).unwrap();
    assert!(verify(&good, "others").is_err());
}

#[test]
fn a_branch_that_was_rewritten_is_followed() {
    let Some(source) = Repository::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    source.commit("a", "1");
    update_mirror(&format!("file://{}", source.url()), "main", dir.path()).unwrap();
    source.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    let other = source.commit("b", "2");
    assert_eq!(update_mirror(source.url(), "main", dir.path()).unwrap(), other);
}

#[test]
fn a_mirror_that_is_damaged_or_locked_is_made_anew() {
    let Some(source) = Repository::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mirror = dir.path().join("mirror");
    let fetched = |branch| update_mirror(source.url(), branch, &mirror).unwrap();
    let damages: [fn(&Path); 3] = [
        |mirror| fs::write(mirror.join("refs/heads/followed.lock"), "").unwrap(),
        |mirror| fs::remove_dir_all(mirror.join("objects")).unwrap(),
        |mirror| fs::write(mirror.join("HEAD"), "garbage").unwrap(),
    ];
    for damage in damages {
        fetched("main");
        damage(&mirror);
        let next = source.commit("a", &format!("{:?}", std::time::Instant::now()));
        assert_eq!(fetched("main"), next);
    }
    source.git(&["branch", "--move", "main", "main/2"]);
    assert_eq!(fetched("main/2"), source.git(&["rev-parse", "main/2"]));
}

#[test]
fn a_shallow_repository_is_followed_and_submodules_are_named() {
    let Some(source) = Repository::new() else { return };
    let link = "160000,0123456789012345678901234567890123456789,recipes";
    source.git(&["update-index", "--add", "--cacheinfo", link]);
    source.git(&["commit", "--quiet", "--message", "submodules"]);
    let dir = tempfile::tempdir().unwrap();
    let shallow = dir.path().join("shallow");
    let url = format!("file://{}", source.url());
    source.git(&["clone", "--quiet", "--depth", "1", &url, shallow.to_str().unwrap()]);
    let mirror = dir.path().join("mirror");
    let tip = update_mirror(shallow.to_str().unwrap(), "main", &mirror).unwrap();
    assert_eq!(tip, source.git(&["rev-parse", "main"]));
    assert_eq!(checkout(&mirror, &tip, &dir.path().join("to")).unwrap(), ["recipes"]);
}

#[test]
fn a_repository_of_another_user_is_read() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let Some(source) = Repository::new() else { return };
    Tool::new("chown").args(["-R", "200001:200001"]).arg(source.path()).run().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let tip = update_mirror(source.url(), "main", dir.path()).unwrap();
    assert_eq!(tip, source.git(&["rev-parse", "main"]));
}

#[test]
fn what_cannot_be_fetched_is_told_with_its_cause() {
    let Some(source) = Repository::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let error = update_mirror(source.url(), "none", dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("(the repository has no branch of that name)"), "{error}");
    let error = update_mirror("/nonexistent", "main", dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("(the path or address is wrong)"), "{error}");
    for (url, branch) in [("--upload-pack=x", "main"), (source.url(), "a..b"), (source.url(), "x:y")] {
        let error = update_mirror(url, branch, dir.path()).unwrap_err();
        assert!(matches!(error, GitError::Invalid { .. }), "{error}");
    }
    let to = dir.path().join("to");
    checkout(dir.path(), "--help", &to).unwrap_err();
    checkout(dir.path(), "0123456789012345678901234567890123456789", &to).unwrap_err();
    assert!(!to.exists());
}

#[test]
fn a_fetch_brings_no_more_than_it_may_and_leaves_nothing_half() {
    let Some(source) = Repository::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mirror = dir.path().join("mirror");
    let before = update_mirror(source.url(), "main", &mirror).unwrap();
    // What cannot be packed.
    let mut random = vec![0; 3 << 20];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut random).unwrap();
    fs::write(source.path().join("large"), random).unwrap();
    let large = source.commit("small", "x");
    let error = fetch_at_most(source.url(), "main", &mirror, 1 << 20).unwrap_err();
    assert!(matches!(error, GitError::NoRoom { .. }), "{error:?}");
    assert!(error.to_string().contains("it may take 1 MiB of the disk"), "{error}");
    assert!(allocated_within(&mirror) < 1 << 20);
    assert_eq!(names(&mirror.join("objects/pack")).iter().filter(|name| name.starts_with("tmp_")).count(), 0);
    checkout(&mirror, &before, &dir.path().join("before")).unwrap();
    assert_eq!(fetch_at_most(source.url(), "main", &mirror, 8 << 20).unwrap(), large);

    // What was pushed once, and is no more.
    source.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    assert_eq!(fetch_at_most(source.url(), "main", &mirror, 1 << 20).unwrap(), before);
    assert!(allocated_within(&mirror) < 1 << 20);
}

#[test]
fn a_commit_that_would_take_too_much_is_refused_before_it_is_written() {
    let Some(source) = Repository::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (mirror, to) = (dir.path().join("mirror"), dir.path().join("to"));
    fs::write(source.path().join("large"), vec![0; 1 << 20]).unwrap();
    // Ten trees in ten trees, and so on: a few KiB name more files than anybody lists.
    let mut inner = format!("100644 blob {}", source.git(&["hash-object", "-w", "large"]));
    for _ in 0..9 {
        let tree: String = (0..10).map(|number| format!("{inner}\t{number}\n")).collect();
        let made = Tool::new("git").args(["mktree"]).dir(source.path()).stdin(tree).text().unwrap();
        inner = format!("040000 tree {}", made.trim());
    }
    let tree = inner.rsplit(' ').next().unwrap();
    let bomb = source.git(&["commit-tree", "-m", "bomb", tree]);
    source.git(&["update-ref", "refs/heads/main", &bomb]);
    assert_eq!(update_mirror(source.url(), "main", &mirror).unwrap(), bomb);
    let error = checkout(&mirror, &bomb, &to).unwrap_err();
    assert!(matches!(error, GitError::TooLarge { .. }), "{error:?}");
    assert!(error.to_string().ends_with("takes more than 4096 MiB of the disk"), "{error}");
    assert!(!to.exists());
}

#[test]
fn a_repository_does_not_say_how_its_bytes_come_out() {
    let Some(source) = Repository::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mirror = dir.path().join("mirror");
    let text = "$Id$\n".repeat(10);
    source.commit("file", &text);
    let tip = source.commit(".gitattributes", "* text eol=crlf ident\n");
    update_mirror(source.url(), "main", &mirror).unwrap();
    checkout(&mirror, &tip, &dir.path().join("to")).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("to/file")).unwrap(), text);
}
