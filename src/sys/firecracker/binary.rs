//! Whether a `firecracker` can run in a jail, where nothing is that a dynamic program would load.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use goblin::elf::{Elf, header};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::sys::fs::FileError;

/// A program that a jail cannot run.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    #[error(transparent)]
    Read(#[from] FileError),
    #[error("{} is not a Linux program for x86-64", path.display())]
    Foreign { path: PathBuf },
    #[error("{} is not statically linked: it needs {interpreter}, which is not in its jail", path.display())]
    Dynamic { path: PathBuf, interpreter: String },
}

impl Diagnostic for BinaryError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Read(error) => error.diagnosis().of(Class::Failed),
            Self::Foreign { .. } | Self::Dynamic { .. } => {
                Class::Failed.hint("install the static binary from Firecracker's releases")
            }
        }
    }
}

/// Enough of a program for its headers and the name of what loads it.
const HEAD: u64 = 64 << 10;

/// Looks whether a program is a static one for this machine.
pub fn check_static(path: &Path) -> Result<(), BinaryError> {
    let named = || FileError::when("read", path);
    let mut head = Vec::new();
    File::open(path).map_err(named())?.take(HEAD).read_to_end(&mut head).map_err(named())?;
    check_head(path, &head)
}

fn check_head(path: &Path, head: &[u8]) -> Result<(), BinaryError> {
    let foreign = || BinaryError::Foreign { path: path.to_owned() };
    let elf = Elf::parse_header(head).map_err(|_| foreign())?;
    if elf.e_machine != header::EM_X86_64 || !matches!(elf.e_type, header::ET_EXEC | header::ET_DYN) {
        return Err(foreign());
    }
    let start = usize::try_from(elf.e_phoff).map_err(|_| foreign())?;
    let container =
        goblin::container::Ctx::new(goblin::container::Container::Big, goblin::container::Endian::Little);
    let headers = goblin::elf::ProgramHeader::parse(head, start, usize::from(elf.e_phnum), container);
    let interpreter = headers
        .map_err(|_| foreign())?
        .into_iter()
        .find(|header| header.p_type == goblin::elf::program_header::PT_INTERP);
    let Some(interpreter) = interpreter else { return Ok(()) };
    let name = head.get(interpreter.file_range()).unwrap_or(b"a loader");
    let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
    Err(BinaryError::Dynamic { path: path.to_owned(), interpreter: name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_by_what_it_would_load() {
        let error = check_static(Path::new("/proc/self/exe")).unwrap_err();
        assert!(
            matches!(&error, BinaryError::Dynamic { interpreter, .. } if interpreter.contains("ld-linux")),
            "{error}"
        );
    }

    #[test]
    fn a_script_is_no_program_for_a_jail() {
        for head in [&b"#!/bin/sh\n"[..], b"", b"\x7fELF\x02\x01\x01"] {
            assert!(matches!(check_head(Path::new("f"), head), Err(BinaryError::Foreign { .. })), "{head:?}");
        }
    }
}
