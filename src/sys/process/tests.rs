use std::process::{Child, Command};
use std::thread;

use super::*;

fn sleeper() -> Child {
    Command::new("sleep").arg("60").spawn().unwrap()
}

#[test]
fn a_name_with_parentheses_does_not_shift_the_fields() {
    let line = "4242 (a) b (c) S 1 4242 4242 0 -1 4194560 118 0 0 0 0 0 0 0 20 0 1 0 123456 2523136 211";
    let stat = Stat { state: 'S', flags: 4_194_560, start_time: 123_456 };
    assert_eq!(parse_stat(line), Some(stat));
    let ran = "4242 (a) b (c) S 1 4242 4242 0 -1 4194560 118 0 0 0 7 5 0 0 20 0 1 0 123456 2523136 211";
    assert_eq!(parse_processor_ticks(ran), Some(12));
}

#[test]
fn a_thread_of_the_kernel_is_told_from_a_process_without_arguments() {
    let line = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 7 0 0";
    assert_ne!(parse_stat(line).unwrap().flags & KERNEL_THREAD, 0);
    let own = inspect(std::process::id()).unwrap();
    assert!(!own.is_kernel_thread);
}

#[test]
fn status_gives_effective_uid_and_bytes() {
    let text = "Name:\tsleep\nUid:\t0\t200001\t0\t0\nVmRSS:\t    1920 kB\n";
    assert_eq!(parse_uid(text), Some(200_001));
    assert_eq!(parse_resident(text), Some(1_966_080));
}

#[test]
fn a_live_process_is_described() {
    let mut child = sleeper();
    // Between fork and exec the command is still this test's.
    let info = (0..200)
        .find_map(|_| {
            thread::sleep(Duration::from_millis(5));
            inspect(child.id()).filter(|info| command(info.id.pid) == ["sleep", "60"])
        })
        .unwrap();
    assert_eq!(info.root, DirId::own_root());
    assert_eq!(uid(&info), Some(rustix::process::geteuid().as_raw()));
    let earlier = ProcessId { start_time: info.id.start_time - 1, ..info.id };
    assert_eq!(uid(&ProcessInfo { id: earlier, ..info.clone() }), None);
    assert!(uptime(&info).unwrap() < Duration::from_secs(60));
    assert!(resident_memory(child.id()).unwrap() > 0);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_zombie_is_dead() {
    let mut child = sleeper();
    let id = inspect(child.id()).unwrap().id;
    assert!(!wait_gone(id, Duration::ZERO));
    assert!(send_signal(id, Signal::TERM).unwrap());
    assert!(wait_gone(id, Duration::from_secs(5)));
    assert_eq!(inspect(child.id()), None);
    child.wait().unwrap();
}

#[test]
fn who_is_stopped_stands_still_once_that_is_said() {
    let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let id = inspect(child.id()).unwrap().id;
    let ran = || processor_time(id.pid).unwrap();
    // What obeys a signal only later is found by doing it often.
    for _ in 0..200 {
        assert!(stop(id, Duration::from_secs(5)).unwrap());
        assert_eq!(stat(id.pid).unwrap().state, STOPPED);
        assert!(send_signal(id, Signal::CONT).unwrap());
    }
    assert!(stop(id, Duration::from_secs(5)).unwrap());
    let before = ran();
    thread::sleep(Duration::from_millis(50));
    assert_eq!(ran(), before);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!stop(id, Duration::from_secs(5)).unwrap());
}

#[test]
fn a_number_that_was_given_again_is_not_signalled() {
    let mut child = sleeper();
    let id = inspect(child.id()).unwrap().id;
    let earlier = ProcessId { start_time: id.start_time - 1, ..id };
    assert!(!send_signal(earlier, Signal::KILL).unwrap());
    assert!(inspect(child.id()).is_some());
    assert!(wait_gone(earlier, Duration::ZERO));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_root_in_another_namespace_is_found_by_its_mount() {
    let ours = parse_mountinfo(
        "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 254:16 / /srv rw - ext4 /dev/vdb rw\n\
         31 22 254:16 /jail /jails rw - ext4 /dev/vdb rw\n",
    );
    let theirs = parse_mountinfo("99 88 254:16 /jail/alice/root / rw - ext4 /dev/vdb rw\n");
    let expected = [Path::new("/srv/jail/alice/root"), Path::new("/jails/alice/root")];
    assert_eq!(seen_from(&ours, &theirs), expected);
    let removed = parse_mountinfo("99 88 254:0 /jail/bob/root//deleted / rw - ext4 /dev/vda rw\n");
    assert_eq!(seen_from(&ours, &removed), [Path::new("/jail/bob/root")]);
}
