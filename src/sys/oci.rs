//! Documents of container images (OCI image specification 1.1), as far as images are found and verified by them; Docker's have
//! the same fields.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::base::Sha256;

/// Larger manifests, configs and indexes are refused, in bytes: registries allow 4 MiB.
pub const LARGEST_DOCUMENT: u64 = 4 << 20;

/// A part of an image, as whatever mentions it says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    /// In bytes.
    pub size: u64,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Of an image in an index.
    pub platform: Option<Platform>,
}

/// What an image runs on; empty where it is not stated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// Of an architecture: what a newer processor alone has.
    pub variant: String,
}

/// Several images: those of a layout, or one for each platform.
#[derive(Debug, Deserialize)]
pub struct ImageIndex {
    pub manifests: Vec<Descriptor>,
}

/// One image; the lowest layer comes first.
#[derive(Debug, Deserialize)]
pub struct ImageManifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// What a reference to a registry leads to.
#[derive(Debug)]
pub enum Document {
    Index(ImageIndex),
    Manifest(ImageManifest),
}

impl Document {
    /// Reads whichever it is.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Keys {
            manifests: Option<IgnoredAny>,
        }
        match serde_json::from_slice::<Keys>(bytes)?.manifests {
            Some(_) => serde_json::from_slice(bytes).map(Self::Index),
            None => serde_json::from_slice(bytes).map(Self::Manifest),
        }
    }
}

/// The digest in `sha256:<hex>`, the one algorithm that is taken.
pub fn parse_digest(digest: &str) -> Option<Sha256> {
    digest.strip_prefix("sha256:")?.parse().ok()
}
