//! Looks up what `fleet.toml` mentions: files, keys, recipes and kernel configs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sys::beneath::{LeadsOut, without_dots};
use crate::sys::fs::FileError;

use super::files::SourceFiles;
use super::validate::{Mention, MentionTarget};
use crate::base::problem::{Problem, Problems, suggest};

/// Bytes of a file for `podman kube play`.
pub const LARGEST_KUBE: u64 = 1 << 20;

/// What is wrong, and what to do about it.
type Wrong = (String, Option<String>);

/// Tells of each mention that leads nowhere, or out of the project: by a link always, and in plain sight (`../`, `/etc`)
/// where the fleet is confined to it and to directories that are `allowed`.
pub fn check_files(
    mentions: &[Mention],
    files: &SourceFiles,
    allowed: Option<&[PathBuf]>,
    problems: &mut Problems,
) {
    for mention in mentions {
        let thing = &mention.thing;
        let outside = thing.path().and_then(|path| outside(path, files, allowed));
        if let Some((message, hint)) =
            outside.or_else(|| strays(thing, files)).or_else(|| lacking(thing, files))
        {
            let problem = Problem::new(mention.span.clone(), message);
            problems.report(match hint {
                Some(hint) => problem.hint(hint),
                None => problem,
            });
        }
    }
}

fn is_below(path: &Path, files: &SourceFiles) -> bool {
    without_dots(path).starts_with(without_dots(files.project()))
}

/// Why a path may not be used, whatever is there.
fn outside(path: &Path, files: &SourceFiles, allowed: Option<&[PathBuf]>) -> Option<Wrong> {
    if is_below(path, files) {
        return files.find(path).err().and_then(|error| led_out(&error));
    }
    let path = without_dots(path);
    if allowed?.iter().any(|dir| path.starts_with(without_dots(dir))) {
        return None;
    }
    let message = format!("{} is outside of {}", path.display(), files.project().display());
    let hint = "`watch --repo` uses only files of the commit: commit the file and name it by a relative \
      path, or allow its directory on the host with `watch --allow DIR`";
    Some((message, Some(hint.to_owned())))
}

/// What is told of a link that leads out of the project.
fn led_out(error: &FileError) -> Option<Wrong> {
    let out: &LeadsOut = error.source.get_ref()?.downcast_ref()?;
    let hint = "a project may use only its own files: replace the link by a copy";
    Some((out.to_string(), Some(hint.to_owned())))
}

/// Something in a directory that leads out of the project, or that would be waited for.
fn strays(thing: &MentionTarget, files: &SourceFiles) -> Option<Wrong> {
    let (MentionTarget::Keys(dir) | MentionTarget::Directory(dir) | MentionTarget::Layout(dir)) = thing
    else {
        return None;
    };
    let mut waiting: Vec<PathBuf> =
        is_below(dir, files).then(|| files.find(dir).ok().flatten())?.into_iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(dir) = waiting.pop().filter(|dir| seen.insert(dir.clone())) {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            match files.find(&path) {
                Err(error) => return Some(led_out(&error).unwrap_or_else(|| (error.to_string(), None))),
                Ok(Some(real)) if kind.is_dir() || (kind.is_symlink() && real.is_dir()) => waiting.push(real),
                Ok(Some(real)) if !real.is_file() => return Some(irregular(&path)),
                Ok(_) => {}
            }
        }
    }
    None
}

fn irregular(path: &Path) -> Wrong {
    (format!("{} is neither a regular file nor a directory", path.display()), None)
}

/// Message and hint for a thing that is not there.
fn lacking(thing: &MentionTarget, files: &SourceFiles) -> Option<Wrong> {
    match thing {
        MentionTarget::File(path)
        | MentionTarget::FileOrDirectory(path)
        | MentionTarget::Directory(path)
        | MentionTarget::Layout(path)
        | MentionTarget::Secret(path)
        | MentionTarget::Kube(path)
            if path.exists() && !path.is_file() && !path.is_dir() =>
        {
            Some(irregular(path))
        }
        MentionTarget::File(path) => (!path.is_file()).then(|| no("file", path)),
        MentionTarget::Kube(path) if !path.is_file() => Some(no("file", path)),
        MentionTarget::Kube(path) => no_kube(path),
        MentionTarget::Secret(path) => {
            path.is_dir().then(|| (format!("{} is a directory, and a secret is a file", path.display()), None))
        }
        MentionTarget::Directory(path) => (!path.is_dir()).then(|| no("directory", path)),
        MentionTarget::Layout(path) => no_layout(path),
        MentionTarget::FileOrDirectory(path) => (!path.exists()).then(|| no("file or directory", path)),
        MentionTarget::Keys(path) => (!holds_keys(path)).then(|| {
            let hint = "put the trusted *.rsa.pub there, or name their directory: `sisforge keys alpine` writes Alpine's to keys/alpine, for `keys = \"keys/alpine\"` of the repository";
            (format!("there are no keys in {}", path.display()), Some(hint.to_owned()))
        }),
        MentionTarget::Recipe(name) => {
            named(files, "recipes", name.as_str(), "recipes", &|name| format!("recipes/{name}/recipe.toml"))
        }
        MentionTarget::KernelBase(name) => {
            named(files, "kernel-configs", name.as_str(), "kernel bases", &|name| {
                format!("kernel-configs/{name}.config")
            })
        }
        MentionTarget::KernelFragment(name) => {
            named(files, "kernel-configs/fragments", name.as_str(), "kernel fragments", &|name| {
                format!("kernel-configs/fragments/{name}.config")
            })
        }
    }
}

/// Why Podman would play nothing of a file. Its YAML is read by Podman alone; each thing that it plays has a `kind`.
fn no_kube(path: &Path) -> Option<Wrong> {
    let hint = || Some("name a file of Kubernetes' YAML, such as `podman kube generate` writes".to_owned());
    if path.metadata().is_ok_and(|meta| meta.len() > LARGEST_KUBE) {
        return Some((format!("{} has more than {LARGEST_KUBE} bytes", path.display()), hint()));
    }
    match fs::read_to_string(path) {
        Ok(text) if text.contains("kind") => None,
        Ok(_) => {
            Some((format!("{} is no YAML of Kubernetes: nothing in it has a `kind`", path.display()), hint()))
        }
        Err(error) => Some((format!("cannot read {}: {error}", path.display()), hint())),
    }
}

/// Why a directory is no OCI image layout, and how it becomes one where it is what other programs write of images.
fn no_layout(path: &Path) -> Option<Wrong> {
    if !path.is_dir() {
        return Some(no("directory", path));
    }
    if path.join("index.json").exists() {
        return None;
    }
    let begins =
        |name: &str, with: &str| fs::read(path.join(name)).is_ok_and(|is| is.starts_with(with.as_bytes()));
    let shown = path.display();
    let hint = if begins("version", "Directory Transport Version") {
        format!(
            "it is what `skopeo copy` writes to dir:, and Podman as docker-dir: `skopeo copy dir:{shown} oci:NEW` makes a layout of it"
        )
    } else if begins("manifest.json", "[") {
        "it was unpacked of a `docker save` archive: name the archive itself, as in \"docker-archive:FILE\""
            .to_owned()
    } else {
        "`skopeo copy` writes one, as in `skopeo copy docker://docker.io/library/alpine:3.20 oci:NEW`"
            .to_owned()
    };
    Some((format!("{shown} is no OCI image layout: it has no index.json"), Some(hint)))
}

fn no(what: &str, path: &Path) -> Wrong {
    (format!("there is no {what} {}", path.display()), None)
}

fn holds_keys(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with(".rsa.pub"))
    })
}

/// A file that is looked up by its name in a directory of recipes or kernel configs.
fn named(
    files: &SourceFiles,
    directory: &str,
    name: &str,
    kind: &str,
    file_of: &dyn Fn(&str) -> String,
) -> Option<Wrong> {
    let file = file_of(name);
    match files.exists(&file) {
        Ok(true) => None,
        Ok(false) => {
            let entries = files.list(directory).unwrap_or_default();
            let names = entries.iter().map(|entry| entry.strip_suffix(".config").unwrap_or(entry));
            let names: Vec<&str> =
                names.filter(|name| files.exists(&file_of(name)).unwrap_or(false)).collect();
            Some((format!("there is no {file}"), Some(suggest(kind, name, names))))
        }
        Err(error) => Some(led_out(&error).unwrap_or_else(|| (error.to_string(), None))),
    }
}
