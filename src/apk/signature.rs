//! Signatures: RSA, PKCS#1 v1.5, over SHA-1 (`RSA`), SHA-256 (`RSA256`) or SHA-512 (`RSA512`), as apk and abuild make them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::{
    DecodePrivateKey as _, Document, EncodePrivateKey as _, EncodePublicKey as _, LineEnding,
    SubjectPublicKeyInfoRef,
};
use rsa::{BigUint, Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::sys::fs::{self, FileError, input_diagnosis};

/// What to do about a file that is not what was signed.
pub const DAMAGED: &str = "it was damaged or changed in transit: get it again, or generate its index again";

/// Ending of a public key's file name; the whole name stands in the signature.
const PUBLIC_ENDING: &str = ".rsa.pub";
/// Bits of the largest key that is read: a signature by it takes a millisecond to check.
const MAX_KEY_BITS: usize = 16384;
/// Bits of a key that is made here, as abuild makes them.
const KEY_BITS: usize = 4096;

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot list {}", .path.display())]
    List { path: PathBuf, source: std::io::Error },
    #[error("{}: it is not an RSA key in PEM format: {reason}", .path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("{}: the name of a key file must be like maker.rsa", .0.display())]
    Name(PathBuf),
    #[error("no key *{PUBLIC_ENDING} in {}", .0.display())]
    Empty(PathBuf),
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("cannot generate a key: {0}")]
    Generate(#[source] rsa::Error),
    #[error("cannot sign: {0}")]
    Sign(#[source] rsa::Error),
}

impl Diagnostic for KeyError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::List { source, .. } => input_diagnosis(source),
            Self::Malformed { .. } => Class::Invalid.hint("`sisforge apk key` makes a pair of keys"),
            Self::Name(_) => Class::Invalid.hint("rename it"),
            Self::Exists(_) => Class::Invalid.hint("give the new key another name; nothing was written"),
            Self::Empty(_) => Class::Invalid
                .hint("put the public keys that you trust into it; Alpine's are in its package alpine-keys"),
            Self::Generate(_) | Self::Sign(_) => Class::Failed.no_hint(),
        }
    }
}

/// Why signatures do not make a file trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("it is not signed")]
    Missing,
    #[error("it is signed by {}, which is not among the trusted keys ({})", .signers.join(", "), .trusted.join(", "))]
    Untrusted { signers: Vec<String>, trusted: Vec<String> },
    #[error("the signature by {0} is wrong")]
    Wrong(String),
    #[error("it is signed by {0}, which is not an RSA key: signatures by others cannot be checked")]
    OtherKind(String),
}

impl Diagnostic for SignatureError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Untrusted { .. } => Class::Invalid.hint(
                "if you trust whoever signed it, put that key into the directory of trusted keys (`keys` of \
                 the [[repository]], --keys)",
            ),
            Self::Missing => {
                Class::Invalid.hint("get a signed one; `sisforge apk index` signs your own repository")
            }
            Self::Wrong(_) => Class::Invalid.hint(DAMAGED),
            Self::OtherKind(_) => {
                Class::Invalid.hint("have it signed by an RSA key, as `abuild-keygen` makes them")
            }
        }
    }
}

/// Hash under a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rsa,
    Rsa256,
    Rsa512,
}

/// One signature of a file, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub algorithm: Algorithm,
    /// File name of the public key.
    pub key: String,
    pub bytes: Vec<u8>,
}

impl Signature {
    /// Reads the name of a signature's entry, `.SIGN.<algorithm>.<key>`; `None` for an algorithm that is not known.
    pub fn parse_name(entry: &str) -> Option<(Algorithm, &str)> {
        let (algorithm, key) = entry.strip_prefix(".SIGN.")?.split_once('.')?;
        let algorithm = match algorithm {
            "RSA" => Algorithm::Rsa,
            "RSA256" => Algorithm::Rsa256,
            "RSA512" => Algorithm::Rsa512,
            _ => return None,
        };
        Some((algorithm, key))
    }
}

/// Trusted public keys by file name.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    /// `None`: a key of another kind. It harms nobody until something is signed by it.
    keys: BTreeMap<String, (Option<RsaPublicKey>, Vec<u8>)>,
}

impl KeyRing {
    /// Reads every `*.rsa.pub` of these directories.
    pub fn read(directories: &[PathBuf]) -> Result<Self, KeyError> {
        let mut ring = Self::default();
        for directory in directories {
            let list = |source| KeyError::List { path: directory.clone(), source };
            let before = ring.keys.len();
            for entry in std::fs::read_dir(directory).map_err(list)? {
                let path = entry.map_err(list)?.path();
                let name =
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if name.ends_with(PUBLIC_ENDING) {
                    ring.add(&path, name, fs::read(&path)?)?;
                }
            }
            if ring.keys.len() == before {
                return Err(KeyError::Empty(directory.clone()));
            }
        }
        Ok(ring)
    }

    fn add(&mut self, path: &Path, name: String, pem: Vec<u8>) -> Result<(), KeyError> {
        let malformed = |reason: String| KeyError::Malformed { path: path.to_owned(), reason };
        let text = std::str::from_utf8(&pem).map_err(|error| malformed(error.to_string()))?;
        let key = public_key(text).map_err(malformed)?;
        self.keys.insert(name, (key, pem));
        Ok(())
    }

    /// File names and PEM texts, sorted: what an image's `/etc/apk/keys` holds.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.keys.iter().map(|(name, (_, pem))| (name.as_str(), pem.as_slice()))
    }

    /// Checks the first signature whose key is trusted, as apk does; gives the key's file name.
    pub fn verify(&self, signatures: &[Signature], signed: &[u8]) -> Result<String, SignatureError> {
        let trusted =
            signatures.iter().find_map(|signature| Some((signature, &self.keys.get(&signature.key)?.0)));
        match trusted {
            Some((signature, None)) => Err(SignatureError::OtherKind(signature.key.clone())),
            Some((signature, Some(key))) if is_valid(key, signature, signed) => Ok(signature.key.clone()),
            Some((signature, _)) => Err(SignatureError::Wrong(signature.key.clone())),
            None if signatures.is_empty() => Err(SignatureError::Missing),
            None => Err(SignatureError::Untrusted {
                signers: signatures.iter().map(|signature| signature.key.clone()).collect(),
                trusted: self.keys.keys().cloned().collect(),
            }),
        }
    }
}

/// A public key in PEM (SubjectPublicKeyInfo, RFC 5280); `None` for one that is not for RSA.
fn public_key(pem: &str) -> Result<Option<RsaPublicKey>, String> {
    let (_, document) = Document::from_pem(pem).map_err(|error| error.to_string())?;
    let info = SubjectPublicKeyInfoRef::try_from(document.as_bytes()).map_err(|error| error.to_string())?;
    if info.algorithm.oid != rsa::pkcs1::ALGORITHM_OID {
        return Ok(None);
    }
    let bytes = info.subject_public_key.as_bytes().ok_or("it ends within a byte")?;
    let numbers = rsa::pkcs1::RsaPublicKey::try_from(bytes).map_err(|error| error.to_string())?;
    let number = |bytes: &[u8]| BigUint::from_bytes_be(bytes);
    let (modulus, exponent) =
        (number(numbers.modulus.as_bytes()), number(numbers.public_exponent.as_bytes()));
    let key = RsaPublicKey::new_with_max_size(modulus, exponent, MAX_KEY_BITS);
    key.map(Some).map_err(|error| error.to_string())
}

fn is_valid(key: &RsaPublicKey, signature: &Signature, signed: &[u8]) -> bool {
    let (scheme, digest) = match signature.algorithm {
        Algorithm::Rsa => (Pkcs1v15Sign::new::<Sha1>(), Sha1::digest(signed).to_vec()),
        Algorithm::Rsa256 => (Pkcs1v15Sign::new::<Sha256>(), Sha256::digest(signed).to_vec()),
        Algorithm::Rsa512 => (Pkcs1v15Sign::new::<Sha512>(), Sha512::digest(signed).to_vec()),
    };
    key.verify(scheme, &digest, &signature.bytes).is_ok()
}

/// A private key, and the file name that its public half has.
#[derive(Clone, Debug)]
pub struct SigningKey {
    key: RsaPrivateKey,
    public_name: String,
}

impl SigningKey {
    /// Reads a private key in PEM (PKCS#1 or PKCS#8), as `abuild-keygen`, `openssl genrsa` or [`SigningKey::generate`] makes it.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let public_name = public_name(path)?;
        let text = fs::read_text(path)?;
        let key = RsaPrivateKey::from_pkcs8_pem(&text)
            .or_else(|_| RsaPrivateKey::from_pkcs1_pem(&text))
            .map_err(|error| KeyError::Malformed { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Self { key, public_name })
    }

    /// Makes a new key: `NAME.rsa`, readable by its owner alone, and `NAME.rsa.pub` beside it. What is there is never written over:
    /// what a lost private key signed cannot be followed up.
    pub fn generate(path: &Path) -> Result<Self, KeyError> {
        let public_name = public_name(path)?;
        let public_path = path.with_file_name(&public_name);
        if let Some(there) = [path, &public_path].into_iter().find(|path| path.symlink_metadata().is_ok()) {
            return Err(KeyError::Exists(there.to_owned()));
        }
        let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, KEY_BITS).map_err(KeyError::Generate)?;
        let malformed = |reason: String| KeyError::Malformed { path: path.to_owned(), reason };
        let private = key.to_pkcs8_pem(LineEnding::LF).map_err(|error| malformed(error.to_string()))?;
        let public = key
            .to_public_key()
            .to_public_key_pem(LineEnding::LF)
            .map_err(|error| malformed(error.to_string()))?;
        fs::write(path, private.as_bytes(), 0o600)?;
        fs::write(&public_path, public.as_bytes(), 0o644)?;
        Ok(Self { key, public_name })
    }

    /// File name of the public key, which a repository's users put among their trusted keys.
    pub fn public_name(&self) -> &str {
        &self.public_name
    }

    /// Signs with SHA-1 (`RSA`), which every apk reads; gives the name of the entry and its bytes.
    ///
    /// SHA-1 is what apk 2's format asks for; a second preimage, which a forged index would need, is not known for it.
    pub fn sign(&self, bytes: &[u8]) -> Result<(String, Vec<u8>), KeyError> {
        let signature =
            self.key.sign(Pkcs1v15Sign::new::<Sha1>(), &Sha1::digest(bytes)).map_err(KeyError::Sign)?;
        Ok((format!(".SIGN.RSA.{}", self.public_name), signature))
    }
}

fn public_name(private: &Path) -> Result<String, KeyError> {
    let name = private.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.@+".contains(&b);
    if name.len() > 4 && name.len() < 80 && name.ends_with(".rsa") && name.bytes().all(plain) {
        Ok(format!("{name}.pub"))
    } else {
        Err(KeyError::Name(private.to_owned()))
    }
}
