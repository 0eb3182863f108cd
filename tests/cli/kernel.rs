//! Kernel options that the kernel does not take, against Debian's kernel source.

use std::path::Path;

use crate::common::sandbox::Sandbox;

const SOURCE: &str = "/usr/src/linux-source-6.1.tar.xz";

#[test]
fn an_option_that_the_kernel_does_not_know_is_shown_with_the_nearest_one() {
    if !Path::new(SOURCE).exists() || sisforge::sys::tool::find("make").is_none() {
        return eprintln!("SKIPPED: {SOURCE} or make is missing");
    }
    let sandbox = Sandbox::new();
    let options = "options = { NR_CPU = 8, BTRFS_FS_POSIX_ACL = true }";
    let kernel = format!("source = \"{SOURCE}\"\nbase = \"microvm-6.1-x86_64\"\n{options}");
    sandbox.write("fleet.toml", sandbox.fleet_text("a", "").replace("image = \"tiny.elf\"", &kernel));
    sandbox.run("build kernel").fails(
        2,
        &[
            "fleet.toml: this kernel has no option NR_CPU; did you mean NR_CPUS?",
            "BTRFS_FS_POSIX_ACL should be y, but came out off; it depends on BTRFS_FS, which is off",
        ],
    );
    assert!(!sandbox.path("out/kernel").exists());
}
