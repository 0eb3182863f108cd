//! Following a Git branch: each commit is applied, mistakes change nothing, drift is repaired.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::kernel::{SMALL, cannot_build, small_source};
use crate::common::namespaces::skip;
use crate::common::sandbox::{Run, SISFORGE, Sandbox, until};
use crate::needs_firecracker;

/// A sandbox that is a Git repository.
struct Repository(Sandbox);

impl Repository {
    fn new() -> Self {
        let repository = Self(Sandbox::new());
        repository.0.write(".gitignore", "out\nstore\ncache\nlog\nwatch.prom\n*.rsa\n");
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

    /// How many commits are checked out.
    fn checkouts(&self) -> usize {
        let there = fs::read_dir(self.0.path("out/.watch")).unwrap().flatten();
        there.filter(|entry| entry.file_name().len() == 40).count()
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

    let told = || repository.0.documents("events", "events").1;
    let wrong = |event: &serde_json::Value| {
        event["event"] == "look-failed" && event["error"].as_str().unwrap().contains("unknown key")
    };
    until("it is an event", || told().iter().any(wrong));
    let event = told().into_iter().find(wrong).unwrap();
    let line = text.lines().position(|line| line == "[defaults]").unwrap() + 1;
    let place = format!("fleet.toml:{line}:");
    assert!(event["error"].as_str().unwrap().starts_with(&place), "{event}");
    assert_eq!(event["author"], "t <t@example.org>");
    assert_eq!(event["revision"].as_str().map(str::len), Some(40), "{event}");

    repository.0.fleet("a");
    repository.commit_as_it_is();
    let stale = format!("the guest {b} is no longer in fleet.toml");
    until("a stale lock is reported", || watch.said().contains(&stale));
    until("and nothing comes of it", || watch.said().matches("nothing was changed").count() == 2);
    assert!(repository.is_ready('b'), "what a mistaken commit takes away stays");
    assert_eq!(repository.checkouts(), 1, "and nothing of it");

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
    assert_eq!(repository.checkouts(), 1, "the last commit; the others are gone");
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
    assert_eq!(repository.checkouts(), 0, "what nobody signed is not written");
    sign();
    sandbox.run(&once).fails(0, &[]);
    assert!(repository.is_ready('a'));
    repository.commit("ab");
    sandbox.run(&once).fails(2, &["is not signed"]);
    assert!(repository.is_ready('a') && !repository.is_ready('b'), "the last good one stays");
    assert_eq!(repository.checkouts(), 1, "and it alone");
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
    let in_step = format!("sisforge_watch_in_step{{fleet=\"{}\"}} 1\n", repository.0.name);
    for restarted in [false, true] {
        let watch = Watching::new(&repository.0, &["--repo", ".", "--textfile", "watch.prom"]);
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
        until("and the host counts as it should be", || repository.0.read("watch.prom").contains(&in_step));
    }
    fs::rename(&git[1], &git[0]).unwrap();
}

/// Something else that has the name of a guest's TAP: the guest does not start until this is dropped.
struct TakenTap<'a> {
    repository: &'a Repository,
    tap: String,
}

impl<'a> TakenTap<'a> {
    fn of(repository: &'a Repository, letter: char) -> Self {
        let taken = Self { repository, tap: format!("sis-{}", repository.0.guest(letter)) };
        taken.ip(&["link", "add", &taken.tap, "type", "bridge"]).fails(0, &[]);
        taken
    }

    fn ip(&self, args: &[&str]) -> Run {
        Run::of(Command::new("ip").args(["-n", &self.repository.0.netns()]).args(args))
    }
}

impl Drop for TakenTap<'_> {
    fn drop(&mut self) {
        self.ip(&["link", "delete", &self.tap]);
    }
}

#[test]
fn a_commit_of_which_a_guest_fails_is_what_the_host_is_held_to() {
    needs_firecracker!();
    let repository = Repository::new();
    let sandbox = &repository.0;
    let a = &sandbox.guest('a');
    repository.commit("a");
    let prom = || sandbox.read("watch.prom");
    let in_step =
        |is: u8| prom().contains(&format!("sisforge_watch_in_step{{fleet=\"{}\"}} {is}\n", sandbox.name));
    let git = [sandbox.path(".git"), sandbox.path("away")];
    let args = ["--repo", ".", "--textfile", "watch.prom"];

    let mut watch = Watching::new(sandbox, &args);
    until("the commit is applied", || watch.said().contains(": applied"));
    let (before, revision) = (sandbox.pid(a), told_revision(&prom()));
    let taken = TakenTap::of(&repository, 'b');
    let second = sandbox.fleet_text("ba", "memory = \"96MiB\"\n");
    sandbox.write("fleet.toml", &second);
    sandbox.done("lock");
    repository.commit_as_it_is();
    until("one guest of the next commit fails", || watch.said().contains("this will be tried again"));
    let changed = sandbox.pid(a);
    assert_ne!(changed, before, "another is as that commit wants it");
    until("the metrics tell of it", || in_step(0));
    assert_eq!(told_revision(&prom()), revision, "nor does it count as applied");

    for restarted in [false, true] {
        if restarted {
            drop(watch);
            watch = Watching::new(sandbox, &args);
        } else {
            fs::rename(&git[0], &git[1]).unwrap();
        }
        until("the repository is missed", || watch.said().contains("cannot fetch"));
        thread::sleep(Duration::from_secs(2));
        assert_eq!(sandbox.pid(a), changed, "what a commit brought is not taken back: {}", watch.said());
        assert_eq!(sandbox.read("out/.watch/current/fleet.toml"), second);
    }
    fs::rename(&git[1], &git[0]).unwrap();
    let applied = watch.said().matches(": applied").count();
    assert_eq!(applied, 0, "{}", watch.said());
    drop(taken);
    until("all of it is applied once nothing is in the way", || {
        watch.said().matches(": applied").count() == 1 && in_step(1)
    });
    assert!(repository.is_ready('b'));
    assert_ne!(told_revision(&prom()), revision);
    assert_eq!(sandbox.pid(a), changed);
}

/// The revision that metrics of `watch` tell as applied.
fn told_revision(metrics: &str) -> Option<String> {
    let line = metrics.lines().find(|line| line.starts_with("sisforge_watch_revision_info{"));
    line.map(str::to_owned)
}

#[test]
fn a_commit_that_was_brought_in_part_is_taken_back_or_passed_over_as_any_other() {
    needs_firecracker!();
    let repository = Repository::new();
    let sandbox = &repository.0;
    let a = &sandbox.guest('a');
    repository.commit("a");
    let first = sandbox.read("fleet.toml");
    let watch = Watching::new(sandbox, &["--repo", ".", "--textfile", "watch.prom"]);
    until("the commit is applied", || watch.said().contains(": applied"));
    let taken = TakenTap::of(&repository, 'b');
    let second = sandbox.fleet_text("ba", "memory = \"96MiB\"\n");
    sandbox.write("fleet.toml", &second);
    sandbox.done("lock");
    repository.commit_as_it_is();
    until("one guest of the next commit fails", || watch.said().contains("this will be tried again"));
    let changed = sandbox.pid(a);

    sandbox.write("fleet.toml", second.replace("[defaults]", "[default]"));
    repository.commit_as_it_is();
    until("a mistake is reported", || watch.said().contains("unknown key `default`"));
    thread::sleep(Duration::from_secs(2));
    assert_eq!(sandbox.pid(a), changed, "and changes nothing");
    drop(taken);
    until("what a mistake follows is brought to its end", || repository.is_ready('b'));
    until("and counts as applied", || watch.said().matches(": applied").count() == 2);
    assert_eq!(watch.said().matches("unknown key `default`").count(), 1, "a mistake is reported once");
    let told = |metric: &str| {
        let (metric, metrics) = (format!("sisforge_watch_{metric}{{"), sandbox.read("watch.prom"));
        let line = metrics.lines().find(|line| line.starts_with(&metric)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    until("the host is in step", || told("in_step") == 1);
    let failed = told("failed_looks_total");
    until("but looks are in vain while there is no other commit", || told("failed_looks_total") > failed + 3);

    let _taken = TakenTap::of(&repository, 'c');
    sandbox.write("fleet.toml", sandbox.fleet_text("cba", ""));
    sandbox.done("lock");
    repository.commit_as_it_is();
    let failures = || watch.said().matches("this will be tried again").count();
    let before = failures();
    until("a third one fails in part", || failures() > before);
    repository.git(&["reset", "--quiet", "--hard", "HEAD~3"]);
    assert_eq!(sandbox.read("fleet.toml"), first);
    until("the first commit is applied when it is the newest again", || {
        watch.said().matches(": applied").count() == 3
    });
    assert!(!repository.is_ready('b') && repository.is_ready('a'));
}

/// `git daemon`, which serves the repositories of a directory; ended when it is dropped.
struct Server {
    daemon: Child,
    url: String,
}

impl Server {
    fn of(sandbox: &Sandbox) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut daemon = Command::new("git");
        daemon.args(["daemon", "--export-all", "--listen=127.0.0.1"]).arg(format!("--port={port}"));
        daemon.arg(format!("--base-path={}", sandbox.path("").display()));
        let daemon = daemon.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("it serves", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { daemon, url: format!("git://127.0.0.1:{port}/.git") }
    }

    /// Whether it answers from now on.
    fn answers(&self, does: bool) {
        let pid = rustix::process::Pid::from_child(&self.daemon);
        // The daemon of a `git` is a child of it.
        let children = format!("/proc/{0}/task/{0}/children", self.daemon.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        let children =
            children.split_whitespace().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?));
        let signal = if does { rustix::process::Signal::CONT } else { rustix::process::Signal::STOP };
        for pid in children.chain([pid]) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.answers(true);
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.daemon.wait();
    }
}

/// Whether something works in the mirror of what a sandbox follows.
fn is_fetching(sandbox: &Sandbox) -> bool {
    let mirror = sandbox.path("out/.watch/repository");
    let is_there =
        |entry: fs::DirEntry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == mirror);
    fs::read_dir("/proc").unwrap().flatten().any(is_there)
}

#[test]
fn a_server_that_hangs_holds_nothing_up_and_its_fetch_ends_with_watch() {
    needs_firecracker!();
    let repository = Repository::new();
    let sandbox = &repository.0;
    let a = &sandbox.guest('a');
    repository.commit("a");
    let server = Server::of(sandbox);
    let mut watch = Watching::new(sandbox, &["--repo", &server.url]);
    until("the commit is applied", || watch.said().contains(": applied"));
    server.answers(false);
    until("a fetch hangs", || {
        thread::sleep(Duration::from_millis(500));
        is_fetching(sandbox)
    });
    let killed = sandbox.pid(a);
    Run::of(Command::new("kill").args(["-9", &killed.to_string()])).fails(0, &[]);
    let is_another = || sandbox.ps(a)["pid"].as_u64().is_some_and(|pid| pid != u64::from(killed));
    until("its guest comes back", || repository.is_ready('a') && is_another());
    assert!(is_fetching(sandbox), "while the server hangs");

    let end = |watch: &mut Child| {
        Run::of(Command::new("kill").args(["-TERM", &watch.id().to_string()])).fails(0, &[]);
        watch.wait().unwrap();
        until("the fetch ends with whoever wanted it", || !is_fetching(sandbox));
    };
    end(&mut watch.child);
    let mut once = sandbox.command();
    let once =
        once.args(["watch", "--once", "--repo", &server.url]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut once = once.spawn().unwrap();
    until("one look hangs", || is_fetching(sandbox));
    end(&mut once);
}

#[test]
fn a_damaged_checkout_or_mirror_is_made_again_and_no_commit_is_blamed() {
    needs_firecracker!();
    let repository = Repository::new();
    let sandbox = &repository.0;
    repository.commit("a");
    let once = "watch --repo . --once";
    sandbox.run(once).fails(0, &["1 started"]);
    let current = sandbox.path("out/.watch/current/fleet.toml");
    let good = fs::read_to_string(&current).unwrap();
    let checkout = fs::canonicalize(sandbox.path("out/.watch/current")).unwrap();
    for damage in [Some("garbage"), Some(""), None] {
        match damage {
            Some(text) => fs::write(&current, text).unwrap(),
            None => fs::remove_file(&current).unwrap(),
        }
        sandbox.run(once).fails(0, &["nothing to do"]);
        assert_eq!(fs::read_to_string(&current).unwrap(), good);
    }
    let watch = repository.watch();
    until("it is applied", || watch.said().contains(": applied"));
    fs::write(&current, "garbage").unwrap();
    until("it is made again while it is followed", || {
        fs::read_to_string(&current).is_ok_and(|it| it == good)
    });
    drop(watch);

    // What a mirror does not give it is asked for anew.
    fs::remove_dir_all(checkout).unwrap();
    let objects = sandbox.path("out/.watch/repository/objects");
    let empty = format!("find {} -type f -exec truncate -s 0 {{}} +", objects.display());
    Run::of(Command::new("sh").args(["-c", &empty])).fails(0, &[]);
    sandbox.run(once).fails(0, &["nothing to do"]);
    assert!(!watch_said_wrong(sandbox), "no commit is blamed");
}

/// Whether a look of `watch` failed.
fn watch_said_wrong(sandbox: &Sandbox) -> bool {
    sandbox.documents("events", "events").1.iter().any(|event| event["event"] == "look-failed")
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
        return skip("watch_by_who_is_not_root_ends_at_once", "only root becomes somebody else");
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
fn a_commit_whose_long_build_fails_is_told_with_its_author() {
    needs_firecracker!();
    if cannot_build("/") {
        return;
    }
    let repository = Repository::new();
    let sandbox = &repository.0;
    repository.commit("a");
    small_source(sandbox, "@exit 3");
    // Nothing of what is asked of the kernel comes out.
    let makefile = sandbox.read("linux/Makefile");
    let loses = makefile.replace("@cp $$KCONFIG_ALLCONFIG .config", "@sleep 2.387660; : > .config");
    assert_ne!(loses, makefile);
    sandbox.write("linux/Makefile", loses);
    let watch = repository.watch();
    until("the first commit is applied", || watch.said().contains(": applied"));
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("image = \"tiny.elf\"", SMALL));
    sandbox.done("lock");
    repository.commit_as_it_is();
    let failed = || {
        let (_, events) = sandbox.documents("events", "events");
        events.into_iter().find(|event| event["event"] == "look-failed")
    };
    until("its build fails after several looks", || failed().is_some());
    let event = failed().unwrap();
    assert_eq!(event["author"], "t <t@example.org>", "{event}");
    assert_eq!(event["revision"].as_str().map(str::len), Some(40), "{event}");
    let error = event["error"].as_str().unwrap();
    assert!(error.contains("kernel-configs/") && !error.contains("/.watch/"), "{event}");
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
