//! The same as `hostile_vmm.rs` for a Firecracker that its guest has taken over: `hostile_vmm/jailer.pl` stands in for its
//! jailer, and answers on the API socket as it likes.

use super::hostile_vmm::Frozen::{Done, Refused, Unasked};
use super::hostile_vmm::Given::Nothing;
use super::hostile_vmm::{LINK, PATIENCE, Site, Trick, freeze};
use crate::common::namespaces::{missing, skip};
use crate::needs_firecracker;

const TRICKS: &[Trick] = &[
    Trick("none at all", Nothing, "", Done),
    Trick(
        "nothing of its jail is its own but `run` and `dev`",
        Nothing,
        "$freeze = do { my $honest = $freeze; sub { $honest->(); print \"escaped\\n\" \
         if unlink('/frozen.memory') or rename('/data', '/x') or symlink('/etc', '/x') or mkdir('/y') } }",
        Done,
    ),
    Trick(
        "a socket that is a link to a neighbour's",
        Nothing,
        "unlink $path; symlink 'HOST/jails/firecracker/BOB--1/root/run/api.sock', $path or die",
        Refused(LINK),
    ),
    Trick(
        "another process at its socket",
        Nothing,
        "unless (fork) { listen_again(8); while (accept($c, $listener)) { serve($c) } } \
         close $listener; select undef, undef, undef, 0.3; print $ready; sleep 1000",
        Refused("listens there instead of process"),
    ),
    Trick(
        "readiness that a child says while there is no socket",
        Nothing,
        "unlink $path; unless (fork) { print $ready; sleep 1000 } sleep 1000",
        Refused("No such file"),
    ),
    Trick(
        "a pipe for a socket",
        Nothing,
        "unlink $path; POSIX::mkfifo($path, 0600) or die",
        Refused("it is not a socket"),
    ),
    Trick(
        "a full queue",
        Nothing,
        "listen_again(0); for (1 .. 3) { socket(my $s, PF_UNIX, SOCK_STREAM | 2048, 0); \
         connect $s, sockaddr_un($path); push @held, $s } print $ready; sleep 1000",
        Unasked,
    ),
    Trick(
        "headers without end",
        Nothing,
        "$serve = sub { syswrite $_[0], \"HTTP/1.1 200 OK\\r\\n\"; flood($_[0], \"X: y\\r\\n\" x 1000) }",
        Refused("malformed answer"),
    ),
    Trick(
        "one header without end",
        Nothing,
        "$serve = sub { syswrite $_[0], \"HTTP/1.1 200 OK\\r\\nX: \"; flood($_[0], 'y' x 65536) }",
        Refused("malformed answer"),
    ),
    Trick(
        "a body without end",
        Nothing,
        "$serve = sub { receive($_[0]); \
         syswrite $_[0], \"HTTP/1.1 200 OK\\r\\nContent-Length: 18446744073709551615\\r\\n\\r\\n\"; \
         flood($_[0], 'y' x 65536) }",
        Refused("a body of 18446744073709551615 bytes"),
    ),
    Trick(
        "a length below zero",
        Nothing,
        "$answer{'PATCH /vm'} = \"HTTP/1.1 200 OK\\r\\nContent-Length: -1\\r\\n\\r\\n\"",
        Refused("a length that is not a number"),
    ),
    Trick(
        "a body that stays away",
        Nothing,
        "$serve = sub { receive($_[0]); syswrite $_[0], \"HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\n\" }",
        Refused("no answer from Firecracker"),
    ),
    Trick(
        "to go on, again and again",
        Nothing,
        "$serve = sub { receive($_[0]); flood($_[0], \"HTTP/1.1 100 Continue\\r\\n\\r\\n\") }",
        Refused("(status 100)"),
    ),
    Trick(
        "another address to ask",
        Nothing,
        "$answer{'PATCH /vm'} = \"HTTP/1.1 301 Moved\\r\\nLocation: http://127.0.0.1/\\r\\n\\r\\n\"",
        Refused("(status 301)"),
    ),
    Trick("a trickle", Nothing, "$serve = sub { while (defined syswrite $_[0], 'H') { sleep 1 } }", Unasked),
    Trick("silence", Nothing, "$serve = sub { receive($_[0]); sleep 1000 }", Unasked),
    Trick("hanging up", Nothing, "$serve = sub {}", Refused("no answer from Firecracker")),
    Trick(
        "no HTTP",
        Nothing,
        "$serve = sub { receive($_[0]); syswrite $_[0], \"{{{{ \\e[2J\\n\" }",
        Refused("malformed answer"),
    ),
    Trick(
        "JSON of 100,000 levels",
        Nothing,
        "$answer{'PATCH /vm'} = reply('400 Bad Request', '[' x 100000)",
        Refused("malformed answer"),
    ),
    Trick(
        "a refusal that looks like another message",
        Nothing,
        r#"$answer{'PATCH /vm'} = reply('400 Bad Request', '{"fault_message": "no\u001b[31m\nerror: BOB: gone\r\u202e"}')"#,
        Refused("refused PATCH /vm (status 400): no"),
    ),
    Trick("a snapshot of nothing", Nothing, "$freeze = sub {}", Refused("but it did not")),
    Trick(
        "a snapshot of too much memory",
        Nothing,
        "my $honest = $freeze; $freeze = sub { $honest->(); truncate('/frozen.memory', 65 << 20) }",
        Refused("but it did not"),
    ),
    Trick(
        "a refusal to let its guest go on",
        Nothing,
        "my $honest = $freeze; $freeze = sub { $honest->(); $answer{'PATCH /vm'} = reply('400 Bad Request', '{}') }",
        Refused("no reason given"),
    ),
    Trick(
        "Ctrl-Alt-Del without effect",
        Nothing,
        "$answer{'PUT /actions'} = \"HTTP/1.1 204 No Content\\r\\n\\r\\n\"",
        Unasked,
    ),
];

#[test]
fn whatever_a_firecracker_answers_no_other_guest_notices() {
    needs_firecracker!();
    let test = "whatever_a_firecracker_answers_no_other_guest_notices";
    if let Some(reason) = missing(&["perl", "timeout"]) {
        return skip(test, &reason);
    }
    let site = Site::standing_in("jailer", include_str!("hostile_vmm/jailer.pl"));
    let sandbox = &site.sandbox;
    let guests: Vec<_> = (0..TRICKS.len()).map(|number| format!("{}-{number}", sandbox.name)).collect();
    for (guest, Trick(_, given, code, _)) in guests.iter().zip(TRICKS) {
        site.trick(guest, *given, code);
    }
    let users: String = guests.iter().map(|guest| format!("[user.{guest}]\n")).collect();
    let text = sandbox.fleet_text("ab", &users);
    sandbox.write("fleet.toml", &text);
    site.run("up").fails(0, &[]);
    let neighbours = || ['a', 'b'].map(|letter| site.neighbour(letter));
    let before = neighbours();
    site.run("plan --detailed-exitcode").fails(0, &[]);
    for (guest, trick) in guests.iter().zip(TRICKS) {
        freeze(&site, guest, trick);
        let serial = std::fs::read(sandbox.record(guest, "serial.log")).unwrap();
        let serial = String::from_utf8_lossy(&serial);
        assert!(!serial.contains("the trick failed") && !serial.contains("escaped"), "{}: {serial}", trick.0);
    }
    assert_eq!(neighbours(), before);
    // All of them at once.
    let names = guests.join(" ");
    site.run(&format!("down {names} --timeout {PATIENCE} --jobs 8")).fails(0, &[" stopped"]);
    assert_eq!(neighbours(), before);
    site.run(&format!("down --timeout {PATIENCE}")).fails(0, &["2 stopped"]);
    assert_eq!(sandbox.traces(), [""; 0]);
}
