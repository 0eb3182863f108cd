//! Guests of pools are handed out and taken back: real VMMs, and tiny guests whose counting shows whether they run.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use sisforge::sys::tiny_guest::AfterText;

use super::emergency::on_read_only_store;
use crate::common::sandbox::{READY, Run, Sandbox, until};
use crate::needs_firecracker;

/// What is answered over a connection whose other end is this process.
pub fn asked(sandbox: &Sandbox, words: &str, lines: &str) -> (i32, Vec<serde_json::Value>) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = sandbox.command();
    command.args(["session", "socket"]).args(words.split_whitespace());
    command
        .stdin(OwnedFd::from(theirs.try_clone().unwrap()))
        .stdout(OwnedFd::from(theirs))
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    ours.write_all(lines.as_bytes()).unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    (
        child.wait().unwrap().code().unwrap(),
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
    )
}

/// What is answered to a user who is not root and asks what there is; and the status.
fn asked_by_nobody(sandbox: &Sandbox, words: &str) -> (i32, String) {
    const ASK: &str = "my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die $!; print $s qq({\"command\": \"ls\"}\\n); \
                       $s->flush; shutdown $s, 1; print <$s>";
    let path = sandbox.path("portal");
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let mut asks = Command::new("setpriv");
    asks.args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-MIO::Socket::UNIX", "-e", ASK])
        .arg(&path);
    let asks = asks.stdout(Stdio::piped()).spawn().unwrap();
    let (connection, _) = listener.accept().unwrap();
    let mut command = sandbox.command();
    command.args(["session", "socket"]).args(words.split_whitespace());
    command.stdin(OwnedFd::from(connection.try_clone().unwrap())).stdout(OwnedFd::from(connection));
    let code = command.stderr(Stdio::null()).status().unwrap().code().unwrap();
    drop(command);
    (code, String::from_utf8(asks.wait_with_output().unwrap().stdout).unwrap())
}

/// A fleet of one pool of guests that count, once they run.
pub fn pool(keys: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sandbox.kernel(READY, AfterText::Tick);
    let pool = sandbox.guest('k');
    sandbox.fleet_with("", &format!("[pool.{pool}]\n{keys}\n"));
    (sandbox, pool)
}

/// How far a guest has counted.
fn counted(sandbox: &Sandbox, guest: &str) -> usize {
    fs::read_to_string(sandbox.record(guest, "serial.log")).unwrap_or_default().lines().count()
}

pub fn counts(sandbox: &Sandbox, guest: &str) -> bool {
    let before = counted(sandbox, guest);
    thread::sleep(Duration::from_millis(300));
    counted(sandbox, guest) > before
}

/// How guests are, by their names.
fn states(sandbox: &Sandbox) -> Vec<(String, String)> {
    let guests = sandbox.document("ps", "ps");
    let guests = guests.as_array().unwrap().iter();
    guests
        .map(|guest| [&guest["name"], &guest["state"]].map(|word| word.as_str().unwrap().to_owned()))
        .map(Into::into)
        .collect()
}

pub fn in_state(sandbox: &Sandbox, state: &str) -> usize {
    states(sandbox).iter().filter(|(_, found)| found == state).count()
}

pub fn start(sandbox: &Sandbox, words: &str) -> serde_json::Value {
    sandbox.document(&format!("session start {words}"), "session")
}

#[test]
fn spares_wait_paused_and_one_is_handed_out_and_goes_for_good() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 2\nmax = 3\nsession = { ttl = \"8h\" }");
    let plan = sandbox.done("plan");
    assert!(plan.contains(&format!("stand by as a spare of {pool}, paused")), "{plan}");
    sandbox.done("up");
    let [first, second, third] = &[0, 1, 2].map(|number| format!("{pool}-{number}"));
    assert_eq!(states(&sandbox), [first, second].map(|name| (name.clone(), "spare".to_owned())));
    assert!(!counts(&sandbox, first) && !counts(&sandbox, second), "they are paused");
    sandbox.run("up").fails(0, &["nothing to do"]);
    let pid = sandbox.pid(first);

    let taken = start(&sandbox, &format!("{pool} --for mrs-jones"));
    assert_eq!((taken["guest"].as_str(), taken["state"].as_str()), (Some(first.as_str()), Some("in-use")));
    assert_eq!((&taken["session"]["label"], &taken["ip"]), (&"mrs-jones".into(), &sandbox.ps(first)["ip"]));
    assert!(taken["session"]["expires"].as_str() > taken["session"]["started"].as_str());
    assert!(counts(&sandbox, first) && !counts(&sandbox, second));
    assert_eq!((sandbox.ps(first)["state"].as_str(), sandbox.pid(first)), (Some("ready"), pid));
    assert_eq!(sandbox.ps(first)["session"]["label"], "mrs-jones");

    // Another one waits in its place, and nothing is done to it.
    sandbox.run("up").fails(0, &["1 started"]);
    assert_eq!((in_state(&sandbox, "spare"), sandbox.pid(first)), (2, pid));
    assert_eq!(sandbox.ps(third)["state"], "spare");
    let listed = sandbox.done("session ls");
    assert!(listed.contains("mrs-jones") && listed.matches("spare").count() == 2, "{listed}");

    // With all it had, which the next of its name has not.
    fs::write(sandbox.jail_within(first).join("data/disk.ext4"), "hers").unwrap();
    let ended = sandbox.document(&format!("session end {first}"), "session-end");
    assert_eq!(ended["guest"], first.as_str());
    assert_eq!(states(&sandbox), [second, third].map(|name| (name.clone(), "spare".to_owned())));
    sandbox.run(&format!("session end {first}")).fails(2, &["no session has a guest"]);
    start(&sandbox, &pool);
    sandbox.done("up");
    assert_eq!(sandbox.ps(first)["state"], "spare");
    assert_ne!(fs::read(sandbox.jail_within(first).join("data/disk.ext4")).unwrap(), b"hers");
    let events = sandbox.done("events");
    for words in
        [format!("{first} handed out for mrs-jones, until"), format!("the session of {first} was ended")]
    {
        assert!(events.contains(&words), "{events}");
    }
    sandbox.run("down --timeout 0").fails(0, &["3 stopped"]);
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn of_many_who_ask_at_once_each_gets_another_guest() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 4\nmax = 4");
    sandbox.done("up");
    let mut given = BTreeSet::new();
    let mut refused = 0;
    let runs: Vec<Run> = thread::scope(|scope| {
        let ask = || sandbox.run(&format!("session start {pool} --quiet"));
        let asking: Vec<_> = (0..10).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for run in runs {
        match run.code {
            0 => assert!(given.insert(run.out.trim().to_owned()), "given twice: {run}"),
            _ => {
                run.fails(1, &[&format!("no guest of {pool} is spare"), "at most 4", "--wait"]);
                refused += 1;
            }
        }
    }
    assert_eq!((given.len(), refused), (4, 6));
    // Of so many at once, each counts slowly.
    given.iter().for_each(|guest| until("each runs", || counts(&sandbox, guest)));
    // All are in use: there is no place for a spare.
    sandbox.run("up").fails(0, &["nothing to do"]);
    let one = given.first().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| sandbox.run(&format!("session start {pool} --wait 60s --quiet")));
        sandbox.done(&format!("session end {one}"));
        sandbox.done("up");
        let run = waiting.join().unwrap();
        assert_eq!((run.code, run.out.trim()), (0, one.as_str()), "{run}");
    });
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_changed_file_changes_spares_and_leaves_whoever_is_in_use() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 1\nmax = 3");
    sandbox.done("up");
    let taken = start(&sandbox, &pool)["guest"].as_str().unwrap().to_owned();
    sandbox.done("up");
    let (in_use, spare) = (sandbox.pid(&taken), format!("{pool}-1"));
    let old = sandbox.pid(&spare);
    sandbox.fleet_with("", &format!("[pool.{pool}]\nspare = 1\nmax = 3\nmemory = \"72MiB\"\n"));
    let plan = sandbox.done("plan");
    assert!(plan.contains("memory 64MiB -> 72MiB") && !plan.contains(&taken), "{plan}");
    sandbox.done("up");
    assert_eq!((sandbox.pid(&taken), sandbox.ps(&taken)["state"].as_str()), (in_use, Some("ready")));
    assert!(sandbox.pid(&spare) != old && sandbox.ps(&spare)["state"] == "spare");
    // Spares that run are others than those that are paused.
    sandbox
        .fleet_with("", &format!("[pool.{pool}]\nspare = 1\nmax = 3\nmemory = \"72MiB\"\npaused = false\n"));
    sandbox.done("up");
    assert!(counts(&sandbox, &spare) && sandbox.ps(&spare)["state"] == "spare");
    let second = start(&sandbox, &pool)["guest"].as_str().unwrap().to_owned();
    assert_eq!(second, spare);
    // A pool of fixed size has no spares: it has guests.
    sandbox.fleet_with("", &format!("[pool.{pool}]\nreplicas = 2\nmemory = \"72MiB\"\n"));
    sandbox.run(&format!("session start {pool}")).fails(2, &["fixed number of guests", "`spare` and `max`"]);
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_session_ends_at_its_time_or_with_its_vmm() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 2\nmax = 2");
    sandbox.done("up");
    let [first, second] = &[0, 1].map(|number| format!("{pool}-{number}"));
    start(&sandbox, &format!("{pool} --ttl 1s"));
    start(&sandbox, &format!("{pool} --ttl 10m"));
    let extended = sandbox.document(&format!("session extend {second}"), "session");
    assert_eq!(extended["session"]["expires"], serde_json::Value::Null);
    thread::sleep(Duration::from_millis(1200));
    let plan = sandbox.done("plan");
    assert!(plan.contains("its session is over"), "{plan}");
    sandbox.run(&format!("session extend {first} --ttl 8h")).fails(2, &["is over", "session end"]);
    let pid = sandbox.pid(first);
    // A full pool has no other place for the next one.
    sandbox.done("up");
    assert_eq!(
        (sandbox.ps(first)["state"].as_str(), sandbox.ps(second)["state"].as_str()),
        (Some("spare"), Some("ready"))
    );
    assert_ne!(sandbox.pid(first), pid);

    let pid = sandbox.pid(second);
    assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    until("its vmm is gone", || sandbox.ps(second)["pid"].is_null());
    sandbox.run(&format!("session end {second}")).fails(2, &["no session has a guest"]);
    sandbox.done("watch --once");
    assert_eq!(in_state(&sandbox, "spare"), 2, "nobody is given what another had");
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_session_ends_though_nothing_can_be_written_to_the_store() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 1\nmax = 1\nsession = { ttl = \"8h\" }");
    sandbox.done("up");
    let taken = start(&sandbox, &pool);
    let guest = taken["guest"].as_str().unwrap();
    let pid = sandbox.pid(guest);
    let ended = on_read_only_store(&sandbox, &format!("session end {guest}"));
    ended.fails(1, &["is removed all the same", "Read-only file system"]);
    assert!(sisforge::sys::process::inspect(pid).is_none(), "{ended}");
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn who_is_killed_while_taking_a_guest_leaves_nobody_with_it() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 3\nmax = 3");
    sandbox.done("up");
    for delay in 0..12 {
        let mut command = sandbox.command();
        let mut taking = command
            .args(["session", "start", &pool, "--quiet"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(3 * delay));
        let _ = taking.kill();
        taking.wait().unwrap();
    }
    let listed = sandbox.document("session ls", "session-ls");
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 3, "{listed:?}");
    for guest in listed {
        let name = guest["guest"].as_str().unwrap();
        if guest["state"] == "in-use" {
            // Whoever was killed before it said for whom loses it after a moment, which may be over by now.
            let end = sandbox.run(&format!("session end {name}"));
            assert!(end.code == 0 || end.err.contains("no session has a guest"), "{end}");
        }
    }
    sandbox.done("up");
    assert_eq!(in_state(&sandbox, "spare"), 3);
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn what_is_not_handed_out_is_nobodys_and_mistakes_are_told() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 1\nmax = 1");
    sandbox.done("up");
    let spare = format!("{pool}-0");
    for command in [
        format!("exec {spare} -- id"),
        format!("ssh {spare}"),
        format!("snapshot create {spare}"),
        format!("console {spare}"),
    ] {
        sandbox.run(&command).fails(1, &[&format!("{spare} is a spare of {pool}"), "session start"]);
    }
    sandbox.done(&format!("quarantine {spare}"));
    sandbox.run(&format!("session start {pool}")).fails(1, &["is spare"]);
    sandbox.done(&format!("release {spare}"));
    sandbox.run("session start nowhere").fails(2, &["there is no pool `nowhere`"]);
    sandbox.run(&format!("session start {pool} --ttl 0s")).fails(2, &["more than zero"]);
    sandbox.run("session end nobody").fails(2, &["no session has a guest \"nobody\""]);
    sandbox.run("session extend nobody --ttl 1h").fails(2, &["no session has a guest \"nobody\""]);
    assert_eq!(sandbox.ps(&spare)["state"], "spare");
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_portal_asks_over_a_connection() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 1\nmax = 1");
    sandbox.done("up");
    let start =
        format!("{{\"command\": \"start\", \"pool\": \"{pool}\", \"for\": \"jo\", \"ttl\": \"8h\"}}\n");
    let member = format!("{pool}-0");
    let lines = [
        &start,
        "{\"command\": \"ls\"}\n",
        &start,
        "{\"command\": \"reboot\"}\n",
        "{\"command\": \"start\", \"pool\": \"../x\"}\n",
        &format!("{{\"command\": \"extend\", \"guest\": \"{member}\", \"ttl\": \"2h\"}}\n"),
        &format!("{{\"command\": \"end\", \"guest\": \"{member}\"}}\n"),
        "{\"command\": \"end\", \"guest\": \"nobody\"}\n",
        "{\"command\": \"ls\", \"x\": 1}",
    ];
    let (code, answers) = asked(&sandbox, "", &lines.concat());
    assert_eq!((code, answers.len()), (0, 9), "{answers:?}");
    assert_eq!(
        (&answers[0]["guest"], &answers[0]["session"]["label"]),
        (&member.as_str().into(), &"jo".into())
    );
    assert_eq!(answers[1][0]["state"], "in-use");
    for (answer, words) in [
        (2, "is spare"),
        (3, "reboot"),
        (4, "the request is not understood: must be 1 to 64"),
        (7, "no session has a guest"),
        (8, "unknown field `x`"),
    ] {
        assert!(answers[answer]["error"].as_str().unwrap().contains(words), "{}", answers[answer]);
    }
    assert_eq!(
        (&answers[5]["guest"], &answers[6]["notes"]),
        (&member.as_str().into(), &serde_json::json!([]))
    );
    let (code, answers) = asked(&sandbox, "", &"x".repeat(70 << 10));
    assert!(code == 0 && answers[0]["error"].as_str().unwrap().contains("longer than"), "{answers:?}");
    for (allowed, code, word) in [("", 1, "may not ask"), ("--allow nobody", 0, "[]")] {
        let (found, answer) = asked_by_nobody(&sandbox, allowed);
        assert!(found == code && answer.contains(word), "{answer}");
    }
    sandbox.run("session socket --allow no-such-user").fails(2, &["no connection of a Unix socket"]);
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_pool_gives_none_of_one_whose_name_goes_on_where_its_own_ends() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 1\nmax = 1");
    sandbox
        .fleet_with("", &format!("[pool.{pool}]\nspare = 1\nmax = 1\n[pool.{pool}-x]\nspare = 1\nmax = 1\n"));
    sandbox.done("up");
    assert_eq!(start(&sandbox, &pool)["guest"], format!("{pool}-0"));
    sandbox.run(&format!("session start {pool}")).fails(1, &[&format!("no guest of {pool} is spare")]);
    assert_eq!(start(&sandbox, &format!("{pool}-x"))["pool"], format!("{pool}-x"));
}

#[test]
fn who_has_a_guest_keeps_it_where_its_record_cannot_be_read() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 2\nmax = 4");
    sandbox.done("up");
    let [first, second, third, last] = &[0, 1, 2, 3].map(|number| format!("{pool}-{number}"));
    start(&sandbox, &pool);
    start(&sandbox, &pool);
    sandbox.done("up");
    let (session, spare) = (sandbox.record(first, "session.json"), sandbox.record(third, "spare.json"));
    fs::write(&session, "{").unwrap();
    fs::remove_file(&spare).unwrap();
    // A pipe, in whose place nobody waits.
    assert!(std::process::Command::new("mkfifo").arg(&spare).status().unwrap().success());
    let pid = sandbox.pid(third);
    assert_eq!(start(&sandbox, &pool)["guest"], last.as_str(), "the other one is given");
    fs::remove_file(&spare).unwrap();
    sandbox.run("up").fails(0, &["cannot read the record"]);
    assert!(counts(&sandbox, first), "it is not paused");
    assert!(
        sandbox.pid(third) != pid && sandbox.ps(third)["state"] == "spare",
        "whose that was is not known"
    );
    // What is not known is not made up, and what fleet.toml tells is taken from there.
    let told = || {
        let found = sandbox.document("session ls", "session-ls");
        let of_first = found.as_array().unwrap().iter().find(|one| one["guest"] == first.as_str());
        let of_first = of_first.unwrap();
        (of_first["pool"].clone(), of_first["session"]["started"].clone())
    };
    assert_eq!(told(), (pool.as_str().into(), serde_json::Value::Null));
    let text = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", text.replace("packages", "pakages"));
    assert_eq!(told(), Default::default());
    sandbox.write("fleet.toml", text);
    sandbox.done(&format!("session extend {first} --ttl 8h"));
    assert_eq!(told(), (pool.as_str().into(), serde_json::Value::Null));
    for guest in [first, second] {
        assert!(sandbox.done("session ls").contains(guest));
        sandbox.done(&format!("session end {guest}"));
    }
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn what_a_session_is_called_is_bounded() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 1\nmax = 1");
    sandbox.done("up");
    let long = "x".repeat(70_000);
    sandbox.run(&format!("session start {pool} --for {long}")).fails(2, &["at most 256 bytes"]);
    start(&sandbox, &format!("{pool} --for {}", &long[..256]));
    sandbox.done("session ls");
}
