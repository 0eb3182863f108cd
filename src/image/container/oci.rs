//! OCI image layouts: `index.json` -> manifest -> config and layers, each verified by the digest that names it. Images of a
//! registry are the same by other names; those of `docker save` are made one ([`super::docker`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use flate2::read::MultiGzDecoder;

use crate::base::Sha256;
use crate::base::time::is_rfc3339;
use crate::fleet::{ContainerImage, RegistryImage};
use crate::sys::fs::FileError;
use crate::sys::oci::{Descriptor, Index, LARGEST_DOCUMENT, Manifest, parse_digest};
use crate::sys::registry::Pulled;

use super::layer::{Compression, Layer};
use super::{ContainerError, ContainerProblem, docker};

/// Where a layout has its blobs.
const BLOBS: &str = "blobs/sha256/";

pub(super) const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A container image, verified.
#[derive(Debug)]
pub struct Image {
    /// Full name with a tag, such as `localhost/browser:latest`.
    pub name: String,
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
    /// The lowest first.
    pub layers: Vec<Arc<Layer>>,
    pub(super) path: PathBuf,
}

/// Where the blobs of a layout are.
#[derive(Debug)]
pub(super) enum Blobs {
    Directory(PathBuf),
    /// A tar: offset and size of each file by name.
    Archive {
        path: PathBuf,
        /// Its bytes, unpacked where it is compressed.
        bytes: File,
        files: BTreeMap<String, (u64, u64)>,
    },
    /// Verified downloads by digest.
    Pulled {
        image: PathBuf,
        pulled: Pulled,
    },
}

#[derive(Deserialize)]
struct Config {
    created: Option<String>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl Image {
    /// Opens an image in a file and verifies all of it: manifest, config, and each layer both compressed and unpacked.
    /// An image of a registry is opened by [`Image::pulled`].
    pub fn open(image: &ContainerImage) -> Result<Self, ContainerError> {
        let named = |path: &Path| {
            let path = path.to_owned();
            move |problem| ContainerError { path, problem }
        };
        match image {
            ContainerImage::OciArchive(path) => {
                Blobs::open_archive(path).and_then(|blobs| open(blobs, path)).map_err(named(path))
            }
            ContainerImage::OciLayout(path) => {
                open(Blobs::Directory(path.clone()), path).map_err(named(path))
            }
            ContainerImage::DockerArchive(path) => docker::open(path).map_err(named(path)),
            ContainerImage::Registry(image) => {
                let problem = ContainerProblem::Missing(format!("file: {image} is of a registry"));
                Err(named(Path::new(&image.called()))(problem))
            }
        }
    }

    /// The same of an image that was pulled.
    pub fn pulled(image: &RegistryImage, pulled: Pulled) -> Result<Self, ContainerError> {
        let path = PathBuf::from(image.called());
        let opened = open(Blobs::Pulled { image: path.clone(), pulled }, &path);
        let opened = opened.map_err(|problem| ContainerError { path, problem })?;
        Ok(Self { name: image.called(), ..opened })
    }
}

fn open(blobs: Blobs, path: &Path) -> Result<Image, ContainerProblem> {
    let manifest = blobs.manifest()?;
    let manifest_bytes = blobs.read_blob("manifest", &manifest)?;
    if manifest.media_type.contains(".index.") || manifest.media_type.contains("manifest.list") {
        let text = "it is an index of images for several platforms; export the one for the guest's";
        return Err(ContainerProblem::Unsupported(text.into()));
    }
    let name = image_name(manifest.annotations.get(REF_NAME).map(String::as_str), path);
    assemble(blobs, name, manifest_bytes, path)
}

/// Verifies what a verified manifest names.
pub(super) fn assemble(
    blobs: Blobs,
    name: String,
    manifest_bytes: Vec<u8>,
    path: &Path,
) -> Result<Image, ContainerProblem> {
    let blobs = Arc::new(blobs);
    let manifest: Manifest = parse("manifest", &manifest_bytes)?;
    let id = sha256_of("config", &manifest.config.digest)?;
    let config_bytes = blobs.read_blob("config", &manifest.config)?;
    let config: Config = parse("config", &config_bytes)?;
    let (layers, diffs) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diffs || layers == 0 {
        let text = format!("its manifest has {layers} layers and its config {diffs}");
        return Err(ContainerProblem::Unsupported(text));
    }
    let layers = manifest
        .layers
        .into_iter()
        .zip(&config.rootfs.diff_ids)
        .map(|(blob, diff)| {
            let compression = Compression::of(&blob)?;
            Layer::scan(blobs.clone(), blob, compression, sha256_of("layer", diff)?).map(Arc::new)
        })
        .collect::<Result<_, ContainerProblem>>()?;
    Ok(Image {
        name,
        digest: Sha256::of(&manifest_bytes),
        manifest: manifest_bytes,
        id,
        config: config_bytes,
        created: config.created.filter(|time| is_rfc3339(time)).unwrap_or("1970-01-01T00:00:00Z".into()),
        layers,
        path: path.to_owned(),
    })
}

pub(super) fn parse<T: for<'de> Deserialize<'de>>(what: &str, bytes: &[u8]) -> Result<T, ContainerProblem> {
    serde_json::from_slice(bytes).map_err(|source| ContainerProblem::Json { what: what.to_owned(), source })
}

pub(super) fn sha256_of(what: &str, digest: &str) -> Result<Sha256, ContainerProblem> {
    parse_digest(digest).ok_or_else(|| {
        ContainerProblem::Unsupported(format!("the digest {digest:?} of its {what} is not a sha256"))
    })
}

/// What the image is called: its annotation where that is a name, the annotation as tag of the file's name where it is
/// a tag (as the OCI specification has it), else the file's name and `latest`. A name without a registry is `localhost/`'s.
pub(super) fn image_name(annotation: Option<&str>, path: &Path) -> String {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("image").to_ascii_lowercase();
    let (name, tag) = match annotation {
        Some(name) if name.contains(['/', ':']) => (name, "latest"),
        Some(tag) => (stem.as_str(), tag),
        None => (stem.as_str(), "latest"),
    };
    let registry = name.split_once('/').map(|(first, _)| first);
    let prefix = match registry {
        Some(first) if first == "localhost" || first.contains(['.', ':']) => "",
        _ => "localhost/",
    };
    let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    if has_tag { format!("{prefix}{name}") } else { format!("{prefix}{name}:{tag}") }
}

impl Blobs {
    /// The archive or directory.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Archive { path, .. } | Self::Pulled { image: path, .. } => path,
        }
    }

    pub(super) fn open_archive(path: &Path) -> Result<Self, ContainerProblem> {
        let read = |source| ContainerProblem::Read { what: "the archive".into(), source };
        let bytes = plain(path)?;
        let again = bytes.try_clone().map_err(read)?;
        let (mut files, mut links) = (BTreeMap::new(), Vec::new());
        for entry in tar::Archive::new(again).entries_with_seek().map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            if entry.header().entry_type().is_file() {
                files.insert(name, (entry.raw_file_position(), entry.size()));
            } else if let Some(target) = entry.link_name_bytes() {
                links.push((name, String::from_utf8_lossy(&target).into_owned()));
            }
        }
        // `docker save` links a layer that it has written before: `../<other>/layer.tar`.
        for (name, target) in links {
            if let Some(place) = files.get(target.trim_start_matches("../")).copied() {
                files.insert(name, place);
            }
        }
        Ok(Self::Archive { path: path.to_owned(), bytes, files })
    }

    /// Lets a file of an archive be read by its digest, too.
    pub(super) fn also_called(&mut self, name: &str, sha256: &Sha256) {
        if let Self::Archive { files, .. } = self
            && let Some(place) = files.get(name).copied()
        {
            files.insert(format!("{BLOBS}{sha256}"), place);
        }
    }

    pub(super) fn reader(&self, name: &str) -> Result<Box<dyn Read>, ContainerProblem> {
        match self {
            Self::Directory(root) => {
                let path = root.join(name);
                match File::open(&path) {
                    Ok(file) => Ok(Box::new(file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        Err(ContainerProblem::Missing(name.to_owned()))
                    }
                    Err(error) => Err(FileError::when("open", path)(error).into()),
                }
            }
            Self::Archive { path, bytes, files } => {
                let (offset, size) =
                    files.get(name).ok_or_else(|| ContainerProblem::Missing(name.to_owned()))?;
                let file = bytes.try_clone().map_err(FileError::when("read", path))?;
                Ok(Box::new(Piece { file, at: *offset, left: *size }))
            }
            Self::Pulled { pulled, .. } => {
                let missing = || ContainerProblem::Missing(name.to_owned());
                let digest = name.strip_prefix(BLOBS).and_then(|hex| hex.parse::<Sha256>().ok());
                let blob = digest.and_then(|sha256| pulled.blobs.get(&sha256)).ok_or_else(missing)?;
                Ok(Box::new(File::open(&blob.path).map_err(FileError::when("open", &blob.path))?))
            }
        }
    }

    /// The one image of the layout.
    fn manifest(&self) -> Result<Descriptor, ContainerProblem> {
        if let Self::Pulled { pulled, .. } = self {
            let sha256 = pulled.manifest;
            let size = pulled.blobs.get(&pulled.manifest).map_or(0, |blob| blob.size);
            return Ok(Descriptor { digest: format!("sha256:{sha256}"), size, ..Descriptor::default() });
        }
        let mut index: Index = parse("index.json", &self.read_file("index.json")?)?;
        match (index.manifests.pop(), index.manifests.len()) {
            (Some(manifest), 0) => Ok(manifest),
            (last, others) => {
                let count = others + usize::from(last.is_some());
                Err(ContainerProblem::Unsupported(format!("it holds {count} images; one is expected")))
            }
        }
    }

    /// A file of the layout that no digest names.
    pub(super) fn read_file(&self, name: &str) -> Result<Vec<u8>, ContainerProblem> {
        let mut bytes = Vec::new();
        self.reader(name)?
            .take(LARGEST_DOCUMENT)
            .read_to_end(&mut bytes)
            .map_err(|source| ContainerProblem::Read { what: name.to_owned(), source })?;
        Ok(bytes)
    }

    /// A blob's bytes as they come: whoever reads it verifies it.
    pub(super) fn stream(&self, blob: &Descriptor) -> Result<Box<dyn Read>, ContainerProblem> {
        let digest = sha256_of("blob", &blob.digest)?;
        self.reader(&format!("{BLOBS}{digest}"))
    }

    fn read_blob(&self, what: &str, blob: &Descriptor) -> Result<Vec<u8>, ContainerProblem> {
        if blob.size > LARGEST_DOCUMENT {
            return Err(ContainerProblem::Unsupported(format!("its {what} is larger than 4 MiB")));
        }
        let mut bytes = Vec::new();
        self.stream(blob)?
            .take(LARGEST_DOCUMENT)
            .read_to_end(&mut bytes)
            .map_err(|source| ContainerProblem::Read { what: what.to_owned(), source })?;
        check_digest(what, &blob.digest, Sha256::of(&bytes))?;
        Ok(bytes)
    }
}

/// A part of a file that others read as well.
struct Piece {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Piece {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// An archive's bytes: the file itself, or, of one that gzip has packed, a file without a name.
fn plain(path: &Path) -> Result<File, ContainerProblem> {
    let read = |source| ContainerProblem::Read { what: "the archive".into(), source };
    let mut file = File::open(path).map_err(FileError::when("open", path))?;
    let mut magic = [0; 4];
    let length = file.read(&mut magic).map_err(read)?;
    let other: [&[u8]; 2] = [&[0x28, 0xb5, 0x2f, 0xfd], &[0xfd, b'7', b'z', b'X']];
    if other.iter().any(|start| magic[..length].starts_with(start)) {
        return Err(ContainerProblem::CompressedArchive);
    }
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    if !magic[..length].starts_with(GZIP_MAGIC) {
        return Ok(file);
    }
    let mut unpacked = tempfile::tempfile().map_err(read)?;
    io::copy(&mut MultiGzDecoder::new(file), &mut unpacked).map_err(read)?;
    unpacked.seek(SeekFrom::Start(0)).map_err(read)?;
    Ok(unpacked)
}

pub(super) fn check_digest(what: &str, expected: &str, found: Sha256) -> Result<(), ContainerProblem> {
    let found = format!("sha256:{found}");
    if found == expected {
        return Ok(());
    }
    Err(ContainerProblem::Digest { what: format!("its {what}"), expected: expected.to_owned(), found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_as_podman_would_call_it() {
        let name = |annotation| image_name(annotation, Path::new("images/Browser.tar"));
        assert_eq!(name(Some("localhost/hello:1")), "localhost/hello:1");
        assert_eq!(name(Some("quay.io/a/b")), "quay.io/a/b:latest");
        assert_eq!(name(Some("quay.io:443/a/b")), "quay.io:443/a/b:latest");
        assert_eq!(name(Some("hello:2")), "localhost/hello:2");
        assert_eq!(name(Some("team/hello")), "localhost/team/hello:latest");
        assert_eq!(name(Some("1.0")), "localhost/browser:1.0");
        assert_eq!(name(None), "localhost/browser:latest");
    }
}
