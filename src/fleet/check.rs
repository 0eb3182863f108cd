//! Looks up what `fleet.toml` mentions: files, keys, recipes and kernel configs.

use std::fs;
use std::path::Path;

use super::files::SourceFiles;
use super::validate::{Mention, Thing};
use crate::base::problem::{Problem, Problems, suggest};

/// Tells of each mention that leads nowhere.
pub fn check_files(mentions: &[Mention], files: &SourceFiles, problems: &mut Problems) {
    for mention in mentions {
        if let Some((message, hint)) = lacking(&mention.thing, files) {
            let problem = Problem::new(mention.span.clone(), message);
            problems.tell(match hint {
                Some(hint) => problem.hint(hint),
                None => problem,
            });
        }
    }
}

/// Message and hint for a thing that is not there.
fn lacking(thing: &Thing, files: &SourceFiles) -> Option<(String, Option<String>)> {
    match thing {
        Thing::File(path) => (!path.is_file()).then(|| no("file", path)),
        Thing::Directory(path) => (!path.is_dir()).then(|| no("directory", path)),
        Thing::FileOrDirectory(path) => (!path.exists()).then(|| no("file or directory", path)),
        Thing::Keys(path) => (!holds_keys(path)).then(|| {
            let hint = "put the *.rsa.pub of those whom you trust there, or name their directory as `keys`";
            (format!("there are no keys in {}", path.display()), Some(hint.to_owned()))
        }),
        Thing::Recipe(name) => {
            named(files, "recipes", name.as_str(), "recipes", &|name| format!("recipes/{name}/recipe.toml"))
        }
        Thing::KernelBase(name) => named(files, "kernel-configs", name.as_str(), "kernel bases", &|name| {
            format!("kernel-configs/{name}.config")
        }),
        Thing::KernelFragment(name) => {
            named(files, "kernel-configs/fragments", name.as_str(), "kernel fragments", &|name| {
                format!("kernel-configs/fragments/{name}.config")
            })
        }
    }
}

fn no(what: &str, path: &Path) -> (String, Option<String>) {
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
) -> Option<(String, Option<String>)> {
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
        Err(error) => Some((error.to_string(), None)),
    }
}
