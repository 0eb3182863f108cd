//! Git LFS: what stands in a checkout in place of a file that was not fetched.

use super::{Class, Diagnosis, Diagnostic};

/// How a pointer begins (Git LFS specification 1, "The Pointer").
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// A file whose content Git LFS keeps elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is a Git LFS pointer: `git lfs pull` fetches the file itself")]
pub struct LfsPointer;

impl Diagnostic for LfsPointer {
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.hint("run `git lfs pull`")
    }
}

impl LfsPointer {
    /// Refuses a pointer, by the first bytes of a file.
    pub fn refuse(head: &[u8]) -> Result<(), Self> {
        if head.starts_with(POINTER) { Err(Self) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_told_by_its_first_line() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n";
        assert_eq!(LfsPointer::refuse(pointer), Err(LfsPointer));
        assert_eq!(LfsPointer::refuse(b"version 1\n"), Ok(()));
        assert_eq!(LfsPointer::refuse(b""), Ok(()));
    }
}
