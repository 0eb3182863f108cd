//! A kernel source in the network, and a signed list of digests beside it, as kernel.org has them.

use std::path::Path;
use std::process::Command;

use crate::common::namespaces::skip;
use crate::common::sandbox::Sandbox;
use crate::common::server::Server;

const TARBALL: &str = "linux-6.1.9.tar.xz";

/// Signs with throwaway keys; its agent ends with it.
struct Signer {
    home: tempfile::TempDir,
}

impl Signer {
    fn new(names: &[&str]) -> Self {
        let signer = Self { home: tempfile::tempdir().unwrap() };
        for name in names {
            signer.gpg(&["--passphrase", "", "--quick-gen-key", name, "ed25519", "sign", "never"]);
        }
        signer
    }

    fn gpg(&self, args: &[&str]) -> Vec<u8> {
        let mut call = Command::new("gpg");
        call.arg("--homedir").arg(self.home.path()).args(["--batch", "--quiet", "--yes"]).args(args);
        let output = call.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// A list that one of the keys has signed.
    fn sign(&self, name: &str, list: &str) -> Vec<u8> {
        let file = self.home.path().join("list");
        std::fs::write(&file, list).unwrap();
        self.gpg(&["--local-user", name, "--output", "-", "--clearsign", file.to_str().unwrap()])
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let mut call = Command::new("gpgconf");
        let _ = call.arg("--homedir").arg(self.home.path()).args(["--kill", "gpg-agent"]).status();
    }
}

fn no_gpg() -> bool {
    let missing = sisforge::sys::tool::find("gpg").is_none();
    if missing {
        skip("no_gpg", "gpg is missing");
    }
    missing
}

/// A fleet whose kernel source is served, and whose keyring holds the key of `keeper`.
fn fleet(server: &Server, signer: &Signer) -> Sandbox {
    let sandbox = Sandbox::new();
    let kernel = format!(
        "source = \"{}\"\nbase = \"microvm-6.1-x86_64\"\nkeyring = \"keys/kernel.gpg\"",
        server.url(TARBALL)
    );
    sandbox.write("fleet.toml", sandbox.fleet_text("a", "").replace("image = \"tiny.elf\"", &kernel));
    sandbox.write("keys/kernel.gpg", signer.gpg(&["--export", "keeper"]));
    sandbox
}

fn listed(bytes: &str) -> String {
    format!("{}  {TARBALL}\n", sisforge::base::Sha256::of(bytes))
}

fn serve(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(dir.join(name), bytes).unwrap();
}

#[test]
fn a_digest_that_a_trusted_key_has_signed_is_pinned_and_no_other() {
    if no_gpg() {
        return;
    }
    let (signer, served) = (Signer::new(&["keeper", "stranger"]), tempfile::tempdir().unwrap());
    let server = Server::of(served.path());
    let sandbox = fleet(&server, &signer);
    serve(served.path(), TARBALL, "a kernel");
    let fails = |code: i32, list: &[u8], words: &[&str]| {
        serve(served.path(), "sha256sums.asc", list);
        sandbox.run("lock").fails(code, words);
        assert!(!sandbox.path("fleet.lock").exists());
    };
    let refused = |list: &[u8], words: &[&str]| fails(2, list, words);
    let good = signer.sign("keeper", &listed("a kernel"));
    refused(&signer.sign("stranger", &listed("a kernel")), &["is signed by the key", "not in the keyring"]);
    refused(listed("a kernel").as_bytes(), &["it is not signed"]);
    refused(&signer.sign("keeper", "0  other.tar.xz\n"), &["signed by keeper", TARBALL]);
    let changed = String::from_utf8(good.clone()).unwrap().replace(TARBALL, "linux-6.1.8.tar.xz");
    refused(changed.as_bytes(), &["the signature of keeper is for a different text"]);
    // What stands around the signed text counts for nothing.
    let around = [listed("a kernel").as_bytes(), &signer.sign("keeper", "0  other.tar.xz\n")].concat();
    refused(&around, &["does not name"]);
    // A tarball that is another than the list says: the server may have the right one another time.
    fails(1, &signer.sign("keeper", &listed("another kernel")), &["SHA-256", "tampered with"]);

    serve(served.path(), "sha256sums.asc", &good);
    let said = sandbox.run("lock");
    assert!(said.err.contains("the digest is signed by keeper"), "{}", said.err);
    let lock = sandbox.read("fleet.lock");
    assert!(lock.contains(&sisforge::base::Sha256::of("a kernel").to_string()), "{lock}");
    // What was pinned stands, and is not asked for again.
    serve(served.path(), "sha256sums.asc", "gone");
    sandbox.done("lock");
    assert_eq!(sandbox.read("fleet.lock"), lock);
}

#[test]
fn another_keyring_has_to_vouch_for_what_is_locked() {
    if no_gpg() {
        return;
    }
    let (signer, served) = (Signer::new(&["keeper", "stranger"]), tempfile::tempdir().unwrap());
    let server = Server::of(served.path());
    let sandbox = fleet(&server, &signer);
    serve(served.path(), TARBALL, "a kernel");
    serve(served.path(), "sha256sums.asc", signer.sign("keeper", &listed("a kernel")));
    // Without one, what the server gives is pinned, and that is said.
    let with = sandbox.read("fleet.toml");
    sandbox.write("fleet.toml", with.replace("keyring = \"keys/kernel.gpg\"", ""));
    let said = sandbox.run("lock");
    assert!(said.err.contains("pinned on first use, without a signature"), "{}", said.err);
    sandbox.write("fleet.toml", &with);
    sandbox.run("build kernel --locked").fails(2, &["keyring"]);
    sandbox.done("lock");
    sandbox.write("keys/kernel.gpg", signer.gpg(&["--armor", "--export", "stranger"]));
    sandbox.run("build kernel --locked").fails(2, &["keyring is not the one that verified"]);
    sandbox.run("lock").fails(2, &["which is not in the keyring"]);
    sandbox.write("keys/kernel.gpg", "no keys\n");
    sandbox.run("lock").fails(2, &["contains no keys that gpg can read"]);
}

#[test]
fn a_keyring_is_for_a_source_in_the_network_that_has_no_digest() {
    let sandbox = Sandbox::new();
    let kernel = |source: &str, more: &str| {
        let kernel =
            format!("source = \"{source}\"\nbase = \"microvm-6.1-x86_64\"\nkeyring = \"ring.gpg\"\n{more}");
        sandbox.write("fleet.toml", sandbox.fleet_text("a", "").replace("image = \"tiny.elf\"", &kernel));
    };
    sandbox.write("ring.gpg", "keys");
    sandbox.write("linux.tar", "a kernel");
    kernel("linux.tar", "");
    sandbox.run("check").fails(2, &["a local path cannot have a `keyring`"]);
    kernel("https://example.org/linux.tar", &format!("sha256 = \"{}\"", "0".repeat(64)));
    sandbox.run("check").fails(2, &["`sha256` and `keyring` both determine the digest of the source"]);
    std::fs::remove_file(sandbox.path("ring.gpg")).unwrap();
    kernel("https://example.org/linux.tar", "");
    sandbox.run("check").fails(2, &["ring.gpg"]);
}
