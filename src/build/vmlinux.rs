//! Whether a ready kernel is one that a VMM can start.

use std::path::{Path, PathBuf};

use crate::base::problem::Problem;
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::fleet::{Fleet, KernelSpec, VmmKind};
use crate::sys::fs::FileError;

/// A kernel image that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VmlinuxError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not a kernel that a VMM can boot: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
}

const TAKES_VMLINUX: &str = "[kernel] image takes a vmlinux, the ELF file at the top of a kernel's build directory; its scripts/extract-vmlinux \
     gets it out of a bzImage";

impl Diagnostic for VmlinuxError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Unusable { .. } => Class::Invalid.hint(TAKES_VMLINUX),
        }
    }
}

/// ELF note that holds the 32-bit entry point of the PVH boot protocol
/// (`XEN_ELFNOTE_PHYS32_ENTRY` in include/xen/interface/elfnote.h).
const PVH_NOTE: (&str, u32) = ("Xen", 18);

/// Checks that a file is an x86-64 ELF executable; QEMU also needs a PVH note, Firecracker the 64-bit entry alone.
pub fn check(path: &Path, vmm: VmmKind) -> Result<(), VmlinuxError> {
    let bytes = crate::sys::fs::read(path)?;
    let unusable = |reason: &str| VmlinuxError::Unusable { path: path.to_owned(), reason: reason.to_owned() };
    if bytes.get(0x202..0x206) == Some(b"HdrS") {
        return Err(unusable("it is a bzImage; give the uncompressed vmlinux that was built with it"));
    }
    let elf = goblin::elf::Elf::parse(&bytes).map_err(|_| unusable("it is not an ELF file"))?;
    if elf.header.e_machine != goblin::elf::header::EM_X86_64 || !elf.is_64 {
        return Err(unusable("it is not for x86-64"));
    }
    if elf.header.e_type != goblin::elf::header::ET_EXEC {
        return Err(unusable("it is not an ELF executable (its type is not EXEC)"));
    }
    let has_pvh = || {
        let notes = elf.iter_note_headers(&bytes).into_iter().flatten().flatten();
        notes.into_iter().any(|note| (note.name.trim_end_matches('\0'), note.n_type) == PVH_NOTE)
    };
    if vmm == VmmKind::Qemu && !has_pvh() {
        return Err(unusable(
            "QEMU starts a vmlinux by its PVH note, and it has none: build it with CONFIG_PVH=y",
        ));
    }
    Ok(())
}

/// What is wrong with the ready kernel of a fleet, at its place in `fleet.toml`.
pub fn problem(fleet: &Fleet) -> Result<Option<Problem>, VmlinuxError> {
    let KernelSpec::Ready { image, place, .. } = &fleet.kernel else { return Ok(None) };
    // A host that takes what others built.
    if fleet.artifacts.is_some() && !image.exists() {
        return Ok(None);
    }
    match check(image, fleet.vmm) {
        Ok(()) => Ok(None),
        Err(VmlinuxError::Unusable { reason, .. }) => {
            let message = format!("this is not a kernel that a VMM can boot: {reason}");
            Ok(Some(Problem::new(place.clone(), message).hint(TAKES_VMLINUX)))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(bytes: &[u8], vmm: VmmKind) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinux");
        std::fs::write(&path, bytes).unwrap();
        match check(&path, vmm) {
            Ok(()) => "usable".into(),
            Err(VmlinuxError::Unusable { reason, .. }) => reason,
            Err(error) => error.to_string(),
        }
    }

    /// An ELF header alone: x86-64, executable, no segments.
    fn elf(machine: u16, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[20] = 1;
        bytes[52] = 64;
        bytes
    }

    #[test]
    fn what_a_vmm_cannot_start_is_refused_with_the_reason() {
        let mut bzimage = vec![0; 0x300];
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(reason(&bzimage, VmmKind::Firecracker).contains("bzImage"));
        assert_eq!(reason(b"hello", VmmKind::Firecracker), "it is not an ELF file");
        assert_eq!(reason(&elf(0xb7, 2), VmmKind::Firecracker), "it is not for x86-64");
        assert!(reason(&elf(0x3e, 3), VmmKind::Firecracker).contains("not EXEC"));
        assert!(reason(&elf(0x3e, 2), VmmKind::Qemu).contains("PVH"));
        assert_eq!(reason(&elf(0x3e, 2), VmmKind::Firecracker), "usable");
    }
}
