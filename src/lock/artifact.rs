//! What was built: pinned in `fleet.lock`, so that whoever has the bytes, be it a registry that nobody trusts, can only have
//! these.

use serde_json::json;

use crate::base::Sha256;

use super::model::{Lock, LockedArtifact};

/// Format of the manifest of digests.
const VERSION: u32 = 1;

impl Lock {
    /// The pin of an artifact, by `KIND/NAME` and its build key; none where it is not pinned, or with other inputs.
    pub fn pin(&self, name: &str, key: &str) -> Option<&LockedArtifact> {
        self.artifact.get(name).filter(|pin| pin.key == key)
    }

    /// The manifest of the digests of all that was built, which signatures are over: one JSON document, whose bytes follow from
    /// the pins alone.
    pub fn digests(&self) -> String {
        let document = json!({ "version": VERSION, "fleet": self.fleet, "artifacts": self.artifact });
        format!("{document:#}\n")
    }

    /// Digest of that manifest.
    pub fn digests_sha256(&self) -> Sha256 {
        Sha256::of(self.digests())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_of_digests_follows_from_pins_alone() {
        let pin = LockedArtifact { key: "0a".into(), digest: Sha256::of("x").into(), size: 1, config: None };
        let text = format!(
            "version = 1\nfleet = \"f\"\n[kernel]\nsource = \"k\"\nsha256 = \"{}\"\n",
            Sha256::of("k")
        );
        let mut one: Lock = toml::from_str(&text).unwrap();
        one.artifact.insert("image/i".into(), pin.clone());
        let mut other = one.clone();
        other.kernel.source = "other".into();
        assert_eq!(one.digests(), other.digests());
        assert!(one.digests().ends_with("}\n") && one.digests().contains("\"image/i\""));
        other.artifact.insert("image/i".into(), LockedArtifact { size: 2, ..pin });
        assert_ne!(one.digests(), other.digests());
        assert_eq!(one.pin("image/i", "0b"), None, "the pin of other inputs");
    }
}
