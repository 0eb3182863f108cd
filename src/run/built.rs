//! Images and kernels as a user names them: a file, a name of the fleet, or a build key of `out/`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::build::artifacts::ArtifactKind;
use crate::fleet::suggest;
use crate::image::inspect::InspectedImage;

use super::error::ArtifactError;
use super::{RunError, Workspace};

/// Fewest digits by which a build key is known.
const SHORTEST_KEY: usize = 6;

/// Kinds of artifacts that are file systems.
const KINDS: [ArtifactKind; 3] = [ArtifactKind::Image, ArtifactKind::Disk, ArtifactKind::Containers];

impl Workspace<'_> {
    /// The file of an image: a path, the name of an image or data disk in `out/`, or the first digits of a build key.
    pub fn image_file(&self, named: &str) -> Result<PathBuf, RunError> {
        self.artifact_file(named, &KINDS, "image")
    }

    /// The configuration of a kernel: a config file, the name of a kernel in `out/`, or the first digits of a build key.
    pub fn kernel_config_file(&self, named: &str) -> Result<PathBuf, RunError> {
        let path = self.artifact_file(named, &[ArtifactKind::Kernel], "kernel")?;
        let is_vmlinux = path.file_name().is_some_and(|name| name == ArtifactKind::Kernel.file_name());
        if !is_vmlinux {
            return Ok(path);
        }
        let config = path.with_file_name("config");
        if config.is_file() {
            return Ok(config);
        }
        Err(ArtifactError::NoConfiguration(path).into())
    }

    fn artifact_file(&self, named: &str, kinds: &[ArtifactKind], what: &str) -> Result<PathBuf, RunError> {
        let path = Path::new(named);
        if path.is_file() || named.contains('/') {
            return Ok(path.to_owned());
        }
        let built: Vec<(String, PathBuf)> =
            kinds.iter().flat_map(|kind| built(&self.settings.out, *kind)).collect();
        if let Some((_, path)) = built.iter().find(|(name, _)| name == named) {
            return Ok(path.clone());
        }
        let is_key = named.len() >= SHORTEST_KEY && named.bytes().all(|digit| digit.is_ascii_hexdigit());
        let mut of_key = built.iter().filter(|(name, _)| is_key && name.starts_with(named));
        match (of_key.next(), of_key.next()) {
            (Some((_, path)), None) => return Ok(path.clone()),
            (Some(_), Some(_)) => {
                return Err(ArtifactError::SeveralKeys(named.to_owned()).into());
            }
            _ => {}
        }
        let out = self.settings.out.display();
        let names = built.iter().map(|(name, _)| name.as_str()).filter(|name| !is_build_key(name));
        // A disk and its container images have one name.
        let names: BTreeSet<&str> = names.collect();
        let article = if what.starts_with('i') { "an" } else { "a" };
        let hint = if built.is_empty() {
            format!("there is no {what} in {out}: `sisforge build` makes them")
        } else {
            suggest(&format!("{what}s"), named, names)
        };
        let what = format!("neither a file nor {article} {what} in {out}");
        Err(ArtifactError::Unknown { named: named.to_owned(), what, hint }.into())
    }

    /// An image by any of its names, opened and its metadata read.
    pub fn open_image(&self, named: &str) -> Result<InspectedImage, RunError> {
        Ok(InspectedImage::read(&self.image_file(named)?)?)
    }
}

/// What is in `out/` of a kind: names and build keys, each with the file that it leads to.
fn built(out: &Path, kind: ArtifactKind) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(out.join(kind.folder())).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let file = entry.path().join(kind.file_name());
            Some((entry.file_name().into_string().ok()?, file)).filter(|(_, file)| file.is_file())
        })
        .collect();
    found.sort();
    found
}

/// Whether a name in a folder of `out/` is a build key, and no link by name.
pub(super) fn is_build_key(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|digit| digit.is_ascii_hexdigit())
}
