//! Following a Git branch: a bare mirror of it, and clean trees of its commits. Both take a bounded part of the disk, whoever
//! pushes what.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::text::excerpt;
use crate::base::{Class, Diagnosis, Diagnostic};

use super::disk_guard::DiskGuard;
use super::fs::{FileError, allocated_within, create_dir_all, names_in, remove};
use super::tool::{self, OUT_OF_TIME, Tool, ToolError};

mod listing;

use listing::listed;

mod author;
mod whole;

pub use author::author_of;
pub use whole::is_checked_out;

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
    #[error("commit {} by {author} is not signed by a key of {}: {reason}", short(commit), signers.display())]
    Unsigned { commit: String, author: String, signers: PathBuf, reason: String },
    /// Of the keys that may sign commits; another commit changes nothing about it.
    #[error(transparent)]
    Signers(FileError),
    /// Nobody but whoever commits can change that.
    #[error("commit {} takes more than {} MiB of the disk", short(commit), most >> 20)]
    TooLarge { commit: String, most: u64 },
    /// As much as a branch, or the files of a commit, may take where they come.
    #[error("there is no room for {what}: it may take {} MiB of the disk in {}", room >> 20, dir.display())]
    NoRoom { what: String, room: u64, dir: PathBuf },
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
            Self::TooLarge { .. } => Class::Invalid.hint("keep large files out of the repository"),
            Self::NoRoom { dir, .. } => Class::Failed.hint(format!(
                "free some space there; what earlier commits brought goes with {}, which is then fetched again",
                dir.display()
            )),
            Self::NotEmpty { .. } => Class::Failed.hint("remove what is in it"),
        }
    }
}

/// As much of a commit's name as a message shows.
fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
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

/// Bytes of the disk that the files of one commit may take.
const LARGEST_COMMIT: u64 = 4 << 30;
/// Bytes of the disk that the mirror of a branch may take, with all that led to its tip.
const LARGEST_MIRROR: u64 = 16 << 30;

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

/// The one branch of a mirror, whatever it is called there: a name may be in the way of another.
const FOLLOWED: &str = "refs/heads/followed";

/// Fetches a branch into the bare repository `dir`, which is made where it is missing, and gives the commit at its tip. Where that
/// fails, it may be for what is wrong with the repository, which a kill or a loss of power leaves in more ways than git has words for:
/// then it is [made anew](reclone). `url` is anything that git fetches from; a local path may belong to another user. An address
/// that asks for a password is an error.
pub fn update_mirror(url: &str, branch: &str, dir: &Path) -> Result<String, GitError> {
    fetch_at_most(url, branch, dir, LARGEST_MIRROR)
}

fn fetch_at_most(url: &str, branch: &str, dir: &Path, most: u64) -> Result<String, GitError> {
    // Of what was pushed once and is no more.
    if allocated_within(dir) > most {
        remove(dir)?;
    }
    let was_there = fs::symlink_metadata(dir).is_ok();
    match fetch(url, branch, dir, most) {
        Err(GitError::Tool { .. } | GitError::File(_)) if was_there => reclone_within(url, branch, dir, most),
        fetched => fetched,
    }
}

/// Fetches a branch into a new repository, which takes the place of `dir` once it is whole.
pub fn reclone(url: &str, branch: &str, dir: &Path) -> Result<String, GitError> {
    reclone_within(url, branch, dir, LARGEST_MIRROR)
}

fn reclone_within(url: &str, branch: &str, dir: &Path, most: u64) -> Result<String, GitError> {
    let scratch = beside(dir)?;
    let new = scratch.path().join("mirror");
    let tip = fetch(url, branch, &new, most)?;
    remove(dir)?;
    fs::rename(&new, dir).map_err(FileError::when("create", dir))?;
    Ok(tip)
}

/// Has the kernel end git where one of its files becomes larger than that.
fn limited(git: Tool, largest: u64) -> Result<Tool, ToolError> {
    let missing = || ToolError::Missing { tool: "prlimit".to_owned() };
    let prlimit = tool::find("prlimit").ok_or_else(missing)?.into_os_string();
    Ok(git.behind([prlimit, format!("--fsize={largest}").into(), "--core=0".into()]))
}

/// Removes what a git left of packs when it was ended on the way; whether one of them had come to the bound of a file.
fn remove_half_packs(mirror: &Path, largest: u64) -> Result<bool, FileError> {
    let packs = mirror.join("objects/pack");
    let half = names_in(&packs)?.into_iter().filter(|name| name.starts_with("tmp_"));
    let mut is_at_bound = false;
    for path in half.map(|name| packs.join(name)) {
        is_at_bound |= fs::metadata(&path).is_ok_and(|meta| meta.len() >= largest);
        remove(&path)?;
    }
    Ok(is_at_bound)
}

/// What a fetch is called with: all that it brings is one file, whose size the kernel bounds, and whatever tidies up ends with it.
const FETCH: [&str; 11] = [
    "-c",
    "fetch.unpackLimit=1",
    "-c",
    "gc.autoDetach=false",
    "-c",
    "gc.pruneExpire=now",
    "fetch",
    "--quiet",
    "--no-tags",
    "--force",
    // Of a shallow repository, too, which is what CI systems leave.
    "--update-shallow",
];

/// A directory for as long as a call of git takes, beside a mirror: whoever follows the mirror clears away what is left of it.
fn beside(mirror: &Path) -> Result<tempfile::TempDir, FileError> {
    let above = mirror.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_dir_all(above)?;
    // Git is called in another directory.
    let above = fs::canonicalize(above).map_err(FileError::when("open", above))?;
    tempfile::tempdir_in(&above).map_err(FileError::when("create a directory in", &above))
}

fn fetch(url: &str, branch: &str, dir: &Path, most: u64) -> Result<String, GitError> {
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
    let room = DiskGuard::of(&mirror).of_at_most(most).room();
    remove_half_packs(&mirror, room)?;
    let fetch = Tool::new("git").args(FETCH).args(["--", &address, &format!("{reference}:{FOLLOWED}")]);
    let action = format!("fetch branch {branch} of {url}");
    let fetch = git(fetch, &config).dir(&mirror).within(FETCH_LIMIT);
    let fetched = limited(fetch, room).and_then(|fetch| fetch.run());
    if fetched.is_err() && remove_half_packs(&mirror, room)? {
        return Err(GitError::NoRoom { what: format!("branch {branch} of {url}"), room, dir: mirror });
    }
    match fetched {
        Err(ToolError::Failed { code: Some(OUT_OF_TIME), .. }) => {
            return Err(GitError::Timeout { url: url.to_owned() });
        }
        done => drop(done.map_err(failed(action))?),
    }
    let tip = Tool::new("git").args(["rev-parse", "--verify", "--end-of-options", FOLLOWED]).dir(&mirror);
    let tip = git(tip, &config).text().map_err(failed(format!("find branch {branch} of {url}")))?;
    Ok(tip.trim().to_owned())
}

/// Whether a commit of the bare repository `dir` is signed by an SSH key of the file `signers` (ssh-keygen(1), ALLOWED SIGNERS), as
/// Git signs: by no other kind of key, whatever the settings of the host.
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
        author: excerpt(&String::from_utf8_lossy(&author)),
        signers: signers.to_owned(),
        reason: if said.is_empty() { "it has no signature".to_owned() } else { excerpt(&said) },
    })
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

/// What no repository says otherwise (gitattributes(5)): bytes come out as they were committed, and no more of them.
const ATTRIBUTES: &str = "* -text -ident !working-tree-encoding\n";

/// Writes the files of one commit of the bare repository `dir` into `to`, which is made, and must be empty where it is
/// there. All files of the commit and no others come out, with their bytes unchanged. Gives the paths that are submodules: their files
/// are another repository's, and not fetched.
///
/// # Errors
/// [`GitError::TooLarge`] and [`GitError::NoRoom`] before anything is written.
pub fn checkout(dir: &Path, commit: &str, to: &Path) -> Result<Vec<String>, GitError> {
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
    let written = write_out(&dir, commit, &to);
    if written.is_err() {
        // Half a tree is worse than none.
        remove(&to)?;
    }
    written
}

fn write_out(dir: &Path, commit: &str, to: &Path) -> Result<Vec<String>, GitError> {
    let scratch = beside(dir)?;
    let config = scratch.path().join("gitconfig");
    fs::write(&config, safe_directories(&[dir])).map_err(FileError::when("write", &config))?;
    let list = git(Tool::new("git").dir(dir), &config);
    let (bytes, submodules) = listed(list, commit, LARGEST_COMMIT)?;
    let guard = DiskGuard::of(to).of_at_most(LARGEST_COMMIT);
    if bytes > guard.room() {
        let (what, room) = (format!("the files of commit {}", short(commit)), guard.room());
        return Err(GitError::NoRoom { what, room, dir: dir.to_owned() });
    }
    let attributes = dir.join("info/attributes");
    create_dir_all(&dir.join("info"))?;
    fs::write(&attributes, ATTRIBUTES).map_err(FileError::when("write", &attributes))?;
    // Not `git archive`: it leaves out what the repository marks `export-ignore`.
    let call = |args: &[&str]| {
        let tool = Tool::new("git").args(["-c", "core.autocrlf=false", "-c", "core.bare=false"]);
        let tool = tool.arg("--git-dir").arg(dir).arg("--work-tree").arg(to).args(args).dir(to);
        let tool = git(tool.env("GIT_INDEX_FILE", scratch.path().join("index")), &config);
        // Whatever a filter of the host's own settings makes of a file.
        limited(tool, LARGEST_COMMIT)?.lines_within(&|| guard.exceeded(), |_| {})
    };
    let written = call(&["read-tree", commit]).and_then(|()| call(&["checkout-index", "--all", "--force"]));
    written.map_err(failed(format!("check out commit {commit} of {}", dir.display())))?;
    Ok(submodules)
}

#[cfg(test)]
mod tests;
