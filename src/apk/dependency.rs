//! Dependencies and checksums.

/// One wish of a package or of the world, as it is written: `[!]name[op version][@tag]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dependency {
    pub name: String,
}

/// Identity of a package: SHA-1 of its compressed control member, written `Q1<base64>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Checksum(pub [u8; 20]);
