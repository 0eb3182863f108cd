//! The files that machines name: whether each is what it is for.

use crate::fleet::MachineFile;

/// The most that Firecracker takes as metadata (`HTTP_MAX_PAYLOAD_SIZE` in its `src/vmm/src/lib.rs`), in bytes.
const METADATA_MAX: usize = 51_200;

/// Looks at the content of a file.
pub fn check(file: MachineFile, content: &[u8]) -> Result<(), String> {
    let object = || match serde_json::from_slice::<serde_json::Value>(content) {
        Ok(value) if value.is_object() => Ok(()),
        Ok(_) => Err("it is not a JSON object".to_owned()),
        Err(error) => Err(format!("it is not valid JSON: {error}")),
    };
    match file {
        MachineFile::CpuTemplate => object().map_err(|why| format!("is not a CPU template: {why}")),
        MachineFile::Metadata if content.len() > METADATA_MAX => {
            Err(format!("has {} bytes, but at most {METADATA_MAX} are allowed", content.len()))
        }
        MachineFile::Metadata => object().map_err(|why| format!("is not valid metadata: {why}")),
        MachineFile::Seccomp if content.is_empty() => {
            Err("is empty: every system call would be refused".into())
        }
        MachineFile::Seccomp if object().is_ok() => {
            Err("is the source of seccomp filters: `seccompiler-bin` compiles it".into())
        }
        MachineFile::Seccomp => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_what_it_is_for_is_refused_in_words() {
        let why = |file, content: &[u8]| check(file, content).unwrap_err();
        assert_eq!(why(MachineFile::CpuTemplate, b"[]"), "is not a CPU template: it is not a JSON object");
        assert!(
            why(MachineFile::Metadata, b"{").starts_with("is not valid metadata: it is not valid JSON: EOF")
        );
        assert!(why(MachineFile::Seccomp, b"{\"vmm\": {}}").contains("seccompiler-bin"));
        assert!(why(MachineFile::Seccomp, b"").contains("is empty"));
        check(MachineFile::Seccomp, &[3, 0, 0]).unwrap();
    }

    #[test]
    fn metadata_holds_as_much_as_firecracker_takes() {
        let object = |length: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(length - 8)).into_bytes();
        check(MachineFile::Metadata, &object(METADATA_MAX)).unwrap();
        let error = check(MachineFile::Metadata, &object(METADATA_MAX + 1)).unwrap_err();
        assert_eq!(error, "has 51201 bytes, but at most 51200 are allowed");
    }
}
