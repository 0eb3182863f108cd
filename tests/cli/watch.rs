//! Following a Git branch: each commit is applied, mistakes change nothing, drift is repaired.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::kernel::{SMALL, cannot_build, small_source};
use crate::common::sandbox::{Run, SISFORGE, Sandbox, until};
use crate::needs_firecracker;

/// A sandbox that is a Git repository.
struct Repository(Sandbox);

impl Repository {
    fn new() -> Self {
        let repository = Self(Sandbox::new());
        repository.0.write(".gitignore", "out\nstore\ncache\nlog\n*.rsa\n");
        repository.git(&["init", "--quiet", "--initial-branch", "main"]);
        repository
    }

    fn git(&self, args: &[&str]) {
        let names = ["user.name=t", "user.email=t@example.org"].iter().flat_map(|name| ["-c", name]);
        let mut git = Command::new("git");
        Run::of(git.args(names).args(args).current_dir(self.0.path(""))).fails(0, &[]);
    }

    /// Commits the fleet of these guests with a lock that fits.
    fn commit(&self, guests: &str) {
        self.0.fleet(guests);
        self.0.done("lock");
        self.commit_as_it_is();
    }

    fn commit_as_it_is(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "change"]);
    }

    fn watch(&self) -> Watching<'_> {
        Watching::new(&self.0, &["--repo", "."])
    }

    fn is_ready(&self, letter: char) -> bool {
        self.0.ps(&self.0.guest(letter))["state"] == "ready"
    }
}

/// A `watch` that runs; ended when it is dropped.
struct Watching<'a> {
    sandbox: &'a Sandbox,
    child: Child,
}

impl<'a> Watching<'a> {
    fn new(sandbox: &'a Sandbox, args: &[&str]) -> Self {
        let log = File::create(sandbox.path("log")).unwrap();
        let mut watch = sandbox.command();
        watch.args(["watch", "--interval", "200ms"]).args(args).stdin(Stdio::null());
        Self { sandbox, child: watch.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap() }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.sandbox.path("log")).unwrap()
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}

#[test]
fn each_commit_is_applied_and_a_mistaken_one_changes_nothing() {
    needs_firecracker!();
    let repository = Repository::new();
    let (a, b) = (&repository.0.guest('a'), &repository.0.guest('b'));
    repository.commit("a");
    let watch = repository.watch();
    until("the first commit is applied", || watch.said().contains(": applied"));
    let pid = repository.0.pid(a);

    repository.commit("ab");
    until("a commit that adds a guest brings it up", || repository.is_ready('b'));
    assert_eq!(repository.0.pid(a), pid, "the other guest is not touched");

    let text = repository.0.fleet_text("a", "");
    repository.0.write("fleet.toml", text.replace("[defaults]", "[default]"));
    repository.commit_as_it_is();
    until("a mistake is reported", || watch.said().contains("unknown key `default`"));

    repository.0.fleet("a");
    repository.commit_as_it_is();
    let stale = format!("the guest {b} is no longer in fleet.toml");
    until("a stale lock is reported", || watch.said().contains(&stale));
    until("and nothing comes of it", || watch.said().matches("nothing was changed").count() == 2);
    assert!(repository.is_ready('b'), "what a mistaken commit takes away stays");

    Run::of(Command::new("kill").args(["-9", &pid.to_string()])).fails(0, &[]);
    until("a killed VMM is repaired", || watch.said().contains("repairing drift"));
    until("and runs", || repository.is_ready('a'));
    let said = watch.said();
    assert_eq!(said.matches("unknown key `default`").count(), 1, "a mistake is reported once");
    assert_eq!(said.matches(&stale).count(), 1, "a mistake is reported once");

    repository.commit("a");
    until("a commit that removes a guest takes it down", || !repository.is_ready('b'));
    until("and says so", || watch.said().matches(": applied").count() == 3);
    assert!(repository.0.disk(b).exists(), "its disk is kept");
    let checkouts = fs::read_dir(repository.0.path("out/.watch")).unwrap().flatten();
    let checkouts = checkouts.filter(|entry| entry.file_type().unwrap().is_dir()).count();
    assert_eq!(checkouts, 2, "the clone and the last commit; the others are gone");
    let current = repository.0.run("--file out/.watch/current/fleet.toml ps");
    assert!(current.code == 0 && current.out.contains(&repository.0.guest('a')), "{current}");
}

#[test]
fn where_keys_are_named_a_commit_is_signed_by_one_of_them_or_not_applied() {
    needs_firecracker!();
    let repository = Repository::new();
    let sandbox = &repository.0;
    let keys = tempfile::tempdir().unwrap();
    let (key, signers) = (keys.path().join("key"), keys.path().join("signers"));
    Run::of(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).fails(0, &[]);
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    fs::write(&signers, format!("t@example.org {public}")).unwrap();
    let once = format!("watch --once --repo . --verify {}", signers.display());
    let sign = || {
        let key = format!("user.signingkey={}", key.display());
        repository.git(&[
            "-c",
            "gpg.format=ssh",
            "-c",
            &key,
            "commit",
            "--amend",
            "--no-edit",
            "-S",
            "--quiet",
        ]);
    };
    repository.commit("a");
    sandbox.run(&once).fails(2, &["by t <t@example.org> is not signed by a key of", "help: sign it"]);
    assert!(!repository.is_ready('a'));
    sign();
    sandbox.run(&once).fails(0, &[]);
    assert!(repository.is_ready('a'));
    repository.commit("ab");
    sandbox.run(&once).fails(2, &["is not signed"]);
    assert!(repository.is_ready('a') && !repository.is_ready('b'), "the last good one stays");
    sandbox.run("watch --once --verify signers").fails(2, &["--repo"]);
    sandbox.run(&once.replace("signers", "absent")).fails(2, &["cannot read the allowed signers", "absent"]);
    sandbox.run("watch --repo . --verify absent").fails(2, &["cannot read the allowed signers", "absent"]);
}

#[test]
fn drift_is_repaired_while_the_repository_is_away() {
    needs_firecracker!();
    let repository = Repository::new();
    let a = &repository.0.guest('a');
    repository.commit("a");
    let kill = || {
        let pid = repository.0.pid(a);
        Run::of(Command::new("kill").args(["-9", &pid.to_string()])).fails(0, &[]);
        pid
    };
    let git = [repository.0.path(".git"), repository.0.path("away")];
    for restarted in [false, true] {
        let watch = repository.watch();
        if !restarted {
            until("the commit is applied", || watch.said().contains(": applied"));
            fs::rename(&git[0], &git[1]).unwrap();
            until("the repository is missed", || watch.said().contains("cannot fetch"));
        }
        let pid = kill();
        until("the guest is back", || {
            let guest = repository.0.ps(a);
            guest["state"] == "ready" && guest["pid"] != pid
        });
    }
    fs::rename(&git[1], &git[0]).unwrap();
}

#[test]
fn a_submodule_is_named() {
    let repository = Repository::new();
    repository.0.fleet("a");
    repository.0.done("lock");
    repository.commit_as_it_is();
    let link = "160000,0123456789012345678901234567890123456789,recipes/u";
    repository.git(&["update-index", "--add", "--cacheinfo", link]);
    repository.git(&["commit", "--quiet", "--message", "submodules"]);
    let run = repository.0.run("watch --repo . --once");
    assert!(run.err.contains("note: recipes/u: submodules are not fetched"), "{run}");
    repository.0.run("down");
}

#[test]
fn watch_by_who_is_not_root_ends_at_once() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root becomes somebody else");
    }
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let mut watch = Command::new("timeout");
    sandbox.surround(&mut watch);
    std::os::unix::process::CommandExt::uid(&mut watch, 65534);
    watch.arg("30").arg(SISFORGE).arg("watch");
    Run::of(&mut watch).fails(1, &["this command needs root"]);
}

#[test]
fn watch_once_looks_applies_and_ends() {
    needs_firecracker!();
    let repository = Repository::new();
    repository.0.fleet("a");
    repository.commit_as_it_is();
    let once = "watch --repo . --once";
    repository.0.run(once).fails(2, &["there is no ", "fleet.lock", "help: run `sisforge lock`"]);
    repository.commit("a");
    repository.0.run(once).fails(0, &["1 started"]);
    repository.0.run(once).fails(0, &["nothing to do"]);
    repository.0.run("watch --once").fails(0, &["nothing to do"]);
    repository.0.run("watch --repo nowhere --once").fails(1, &["error: ", "nowhere"]);
    repository.0.run("watch --repo . --branch gone --once").fails(1, &["error: ", "gone"]);
    repository.0.run("watch --once --repo . --file /fleet.toml").fails(2, &["absolute"]);
}

/// Whether a program sleeps for so many seconds.
fn sleeps(seconds: &str) -> bool {
    let line = format!("sleep\0{seconds}\0");
    let is_it =
        |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).is_ok_and(|it| it == line.as_bytes());
    fs::read_dir("/proc").unwrap().flatten().any(is_it)
}

#[test]
fn guests_are_looked_after_while_a_new_commit_is_built_and_the_build_ends_with_watch() {
    needs_firecracker!();
    if cannot_build("/") {
        return;
    }
    let repository = Repository::new();
    let sandbox = &repository.0;
    repository.commit("a");
    small_source(sandbox, "@sleep 387654");
    let mut watch = repository.watch();
    until("the first commit is applied", || watch.said().contains(": applied"));

    let text = sandbox.fleet_text("a", "").replace("image = \"tiny.elf\"", SMALL);
    sandbox.write("fleet.toml", text);
    sandbox.done("lock");
    repository.commit_as_it_is();
    until("the next one is built", || sleeps("387654"));
    let killed = sandbox.pid(&sandbox.guest('a'));
    Run::of(Command::new("kill").args(["-9", &killed.to_string()])).fails(0, &[]);
    let is_another =
        || sandbox.ps(&sandbox.guest('a'))["pid"].as_u64().is_some_and(|pid| pid != u64::from(killed));
    until("its guest comes back", || repository.is_ready('a') && is_another());
    assert!(sleeps("387654"), "before the build is over");

    Run::of(Command::new("kill").args(["-TERM", &watch.child.id().to_string()])).fails(0, &[]);
    watch.child.wait().unwrap();
    until("what a build runs ends with it", || !sleeps("387654"));
}

#[test]
fn the_newest_good_commit_wins_while_another_is_built() {
    needs_firecracker!();
    if cannot_build("/") {
        return;
    }
    let repository = Repository::new();
    let sandbox = &repository.0;
    repository.commit("a");
    small_source(sandbox, "@sleep 387656");
    let watch = repository.watch();
    until("the first commit is applied", || watch.said().contains(": applied"));
    let ready = sandbox.read("fleet.toml");
    let commit = |text: &str| {
        sandbox.write("fleet.toml", text);
        sandbox.done("lock");
        repository.commit_as_it_is();
    };
    let with_b = sandbox.fleet_text("ab", "").replace("image = \"tiny.elf\"", SMALL);
    commit(&ready.replace("image = \"tiny.elf\"", SMALL));
    until("the next one is built", || sleeps("387656"));

    sandbox.write("fleet.toml", ready.replace("[defaults]", "[default]"));
    repository.commit_as_it_is();
    until("a mistake is reported meanwhile", || watch.said().contains("unknown key `default`"));
    commit(&with_b);
    until("one that wants the same kernel and more takes its place", || {
        watch.said().contains(": superseded by ")
    });
    thread::sleep(Duration::from_secs(3));
    assert!(sleeps("387656"), "but not the work on that kernel");

    commit(&sandbox.fleet_text("ab", ""));
    until("one that needs no kernel ends the build", || !sleeps("387656"));
    until("and is applied", || repository.is_ready('b'));
    until("as the newest", || watch.said().matches(": applied").count() == 2);
    let work = fs::read_dir(sandbox.path("out/.work")).unwrap().flatten();
    let left: Vec<_> = work.filter(|entry| entry.path().join("src").exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(watch.said().matches("unknown key `default`").count(), 1, "a mistake is reported once");
}

#[test]
fn what_a_file_says_no_more_is_not_applied_once_it_is_built() {
    needs_firecracker!();
    if cannot_build("/") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let ready = sandbox.read("fleet.toml");
    let source = |recipe: &str| {
        small_source(&sandbox, recipe);
        sandbox.write("fleet.toml", ready.replace("image = \"tiny.elf\"", SMALL));
        sandbox.done("lock");
    };
    source("@sleep 387658");
    let watch = Watching::new(&sandbox, &[]);
    until("it is built", || sleeps("387658"));
    sandbox.write("fleet.toml", ready.replace("[defaults]", "[default]"));
    until("a mistake is told", || watch.said().contains("unknown key `default`"));
    thread::sleep(Duration::from_secs(2));
    assert!(sleeps("387658"), "a mistake on the way ends no build");
    sandbox.write("fleet.toml", &ready);
    sandbox.done("lock");
    until("another text ends it", || !sleeps("387658"));
    until("and is applied", || watch.said().contains(": applied"));
    assert_eq!(sandbox.ps(&sandbox.guest('a'))["state"], "ready");
    assert_eq!(watch.said().matches("unknown key `default`").count(), 1, "{}", watch.said());
    assert_eq!(watch.said().matches(": applied").count(), 1, "{}", watch.said());
}

#[test]
fn a_mistaken_commit_ends_no_build_and_is_told_once() {
    needs_firecracker!();
    if cannot_build("/") {
        return;
    }
    let repository = Repository::new();
    let sandbox = &repository.0;
    sandbox.fleet("a");
    let ready = sandbox.read("fleet.toml");
    // What it builds is no kernel, and fails.
    small_source(sandbox, "@sleep 4.387657; exit 3");
    sandbox.write("fleet.toml", ready.replace("image = \"tiny.elf\"", SMALL));
    sandbox.done("lock");
    repository.commit_as_it_is();
    let watch = repository.watch();
    until("it is built", || sleeps("4.387657"));
    sandbox.write("fleet.toml", ready.replace("[defaults]", "[default]"));
    repository.commit_as_it_is();
    until("the build goes on to its end", || watch.said().contains("the kernel does not build"));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(watch.said().matches("unknown key `default`").count(), 1, "{}", watch.said());
}

#[test]
fn an_up_that_builds_keeps_nobody_from_the_host() {
    needs_firecracker!();
    if cannot_build("/") {
        return;
    }
    let sandbox = Sandbox::running("a");
    let text = sandbox.read("fleet.toml");
    small_source(&sandbox, "@sleep 387655");
    sandbox.write("fleet.toml", text.replace("image = \"tiny.elf\"", SMALL));
    let mut up = sandbox.command();
    let mut up = up.arg("up").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("it builds", || sleeps("387655"));
    sandbox.run("down --timeout 0").fails(0, &[]);
    assert_eq!(sandbox.traces(), [""; 0]);
    assert!(up.try_wait().unwrap().is_none() && sleeps("387655"), "while it builds");
    up.kill().unwrap();
    up.wait().unwrap();
    until("what a build runs ends with it", || !sleeps("387655"));
}

#[test]
fn an_up_that_waited_carries_out_what_the_fleet_is_by_then() {
    needs_firecracker!();
    let sandbox = Sandbox::running("a");
    let lock = fs::read_dir(sandbox.path("store")).unwrap().map(|entry| entry.unwrap().path().join("lock"));
    let lock = lock.into_iter().find(|lock| lock.is_file()).expect("the lock of the fleet");
    sandbox.fleet("ab");
    sandbox.done("lock");
    let mut holder = Command::new("flock").arg(lock).args(["sleep", "4"]).spawn().unwrap();
    let up = thread::scope(|scope| {
        let up = scope.spawn(|| sandbox.run("up"));
        thread::sleep(Duration::from_secs(2));
        sandbox.fleet("a");
        up.join().unwrap()
    });
    holder.wait().unwrap();
    up.fails(0, &["begins again"]);
    assert_eq!(sandbox.documents("ps", "ps").1[0].as_array().unwrap().len(), 1, "{up}");
    sandbox.run("plan --detailed-exitcode").fails(0, &[]);
}
