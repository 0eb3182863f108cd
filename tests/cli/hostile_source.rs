//! A kernel source whose Makefile does what it can: it gets nothing of the host, and nothing out of its directory.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use super::kernel::{SMALL, cannot_build, fleet, small_source};
use crate::common::sandbox::Sandbox;

/// A file that root alone may read, and what is in it.
fn secret(sandbox: &Sandbox) -> (String, &'static str) {
    sandbox.write("secret", "hunter2\n");
    let path = sandbox.path("secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (path.display().to_string(), "hunter2")
}

/// A source whose Makefile begins with these lines, as make expands them before anything else.
fn source(sandbox: &Sandbox, lines: &str, recipe: &str) {
    small_source(sandbox, recipe);
    sandbox.write("linux/Makefile", lines.to_owned() + "\n" + &sandbox.read("linux/Makefile"));
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn what_a_makefile_runs_is_not_root_and_reaches_nothing_of_the_host() {
    if cannot_build("/") {
        return;
    }
    let sandbox = fleet(SMALL);
    let (path, word) = secret(&sandbox);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    sandbox.write("store/kept", "kept\n");
    let store = sandbox.path("store").display().to_string();
    let lines = format!(
        "UID := $(shell id -u)\n\
         SECRET := $(shell cat {path})\n\
         SHADOW := $(shell test -e /etc/shadow && echo there)\n\
         STORE := $(shell cat {store}/kept; echo evil > {store}/kept; echo evil > {store}/planted)\n\
         NET := $(shell bash -c 'echo > /dev/tcp/127.0.0.1/{port}' && echo reached)\n\
         FEW := $(shell test `ls /proc | grep -c '^[0-9]*$$'` -lt 12 && echo few)\n\
         CAPABLE := $(shell grep CapBnd /proc/self/status | tr -d '0\\t')"
    );
    let told = "uid=$(UID) secret=$(SECRET) shadow=$(SHADOW) store=$(STORE) net=$(NET) $(CAPABLE) $(FEW)";
    source(&sandbox, &lines, &format!("@echo '{told}'; exit 3"));
    let run = sandbox.run("build kernel");
    let uid = if is_root() { 65_533 } else { rustix::process::geteuid().as_raw() };
    let told = format!("uid={uid} secret= shadow= store= net= CapBnd: few");
    run.fails(1, &[&told, "the kernel does not build"]);
    assert!(!run.err.contains(word), "{run}");
    assert_eq!(sandbox.read("store/kept"), "kept\n");
    assert!(!sandbox.path("store/planted").exists());
    server.set_nonblocking(true).unwrap();
    assert!(server.accept().is_err(), "somebody was there");
}

#[test]
fn a_build_gives_nothing_of_the_host_by_a_link() {
    if cannot_build("/") {
        return;
    }
    let sandbox = fleet(SMALL);
    let (path, word) = secret(&sandbox);
    source(&sandbox, "", "@:");
    let makefile = sandbox.read("linux/Makefile");
    let linked = makefile.replace("olddefconfig:\n\t@:", &format!("olddefconfig:\n\t@ln -sf {path} .config"));
    assert_ne!(linked, makefile);
    sandbox.write("linux/Makefile", linked);
    sandbox.run("build kernel").fails(1, &["cannot read", "/.config"]);
    let notes = fs::read(sandbox.path("out/.work/notes/kernel-configured.json")).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&notes).contains(word));

    sandbox.write("linux/Makefile", makefile.replace("vmlinux:\n\t@:", "vmlinux:\n\t@mkfifo vmlinux"));
    sandbox.run("build kernel").fails(2, &["/vmlinux", "it is not a regular file"]);
    sandbox.write("linux/Makefile", &makefile);
    fs::remove_file(sandbox.path("linux/Kconfig")).unwrap();
    std::os::unix::fs::symlink(&path, sandbox.path("linux/Kconfig")).unwrap();
    sandbox.run("build kernel").fails(2, &["linux"]);
}

#[test]
fn what_a_build_prints_is_shown_and_not_obeyed() {
    if cannot_build("/") {
        return;
    }
    let sandbox = fleet(SMALL);
    source(&sandbox, "", r"@printf '\033]0;owned\007 said\n'; exit 3");
    let run = sandbox.run("build kernel");
    run.fails(1, &[r"\u{1b}]0;owned\u{7} said"]);
    assert!(!run.err.contains('\x1b'), "{run}");
}

#[test]
fn a_patch_changes_nothing_outside_of_the_source() {
    if cannot_build("/") {
        return;
    }
    let sandbox = fleet(&format!("{SMALL}\npatches = [\"evil.patch\"]"));
    source(&sandbox, "", "@exit 1");
    sandbox.write("victim", "one\n");
    let victim = sandbox.path("victim").display().to_string();
    fs::create_dir_all(sandbox.path("linux/dir")).unwrap();
    std::os::unix::fs::symlink(sandbox.path(""), sandbox.path("linux/out")).unwrap();
    for name in [&format!("a{victim}"), "a/../../../../victim", "a/out/victim", &victim] {
        sandbox.write("evil.patch", format!("--- {name}\n+++ {name}\n@@ -1 +1 @@\n-one\n+evil\n"));
        sandbox.run("build kernel").fails(2, &["evil.patch (patch 1 of 1) does not apply"]);
        assert_eq!(sandbox.read("victim"), "one\n", "{name}");
    }
}

#[test]
fn root_builds_no_kernel_without_a_sandbox_and_others_are_told() {
    if cannot_build("/") {
        return;
    }
    // A machine whose PATH leads to a bwrap that makes no sandbox, as where user namespaces are forbidden.
    let sandbox = fleet(SMALL);
    source(&sandbox, "", "@echo it ran; exit 3");
    sandbox
        .write("bin/bwrap", "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n");
    fs::set_permissions(sandbox.path("bin/bwrap"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", sandbox.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    let run = crate::common::sandbox::Run::of(sandbox.command().env("PATH", path).args(["build", "kernel"]));
    run.fails(1, &["No permissions to create new namespace"]);
    let ran = run.err.contains("it ran");
    assert_eq!(ran, !is_root(), "{run}");
    let words = if is_root() {
        "are never run as root"
    } else {
        "note: programs of the kernel source run without a \
          sandbox"
    };
    run.fails(1, &[words]);
}

#[test]
fn a_build_that_takes_too_much_is_ended() {
    if cannot_build("/") {
        return;
    }
    let sandbox = fleet(SMALL);
    let eat = "perl -e '$$x = \"a\" x (1 << 41)'";
    source(&sandbox, "", &format!("@cat /proc/self/oom_score_adj; {eat} || echo no more; exit 3"));
    sandbox.run("build kernel").fails(1, &[" 1000\n", "no more"]);

    // One that never ends, nor hears that it is to: the limit is four hours, of which this test has two seconds.
    let path = std::env::var("PATH").unwrap();
    sandbox.write("bin/timeout", format!("#!/bin/sh\nshift 2; PATH={path}; exec timeout -k 1 2 \"$@\"\n"));
    fs::set_permissions(sandbox.path("bin/timeout"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{path}", sandbox.path("bin").display());
    source(&sandbox, "", "@trap '' TERM INT HUP; sleep 987654 & while :; do sleep 1; done");
    let begun = std::time::Instant::now();
    let run = crate::common::sandbox::Run::of(sandbox.command().env("PATH", path).args(["build", "kernel"]));
    run.fails(1, &["the kernel does not build"]);
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    let lives = |entry: fs::DirEntry| {
        fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with(b"sleep\x00987654"))
    };
    assert!(!fs::read_dir("/proc").unwrap().flatten().any(lives), "what it started goes on");
}
