//! The public keys that Alpine signs its indexes with, as its package `alpine-keys` has them.

/// A public key.
pub struct AlpineKey {
    /// Of its file; a signature names it so.
    pub name: &'static str,
    /// PEM.
    pub text: &'static str,
    /// Of the text, in hexadecimal.
    pub sha256: &'static str,
    arch: &'static str,
}

macro_rules! key {
    ($arch:literal, $id:literal, $sha256:literal) => {
        AlpineKey {
            name: concat!("alpine-devel@lists.alpinelinux.org-", $id, ".rsa.pub"),
            text: include_str!(concat!("alpine/alpine-devel@lists.alpinelinux.org-", $id, ".rsa.pub")),
            arch: $arch,
            sha256: $sha256,
        }
    };
}

/// Where anybody can compare the digests: `sha256sum /etc/apk/keys/*` on an Alpine machine, or
/// <https://gitlab.alpinelinux.org/alpine/aports/-/tree/master/main/alpine-keys>.
const KEYS: [AlpineKey; 5] = [
    key!("x86_64", "4a6a0840", "9c102bcc376af1498d549b77bdbfa815ae86faa1d2d82f040e616b18ef2df2d4"),
    key!("x86_64", "5261cecb", "12f899e55a7691225603d6fb3324940fc51cd7f133e7ead788663c2b7eecb00c"),
    key!("x86_64", "6165ee59", "207e4696d3c05f7cb05966aee557307151f1f00217af4143c1bcaf33b8df733f"),
    key!("aarch64", "58199dcc", "73867d92083f2f8ab899a26ccda7ef63dfaa0032a938620eda605558958a8041"),
    key!("aarch64", "616ae350", "d11f6b21c61b4274e182eb888883a8ba8acdbf820dcc7a6d82a7d9fc2fd2836d"),
];

impl AlpineKey {
    /// Architectures whose keys are known.
    pub const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

    /// Those of an architecture, the oldest first.
    pub fn all(arch: &str) -> impl Iterator<Item = &'static Self> {
        KEYS.iter().filter(move |key| key.arch == arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256;

    #[test]
    fn each_key_has_the_digest_that_was_written_down() {
        for key in &KEYS {
            assert_eq!(Sha256::of(key.text).to_string(), key.sha256, "{}", key.name);
        }
    }
}
