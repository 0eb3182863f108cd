//! OCI image layouts: `index.json` -> manifest -> config and layers, each verified by the digest that names it. Images of a
//! registry are the same by other names; those of `docker save` are made one ([`super::docker`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::base::Sha256;
use crate::base::time::is_rfc3339;
use crate::fleet::RegistryImage;
use crate::sys::oci::{Descriptor, ImageIndex, ImageManifest, Platform};
use crate::sys::registry::Pulled;

use super::blobs::{Blobs, sha256_of};
use super::layer::Layer;
use super::names::{ImageNames, REF_NAME};
use super::platform::{check_platform, choose};
use super::{ContainerError, ContainerProblem};

/// A container image, verified.
#[derive(Debug)]
pub struct Image {
    pub names: ImageNames,
    /// Digest of the manifest.
    pub digest: Sha256,
    /// The manifest as it is in the layout.
    pub manifest: Vec<u8>,
    /// Digest of the config: the id of the image.
    pub id: Sha256,
    /// The config as it is in the layout.
    pub config: Vec<u8>,
    /// When the image was made, RFC 3339; the epoch where it does not say so.
    pub created: String,
    /// The lowest first; an image may have none.
    pub layers: Vec<Arc<Layer>>,
    pub(super) path: PathBuf,
}

#[derive(Deserialize)]
struct Config {
    created: Option<String>,
    #[serde(flatten)]
    platform: Platform,
    rootfs: Option<RootFs>,
}

/// By what a manifest and an index are told apart.
#[derive(Deserialize)]
struct Kinds {
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

impl Image {
    /// Verifies an image that was pulled, as [`Image::open`] does those of files.
    pub fn pulled(image: &RegistryImage, pulled: Pulled) -> Result<Self, ContainerError> {
        let path = PathBuf::from(image.called());
        let size = pulled.blobs.get(&pulled.manifest).map_or(0, |blob| blob.size);
        let digest = format!("sha256:{}", pulled.manifest);
        let manifest = Descriptor { digest, size, ..Descriptor::default() };
        let blobs = Blobs::Pulled { image: path.clone(), pulled };
        let names = ImageNames { own: vec![image.called()], spare: None };
        let opened = read_image(&blobs, &manifest, 0)
            .and_then(|manifest| Opening::new(blobs, &path).assemble(names, manifest));
        opened.map_err(|problem| ContainerError { path, problem })
    }
}

/// The names of the image in a layout, which nothing is verified for.
pub(super) fn names(
    blobs: &Blobs,
    path: &Path,
    reference: Option<&str>,
) -> Result<ImageNames, ContainerProblem> {
    let index: ImageIndex = parse("index.json", &blobs.read_file("index.json")?)?;
    chosen(index.manifests, path, reference).map(|(_, names)| names)
}

pub(super) fn open(blobs: Blobs, path: &Path, reference: Option<&str>) -> Result<Image, ContainerProblem> {
    let index: ImageIndex = parse("index.json", &blobs.read_file("index.json")?)?;
    let (manifest, names) = chosen(index.manifests, path, reference)?;
    let manifest = read_image(&blobs, &manifest, 0)?;
    let is_another = |name: &&String| {
        name.split_once('@').is_some_and(|(_, digest)| digest != format!("sha256:{}", Sha256::of(&manifest)))
    };
    if let Some(name) = names.own.iter().find(is_another) {
        let text = format!("its reference {name:?} is not the digest of its manifest");
        return Err(ContainerProblem::Unsupported(text));
    }
    Opening::new(blobs, path).assemble(names, manifest)
}

/// The one image that a layout's index names, and all names that it gives it.
fn chosen(
    mut manifests: Vec<Descriptor>,
    path: &Path,
    reference: Option<&str>,
) -> Result<(Descriptor, ImageNames), ContainerProblem> {
    let references = |manifests: &[Descriptor]| -> Vec<String> {
        manifests.iter().filter_map(|manifest| manifest.annotations.get(REF_NAME).cloned()).collect()
    };
    if let Some(reference) = reference {
        let there = references(&manifests).join(", ");
        manifests.retain(|manifest| manifest.annotations.get(REF_NAME).is_some_and(|name| name == reference));
        if manifests.is_empty() {
            let text = format!("it has no image {reference:?}; there is {there}");
            return Err(ContainerProblem::Unsupported(text));
        }
    }
    let there = references(&manifests);
    let count = manifests.len();
    let manifests = choose(manifests)?;
    let Some(first) = manifests.first().cloned() else {
        return Err(ContainerProblem::Unsupported(format!(
            "it contains {count} images, but one is expected"
        )));
    };
    if manifests.iter().any(|other| other.digest != first.digest) {
        let how = if there.is_empty() { String::new() } else { format!(", such as {:?}", there[0]) };
        let text = format!(
            "it contains {} images, but one is expected: add its reference after the path{how}",
            manifests.len()
        );
        return Err(ContainerProblem::Unsupported(text));
    }
    let mut names = ImageNames::default();
    for manifest in &manifests {
        let more = ImageNames::of_annotations(&manifest.annotations, path).map_err(ContainerProblem::Name)?;
        names.own.extend(more.own.into_iter().filter(|name| !names.own.contains(name)).collect::<Vec<_>>());
        names.spare = names.spare.or(more.spare);
    }
    Ok((first, names))
}

/// A manifest's bytes; where it is an index of images for several platforms, those of the one for the guests'.
fn read_image(blobs: &Blobs, manifest: &Descriptor, depth: usize) -> Result<Vec<u8>, ContainerProblem> {
    /// BuildKit's index stands in that of the layout.
    const DEEPEST: usize = 3;
    let bytes = blobs.read_blob("manifest", manifest)?;
    let kinds: Kinds = parse("manifest", &bytes)?;
    if kinds.manifests.is_none() {
        return Ok(bytes);
    }
    let refused = |text: &str| Err(ContainerProblem::Unsupported(text.to_owned()));
    if kinds.config.is_some() {
        return refused("its manifest is also an index, which is ambiguous");
    }
    if depth == DEEPEST {
        return refused("its index contains nested indexes, too many levels deep");
    }
    let index: ImageIndex = parse("index", &bytes)?;
    match choose(index.manifests)?.first() {
        Some(chosen) => read_image(blobs, chosen, depth + 1),
        None => refused("its index names no image"),
    }
}

/// What the images of one file have in common.
pub(super) struct Opening<'a> {
    blobs: Arc<Blobs>,
    path: &'a Path,
    /// Layers that are verified already, by the digests of their blob and their tar.
    layers: BTreeMap<(String, Sha256), Arc<Layer>>,
}

impl<'a> Opening<'a> {
    pub fn new(blobs: Blobs, path: &'a Path) -> Self {
        Self { blobs: Arc::new(blobs), path, layers: BTreeMap::new() }
    }

    /// Verifies what a verified manifest names.
    pub fn assemble(
        &mut self,
        names: ImageNames,
        manifest_bytes: Vec<u8>,
    ) -> Result<Image, ContainerProblem> {
        let manifest: ImageManifest = parse("manifest", &manifest_bytes)?;
        let id = sha256_of("config", &manifest.config.digest)?;
        let config_bytes = self.blobs.read_blob("config", &manifest.config)?;
        let config: Config = parse("config", &config_bytes)?;
        check_platform(&config.platform)?;
        let blobs = manifest.layers;
        let diffs = config.rootfs.and_then(|rootfs| rootfs.diff_ids).unwrap_or_default();
        if blobs.len() != diffs.len() {
            let text = format!("its manifest has {} layers and its config {}", blobs.len(), diffs.len());
            return Err(ContainerProblem::Unsupported(text));
        }
        let layers = blobs.into_iter().zip(&diffs).map(|(blob, diff)| self.layer(blob, diff));
        let layers = layers.collect::<Result<_, ContainerProblem>>()?;
        Ok(Image {
            names,
            digest: Sha256::of(&manifest_bytes),
            manifest: manifest_bytes,
            id,
            config: config_bytes,
            created: config.created.filter(|time| is_rfc3339(time)).unwrap_or("1970-01-01T00:00:00Z".into()),
            layers,
            path: self.path.to_owned(),
        })
    }

    fn layer(&mut self, blob: Descriptor, diff: &str) -> Result<Arc<Layer>, ContainerProblem> {
        check_kind(&blob.media_type)?;
        let diff = sha256_of("layer", diff)?;
        let key = (blob.digest.clone(), diff);
        if let Some(layer) = self.layers.get(&key) {
            return Ok(layer.clone());
        }
        let layer = Arc::new(Layer::scan(self.blobs.clone(), blob, diff)?);
        self.layers.insert(key, layer.clone());
        Ok(layer)
    }
}

/// Only tars are layers. How they are compressed is told by their bytes.
fn check_kind(kind: &str) -> Result<(), ContainerProblem> {
    let is_tar = [".tar", "+gzip", "+zstd", ".tar.gzip", ".tar.zstd"].iter().any(|end| kind.ends_with(end));
    if is_tar {
        return Ok(());
    }
    Err(ContainerProblem::Unsupported(format!(
        "a layer has the media type {kind:?}; only tar layers are \
      supported"
    )))
}

pub(super) fn parse<T: for<'de> Deserialize<'de>>(what: &str, bytes: &[u8]) -> Result<T, ContainerProblem> {
    serde_json::from_slice(bytes).map_err(|source| ContainerProblem::Json { what: what.to_owned(), source })
}
