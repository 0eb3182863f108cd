//! Documents of container images (OCI image specification 1.1), as far as images are found and verified by them; Docker's have
//! the same fields.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::base::Sha256;

/// Larger manifests, configs and indexes are refused, in bytes: registries allow 4 MiB.
pub const LARGEST_DOCUMENT: u64 = 4 << 20;

/// A part of an image, as whatever mentions it says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default, deserialize_with = "or_default")]
    pub media_type: String,
    pub digest: String,
    /// In bytes.
    pub size: u64,
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// Of an image in an index.
    pub platform: Option<Platform>,
}

/// What an image runs on; empty where it is not stated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Platform {
    #[serde(deserialize_with = "or_default")]
    pub os: String,
    #[serde(deserialize_with = "or_default")]
    pub architecture: String,
    /// Of an architecture: what a newer processor alone has.
    #[serde(deserialize_with = "or_default")]
    pub variant: String,
}

impl Platform {
    /// Whether guests run it, which are Linux on amd64: the less it asks of the processor, the lower the number. What only
    /// processors with AVX-512 run (v4) is for none: Firecracker's CPU templates hide that.
    pub fn rank(&self) -> Option<u8> {
        if (self.os.as_str(), self.architecture.as_str()) != ("linux", "amd64") {
            return None;
        }
        match self.variant.as_str() {
            "" => Some(0),
            "v1" => Some(1),
            "v2" => Some(2),
            "v3" => Some(3),
            _ => None,
        }
    }
}

/// What is not there, or is `null`, as Go reads it and some write it.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Several images: those of a layout, or one for each platform.
#[derive(Debug, Deserialize)]
pub struct ImageIndex {
    #[serde(deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
}

/// One image; the lowest layer comes first.
#[derive(Debug, Deserialize)]
pub struct ImageManifest {
    pub config: Descriptor,
    #[serde(default, deserialize_with = "or_default")]
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
