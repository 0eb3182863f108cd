//! Evidence of a guest as data: what is in an archive, and what is not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::{FleetName, GuestName, Sha256};

/// The last member but one: an [`EvidenceManifest`], over which the last one has signatures.
pub const MANIFEST: &str = "manifest.json";
/// The last member: signatures by SSH keys.
pub const SIGNATURE: &str = "manifest.json.sig";
/// The guest's data disk as it was captured.
pub use super::snapshot::DISK;
/// The disk that it was made from.
pub const PRISTINE: &str = "pristine.ext4";

/// Of which kind archives are that this version writes.
pub const FORMAT: u32 = 1;

/// What an archive holds. It is signed as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EvidenceManifest {
    /// Version of this format.
    pub format: u32,
    pub fleet: FleetName,
    pub guest: GuestName,
    /// When the guest was captured (RFC 3339, UTC).
    pub captured: String,
    /// What wrote the archive, such as `sisforge 0.1.0`.
    pub made_by: String,
    /// Name of the host.
    pub host: String,
    /// Release of the host's kernel.
    pub kernel: String,
    /// Milliseconds for which the guest stood still; none where it did not run, or could not be frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stood_still_ms: Option<u64>,
    /// Where in the member `memory` each range of the guest's physical memory is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory_map: Vec<MemoryRange>,
    /// Every other member but the signatures, by name.
    pub members: BTreeMap<String, EvidenceMember>,
    /// What could not be had.
    pub missing: Vec<MissingEvidence>,
    /// The public half of the key that the host signed with, as OpenSSH writes it. Whether it is the host's, `--signers` tells.
    pub signer: String,
}

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceMember {
    /// In bytes.
    pub size: u64,
    /// Of its bytes, as sha256sum(1) prints it.
    pub sha256: Sha256,
}

/// Something that an archive should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingEvidence {
    pub what: String,
    pub why: String,
}

/// A range of a guest's physical memory in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRange {
    /// Physical address in the guest.
    pub address: u64,
    /// Where in the file.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
}

/// Where Firecracker puts so much memory: around its gaps for devices, the last GiB below 4 GiB and 256 GiB from 256 GiB on
/// (`src/vmm/src/arch/x86_64/mod.rs`, `arch_memory_regions`).
pub fn memory_map(memory_mib: u64) -> Vec<MemoryRange> {
    const GIB: u64 = 1 << 30;
    const ROOM: [(u64, u64); 3] = [(0, 3 * GIB), (4 * GIB, 252 * GIB), (512 * GIB, u64::MAX)];
    let (mut map, mut offset, size) = (Vec::new(), 0, memory_mib << 20);
    for (address, room) in ROOM {
        let range = MemoryRange { address, offset, size: room.min(size - offset) };
        offset += range.size;
        map.push(range);
    }
    map.retain(|range| range.size > 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_lies_around_the_gaps_for_devices() {
        assert_eq!(memory_map(512), [MemoryRange { address: 0, offset: 0, size: 512 << 20 }]);
        let large = memory_map(300 << 10);
        let places: Vec<_> =
            large.iter().map(|range| (range.address >> 30, range.offset >> 30, range.size >> 30)).collect();
        assert_eq!(places, [(0, 0, 3), (4, 3, 252), (512, 255, 45)]);
    }
}
