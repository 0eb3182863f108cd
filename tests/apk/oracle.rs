//! The genuine `apk` of an Alpine root, run by its own dynamic linker: no root, no chroot.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::common::namespaces::skip;

/// Real files made by others; `None`, said aloud, where they are not here.
pub fn data(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SISFORGE_TEST_DATA").map(PathBuf::from);
    let root = root.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let found = root.join(path);
    if !found.exists() {
        eprintln!("SKIPPED: {} is not here (set SISFORGE_TEST_DATA)", found.display());
        return None;
    }
    Some(found)
}

/// An unpacked Alpine root.
#[derive(Clone, Debug)]
pub struct Apk {
    alpine: PathBuf,
    /// Of the package apk-tools.
    pub version: &'static str,
}

impl Apk {
    /// `None`, said aloud, where Alpine's root is not here or is for another machine.
    pub fn find() -> Option<Self> {
        static UNPACKED: OnceLock<Option<Apk>> = OnceLock::new();
        UNPACKED.get_or_init(Self::unpack).clone()
    }

    fn unpack() -> Option<Self> {
        if !cfg!(target_arch = "x86_64") {
            eprintln!("SKIPPED: the genuine apk is here for x86_64 alone");
            return None;
        }
        let archive = data("alpine-minirootfs-3.20.3-x86_64.tar.gz")?;
        let alpine = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alpine");
        if !alpine.join("sbin/apk").exists() {
            // Another run of the tests may be unpacking it too; the first that is done gives it its name.
            let fresh = alpine.with_extension(std::process::id().to_string());
            std::fs::create_dir_all(&fresh).unwrap();
            let mut tar = Command::new("tar");
            tar.arg("-xzf").arg(archive).arg("-C").arg(&fresh);
            assert!(tar.args(["--exclude", "./dev"]).status().unwrap().success());
            if std::fs::rename(&fresh, &alpine).is_err() {
                std::fs::remove_dir_all(&fresh).unwrap();
            }
        }
        Some(Self { alpine, version: "2.14.4-r0" })
    }

    /// The apk 3 of a machine with Alpine 3.23, which `demo/install-packages test` takes from PyPI; `None`, said aloud, where it is
    /// not here.
    pub fn three(test: &str) -> Option<Self> {
        let alpine = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/alpine-3.23");
        if !alpine.join("sbin/apk").exists() {
            skip(test, "there is no machine with Alpine 3.23: run demo/install-packages test");
            return None;
        }
        Some(Self { alpine, version: "3.0.8-r0" })
    }

    /// Runs `apk` with these arguments.
    pub fn run<A: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        let libraries = format!("{0}/lib:{0}/usr/lib", self.alpine.display());
        Command::new(self.alpine.join("lib/ld-musl-x86_64.so.1"))
            .args(["--library-path", &libraries])
            .arg(self.alpine.join("sbin/apk"))
            .args(args)
            .output()
            .unwrap()
    }

    /// The same, where nothing but success will do.
    pub fn text<A: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let output = self.run(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}
