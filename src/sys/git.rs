//! Following a Git branch: a bare mirror of it, and clean trees of its commits.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::text::{excerpt, printable};
use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::{FileError, create_dir_all, remove};
use super::tool::{OUT_OF_TIME, Tool, ToolError};

/// Why a branch cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("cannot {action}{}", hint(.source))]
    Tool { action: String, source: ToolError },
    #[error(transparent)]
    File(#[from] FileError),
    /// The network or the server hangs.
    #[error("{url} did not answer within {} s", FETCH_LIMIT.as_secs())]
    Timeout { url: String },
    /// Such as a name that git would read as an option.
    #[error("{text:?} is not {what}")]
    Invalid { what: &'static str, text: String },
    #[error("commit {} by {author} is not signed by a key of {}: {reason}", &commit[..commit.len().min(12)], signers.display())]
    Unsigned { commit: String, author: String, signers: PathBuf, reason: String },
    /// Of the keys that may sign commits; another commit changes nothing about it.
    #[error(transparent)]
    Signers(FileError),
    /// Export goes to a directory of its own.
    #[error("cannot check out into {}: it is not empty", path.display())]
    NotEmpty { path: PathBuf },
}

impl Diagnostic for GitError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool { source, .. } => source.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Timeout { .. } => Class::Failed.hint("check the network and the address"),
            Self::Signers(error) => error.diagnosis().of(Class::Failed),
            Self::Invalid { .. } => Class::Invalid.no_hint(),
            Self::Unsigned { .. } => Class::Invalid
                .hint("sign it (`git commit --amend -S`, with gpg.format=ssh), or add the key to that file"),
            Self::NotEmpty { .. } => Class::Failed.hint("remove what is in it"),
        }
    }
}

fn hint(source: &ToolError) -> &'static str {
    let stderr = source.stderr();
    if stderr.contains("couldn't find remote ref") {
        " (the repository has no branch of that name)"
    } else if stderr.contains("could not read Username") || stderr.contains("Permission denied") {
        " (it asks for a password or a key: use an address that needs none, or give root's SSH a key)"
    } else if stderr.contains("does not appear to be a git repository") {
        " (the path or address is wrong)"
    } else {
        ""
    }
}

/// How long a fetch may take altogether.
const FETCH_LIMIT: Duration = Duration::from_secs(600);

/// What git and the transports below it read from the environment that has no other way in.
const PASSED: [&str; 9] = [
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "SSH_AUTH_SOCK",
];

/// Git without questions and without the settings of whoever runs it; the host's own (`/etc/gitconfig`) hold.
fn git(program: Tool, config: &Path) -> Tool {
    let tool = program
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_GLOBAL", config)
        .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15")
        .env("GIT_HTTP_LOW_SPEED_LIMIT", "1")
        .env("GIT_HTTP_LOW_SPEED_TIME", "60");
    PASSED.into_iter().fold(tool, Tool::pass)
}

fn failed(action: String) -> impl FnOnce(ToolError) -> GitError {
    move |source| GitError::Tool { action, source }
}

/// What git says of a mirror that is damaged, or that a git which was killed left locked: nobody else uses it, so it is made
/// anew.
const DAMAGED: [&str; 9] = [
    "cannot lock ref",
    "Unable to create",
    "not a git repository",
    "bad object",
    "corrupt",
    "unable to read",
    "did not send all necessary objects",
    "cannot update the ref",
    "index-pack failed",
];

/// The one branch of a mirror, whatever it is called there: a name may be in the way of another.
const FOLLOWED: &str = "refs/heads/followed";

/// Fetches a branch into the bare repository `dir`, which is made where it is missing or damaged, and gives the commit at its tip.
/// `url` is anything that git fetches from; a local path may belong to another user. An address that asks for a
/// password is an error.
pub fn clone_or_fetch(url: &str, branch: &str, dir: &Path) -> Result<String, GitError> {
    let is_damage = |error: &GitError| {
        let GitError::Tool { source, .. } = error else { return false };
        DAMAGED.iter().any(|words| source.stderr().contains(words))
    };
    match fetch(url, branch, dir) {
        Err(error) if dir.exists() && is_damage(&error) => {
            remove(dir)?;
            fetch(url, branch, dir)
        }
        fetched => fetched,
    }
}

/// A directory for as long as a call of git takes, beside a mirror: whoever follows the mirror clears away what is left of it.
fn beside(mirror: &Path) -> Result<tempfile::TempDir, FileError> {
    let above = mirror.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_dir_all(above)?;
    // Git is called in another directory.
    let above = fs::canonicalize(above).map_err(FileError::when("open", above))?;
    tempfile::tempdir_in(&above).map_err(FileError::when("create a directory in", &above))
}

fn fetch(url: &str, branch: &str, dir: &Path) -> Result<String, GitError> {
    if url.is_empty() || url.starts_with('-') {
        return Err(GitError::Invalid { what: "address of a repository", text: url.to_owned() });
    }
    let scratch = beside(dir)?;
    let config = scratch.path().join("gitconfig");
    // Git refuses repositories of other users, whose hooks and settings it might run. A fetch runs none, and the
    // caller has named this one. The program on the other side of the fetch reads this file, and not `-c`.
    let local = url.strip_prefix("file://").unwrap_or(url);
    let source = fs::canonicalize(local).unwrap_or_else(|_| PathBuf::from(local));
    create_dir_all(dir)?;
    let mirror = fs::canonicalize(dir).map_err(FileError::when("open", dir))?;
    fs::write(&config, safe_directories(&[&source, &mirror])).map_err(FileError::when("write", &config))?;
    // As git itself reads it: relative to where this process is, not to the mirror.
    let address = if source.exists() { source.to_string_lossy() } else { url.into() };

    if !mirror.join("HEAD").exists() {
        let init = Tool::new("git").args(["init", "--quiet", "--bare"]).arg(&mirror);
        git(init, &config).run().map_err(failed(format!("make the repository {}", mirror.display())))?;
    }
    let reference = format!("refs/heads/{branch}");
    let check = Tool::new("git").args(["check-ref-format", &reference]);
    if !git(check, &config).output().map_err(failed("run git".to_owned()))?.status.success() {
        return Err(GitError::Invalid { what: "name of a branch", text: branch.to_owned() });
    }
    let fetch = Tool::new("git")
        .args([
            "fetch",
            "--quiet",
            "--no-tags",
            "--force",
            // Of a shallow repository, too, which is what CI systems leave.
            "--update-shallow",
            "--",
            &address,
            &format!("{reference}:{FOLLOWED}"),
        ])
        .dir(&mirror)
        .within(FETCH_LIMIT);
    match git(fetch, &config).run() {
        Err(ToolError::Failed { code: Some(OUT_OF_TIME), .. }) => {
            return Err(GitError::Timeout { url: url.to_owned() });
        }
        done => drop(done.map_err(failed(format!("fetch branch {branch} of {url}")))?),
    }
    let tip = Tool::new("git").args(["rev-parse", "--verify", "--end-of-options", FOLLOWED]).dir(&mirror);
    let tip = git(tip, &config).text().map_err(failed(format!("find branch {branch} of {url}")))?;
    Ok(tip.trim().to_owned())
}

/// Whether a commit of the bare repository `dir` is signed by an SSH key of the file `signers` (ssh-keygen(1), ALLOWED SIGNERS), as Git signs:
/// by no other kind of key, whatever the settings of the host.
///
/// # Errors
/// [`GitError::Unsigned`] where it is not.
pub fn verify(dir: &Path, commit: &str, signers: &Path) -> Result<(), GitError> {
    let scratch = beside(dir)?;
    let config = scratch.path().join("gitconfig");
    fs::write(&config, safe_directories(&[dir])).map_err(FileError::when("write", &config))?;
    // Absent or not to be read, it would be as if it were empty.
    fs::File::open(signers).map_err(FileError::when("read", signers)).map_err(GitError::Signers)?;
    let settings = [
        format!("gpg.ssh.allowedSignersFile={}", signers.display()),
        // A good signature by a key that nobody allowed has less.
        "gpg.minTrustLevel=fully".to_owned(),
        "gpg.program=false".to_owned(),
        "gpg.x509.program=false".to_owned(),
        "gpg.ssh.program=ssh-keygen".to_owned(),
        "gpg.ssh.revocationFile=".to_owned(),
    ];
    let with_settings = |args: &[&str]| {
        let tool = settings.iter().fold(Tool::new("git"), |tool, setting| tool.args(["-c", setting]));
        git(tool.args(args).dir(dir), &config).output().map_err(failed(format!("verify commit {commit}")))
    };
    let verified = with_settings(&["verify-commit", commit])?;
    if verified.status.success() {
        return Ok(());
    }
    let author = with_settings(&["log", "-1", "--format=%an <%ae>", commit])?.stdout;
    let said = String::from_utf8_lossy(&verified.stderr).trim().replace('\n', "; ");
    Err(GitError::Unsigned {
        commit: commit.to_owned(),
        author: printable(String::from_utf8_lossy(&author).trim()),
        signers: signers.to_owned(),
        reason: if said.is_empty() { "it has no signature".to_owned() } else { excerpt(&said) },
    })
}

/// Paths in a commit of the bare repository `dir` that are submodules: their files are another repository's, and not fetched.
pub fn submodules(dir: &Path, commit: &str) -> Result<Vec<String>, GitError> {
    let scratch = beside(dir)?;
    let config = scratch.path().join("gitconfig");
    fs::write(&config, safe_directories(&[dir])).map_err(FileError::when("write", &config))?;
    let list = Tool::new("git").args(["ls-tree", "-r", "--full-tree", commit]).dir(dir);
    let text = git(list, &config).text().map_err(failed(format!("list the files of commit {commit}")))?;
    let path = |line: &str| Some(line.strip_prefix("160000 ")?.split_once('\t')?.1.to_owned());
    Ok(text.lines().filter_map(path).collect())
}

/// The only settings of git's that hold here: whose repositories it may read.
fn safe_directories(paths: &[&Path]) -> String {
    let quoted = |path: &Path| path.to_string_lossy().replace('\\', r"\\").replace('"', "\\\"");
    let line = |path: &&Path| {
        // A repository with a work tree is asked for by either path.
        format!("\tdirectory = \"{}\"\n\tdirectory = \"{}\"\n", quoted(path), quoted(&path.join(".git")))
    };
    format!("[safe]\n{}", paths.iter().map(line).collect::<String>())
}

/// Writes the files of one commit of the bare repository `dir` into `to`, which is made, and must be empty where it is
/// there. All files of the commit and no others come out, with their bytes unchanged.
pub fn checkout(dir: &Path, commit: &str, to: &Path) -> Result<(), GitError> {
    if commit.is_empty() || !commit.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(GitError::Invalid { what: "commit", text: commit.to_owned() });
    }
    create_dir_all(to)?;
    let open = FileError::when("open", to);
    let (to, mut entries) =
        fs::canonicalize(to).and_then(|path| Ok((path.clone(), fs::read_dir(path)?))).map_err(open)?;
    if entries.next().is_some() {
        return Err(GitError::NotEmpty { path: to });
    }
    let dir = fs::canonicalize(dir).map_err(FileError::when("open", dir))?;
    let scratch = beside(&dir)?;
    let config = scratch.path().join("gitconfig");
    fs::write(&config, safe_directories(&[&dir])).map_err(FileError::when("write", &config))?;
    // Not `git archive`: it leaves out what the repository marks `export-ignore`.
    let call = |args: &[&str]| {
        let tool = Tool::new("git").args(["-c", "core.autocrlf=false", "-c", "core.bare=false"]);
        let tool = tool.arg("--git-dir").arg(&dir).arg("--work-tree").arg(&to).args(args).dir(&to);
        git(tool.env("GIT_INDEX_FILE", scratch.path().join("index")), &config).run()
    };
    let exported = call(&["read-tree", commit]).and_then(|_| call(&["checkout-index", "--all", "--force"]));
    match exported {
        Ok(_) => Ok(()),
        Err(error) => {
            // Half a tree is worse than none.
            remove(&to)?;
            Err(failed(format!("check out commit {commit} of {}", dir.display()))(error))
        }
    }
}

#[cfg(test)]
mod tests {
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
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn each_commit_of_the_branch_comes_out_whole_and_unchanged() {
        let Some(source) = Repository::new() else { return };
        let dir = tempfile::tempdir().unwrap();
        let mirror = dir.path().join("state/mirror");
        let first = clone_or_fetch(source.url(), "main", &mirror).unwrap();
        source.commit(".gitattributes", "secret export-ignore\n* text=auto\n");
        let second = source.commit("secret", "kept");
        assert_eq!(clone_or_fetch(source.url(), "main", &mirror).unwrap(), second);

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
            source.git(&[
                "-c",
                "gpg.format=ssh",
                "-c",
                &key,
                "commit",
                "-S",
                "--quiet",
                "--message",
                "change",
            ]);
            source.git(&["rev-parse", "HEAD"])
        };
        let mirror = at("mirror");
        let verify = |commit: &str, signers: &str| {
            clone_or_fetch(source.url(), "main", &mirror).unwrap();
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
        clone_or_fetch(&format!("file://{}", source.url()), "main", dir.path()).unwrap();
        source.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
        let other = source.commit("b", "2");
        assert_eq!(clone_or_fetch(source.url(), "main", dir.path()).unwrap(), other);
    }

    #[test]
    fn a_mirror_that_is_damaged_or_locked_is_made_anew() {
        let Some(source) = Repository::new() else { return };
        let dir = tempfile::tempdir().unwrap();
        let mirror = dir.path().join("mirror");
        let fetched = |branch| clone_or_fetch(source.url(), branch, &mirror).unwrap();
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
        let tip = clone_or_fetch(shallow.to_str().unwrap(), "main", &mirror).unwrap();
        assert_eq!(tip, source.git(&["rev-parse", "main"]));
        assert_eq!(submodules(&mirror, &tip).unwrap(), ["recipes"]);
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
        let tip = clone_or_fetch(source.url(), "main", dir.path()).unwrap();
        assert_eq!(tip, source.git(&["rev-parse", "main"]));
    }

    #[test]
    fn what_cannot_be_fetched_is_told_with_its_cause() {
        let Some(source) = Repository::new() else { return };
        let dir = tempfile::tempdir().unwrap();
        let error = clone_or_fetch(source.url(), "none", dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("(the repository has no branch of that name)"), "{error}");
        let error = clone_or_fetch("/nonexistent", "main", dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("(the path or address is wrong)"), "{error}");
        for (url, branch) in [("--upload-pack=x", "main"), (source.url(), "a..b"), (source.url(), "x:y")] {
            let error = clone_or_fetch(url, branch, dir.path()).unwrap_err();
            assert!(matches!(error, GitError::Invalid { .. }), "{error}");
        }
        let to = dir.path().join("to");
        checkout(dir.path(), "--help", &to).unwrap_err();
        checkout(dir.path(), "0123456789012345678901234567890123456789", &to).unwrap_err();
        assert!(!to.exists());
    }
}
