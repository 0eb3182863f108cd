//! age (<https://age-encryption.org/v1>): files that the holder of one key alone can read. Such a file says nothing of who wrote it.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::secrecy::ExposeSecret;
use age::x25519;
use age::{DecryptError, Decryptor, Encryptor};

use crate::base::{Class, Diagnosis, Diagnostic, InvalidValue};

use super::fs::{self as files, FileError, FileLock};

/// A key that cannot be used, or a file that is not for it.
#[derive(Debug, thiserror::Error)]
pub enum AgeError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is no key of age: {why}", path.display())]
    NoKey { path: PathBuf, why: &'static str },
    #[error("others than root may read {} (mode {mode:04o})", path.display())]
    Readable { path: PathBuf, mode: u32 },
    #[error("{} is encrypted for another host, not for {own}", path.display())]
    OtherKey { path: PathBuf, own: AgeRecipient },
    #[error("{} is no file that age encrypted", path.display())]
    NoAge { path: PathBuf },
    #[error("{} is damaged, was cut or was changed: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
}

impl Diagnostic for AgeError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::NoKey { .. } => Class::Failed
                .hint("bring it back from a backup; a new one reads nothing that was encrypted for it"),
            Self::Readable { path, .. } => {
                Class::Failed.hint(format!("`chmod 600 {}`, if nobody else has read it", path.display()))
            }
            Self::OtherKey { .. } => {
                Class::Invalid.hint("export it to what `sisforge snapshot recipient` prints on this host")
            }
            Self::NoAge { .. } => Class::Invalid.hint("name a file that `sisforge snapshot export` wrote"),
            Self::Damaged { .. } => Class::Invalid.hint("copy it again from where it was written"),
        }
    }
}

/// The public half of a key, written `age1...`.
#[derive(Clone, PartialEq, Eq)]
pub struct AgeRecipient(x25519::Recipient);

impl FromStr for AgeRecipient {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let reason = match text.starts_with("AGE-SECRET-KEY-") {
            // Not shown: it is a secret.
            true => "is the secret half of a key: name the public half, age1...".to_owned(),
            false => format!(
                "must be what `sisforge snapshot recipient` prints on the other host, age1..., not {text:?}"
            ),
        };
        text.parse().map(Self).map_err(|_| InvalidValue(reason))
    }
}

impl fmt::Display for AgeRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for AgeRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Encrypts whatever is written to it; without [`finish`](age::stream::StreamWriter::finish), nobody takes the file for whole.
pub type AgeWriter<W> = age::stream::StreamWriter<W>;

/// Begins a file for one recipient.
pub fn encrypt<W: Write>(to: &AgeRecipient, output: W) -> io::Result<AgeWriter<W>> {
    let recipients = std::iter::once(&to.0 as &dyn age::Recipient);
    Encryptor::with_recipients(recipients).map_err(io::Error::other)?.wrap_output(output)
}

/// A key, of which nothing shows but its public half.
pub struct AgeIdentity(x25519::Identity);

impl AgeIdentity {
    /// Reads the key of a file that root alone may read, or makes it where there is none; `lock` is held meanwhile.
    pub fn of_host(path: &Path, lock: &Path) -> Result<Self, AgeError> {
        files::create_private_dir(path.parent().unwrap_or(Path::new("/")))?;
        let _lock = FileLock::wait(lock)?;
        match files::read_text_if_present(path)? {
            Some(text) => Self::read(path, &text),
            None => Self::make(path),
        }
    }

    fn read(path: &Path, text: &str) -> Result<Self, AgeError> {
        let meta = std::fs::metadata(path).map_err(FileError::when("look at", path))?;
        let mode = meta.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(AgeError::Readable { path: path.to_owned(), mode });
        }
        let mut keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let no_key = |why| AgeError::NoKey { path: path.to_owned(), why };
        let key = keys.next().ok_or_else(|| no_key("there is none in it"))?;
        key.parse()
            .map(Self)
            .map_err(|_| no_key("its key is damaged, or of another kind than AGE-SECRET-KEY-1"))
    }

    /// As `age-keygen` writes it.
    fn make(path: &Path) -> Result<Self, AgeError> {
        let key = x25519::Identity::generate();
        let text = format!("# public key: {}\n{}\n", key.to_public(), key.to_string().expose_secret());
        files::write(path, text.as_bytes(), 0o600)?;
        Ok(Self(key))
    }

    /// Its public half.
    pub fn recipient(&self) -> AgeRecipient {
        AgeRecipient(self.0.to_public())
    }

    /// Reads what was encrypted for this key. What of it was read is what was written; whether that is all of it, its end tells.
    pub fn decrypt(&self, path: &Path) -> Result<impl Read + use<>, AgeError> {
        let file = files::open_regular(path).map_err(FileError::when("read", path))?;
        let file = file.ok_or_else(|| AgeError::NoAge { path: path.to_owned() })?;
        let failed = |error| self.explained(path, error);
        let decryptor = Decryptor::new_buffered(io::BufReader::new(file)).map_err(failed)?;
        decryptor.decrypt(std::iter::once(&self.0 as &dyn age::Identity)).map_err(failed)
    }

    fn explained(&self, path: &Path, error: DecryptError) -> AgeError {
        let path = path.to_owned();
        let damaged = |why: &str| AgeError::Damaged { path: path.clone(), why: why.to_owned() };
        match error {
            DecryptError::NoMatchingKeys | DecryptError::ExcessiveWork { .. } => {
                AgeError::OtherKey { path, own: self.recipient() }
            }
            DecryptError::InvalidMac | DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => {
                damaged("its head does not fit its key")
            }
            DecryptError::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
                damaged("it ends within its head")
            }
            DecryptError::Io(error) => FileError::when("read", path)(error).into(),
            _ => AgeError::NoAge { path },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(dir: &Path) -> Result<AgeIdentity, AgeError> {
        AgeIdentity::of_host(&dir.join("host/key"), &dir.join("host/lock"))
    }

    fn encrypted(to: &AgeRecipient, bytes: &[u8]) -> Vec<u8> {
        let mut writer = encrypt(to, Vec::new()).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn a_key_is_made_once_and_is_for_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = key(dir.path()).unwrap().recipient();
        assert_eq!(key(dir.path()).unwrap().recipient(), first);
        assert_eq!(first.to_string().parse::<AgeRecipient>().unwrap(), first);
        let path = dir.path().join("host/key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(key(dir.path()), Err(AgeError::Readable { mode: 0o644, .. })));
        std::fs::write(&path, "AGE-SECRET-KEY-1X\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(key(dir.path()), Err(AgeError::NoKey { .. })));
    }

    #[test]
    fn a_file_is_read_by_its_own_key_and_only_whole() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [own, other] = [0, 1].map(|place| key(dirs[place].path()).unwrap());
        let whole = encrypted(&own.recipient(), &vec![7; 100_000]);
        let path = dirs[0].path().join("file");
        let read = |bytes: &[u8], key: &AgeIdentity| -> Result<Vec<u8>, String> {
            std::fs::write(&path, bytes).unwrap();
            let mut content = Vec::new();
            let mut reader = key.decrypt(&path).map_err(|error| error.to_string())?;
            reader.read_to_end(&mut content).map_err(|error| error.to_string())?;
            Ok(content)
        };
        assert_eq!(read(&whole, &own).unwrap().len(), 100_000);
        assert!(read(&whole, &other).unwrap_err().contains("encrypted for another host"));
        assert!(read(b"[fleet]\n", &own).unwrap_err().contains("no file that age encrypted"));
        assert!(read(b"", &own).is_err());
        let pipe = dirs[0].path().join("pipe");
        files::make_pipe(&pipe).unwrap();
        assert!(
            matches!(own.decrypt(&pipe), Err(AgeError::NoAge { .. })),
            "nobody waits for who writes to it"
        );
        for step in 0..60 {
            let place = step * (whole.len() - 1) / 59;
            let mut changed = whole.clone();
            changed[place] ^= 1;
            assert!(read(&changed, &own).is_err(), "byte {place}");
            assert!(read(&whole[..place], &own).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn a_secret_that_is_named_in_place_of_a_recipient_is_not_shown() {
        let error = "AGE-SECRET-KEY-1QQQ".parse::<AgeRecipient>().unwrap_err().to_string();
        assert!(error.contains("secret half") && !error.contains("QQQ"), "{error}");
    }
}
