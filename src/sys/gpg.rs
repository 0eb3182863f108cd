//! GnuPG: who signed a text, among the keys of a keyring. Nothing of the user's own keyrings and settings is read.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::{self as files, FileError, io_diagnosis};
use super::tool::{Tool, ToolError};

/// A text whose signature does not count.
#[derive(Debug, thiserror::Error)]
pub enum GpgError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot make a directory for gpg")]
    Home(#[source] io::Error),
    #[error("{} contains no keys that gpg can read", keyring.display())]
    NoKeys { keyring: PathBuf, source: ToolError },
    #[error("no key of {} has a valid signature of it: {reason}", keyring.display())]
    Refused { keyring: PathBuf, reason: String },
}

impl Diagnostic for GpgError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Home(error) => io_diagnosis(error),
            Self::NoKeys { source, .. } => source
                .diagnosis()
                .of(Class::Invalid)
                .or_hint("export the keys again, as with `gpg --export KEY`"),
            Self::Refused { .. } => {
                Class::Invalid.hint("if you trust whoever signed it, add that key to the keyring")
            }
        }
    }
}

/// A text that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What the signature covers: what stands around it in the file is left out.
    pub text: Vec<u8>,
    /// Name of the key that signed.
    pub signer: String,
}

/// Checks an inline signature (`gpg --clearsign`) against a keyring: a file of public keys, armored or not.
pub fn verify(keyring: &Path, signed: Vec<u8>) -> Result<Signed, GpgError> {
    let home = tempfile::tempdir().map_err(GpgError::Home)?;
    let text = home.path().join("text");
    gpg(home.path()).arg("--import").arg(keyring).run().map_err(|source| match source {
        ToolError::Failed { .. } => GpgError::NoKeys { keyring: keyring.to_owned(), source },
        other => other.into(),
    })?;
    let output = gpg(home.path())
        .args(["--trust-model", "always", "--status-fd", "1", "--output"])
        .arg(&text)
        .arg("--decrypt")
        .stdin(signed)
        .output()?;
    // Its exit status is that of the whole file: 2 also where a second signature is by someone else.
    let signer = parse_status(&String::from_utf8_lossy(&output.stdout))
        .map_err(|reason| GpgError::Refused { keyring: keyring.to_owned(), reason })?;
    Ok(Signed { text: files::read(&text)?, signer })
}

fn gpg(home: &Path) -> Tool {
    // No agent is left behind, and no key is fetched from anywhere.
    Tool::new("gpg").arg("--homedir").arg(home).args([
        "--batch",
        "--quiet",
        "--no-options",
        "--no-autostart",
        "--no-auto-key-retrieve",
    ])
}

/// Reads what gpg says with `--status-fd` (doc/DETAILS of its sources): the name of a key whose signature is good.
pub fn parse_status(status: &str) -> Result<String, String> {
    let mut signer = None;
    let mut reason = "it is not signed".to_owned();
    for line in status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] ")) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (key, name) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "GOODSIG" => signer = signer.or(Some(name.to_owned())),
            "BADSIG" => return Err(format!("the signature of {name} is for a different text")),
            "ERROR" => return Err(format!("gpg stopped at {rest}")),
            "EXPKEYSIG" => reason = format!("the key of {name} has expired"),
            "EXPSIG" => reason = format!("the signature of {name} has expired"),
            "REVKEYSIG" => reason = format!("the key of {name} was revoked"),
            "NO_PUBKEY" => reason = format!("it is signed by the key {key}, which is not in the keyring"),
            "ERRSIG" => reason = format!("gpg cannot check the signature of the key {key}"),
            _ => {}
        }
    }
    signer.ok_or(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[GNUPG:] PLAINTEXT 74 0 \n[GNUPG:] NEWSIG k@example.org\n\
        [GNUPG:] KEY_CONSIDERED 1E2B40FEA9C582286DA91FA852EC0ED11E900FC9 0\n\
        [GNUPG:] GOODSIG 52EC0ED11E900FC9 Test Kernel <k@example.org>\n\
        [GNUPG:] VALIDSIG 1E2B40FEA9C582286DA91FA852EC0ED11E900FC9 2026-11-25 1795630402 0 4 0 22 8 01 \
        1E2B\n";
    const UNKNOWN: &str = "[GNUPG:] NEWSIG o@example.org\n\
        [GNUPG:] ERRSIG 2729F2512751DBE4 22 8 01 1795630403 9 05A2BA35A9D854516AD969542729F2512751DBE4\n\
        [GNUPG:] NO_PUBKEY 2729F2512751DBE4\n";

    #[test]
    fn one_good_signature_is_enough_and_a_bad_one_too_much() {
        let signer = Ok("Test Kernel <k@example.org>".to_owned());
        assert_eq!(parse_status(GOOD), signer);
        assert_eq!(parse_status(&format!("{GOOD}{UNKNOWN}")), signer);
        assert_eq!(parse_status(&format!("{UNKNOWN}{GOOD}")), signer);
        let bad = "[GNUPG:] BADSIG 52EC0ED11E900FC9 Test Kernel <k@example.org>\n";
        for status in [bad.to_owned(), format!("{GOOD}{bad}"), format!("{bad}{GOOD}")] {
            let reason = parse_status(&status).unwrap_err();
            assert_eq!(reason, "the signature of Test Kernel <k@example.org> is for a different text");
        }
    }

    #[test]
    fn a_signature_that_does_not_count_says_why() {
        let reason = |status: &str| parse_status(status).unwrap_err();
        assert_eq!(reason(UNKNOWN), "it is signed by the key 2729F2512751DBE4, which is not in the keyring");
        let expired = "[GNUPG:] EXPKEYSIG 304F8C05081457C1 Old <old@example.org>\n\
            [GNUPG:] VALIDSIG 613CF822E62EE9D80DDEAE60304F8C05081457C1 2020-02-01 1580515200 0 4 0 22 8 01 \
            613C\n";
        assert_eq!(reason(expired), "the key of Old <old@example.org> has expired");
        assert_eq!(reason("[GNUPG:] NODATA 1\n[GNUPG:] NODATA 2\n"), "it is not signed");
        assert_eq!(reason(""), "it is not signed");
        let two = format!("{GOOD}[GNUPG:] ERROR proc_pkt.plaintext 89_BAD_DATA\n");
        assert_eq!(reason(&two), "gpg stopped at proc_pkt.plaintext 89_BAD_DATA");
    }
}
