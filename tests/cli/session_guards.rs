//! What one user had reaches no other, and nobody is given a guest that does not know of it.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sisforge::sys::tiny_guest::AfterText;

use super::session::{asked, in_state, pool, start};
use crate::common::sandbox::{READY, Sandbox, until};
use crate::needs_firecracker;

#[test]
fn a_guest_that_was_handed_out_comes_back_to_nobody() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 1\nmax = 1");
    sandbox.done("up");
    let member = &format!("{pool}-0");
    start(&sandbox, &format!("{pool} --for alice"));
    sandbox
        .run(&format!("snapshot create {member} --name p2 --stop"))
        .fails(2, &[&format!("{member} is handed out"), &format!("`sisforge forensics {member}`")]);
    sandbox.done(&format!("session end {member}"));
    sandbox.run(&format!("snapshot create {member}")).fails(2, &["is handed out"]);
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_guest_that_did_not_boot_to_be_a_spare_is_none() {
    needs_firecracker!();
    let sandbox = Sandbox::new();
    sandbox.kernel(READY, AfterText::Tick);
    let pool = sandbox.guest('k');
    let fleet = |keys: &str| sandbox.fleet_with("a", &format!("[pool.{pool}]\n{keys}\n"));
    // A guest that its user has had for long, and one that came back from a snapshot.
    fleet("replicas = 2");
    sandbox.done("up");
    let [first, second] = &[0, 1].map(|number| format!("{pool}-{number}"));
    sandbox.done(&format!("snapshot create {second} --stop --name one"));
    sandbox.done("snapshot restore one");
    fs::write(sandbox.jail_within(first).join("data/disk.ext4"), "hers").unwrap();
    sandbox.done(&format!("snapshot create {second} --name two"));
    let before = [first, second].map(|guest| sandbox.pid(guest));
    fleet("spare = 2\nmax = 2");
    sandbox.run(&format!("session start {pool}")).fails(1, &["is spare"]);
    for command in ["snapshot restore two", &format!("snapshot restore two --as {first}")] {
        sandbox.run(command).fails(2, &["nobody is given what another had", "--as GUEST"]);
    }
    let plan = sandbox.run("plan");
    assert_eq!(plan.out.matches("it did not boot to be a spare").count(), 2 + 2, "{plan}");
    plan.fails(0, &[&format!("what {first}, {second} wrote is lost")]);
    sandbox.done("up");
    assert_eq!(in_state(&sandbox, "spare"), 2);
    for (guest, pid) in [first, second].into_iter().zip(before) {
        assert_ne!(sandbox.pid(guest), pid);
        assert!(sandbox.ps(guest)["restored_from"].is_null());
    }
    assert_ne!(fs::read(sandbox.jail_within(first).join("data/disk.ext4")).unwrap(), b"hers");
    // Nor one whose record was lost once it was handed out.
    let taken = start(&sandbox, &pool)["guest"].as_str().unwrap().to_owned();
    let pid = sandbox.pid(&taken);
    fs::remove_file(sandbox.record(&taken, "session.json")).unwrap();
    sandbox.done("up");
    assert!(sandbox.pid(&taken) != pid && sandbox.ps(&taken)["state"] == "spare");
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

/// How many sessions there are.
fn sessions(sandbox: &Sandbox) -> usize {
    let all = sandbox.document("session ls", "session-ls");
    all.as_array().unwrap().iter().filter(|guest| guest["state"] != "spare").count()
}

#[test]
fn who_went_away_is_given_no_guest() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 1\nmax = 1");
    sandbox.done("up");
    let member = format!("{pool}-0");
    start(&sandbox, &pool);
    let ask = format!("{{\"command\": \"start\", \"pool\": \"{pool}\", \"wait\": \"60s\"}}\n");
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = sandbox.command();
    command.args(["session", "socket"]).stderr(Stdio::piped());
    command.stdin(OwnedFd::from(theirs.try_clone().unwrap())).stdout(OwnedFd::from(theirs));
    let waiting = command.spawn().unwrap();
    drop(command);
    ours.write_all(ask.as_bytes()).unwrap();
    // Nobody reads what `session start` says.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = sandbox.command();
    command.args(["session", "start", &pool, "--wait", "60s"]).stdout(writer).stderr(Stdio::piped());
    let piped = command.spawn().unwrap();
    drop(command);
    thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    drop((ours, reader));
    let ended = piped.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(1) && told.contains("is gone, and none was handed out"), "{told}");
    let ended = waiting.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(1) && told.contains("is gone, and none was handed out"), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    sandbox.done(&format!("session end {member}"));
    sandbox.done("up");
    assert_eq!(sessions(&sandbox), 0);

    // Where the answer cannot be written, the session is over.
    let mut full = sandbox.command();
    full.args(["session", "start", &pool]).stdout(File::create("/dev/full").unwrap());
    let said = Command::stderr(&mut full, Stdio::piped()).output().unwrap();
    let told = String::from_utf8(said.stderr).unwrap();
    assert!(said.status.code() == Some(1) && told.contains("No space left"), "{told}");
    assert!(told.contains(&member) && told.contains("its session was ended"), "{told}");
    assert_eq!(sessions(&sandbox), 0);
    assert!(sandbox.done("events").contains(&format!("the session of {member} was ended")));
    sandbox.done("up");
    // One that closed for writing alone still reads.
    let (_, answers) = asked(&sandbox, "", &ask);
    assert_eq!(answers[0]["guest"], member.as_str());
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn what_is_no_pool_is_not_waited_for() {
    needs_firecracker!();
    let (sandbox, pool) = pool("replicas = 1");
    let begun = Instant::now();
    sandbox.run("session start nowhere --wait 30s").fails(2, &["there is no pool `nowhere`"]);
    sandbox.run(&format!("session start {pool} --wait 30s")).fails(2, &["fixed number of guests"]);
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_session_is_not_restarted() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 1\nmax = 2");
    sandbox.done("up");
    let [first, second] = &[0, 1].map(|number| format!("{pool}-{number}"));
    start(&sandbox, &pool);
    sandbox.done("up");
    let (pid, spare) = (sandbox.pid(first), sandbox.pid(second));
    let restart = format!("restart {second} {first}");
    sandbox.run(&restart).fails(1, &[&format!("somebody has {first}"), &format!("session end {first}")]);
    assert_eq!((sandbox.pid(first), sandbox.pid(second)), (pid, spare));
    sandbox.done(&format!("restart {second}"));
    assert!(sandbox.pid(second) != spare && sandbox.ps(second)["state"] == "spare");
    sandbox.done("down --timeout 0");
}

#[test]
fn a_spare_that_is_quarantined_is_named_and_keeps_nobody_from_another() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 1\nmax = 2");
    sandbox.done("up");
    let [first, second] = &[0, 1].map(|number| format!("{pool}-{number}"));
    let pid = sandbox.pid(first);
    sandbox.done(&format!("quarantine {first}"));
    let refused = sandbox.run(&format!("session start {pool}"));
    refused
        .fails(1, &[&format!("and {first} is quarantined"), &format!("`sisforge release {first}`"), "watch"]);
    sandbox.run("up").fails(0, &["1 started"]);
    let listed = sandbox.run("session ls");
    assert!(listed.out.contains("spare, quarantined"), "{listed}");
    listed.fails(0, &[&format!("`sisforge release {first}`")]);
    let document = sandbox.document("session ls", "session-ls");
    assert!(document[0]["quarantined"].is_string() && document[1]["quarantined"].is_null());
    assert_eq!(start(&sandbox, &pool)["guest"], second.as_str());
    // It holds its place, so that there is none left.
    sandbox.run("up").fails(0, &["nothing to do"]);
    let refused = sandbox.run(&format!("session start {pool}"));
    refused.fails(1, &["1 of at most 2 are in use", &format!("{first} is quarantined"), "release"]);
    assert!(!refused.err.contains("watch"), "{refused}");
    assert_eq!(sandbox.pid(first), pid);
    sandbox.done(&format!("release {first}"));
    assert_eq!(start(&sandbox, &pool)["guest"], first.as_str());
    // The next of a name that is cut off is not started: nobody could be given it.
    sandbox.done(&format!("quarantine {first}"));
    sandbox.done(&format!("session end {first}"));
    sandbox.run("up").fails(0, &["nothing to do"]);
    sandbox.done("down --timeout 0");
    assert_eq!(sandbox.traces(), [""; 0]);
}

#[test]
fn a_session_that_is_over_is_ended_by_whoever_asks() {
    needs_firecracker!();
    let (sandbox, pool) = pool("spare = 2\nmax = 2");
    sandbox.done("up");
    let [first, second] = &[0, 1].map(|number| format!("{pool}-{number}"));
    start(&sandbox, &format!("{pool} --ttl 1s"));
    start(&sandbox, &format!("{pool} --for jo"));
    until("it is over", || sandbox.done("session ls").contains("over"));
    // Whatever else is wrong in the file.
    let text = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", text.replace("packages", "pakages"));
    sandbox.done(&format!("session end {first}"));
    sandbox.write("fleet.toml", text);
    assert_eq!(sessions(&sandbox), 1);
    assert!(sandbox.done("events").contains(&format!("the session of {first} was ended")));
    // Never another's.
    let refused = sandbox.run(&format!("session end {first}"));
    refused.fails(2, &["no session has a guest", "session ls"]);
    assert!(!refused.err.contains(second), "{refused}");
    // One whose `end` was killed before the guest was gone.
    let path = sandbox.record(second, "session.json");
    let mut record: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(record["is_over"], false, "{record}");
    record["is_over"] = true.into();
    fs::write(&path, record.to_string()).unwrap();
    sandbox.run(&format!("session extend {second}")).fails(2, &["is over"]);
    sandbox.done(&format!("session end {second}"));
    assert_eq!((sessions(&sandbox), sandbox.ps(second)["pid"].is_null()), (0, true));
    sandbox.done("down --timeout 0");
}
