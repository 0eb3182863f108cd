//! Build keys: the digest of everything that an artifact's bytes depend on.

use std::fmt;

use sha2::Digest;

use crate::base::Sha256;
use crate::image::recipe::Recipes;

/// Changed whenever this version would make other bytes of the same inputs.
const RECIPE_OF_SISFORGE: &str = "1";

/// Names an artifact by its inputs: same key, same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BuildKey(Sha256);

impl BuildKey {
    /// The digest itself; file system UUIDs are derived from it.
    pub fn digest(&self) -> &Sha256 {
        &self.0
    }
}

impl fmt::Display for BuildKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(&self.0.0[..16]))
    }
}

/// Collects the inputs of an artifact.
pub struct KeyBuilder(sha2::Sha256);

impl KeyBuilder {
    /// For an artifact of a kind, such as `kernel`.
    pub fn new(kind: &str) -> Self {
        Self(sha2::Sha256::new()).input("sisforge", RECIPE_OF_SISFORGE).input("kind", kind)
    }

    /// Adds an input. Names and lengths are hashed too, so that no two lists of inputs read alike.
    #[must_use]
    pub fn input(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for bytes in [name.as_bytes(), value.as_ref()] {
            self.0.update((bytes.len() as u64).to_le_bytes());
            self.0.update(bytes);
        }
        self
    }

    /// Adds all that recipes read, and the values of their parameters.
    #[must_use]
    pub fn recipes(self, recipes: &Recipes) -> Self {
        let digests = recipes.digests().iter();
        let key = digests.fold(self, |key, (recipe, sha256)| {
            key.input("recipe", recipe.as_str()).input("sha256", sha256.0)
        });
        // The text of a value with its type: "1" is not 1.
        recipes
            .parameters()
            .iter()
            .fold(key, |key, (name, value)| key.input("parameter", name).input("value", format!("{value:?}")))
    }

    /// The key of all inputs so far.
    pub fn finish(self) -> BuildKey {
        BuildKey(Sha256(self.0.finalize().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_every_input_and_on_where_one_ends() {
        let key = |inputs: &[(&str, &str)]| {
            inputs.iter().fold(KeyBuilder::new("image"), |key, (name, value)| key.input(name, value)).finish()
        };
        let reference = key(&[("a", "bc"), ("d", "e")]);
        assert_eq!(reference, key(&[("a", "bc"), ("d", "e")]));
        for other in [
            &[("a", "b"), ("d", "e")][..],
            &[("ab", "c"), ("d", "e")],
            &[("a", "bc")],
            &[("d", "e"), ("a", "bc")],
        ] {
            assert_ne!(reference, key(other));
        }
        assert_ne!(KeyBuilder::new("image").finish(), KeyBuilder::new("disk").finish());
    }
}
