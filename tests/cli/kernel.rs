//! Kernels: what is configured, explained and built; against Debian's kernel source, and against a source of a few lines
//! whose make does what a test asks.

use std::path::Path;

use sisforge::build::configured::Configured;
use sisforge::build::source;
use sisforge::fleet::SourceFiles;
use sisforge::lock::kernel_config::base_config;
use sisforge::sys::make::KernelTree;
use sisforge::sys::report::Silent;
use sisforge::sys::sandbox as build_sandbox;

use crate::common::namespaces::skip;
use crate::common::sandbox::Sandbox;

const SOURCE: &str = "/usr/src/linux-source-6.1.tar.xz";

/// A fleet whose kernel is built.
pub(super) fn fleet(kernel: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("fleet.toml", sandbox.fleet_text("a", "").replace("image = \"tiny.elf\"", kernel));
    sandbox
}

pub(super) fn cannot_build(source: &str) -> bool {
    let programs = ["make", "gcc", "flex", "bison", "bc", "patch", "bwrap"];
    let missing = programs.iter().find(|program| sisforge::sys::tool::find(program).is_none());
    if let Some(program) = missing {
        skip("cannot_build", &format!("{program} is missing"));
    }
    // Not every series is among the packages that the tests install.
    let has_source = Path::new(source).exists();
    if !has_source {
        eprintln!("SKIPPED: {source} is missing");
    }
    missing.is_some() || !has_source
}

#[test]
fn an_option_that_did_not_survive_says_what_it_needs() {
    if cannot_build(SOURCE) {
        return;
    }
    let options =
        "options = { NR_CPU = 8, BTRFS_FS_POSIX_ACL = true, CONFIG_HZ_250 = true, CONFIG_CRC32 = false }";
    let sandbox = fleet(&format!("source = \"{SOURCE}\"\nbase = \"microvm-6.1-x86_64\"\n{options}"));
    sandbox.run("build kernel").fails(
        2,
        &[
            "fleet.toml: this kernel has no option NR_CPU; did you mean NR_CPUS?",
            "fleet.toml: BTRFS_FS_POSIX_ACL needs BTRFS_FS, which is off",
            "fleet.toml: CRC32 cannot be off: ",
            "one choice",
        ],
    );
    assert!(!sandbox.path("out/kernel").exists());
    // What did not survive can still be asked about, and the sources are not unpacked again.
    let why = sandbox.done("kernel why BTRFS_FS_POSIX_ACL");
    assert!(why.contains("asked for  y by fleet.toml"), "{why}");
    assert!(why.contains("misses     BTRFS_FS, which is off"), "{why}");
}

/// Configures a base with all fragments, and looks whether everything comes out as it is written.
fn comes_out_as_written(source_file: &str, base: &str, arch: &'static str, source_arch: &str) {
    if cannot_build(source_file) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sandbox = build_sandbox::Sandbox::find(&[]).unwrap();
    let tree = KernelTree {
        dir: dir.path().join("src"),
        arch,
        jobs: 1,
        sandbox,
        key: String::new(),
        report: &Silent,
    };
    source::unpack(Path::new(source_file), source_arch, &tree.dir, &Silent).unwrap();
    tree.sandbox.hand_over(&tree.dir).unwrap();
    let files = SourceFiles::new(dir.path());
    let fragments = files.list("kernel-configs/fragments").unwrap();
    let fragments: Vec<_> = fragments.iter().map(|name| name.trim_end_matches(".config")).collect();
    assert!(fragments.len() >= 9, "{fragments:?}");
    let config = base_config(&files, base, &fragments).unwrap();
    let configured = Configured::make(&tree, source_arch, &config.requested).unwrap();
    if let Err(error) = configured.check(&config.requested) {
        panic!("{error}");
    }
}

#[test]
fn every_option_of_the_base_and_all_fragments_comes_out_as_written() {
    comes_out_as_written(SOURCE, "microvm-6.1-x86_64", "x86_64", "x86");
}

#[test]
fn every_option_comes_out_as_written_on_arm() {
    comes_out_as_written(SOURCE, "microvm-6.1-aarch64", "arm64", "arm64");
}

#[test]
fn every_option_comes_out_as_written_on_series_6_12() {
    comes_out_as_written("/usr/src/linux-source-6.12.tar.xz", "microvm-6.12-x86_64", "x86_64", "x86");
}

/// A source whose make takes every wish, and builds `vmlinux` by a recipe of one line.
pub(super) fn small_source(sandbox: &Sandbox, recipe: &str) {
    let makefile = format!(
        "kernelversion:\n\t@echo 6.1.7\nallnoconfig:\n\t@cp $$KCONFIG_ALLCONFIG \
         .config\nolddefconfig:\n\t@:\nvmlinux:\n\t{recipe}\n"
    );
    sandbox.write("linux/Makefile", makefile);
    sandbox.write(
        "linux/Kconfig",
        "config NET\n\tbool \"Networking\"\nconfig TUN\n\tbool \"TUN device\"\n\tdepends on NET\n\tselect \
         CRC32\nconfig CRC32\n\tbool\n",
    );
    sandbox.write("linux/README", "one\ntwo\nthree\n");
    sandbox.write("kernel-configs/small.config", "#: series 6.1\n\n# sockets\nCONFIG_NET=y\n");
    sandbox.write("kernel-configs/fragments/tun.config", "# containers have a tap device\nCONFIG_TUN=y\n");
}

pub(super) const SMALL: &str = "source = \"linux\"\nbase = \"small\"\nfragments = [\"tun\"]";

#[test]
fn a_build_that_fails_shows_its_last_lines_and_keeps_the_whole_log() {
    if cannot_build("/") {
        return;
    }
    let sandbox = fleet(SMALL);
    small_source(&sandbox, "@echo '  CC      first.o'; echo 'tun.c:7: error: no such thing' >&2; exit 3");
    sandbox.run("build kernel").fails(1, &["tun.c:7: error: no such thing", "kernel-build.log"]);
    let log = sandbox.read("out/.work/notes/kernel-build.log");
    assert!(log.starts_with("  CC      first.o\n"), "{log}");
    assert!(!sandbox.path("out/kernel").exists());
}

fn patch(from: &str, to: &str) -> String {
    format!("--- a/README\n+++ b/README\n@@ -1,3 +1,3 @@\n one\n-{from}\n+{to}\n three\n")
}

#[test]
fn patches_are_applied_in_order_and_the_first_that_fails_is_named() {
    if cannot_build("/") {
        return;
    }
    let sandbox = fleet(&format!("{SMALL}\npatches = [\"1.patch\", \"2.patch\", \"3.patch\"]"));
    small_source(&sandbox, "@exit 1");
    sandbox.write("1.patch", patch("two", "2"));
    sandbox.write("2.patch", patch("2", "II"));
    sandbox.write("3.patch", patch("2", "zwei"));
    sandbox.run("build kernel").fails(2, &["3.patch (patch 3 of 3) does not apply to", "Hunk #1 FAILED"]);
    sandbox.write("3.patch", patch("II", "zwei"));
    sandbox.run("build kernel").fails(1, &["the kernel does not build"]);
    sandbox.write("fleet.toml", sandbox.read("fleet.toml").replace("\"1.patch\", ", ""));
    sandbox.run("build kernel").fails(2, &["2.patch (patch 1 of 2) does not apply to"]);
}

#[test]
fn each_line_of_the_configuration_has_its_origin_and_each_option_its_reason() {
    if cannot_build("/") {
        return;
    }
    let sandbox = fleet(&format!("{SMALL}\noptions = {{ CONFIG_CRC32 = true, NR_CPUS = 4 }}"));
    small_source(&sandbox, "@exit 1");
    sandbox.write("linux/Kconfig", sandbox.read("linux/Kconfig") + "config NR_CPUS\n\tint \"CPUs\"\n");
    let lines = sandbox.document("kernel config", "kernel-config");
    let origins: Vec<_> = lines
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            format!("{} {}", line["option"].as_str().unwrap(), line["origin"]["from"].as_str().unwrap())
        })
        .collect();
    assert_eq!(origins, ["CRC32 fleet.toml", "NET base", "NR_CPUS fleet.toml", "TUN fragment"]);
    assert_eq!(
        sandbox.document("kernel why TUN", "kernel-why")["asked"][0]["reason"],
        "containers have a tap device"
    );
    let why = sandbox.done("kernel why CONFIG_TUN");
    let expected = "TUN=y  TUN device\n  asked for  y by kernel-configs/fragments/tun.config:2: containers \
      have a tap device\n  needs      NET\n  turns on   CRC32\n  declared   Kconfig:3\n";
    assert_eq!(why, expected);
    sandbox.run("kernel why TUNE").fails(2, &["this kernel has no option TUNE", "did you mean TUN?"]);
}

#[test]
fn kernels_that_differ_are_told_by_their_options() {
    let sandbox = fleet(SMALL);
    sandbox.write("one.config", "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_HZ=100\n");
    sandbox.write("two.config", "CONFIG_A=y\nCONFIG_D=\"x\"\nCONFIG_HZ=250\n");
    assert_eq!(sandbox.done("kernel diff one.config two.config"), "- B=m\n+ D=\"x\"\n~ HZ 100 -> 250\n");
    let changes = sandbox.document("kernel diff one.config two.config", "kernel-diff");
    assert_eq!(changes[2]["to"], "250", "{changes}");
    assert_eq!(sandbox.done("kernel diff --exit-code one.config one.config"), "");
    sandbox.run("kernel diff one.config no-such").fails(2, &["neither a file nor a kernel in"]);
    sandbox.run("kernel diff one.config fleet.toml").fails(2, &["contains no line such as CONFIG_NET=y"]);
}

#[test]
fn a_series_that_upstream_does_not_support_is_told_by_check() {
    let sandbox = fleet(SMALL);
    small_source(&sandbox, "@exit 1");
    let notes = |sandbox: &Sandbox| -> Vec<String> {
        let checked: serde_json::Value = serde_json::from_str(&sandbox.done("check --json")).unwrap();
        serde_json::from_value(checked["notes"].clone()).unwrap()
    };
    assert_eq!(notes(&sandbox), [""; 0]);
    sandbox.write("kernel-configs/small.config", "#: series 6.12\n# sockets\nCONFIG_NET=y\n");
    let told = notes(&sandbox);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("with Linux 6.1, but the kernel base small is for 6.12"), "{told:?}");
    sandbox.write("kernel-configs/small.config", "#: arch aarch64\n# sockets\nCONFIG_NET=y\n");
    sandbox.run("check").fails(2, &["kernel-configs/small.config is for aarch64, but guests are x86_64"]);
}

#[test]
fn only_a_vmlinux_whose_layout_is_known_is_made_compact() {
    let sandbox = Sandbox::new();
    sandbox.run("kernel compact tiny.elf --to small").fails(2, &["tiny.elf", "no section headers"]);
    sandbox.write("text", "hello\n");
    sandbox.run("kernel compact text --to small").fails(2, &["cannot be read"]);
    assert!(!sandbox.path("small").exists());
}

/// A source whose `vmlinux` is one instruction in one segment; with 7 jobs, making it takes a minute.
fn smallest_source(sandbox: &Sandbox) {
    let link = "gcc -nostdlib -static -no-pie -Wl,--build-id=none,-T,link.ld -o vmlinux start.S";
    let wait = "case '$(MAKEFLAGS)' in *-j7*) sleep 60;; esac";
    small_source(sandbox, &format!("@echo '  LD      vmlinux'; {wait}; {link}"));
    sandbox.write("linux/start.S", ".text\nhlt\n");
    let script = "PHDRS { text PT_LOAD FLAGS(5); }\nSECTIONS { . = 0x1000000; .text : { *(.text) } \
      :text\n/DISCARD/ : { *(.note*) *(.comment) } }\n";
    sandbox.write("linux/link.ld", script);
}

#[test]
fn a_build_that_was_killed_leaves_nothing_that_a_later_one_trusts() {
    if cannot_build("/") {
        return;
    }
    let sandbox = fleet(SMALL);
    smallest_source(&sandbox);
    let mut killed = sandbox.command().args(["-q", "--jobs", "7", "build", "kernel"]).spawn().unwrap();
    let begun = || {
        let work = std::fs::read_dir(sandbox.path("out/.work")).into_iter().flatten().flatten();
        work.into_iter().any(|entry| entry.path().join("build.log").exists())
    };
    let patience = std::time::Instant::now();
    while !begun() {
        assert!(patience.elapsed().as_secs() < 60, "make was never started");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    // Not even the beginning of an artifact has its name.
    let named = || std::fs::read_dir(sandbox.path("out/kernel")).into_iter().flatten().count();
    assert_eq!(named(), 0);
    sandbox.done("--jobs 2 build kernel");
    let built = std::fs::read(sandbox.path("out/kernel/small/vmlinux")).unwrap();
    assert_eq!((built.len(), built[4096]), (4097, 0xf4), "one page of headers, and hlt");
    let left = std::fs::read_dir(sandbox.path("out/.work")).unwrap().flatten();
    let left: Vec<_> = left
        .map(|entry| entry.file_name())
        .filter(|name| name != "notes" && !name.to_string_lossy().ends_with(".lock"))
        .collect();
    assert_eq!(left, [""; 0]);
    // Another fleet's kernel of the same inputs is the same.
    let key = |sandbox: &Sandbox| std::fs::read_link(sandbox.path("out/kernel/small")).unwrap();
    let other = fleet(SMALL);
    smallest_source(&other);
    other.done("--jobs 2 build kernel");
    assert_eq!(key(&sandbox), key(&other));
    assert_eq!(built, std::fs::read(other.path("out/kernel/small/vmlinux")).unwrap());
}
