//! Cgroups, launched programs and processes in jails.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sisforge::sys::block;
use sisforge::sys::cgroup::{self, CgroupError, Hierarchy, IoLimits, Limits};
use sisforge::sys::launch::{self, LaunchRequest};
use sisforge::sys::process::{self, DirId, Signal};
use sisforge::sys::tool::Tool;

use super::{Sleeper, eventually, inside_namespaces, missing, null, skip};

/// A cgroup of this test alone, removed with it.
struct Group {
    hierarchy: Hierarchy,
    parent: String,
    path: String,
}

impl Group {
    fn create(test: &str) -> Option<Self> {
        if let Some(reason) = missing(&[]) {
            skip(test, &reason);
            return None;
        }
        let hierarchy = match cgroup::detect() {
            Ok(hierarchy) => hierarchy,
            Err(error) => {
                skip(test, &error.to_string());
                return None;
            }
        };
        let parent = format!("sisforge-test-{}-{test}", std::process::id());
        let path = format!("{parent}/alice");
        Some(Self { hierarchy, parent, path })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in [&self.path, &self.parent] {
            let _ = self.hierarchy.kill(path);
            let _ = self.hierarchy.remove(path);
        }
    }
}

const LIMITS: Limits = Limits {
    memory: Some(32 << 20),
    pids: Some(16),
    cpu_quota: Some((50_000, 100_000)),
    cpu_weight: 100,
    io: BTreeMap::new(),
};

#[test]
fn a_cgroup_holds_the_limits_it_was_given() {
    let Some(group) = Group::create("limits") else { return };
    let Group { hierarchy, parent, path } = &group;
    assert_eq!(hierarchy.limits(path), None);
    hierarchy.create(path, &LIMITS).unwrap();
    assert_eq!(hierarchy.limits(path), Some(LIMITS));
    let other = Limits { memory: Some(64 << 20), pids: None, cpu_quota: None, cpu_weight: 1, ..LIMITS };
    hierarchy.create(path, &other).unwrap();
    assert_eq!(hierarchy.limits(path), Some(other.clone()));
    let other = Limits { memory: None, pids: Some(5), cpu_quota: Some((1_500_000, 1_000_000)), ..LIMITS };
    hierarchy.create(path, &other).unwrap();
    assert_eq!(hierarchy.limits(path), Some(other.clone()));
    assert_eq!(hierarchy.children(parent).into_iter().collect::<Vec<_>>(), ["alice"]);
    hierarchy.remove(path).unwrap();
    hierarchy.remove(path).unwrap();
    hierarchy.remove(parent).unwrap();
    assert_eq!(hierarchy.limits(path), None);
}

#[test]
fn a_cgroup_limits_what_is_read_and_written() {
    let Some(group) = Group::create("io") else { return };
    let Group { hierarchy, path, .. } = &group;
    let Some(device) = block::device_of(Path::new(".")).unwrap() else {
        return skip("io", "this directory is not on a block device");
    };
    let io = IoLimits { read_bytes: Some(50 << 20), write_operations: Some(400), ..IoLimits::NONE };
    let limits = Limits { io: [(device, io)].into(), ..LIMITS };
    match hierarchy.create(path, &limits) {
        Err(CgroupError::NoIo) => return skip("io", "no controller limits block devices here"),
        done => done.unwrap(),
    }
    assert_eq!(hierarchy.limits(path), Some(limits));
    hierarchy.create(path, &LIMITS).unwrap();
    assert_eq!(hierarchy.limits(path), Some(LIMITS), "what is not wanted any more is lifted");
}

#[test]
fn killing_a_cgroup_leaves_no_process_however_fast_they_fork() {
    let Some(group) = Group::create("kill") else { return };
    let Group { hierarchy, path, .. } = &group;
    hierarchy
        .create(path, &Limits { memory: Some(512 << 20), pids: Some(4000), cpu_quota: None, ..LIMITS })
        .unwrap();
    assert!(hierarchy.kill("sisforge-test-absent").is_ok());
    // Joins, then starts processes without end.
    let join: String =
        hierarchy.procs_files(path).iter().map(|file| format!("echo 0 > {} && ", file.display())).collect();
    let script = format!("{join} while :; do sleep 0.2 & done");
    let mut shell = Sleeper(Command::new("sh").args(["-c", &script]).stderr(null()).spawn().unwrap());
    eventually("processes join", || hierarchy.procs(path).len() > 20);
    assert!(hierarchy.memory_current(path).unwrap() > 0);
    assert!(hierarchy.procs(path).contains(&shell.0.id()));
    hierarchy.kill(path).unwrap();
    shell.0.wait().unwrap();
    assert!(hierarchy.procs(path).is_empty());
    hierarchy.remove(path).unwrap();
}

#[test]
fn a_cgroup_in_use_is_not_removed_by_mistake() {
    let Some(group) = Group::create("busy") else { return };
    let Group { hierarchy, parent, path } = &group;
    hierarchy.create(path, &LIMITS).unwrap();
    assert!(!hierarchy.has_several(parent));
    let beside = format!("{path}-beside");
    hierarchy.create(&beside, &LIMITS).unwrap();
    assert!(hierarchy.has_several(parent) && !hierarchy.has_several(path));
    hierarchy.remove(&beside).unwrap();
    // Its children keep it, at once.
    let started = Instant::now();
    hierarchy.remove(parent).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(hierarchy.limits(path), Some(LIMITS));
}

#[test]
fn a_process_that_takes_too_much_memory_is_killed_and_counted() {
    let Some(group) = Group::create("oom") else { return };
    let Group { hierarchy, path, .. } = &group;
    hierarchy.create(path, &LIMITS).unwrap();
    let join: String =
        hierarchy.procs_files(path).iter().map(|file| format!("echo 0 > {} && ", file.display())).collect();
    let script = format!("{join} exec tail /dev/zero");
    let mut shell = Sleeper(Command::new("sh").args(["-c", &script]).stderr(null()).spawn().unwrap());
    assert!(!shell.0.wait().unwrap().success());
    assert!(hierarchy.oom_kills(path) > 0);
}

#[test]
fn a_launched_program_is_in_its_cgroup_and_gains_no_privileges() {
    const LAUNCHED: &str = "SISFORGE_TEST_LAUNCHED";
    if let Some(files) = std::env::var_os(LAUNCHED) {
        let files: Vec<PathBuf> = std::env::split_paths(&files).collect();
        panic!("{}", {
            let argv = ["sleep".into(), "60".into()];
            launch::exec_in_cgroup(&LaunchRequest {
                cgroups: &files,
                argv: &argv,
                ..LaunchRequest::default()
            })
        });
    }
    let Some(group) = Group::create("launch") else { return };
    let Group { hierarchy, path, .. } = &group;
    hierarchy.create(path, &LIMITS).unwrap();
    let files = std::env::join_paths(hierarchy.join_files(path)).unwrap();
    let own = std::env::current_exe().unwrap();
    let test = "sys::processes::a_launched_program_is_in_its_cgroup_and_gains_no_privileges";
    let call = Tool::new(own).args(["--exact", test]).env(LAUNCHED, files);
    let pid = launch::spawn(&call, null(), null(), null()).unwrap().pid;
    eventually("it becomes sleep", || {
        process::inspect(pid).is_some_and(|info| process::command(info.id.pid) == ["sleep", "60"])
    });
    assert_eq!(hierarchy.procs(path), [pid]);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    hierarchy.kill(path).unwrap();
    assert_eq!(process::inspect(pid), None);
}

#[test]
fn processes_in_a_jail_are_found_by_their_root() {
    let test = "sys::processes::processes_in_a_jail_are_found_by_their_root";
    if !inside_namespaces(test, &["unshare", "pivot_root", "chroot"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let jails = dir.path().join("jails");
    let _outside = Sleeper::start();
    let mut inside = Vec::new();
    for (name, script) in [
        ("chrooted", "exec chroot . /sleep"),
        ("pivoted", "mount --bind . . && cd . && pivot_root . old && exec /sleep"),
    ] {
        let jail = jails.join(name);
        fs::create_dir_all(jail.join("old")).unwrap();
        static_sleep(&jail.join("sleep"));
        // `cd .` enters the new mount; the shell is still the host's until it becomes the program.
        let script = script.replace("cd .", &format!("cd {}", jail.display()));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).current_dir(&jail);
        let child = Sleeper(command.spawn().unwrap());
        let pid = child.0.id();
        eventually(name, || process::command(pid) == ["/sleep"]);
        assert_eq!(process::inspect(pid).unwrap().root, DirId::of(&jail), "{name}");
        inside.push(child);
    }
    let mut pids: Vec<u32> = inside.iter().map(|child| child.0.id()).collect();
    pids.sort_unstable();
    assert_eq!(process::rooted_in(&jails), pids);
    assert_eq!(process::rooted_in(&jails.join("chrooted")), [inside[0].0.id()]);
    assert_eq!(process::rooted_in(&dir.path().join("jai")), Vec::<u32>::new());
    // A jail that was removed under its process is still told.
    fs::remove_dir_all(jails.join("chrooted")).unwrap();
    assert_eq!(process::rooted_in(&jails.join("chrooted")), [inside[0].0.id()]);
    let info = process::inspect(inside[1].0.id()).unwrap();
    assert!(process::send_signal(info.id, Signal::KILL).unwrap());
    assert!(process::wait_gone(info.id, Duration::from_secs(5)));
}

/// A static program that sleeps, the smallest there is: an ELF file of one call of pause(2).
fn static_sleep(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut elf = Vec::new();
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend_from_slice(&0x40_0078_u64.to_le_bytes());
    elf.extend_from_slice(&64_u64.to_le_bytes());
    elf.extend_from_slice(&[0; 12]);
    elf.extend_from_slice(&[64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0_u64, 0x40_0000, 0x40_0000, 0x100, 0x100, 0x1000] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    // mov eax, 34 (pause); syscall; jmp back
    elf.extend_from_slice(&[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]);
    elf.resize(0x100, 0);
    fs::write(path, elf).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
