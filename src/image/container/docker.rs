//! What `docker save` writes (Docker image specification 1.2): `manifest.json` names config and layers by their place in the tar,
//! not by digest. They get the manifest that `podman load` would give them; layers are verified by the config's digests.

use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use serde_json::json;
use sha2::Digest;

use crate::base::Sha256;
use crate::sys::oci::Descriptor;

use super::ContainerProblem;
use super::oci::{Blobs, GZIP_MAGIC, Image, assemble, image_name, parse};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) fn open(path: &Path) -> Result<Image, ContainerProblem> {
    let mut blobs = Blobs::open_archive(path)?;
    let mut images: Vec<Saved> = parse("manifest.json", &blobs.read_file("manifest.json")?)?;
    let (Some(saved), true) = (images.pop(), images.is_empty()) else {
        let text = format!("it holds {} images; one is expected", images.len() + 1);
        return Err(ContainerProblem::Unsupported(text));
    };
    let config = describe(&mut blobs, &saved.config)?;
    let layers =
        saved.layers.iter().map(|layer| describe(&mut blobs, layer)).collect::<Result<Vec<_>, _>>()?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "size": config.size, "digest": config.digest },
        "layers": layers.iter().map(|layer| {
            json!({ "mediaType": layer.media_type, "size": layer.size, "digest": layer.digest })
        }).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let tag = saved.repo_tags.iter().flatten().next().map(String::as_str);
    assemble(blobs, image_name(tag, path), manifest, path)
}

/// Finds out the digest of a file of the archive, by which it can then be read as well.
fn describe(blobs: &mut Blobs, name: &str) -> Result<Descriptor, ContainerProblem> {
    let read = |source| ContainerProblem::Read { what: name.to_owned(), source };
    let mut reader = blobs.reader(name)?;
    let mut head = Vec::new();
    reader.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut head).map_err(read)?;
    let mut hasher = sha2::Sha256::new_with_prefix(&head);
    let size = head.len() as u64 + io::copy(&mut reader, &mut hasher).map_err(read)?;
    let sha256 = Sha256(hasher.finalize().into());
    blobs.also_called(name, &sha256);
    let media_type = if head == GZIP_MAGIC { format!("{LAYER}.gzip") } else { LAYER.to_owned() };
    Ok(Descriptor { media_type, digest: format!("sha256:{sha256}"), size, ..Descriptor::default() })
}
