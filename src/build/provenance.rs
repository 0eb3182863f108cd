//! Provenance of what was built: an in-toto Statement v1 with the predicate of SLSA 1.0 (<https://slsa.dev/spec/v1.0/provenance>).
//!
//! Its bytes follow from what was built alone: no clock, no host, no invocation. Two machines that build alike write the same
//! statement, so that one that somebody else wrote is proof of nothing else than the same bytes.

use serde_json::{Value, json};

use crate::base::text::percent;
use crate::base::{FileDigest, Sha256};
use crate::lock::model::{Lock, LockedPackage};
use crate::sys::digest::sha256_of_file;
use crate::sys::fs::FileError;

use super::artifacts::ArtifactKind;
use super::builder::Built;
use super::project::Project;

/// How sisforge builds.
const BUILD_TYPE: &str = "urn:sisforge:build:1";

/// The statement on all that was built.
pub fn statement(project: &Project, lock: &Lock, built: &[Built]) -> Result<String, FileError> {
    let subjects = built.iter().map(subject).collect::<Result<Vec<_>, _>>()?;
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "fleet": lock.fleet,
                    "fleet.toml": { "sha256": Sha256::of(&project.fleet.source.text) },
                },
                "internalParameters": { "toolchain": lock.kernel.toolchain },
                "resolvedDependencies": dependencies(lock),
            },
            "runDetails": {
                "builder": { "id": "urn:sisforge", "version": { "sisforge": env!("CARGO_PKG_VERSION") } },
            },
        },
    });
    Ok(format!("{statement:#}\n"))
}

/// An artifact by its digest as fleet.lock has it, and by its SHA-256 where that does not read gigabytes of nothing.
fn subject(built: &Built) -> Result<Value, FileError> {
    let (algorithm, hex) = match &built.artifact.digest {
        FileDigest::Verity(digest) => ("fsverity", digest),
        FileDigest::Whole(digest) => ("sha256", digest),
        FileDigest::Sparse(digest) | FileDigest::Unbuilt(digest) => ("sisforge", digest),
    };
    let mut digests = json!({ algorithm: hex });
    if built.artifact.kind != ArtifactKind::Disk {
        digests["sha256"] = sha256_of_file(&built.artifact.path)?.0.to_string().into();
    }
    Ok(json!({ "name": built.pinned_as(), "digest": digests }))
}

/// All that fleet.lock pins.
fn dependencies(lock: &Lock) -> Vec<Value> {
    let pinned = |name: String, uri: Option<String>, sha256: &Sha256| {
        let mut dependency = json!({ "name": name, "digest": { "sha256": sha256 } });
        if let Some(uri) = uri {
            dependency["uri"] = uri.into();
        }
        dependency
    };
    let url = |text: &str| text.contains("://").then(|| text.to_owned());
    let kernel = pinned("kernel".into(), url(&lock.kernel.source), &lock.kernel.sha256);
    let patches = lock.kernel.patches.iter().enumerate();
    let patches =
        patches.map(|(number, sha256)| pinned(format!("kernel patch {}", number + 1), None, sha256));
    let recipes = lock.recipe.iter().map(|(name, sha256)| pinned(format!("recipe {name}"), None, sha256));
    let containers = lock
        .container
        .iter()
        .map(|(spelled, sha256)| pinned(format!("container image {spelled}"), url(spelled), sha256));
    let files = lock.file.iter().flatten().map(|(path, sha256)| pinned(format!("file {path}"), None, sha256));
    let packages =
        lock.package.iter().map(|package| pinned(package.id(), download(package, &url), &package.sha256));
    std::iter::once(kernel)
        .chain(patches)
        .chain(recipes)
        .chain(containers)
        .chain(files)
        .chain(packages)
        .collect()
}

/// Where a package is downloaded from; `None` where its repository is a directory.
fn download(package: &LockedPackage, url: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let repository = url(&package.repository)?;
    Some(format!("{repository}/{}/{}.apk", crate::lock::model::ARCH, percent(&package.id())))
}
