//! Signatures by SSH keys (`ssh-keygen -Y`, PROTOCOL.sshsig of OpenSSH), over texts of this program's own.

use std::path::{Path, PathBuf};

use crate::base::text::excerpt;
use crate::base::{Class, Diagnosis, Diagnostic};

use super::fs::{self as files, FileError};
use super::tool::{Tool, ToolError};

/// What a signature is for: one that Git asked for counts for nothing here, nor one of these there.
pub const NAMESPACE: &str = "sisforge";

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// A text that was not signed, or whose signatures do not count.
#[derive(Debug, thiserror::Error)]
pub enum SshSignatureError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read the allowed signers")]
    Signers(#[source] FileError),
    #[error("cannot sign with {}", key.display())]
    Sign { key: PathBuf, source: ToolError },
    #[error("the signature over {what} is wrong: {reason}")]
    Wrong { what: String, reason: String },
    #[error("no key of {} has signed {what}: {reason}", signers.display())]
    Refused { signers: PathBuf, what: String, reason: String },
}

impl Diagnostic for SshSignatureError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Tool(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Signers(error) => error.diagnosis().of(Class::Invalid),
            Self::Sign { source, .. } => source.diagnosis().of(Class::Invalid).or_hint(
                "name a private key of OpenSSH, or the public half of one that ssh-agent holds",
            ),
            Self::Wrong { .. } => Class::Invalid.hint("what it is over was changed after it was signed"),
            Self::Refused { .. } => Class::Invalid.hint(
                "whoever may sign does it with `sisforge sign`; an allowed signer is a line of that file (ssh-keygen(1), ALLOWED \
                 SIGNERS), with namespaces=\"sisforge\" or none",
            ),
        }
    }
}

/// Signs a text with a private key, or with that of ssh-agent whose public half is named.
pub fn sign(key: &Path, text: &str) -> Result<String, SshSignatureError> {
    files::open(key)?;
    let keygen = Tool::new("ssh-keygen").args(["-Y", "sign", "-n", NAMESPACE, "-f"]).arg(key);
    let signed = keygen.pass("SSH_AUTH_SOCK").stdin(text).text();
    signed.map_err(|source| match source {
        ToolError::Failed { .. } => SshSignatureError::Sign { key: key.to_owned(), source },
        other => other.into(),
    })
}

/// Whether one of these signatures, one behind the other, is over a text and by a key of the file `signers`; gives who that is, as
/// the file names them. `what` says in messages what was to be signed.
pub fn verify(signers: &Path, what: &str, text: &str, signatures: &str) -> Result<String, SshSignatureError> {
    // Absent or not to be read, it would be as if it were empty.
    files::open(signers).map_err(SshSignatureError::Signers)?;
    let dir =
        tempfile::tempdir().map_err(FileError::when("create a directory in", "the temporary directory"))?;
    let file = dir.path().join("signature");
    let mut reason = "there is no signature".to_owned();
    for block in blocks(signatures) {
        files::write_unsynced(&file, block.as_bytes(), 0o600)?;
        let keygen = |action: &str| {
            let tool = Tool::new("ssh-keygen").args(["-Y", action, "-n", NAMESPACE, "-s"]).arg(&file);
            tool.arg("-f").arg(signers)
        };
        let found = keygen("find-principals").output()?;
        reason = said(&found.stderr);
        for principal in String::from_utf8_lossy(&found.stdout).lines().filter(|_| found.status.success()) {
            let verified = keygen("verify").args(["-I", principal]).stdin(text).output()?;
            if verified.status.success() {
                return Ok(principal.to_owned());
            }
            reason = said(&[verified.stdout, verified.stderr].concat());
        }
    }
    Err(SshSignatureError::Refused { signers: signers.to_owned(), what: what.to_owned(), reason })
}

/// By which keys these signatures over a text are, whosever they are: the type and the fingerprint of each, such as
/// `ED25519 key SHA256:...`. One that is over another text is an error.
pub fn signed_by(what: &str, text: &str, signatures: &str) -> Result<Vec<String>, SshSignatureError> {
    let dir =
        tempfile::tempdir().map_err(FileError::when("create a directory in", "the temporary directory"))?;
    let file = dir.path().join("signature");
    let mut keys = Vec::new();
    for block in blocks(signatures) {
        files::write_unsynced(&file, block.as_bytes(), 0o600)?;
        let keygen =
            Tool::new("ssh-keygen").args(["-Y", "check-novalidate", "-n", NAMESPACE, "-s"]).arg(&file);
        let checked = keygen.stdin(text).output()?;
        if !checked.status.success() {
            let reason = said(&[checked.stdout, checked.stderr].concat());
            return Err(SshSignatureError::Wrong { what: what.to_owned(), reason });
        }
        // Such as `Good "sisforge" signature with ED25519 key SHA256:...`.
        let said = said(&checked.stdout);
        keys.push(said.rsplit_once(" with ").map_or(said.clone(), |(_, key)| key.to_owned()));
    }
    if keys.is_empty() {
        let reason = "there is no signature".to_owned();
        return Err(SshSignatureError::Wrong { what: what.to_owned(), reason });
    }
    Ok(keys)
}

fn said(bytes: &[u8]) -> String {
    // It ends lines as terminals do.
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    excerpt(&lines.join("; "))
}

/// The signatures in a text.
fn blocks(text: &str) -> impl Iterator<Item = String> {
    text.split(BEGIN).skip(1).filter_map(|rest| {
        let (body, _) = rest.split_once(END)?;
        Some(format!("{BEGIN}{body}{END}\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_keygen_says_is_told_in_one_line() {
        assert_eq!(
            said(b"Could not verify\r\n\r\nSignature is wrong\r\n"),
            "Could not verify; Signature is wrong"
        );
    }

    #[test]
    fn an_allowed_key_signs_for_this_program_alone() {
        if super::super::tool::find("ssh-keygen").is_none() {
            eprintln!("skipped: ssh-keygen is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let public = |name: &str| {
            let keygen = Tool::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]);
            keygen.arg(at(name)).run().unwrap();
            std::fs::read_to_string(at(&format!("{name}.pub"))).unwrap()
        };
        let (team, stranger) = (public("team"), public("stranger"));
        std::fs::write(at("signers"), format!("team@a.org namespaces=\"sisforge,git\" {team}")).unwrap();
        let [by_team, by_stranger] = ["team", "stranger"].map(|name| sign(&at(name), "text\n").unwrap());
        let verify = |signers: &str, text: &str, signatures: &str| {
            verify(&at(signers), "it", text, signatures).map_err(|error| error.to_string())
        };
        assert_eq!(verify("signers", "text\n", &by_team).as_deref(), Ok("team@a.org"));
        assert!(signed_by("it", "text\n", &by_team).unwrap()[0].starts_with("ED25519 key SHA256:"));
        assert!(signed_by("it", "text \n", &by_team).is_err() && signed_by("it", "text\n", "").is_err());
        // Of several, one suffices.
        assert!(verify("signers", "text\n", &(by_stranger.clone() + &by_team)).is_ok());
        for (text, signatures) in [("text \n", by_team.as_str()), ("text\n", &by_stranger), ("text\n", "")] {
            assert!(
                verify("signers", text, signatures).unwrap_err().contains("has signed it"),
                "{signatures}"
            );
        }
        // A signature that Git asked for is none of these.
        let git = Tool::new("ssh-keygen").args(["-Y", "sign", "-n", "git", "-f"]).arg(at("team"));
        assert!(verify("signers", "text\n", &git.stdin("text\n").text().unwrap()).is_err());
        std::fs::write(at("others"), format!("team@a.org namespaces=\"git\" {team}{stranger}")).unwrap();
        assert!(verify("others", "text\n", &by_team).is_err());
        assert!(verify("absent", "text\n", &by_team).unwrap_err().contains("allowed signers"));
        assert!(sign(&at("signers"), "text\n").unwrap_err().to_string().contains("cannot sign with"));
    }
}
