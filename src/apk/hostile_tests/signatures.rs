//! Signatures that prove nothing.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::super::index::signature_member;
use super::super::signature::{Algorithm, KeyRing, Signature, SignatureError, SigningKey};
use super::*;

/// Two makers, of whom the first is trusted. Making keys takes seconds.
struct Makers {
    _dir: tempfile::TempDir,
    trusted: PathBuf,
    good: SigningKey,
    other: SigningKey,
    /// The other key under the name of the good one.
    pretender: SigningKey,
}

fn makers() -> &'static Makers {
    static MAKERS: OnceLock<Makers> = OnceLock::new();
    MAKERS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("trusted")).unwrap();
        std::fs::create_dir(path("false")).unwrap();
        let good = SigningKey::generate(&path("trusted/good.rsa")).unwrap();
        let other = SigningKey::generate(&path("other.rsa")).unwrap();
        std::fs::copy(path("other.rsa"), path("false/good.rsa")).unwrap();
        let pretender = SigningKey::read(&path("false/good.rsa")).unwrap();
        Makers { trusted: path("trusted"), good, other, pretender, _dir: dir }
    })
}

pub(super) fn trusted() -> KeyRing {
    KeyRing::read(std::slice::from_ref(&makers().trusted)).unwrap()
}

pub(super) fn good() -> &'static SigningKey {
    &makers().good
}

fn unsigned() -> Vec<u8> {
    package(&[(file("a", 1), b"x")])
}

/// The control member of [`unsigned`].
fn control() -> Vec<u8> {
    super::super::gzip::first_member(&unsigned(), 1 << 20).unwrap().compressed.to_vec()
}

/// A signature member of these entries.
fn member(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = TarWriter::default();
    entries.iter().for_each(|(name, bytes)| tar.add(&file(name, bytes.len()), bytes));
    compress(&tar.unended())
}

fn verdict(signature: &[u8], package: &[u8]) -> String {
    match PackageContents::verify_signed([signature, package].concat().into(), &trusted()) {
        Ok((package, key)) => format!("{} by {key}", package.info.id()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_package_that_nobody_trusted_has_signed_is_refused() {
    let Makers { good, other, pretender, .. } = makers();
    let signed = |key: &SigningKey, body: &[u8]| signature_member(key, body).unwrap();
    let unknown = "package (name not known yet): signature";
    let wrong = format!("{unknown}: the signature by good.rsa.pub is wrong");
    let untrusted = format!(
        "{unknown}: it is signed by other.rsa.pub, which is not among the trusted keys (good.rsa.pub)"
    );
    let cases = [
        ("the right key", signed(good, &control()), "evil-1-r0 by good.rsa.pub".to_owned()),
        ("no signature", Vec::new(), format!("{unknown}: it is not signed")),
        ("another key", signed(other, &control()), untrusted.clone()),
        ("another key by this name", signed(pretender, &control()), wrong.clone()),
        ("the signature of another package", signed(good, b"another"), wrong.clone()),
    ];
    for (what, signature, said) in cases {
        assert_eq!(verdict(&signature, &unsigned()), said, "{what}");
    }
    // A signature is of the control member alone, which vouches for the data.
    let mut changed = unsigned();
    let last = changed.len() - 20;
    changed[last] ^= 1;
    let said = verdict(&signed(good, &control()), &changed);
    assert!(said.starts_with("package evil-1-r0: data member: its SHA-256 is "), "{said}");
}

#[test]
fn of_several_signatures_the_first_by_a_trusted_key_counts() {
    let Makers { good, other, pretender, .. } = makers();
    let entries = |keys: &[&SigningKey]| {
        let signed: Vec<_> = keys.iter().map(|key| key.sign(&control()).unwrap()).collect();
        verdict(&member(&signed), &unsigned())
    };
    assert_eq!(entries(&[other, good]), "evil-1-r0 by good.rsa.pub");
    assert!(entries(&[pretender, good]).ends_with("the signature by good.rsa.pub is wrong"));
}

#[test]
fn signatures_of_odd_names_sizes_and_types_count_for_nothing() {
    let (name, bytes) = makers().good.sign(&control()).unwrap();
    let missing = "package (name not known yet): signature: it is not signed";
    for entries in [
        vec![(name.clone(), [bytes.clone(), vec![0; 1 << 16]].concat())],
        vec![(name.replace(".RSA.", ".MD5."), bytes.clone())],
        vec![(name.replace(".RSA.", "."), bytes.clone())],
    ] {
        let said = verdict(&member(&entries), &unsigned());
        assert_eq!(said, missing, "{}", entries[0].0);
    }
    for changed in
        [name.replace("good", "../good"), name.replace("good.rsa.pub", "/etc/apk/keys/good.rsa.pub")]
    {
        let said = verdict(&member(&[(changed, bytes.clone())]), &unsigned());
        assert!(said.contains("not among the trusted keys (good.rsa.pub)"), "{said}");
    }
    for (what, bytes) in
        [("short", bytes[1..].to_vec()), ("long", [&bytes[..], b"x"].concat()), ("empty", vec![])]
    {
        let said = verdict(&member(&[(name.clone(), bytes)]), &unsigned());
        assert!(said.ends_with("the signature by good.rsa.pub is wrong"), "{what}: {said}");
    }
    let mut link = TarWriter::default();
    link.add(&entry(TarKind::Symlink, &name, "/etc/passwd"), b"");
    assert_eq!(verdict(&compress(&link.unended()), &unsigned()), missing);
}

#[test]
fn a_signature_member_that_is_a_bomb_or_holds_other_files_is_no_signature() {
    let (name, bytes) = makers().good.sign(&control()).unwrap();
    let bomb = member(&[(name.clone(), bytes.clone()), (".SIGN.RSA.x".into(), vec![0; 2 << 20])]);
    let said = verdict(&bomb, &unsigned());
    assert!(said.starts_with("package (name not known yet): "), "{said}");
    let more = member(&[(name, bytes), ("etc/passwd".into(), b"x".to_vec())]);
    let said = verdict(&more, &unsigned());
    assert!(said.starts_with("package (name not known yet): "), "{said}");
}

#[test]
fn who_signs_once_more_puts_another_member_in_front() {
    let Makers { good, other, .. } = makers();
    let signed = |key: &SigningKey| signature_member(key, &control()).unwrap();
    for signatures in [[signed(other), signed(good)].concat(), [signed(good), signed(other)].concat()] {
        assert_eq!(verdict(&signatures, &unsigned()), "evil-1-r0 by good.rsa.pub");
    }
}

#[test]
fn large_keys_are_read_and_keys_of_another_kind_harm_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let keys = [
        ("large.rsa.pub", include_str!("keys/large.rsa.pub")),
        ("curve.rsa.pub", include_str!("keys/curve.rsa.pub")),
    ];
    keys.iter().for_each(|(name, pem)| std::fs::write(dir.path().join(name), pem).unwrap());
    let ring = KeyRing::read(&[dir.path().to_owned()]).unwrap();
    let by = |key: &str| Signature {
        algorithm: Algorithm::Rsa,
        key: key.into(),
        bytes: include_bytes!("keys/large.signature").to_vec(),
    };
    assert_eq!(ring.verify(&[by("large.rsa.pub")], b"signed"), Ok("large.rsa.pub".into()));
    assert_eq!(
        ring.verify(&[by("large.rsa.pub")], b"other"),
        Err(SignatureError::Wrong("large.rsa.pub".into()))
    );
    let said = ring.verify(&[by("curve.rsa.pub")], b"signed").unwrap_err().to_string();
    assert_eq!(
        said,
        "it is signed by curve.rsa.pub, which is not an RSA key: signatures by others cannot be checked"
    );
    std::fs::write(dir.path().join("broken.rsa.pub"), "no key").unwrap();
    assert!(KeyRing::read(&[dir.path().to_owned()]).is_err(), "a file that is no key is a mistake");
}
