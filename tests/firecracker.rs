//! The API client and the jailer against the real programs, with a guest small enough for any KVM.
//! Firecracker is in no Debian package, so its absence is said aloud and never fails.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use sisforge::sys::firecracker::{Api, ApiError, VmState, exit_reason};
use sisforge::sys::jailer::{JailerArgs, cause};
use sisforge::sys::tool::{self, Tool};

use sisforge::sys::tiny_guest::{AfterText, elf};

/// Long enough for a machine under load; a good run needs a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(20);

const READY: &str = "sisforge: ready ssh-ed25519 AAAA\n";

/// What a jailed Firecracker needs and this machine may lack.
fn missing() -> Option<&'static str> {
    match () {
        () if tool::find("firecracker").is_none() => Some("firecracker is not on PATH"),
        () if tool::find("jailer").is_none() => Some("jailer is not on PATH"),
        () if !rustix::process::geteuid().is_root() => Some("the jailer needs root"),
        () if File::open("/dev/kvm").is_err() => Some("/dev/kvm cannot be opened"),
        () => None,
    }
}

/// A jailed tiny guest in a directory of its own; killed when it is dropped.
struct Running {
    jail: JailerArgs,
    serial: PathBuf,
    vmm: Child,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(then: AfterText) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("jails");
        fs::create_dir(&base).unwrap();
        let jail = JailerArgs {
            base,
            id: "tiny".to_owned(),
            exec_file: tool::find("firecracker").unwrap(),
            uid: 200_001,
            gid: 200_001,
            limits: Vec::new(),
        };
        fill(&jail.root(), then);
        let serial = dir.path().join("serial.log");
        let output = || OpenOptions::new().create(true).append(true).open(&serial).unwrap();
        let vmm = jail
            .tool(
                &tool::find("jailer").unwrap(),
                &["--config-file", "/config.json", "--log-path", "/vmm.log"],
            )
            .command()
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .spawn()
            .unwrap();
        Self { jail, serial, vmm, _dir: dir }
    }

    fn serial(&self) -> String {
        fs::read_to_string(&self.serial).unwrap()
    }

    fn api(&self) -> Api {
        Api::connect(&self.jail.api_socket()).unwrap()
    }

    fn wait_until_ready(&self) {
        let ready = until(|| self.serial().contains(READY).then_some(()));
        assert!(ready.is_some(), "the guest is not ready; its console:\n{}", self.serial());
    }

    fn wait_for_end(&mut self) -> Option<ExitStatus> {
        until(|| self.vmm.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; there is nothing left to do then.
        let _ = self.vmm.kill();
        let _ = self.vmm.wait();
    }
}

/// Puts kernel, disk and configuration into a jail: root's, and read-only for the VMM.
fn fill(root: &Path, then: AfterText) {
    fs::create_dir_all(root).unwrap();
    let config = json!({
        "boot-source": { "kernel_image_path": "/kernel", "boot_args": "console=ttyS0" },
        "machine-config": { "vcpu_count": 1, "mem_size_mib": 64 },
        "drives": [{ "drive_id": "rootfs", "path_on_host": "/rootfs",
                     "is_root_device": true, "is_read_only": true }],
    });
    let files = [
        ("kernel", elf(READY, then)),
        ("rootfs", vec![0; 1 << 20]),
        ("config.json", config.to_string().into_bytes()),
    ];
    for (name, bytes) in files {
        fs::write(root.join(name), bytes).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o444)).unwrap();
    }
}

/// Asks again and again until there is an answer or patience ends.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_jailed_guest_writes_its_console_and_obeys_the_api() {
    if let Some(reason) = missing() {
        return eprintln!("SKIPPED: {reason}");
    }
    let mut guest = Running::start(AfterText::ResetOnKey);
    guest.wait_until_ready();
    let pid = fs::read_to_string(guest.jail.pid_file()).unwrap();
    assert_eq!(pid, guest.vmm.id().to_string(), "the jailer becomes Firecracker");

    let api = guest.api();
    let info = api.instance_info().unwrap();
    assert_eq!((info.id.as_str(), info.state), ("tiny", VmState::Running));
    api.pause().unwrap();
    assert_eq!(api.instance_info().unwrap().state, VmState::Paused);
    api.resume().unwrap();
    let error = api.put("/boot-source", &json!({ "kernel_image_path": "/kernel" })).unwrap_err();
    assert!(
        matches!(&error, ApiError::Refused { status: 400, fault, .. } if fault.contains("after starting"))
    );

    api.send_ctrl_alt_del().unwrap();
    let status = guest.wait_for_end().expect("Ctrl+Alt+Del ends a guest that hears it");
    assert_eq!(status.code().and_then(exit_reason), Some("the guest shut down"));
    assert!(api.instance_info().unwrap_err().is_absent());
    assert_eq!(guest.serial(), READY, "nothing but the guest writes to the console");
}

#[test]
fn a_guest_that_hears_nothing_ends_by_a_signal() {
    if let Some(reason) = missing() {
        return eprintln!("SKIPPED: {reason}");
    }
    let mut guest = Running::start(AfterText::Halt);
    guest.wait_until_ready();
    guest.api().send_ctrl_alt_del().unwrap();
    assert_eq!(guest.api().instance_info().unwrap().state, VmState::Running);
    guest.vmm.kill().unwrap();
    let status = guest.wait_for_end().unwrap();
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn a_jail_is_used_once() {
    if let Some(reason) = missing() {
        return eprintln!("SKIPPED: {reason}");
    }
    let mut guest = Running::start(AfterText::Reset);
    assert_eq!(guest.wait_for_end().and_then(|status| status.code()), Some(0));
    let again = guest.jail.tool(&tool::find("jailer").unwrap(), &["--config-file", "/config.json"]);
    let error = again.run().unwrap_err();
    assert!(error.stderr().contains("File exists"), "{error}");
    assert!(cause(error.stderr()).unwrap().what.contains("used before"), "{error}");
}

/// A jail that is filled and that nothing has run in yet.
fn fresh(dir: &Path, exec_file: PathBuf) -> JailerArgs {
    let (uid, base) = (200_001, dir.join("jails"));
    fs::create_dir(&base).unwrap();
    let jail = JailerArgs { base, id: "tiny".to_owned(), exec_file, uid, gid: uid, limits: Vec::new() };
    fill(&jail.root(), AfterText::Halt);
    jail
}

/// What the jailer or Firecracker says, and what is made of it, where a jail is one that cannot work.
#[track_caller]
fn fails_with(call: &Tool, cause_words: &str) {
    let error = call.run().unwrap_err();
    let found = cause(error.stderr()).unwrap_or_else(|| panic!("no cause is known of {error}"));
    assert!(found.what.contains(cause_words), "{found:?}\n{error}");
}

/// The jailer's call, in a mount namespace where the jails are on a tmpfs of these options.
fn on_tmpfs(jail: &JailerArgs, options: &str) -> Tool {
    let script = "cp -a \"$2\" \"$2.kept\" && mount -t tmpfs -o \"$1\" none \"$2\" && cp -a \"$2.kept/.\" \"$2\" \
                  && shift 2 && exec \"$@\" >&2";
    let call = jail.tool(&tool::find("jailer").unwrap(), &["--config-file", "/config.json"]);
    Tool::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", options])
        .arg(&jail.base)
        .args(call.argv())
}

#[test]
fn a_jail_that_cannot_work_says_why() {
    if let Some(reason) = missing() {
        return eprintln!("SKIPPED: {reason}");
    }
    let jailer = tool::find("jailer").unwrap();
    let firecracker = tool::find("firecracker").unwrap();
    let in_dir = |exec_file: &Path, check: &dyn Fn(&JailerArgs)| {
        let dir = tempfile::tempdir().unwrap();
        check(&fresh(dir.path(), exec_file.to_owned()));
    };
    in_dir(&firecracker, &|jail| fails_with(&on_tmpfs(jail, "noexec"), "noexec"));
    in_dir(&firecracker, &|jail| fails_with(&on_tmpfs(jail, "nodev"), "nodev"));
    // `true` is a dynamic program on every machine that has a libc.
    let dir = tempfile::tempdir().unwrap();
    let dynamic = dir.path().join("firecracker");
    fs::copy(tool::find("true").unwrap(), &dynamic).unwrap();
    in_dir(&dynamic, &|jail| fails_with(&jail.tool(&jailer, &[]), "not statically linked"));
    in_dir(&firecracker, &|jail| {
        let call = jail.tool(&jailer, &[]);
        let before_separator = call.argv().take_while(|word| *word != "--");
        let call = before_separator.skip(1).fold(Tool::new(&jailer), |call, word| call.arg(word));
        fails_with(&call.args(["--cgroup", "nothing.max=1", "--"]), "cgroup controller");
    });
}

#[test]
fn the_api_is_reached_through_a_link_and_a_path_longer_than_an_address() {
    if let Some(reason) = missing() {
        return eprintln!("SKIPPED: {reason}");
    }
    let guest = Running::start(AfterText::Halt);
    guest.wait_until_ready();
    let deep = guest.jail.base.join("d".repeat(150));
    symlink(guest.jail.api_socket().parent().unwrap(), &deep).unwrap();
    let info = Api::connect(&deep.join("firecracker.socket")).unwrap().instance_info().unwrap();
    assert_eq!(info.state, VmState::Running);
}
