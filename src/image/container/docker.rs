//! What `docker save` writes (Docker image specification 1.2): `manifest.json` names config and layers by their place in the tar,
//! not by digest. They get the manifest that `podman load` would give them; layers are verified by the config's digests.

use std::io;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;
use sha2::Digest;

use crate::base::Sha256;
use crate::sys::oci::Descriptor;

use super::ContainerProblem;
use super::blobs::Blobs;
use super::names::ImageNames;
use super::oci::{Image, Opening, parse};
use super::packed::Compression;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl Saved {
    /// Its tags; an only image without any has the file's name.
    fn names(&self, is_only: bool, path: &Path) -> Result<ImageNames, ContainerProblem> {
        let tags = self.repo_tags.iter().flatten().map(String::as_str);
        let names = ImageNames::of_tags(tags).map_err(ContainerProblem::Name)?;
        Ok(if names.own.is_empty() && is_only { ImageNames::of_file(path) } else { names })
    }
}

fn saved(blobs: &Blobs) -> Result<Vec<Saved>, ContainerProblem> {
    let images: Vec<Saved> = parse("manifest.json", &blobs.read_file("manifest.json")?)?;
    if images.is_empty() {
        return Err(ContainerProblem::Unsupported("it contains no image".into()));
    }
    Ok(images)
}

/// The names of all its images, which nothing is verified for.
pub(super) fn names(path: &Path) -> Result<Vec<ImageNames>, ContainerProblem> {
    let images = saved(&Blobs::open_archive(path)?)?;
    images.iter().map(|image| image.names(images.len() == 1, path)).collect()
}

/// Every image of an archive.
pub(super) fn open(path: &Path) -> Result<Vec<Image>, ContainerProblem> {
    let mut blobs = Blobs::open_archive(path)?;
    let images = saved(&blobs)?;
    let mut manifests = Vec::new();
    for image in &images {
        manifests.push((image.names(images.len() == 1, path)?, manifest(&mut blobs, image)?));
    }
    let mut opening = Opening::new(blobs, path);
    manifests.into_iter().map(|(names, manifest)| opening.assemble(names, manifest)).collect()
}

fn manifest(blobs: &mut Blobs, image: &Saved) -> Result<Vec<u8>, ContainerProblem> {
    let config = describe(blobs, &image.config)?;
    let layers =
        image.layers.iter().flatten().map(|layer| describe(blobs, layer)).collect::<Result<Vec<_>, _>>()?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "size": config.size, "digest": config.digest },
        "layers": layers.iter().map(|layer| {
            json!({ "mediaType": layer.media_type, "size": layer.size, "digest": layer.digest })
        }).collect::<Vec<_>>(),
    });
    Ok(manifest.to_string().into_bytes())
}

/// Finds out the digest of a file of the archive, by which it can then be read as well.
fn describe(blobs: &mut Blobs, name: &str) -> Result<Descriptor, ContainerProblem> {
    let read = |source| ContainerProblem::Read { what: name.to_owned(), source };
    let compression = Compression::of(&mut blobs.reader(name)?).map_err(read)?;
    let mut hasher = sha2::Sha256::new();
    let size = io::copy(&mut blobs.reader(name)?, &mut hasher).map_err(read)?;
    let sha256 = Sha256(hasher.finalize().into());
    blobs.also_called(name, &sha256);
    let kind = match compression {
        Compression::Zstd => format!("{LAYER}.zstd"),
        Compression::Gzip => format!("{LAYER}.gzip"),
        _ => LAYER.to_owned(),
    };
    Ok(Descriptor { media_type: kind, digest: format!("sha256:{sha256}"), size, ..Descriptor::default() })
}
