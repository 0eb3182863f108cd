//! `apk ls`: what is in packages and indexes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{CliError, Ui, render};
use crate::apk::{
    Dependency, Entry, EntryKind, Index, PackageContents, PackageInfo, is_index, package_files,
};
use crate::cli::output::{ApkEntryJson, ApkFileJson, ApkPackageJson};
use crate::sys::fs;

#[derive(clap::Args)]
pub struct Args {
    /// Packages, indexes, and directories that have them
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let files = package_files(&args.paths)?;
    let mut documents = Vec::new();
    for file in &files {
        let (text, document) = if is_index(file) { show_index(file)? } else { show_package(file)? };
        if !ui.settings.json {
            let heading = if files.len() > 1 { format!("{}:\n", file.display()) } else { String::new() };
            render::text(&format!("{heading}{text}"));
        }
        documents.push(document);
    }
    if ui.settings.json {
        render::json(&documents);
    }
    Ok(ExitCode::SUCCESS)
}

fn damaged(file: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::invalid(format!("{}: {error}", file.display()))
        .hint("packages are *.apk files, an index is an APKINDEX.tar.gz")
}

fn show_index(file: &Path) -> Result<(String, ApkFileJson), CliError> {
    let index = Index::inspect(&fs::read(file)?).map_err(|error| damaged(file, &error))?;
    let row =
        |info: &PackageInfo| [info.id(), info.size.to_string(), render::plain(&info.description)].to_vec();
    let mut text = render::table(&index.packages.iter().map(row).collect::<Vec<_>>());
    for (label, reason) in &index.rejected {
        text += &format!("{label}: apk would not install it: {reason}\n");
    }
    let document = ApkFileJson::Index {
        file: file.to_owned(),
        packages: index.packages.iter().map(ApkPackageJson::from).collect(),
        description: index.description,
        rejected: index.rejected,
    };
    Ok((text, document))
}

fn show_package(file: &Path) -> Result<(String, ApkFileJson), CliError> {
    let package = PackageContents::inspect(fs::read(file)?.into()).map_err(|error| damaged(file, &error))?;
    let info = &package.info;
    let mut text = format!("{}  {}\n{}\n", info.id(), info.arch, render::plain(&info.description));
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text += &format!("{name}: {}\n", render::plain(&value));
        }
    };
    line("url", info.url.clone());
    line("license", info.license.clone());
    line("origin", info.origin.clone().unwrap_or_default());
    line("size", format!("{} bytes, {} installed", info.size, info.installed_size));
    line("depends", words(&info.depends));
    line("provides", words(&info.provides));
    line("install_if", words(&info.install_if));
    line("replaces", words(&info.replaces));
    line("provider_priority", info.provider_priority.map(|n| n.to_string()).unwrap_or_default());
    line("triggers", info.triggers.join(" "));
    let scripts: Vec<_> = package.scripts.iter().map(|script| script.kind.as_str()).collect();
    line("scripts", scripts.join(" "));
    text += &render::table(&package.entries.iter().map(row).collect::<Vec<_>>());
    let document = ApkFileJson::Package {
        file: file.to_owned(),
        info: Box::new(info.into()),
        scripts: scripts.into_iter().map(str::to_owned).collect(),
        entries: package.entries.iter().map(entry_document).collect(),
    };
    Ok((text, document))
}

fn words(dependencies: &[Dependency]) -> String {
    dependencies.iter().map(Dependency::to_string).collect::<Vec<_>>().join(" ")
}

/// Letter of its kind, size, and what it points at.
fn kind(entry: &Entry) -> (char, String, Option<&str>) {
    match &entry.kind {
        EntryKind::Directory => ('d', String::new(), None),
        EntryKind::File { size, .. } => ('-', size.to_string(), None),
        EntryKind::Symlink { target } => ('l', String::new(), Some(target)),
        EntryKind::HardLink { target } => ('h', String::new(), Some(target)),
        EntryKind::CharDevice { major, minor } => ('c', format!("{major},{minor}"), None),
        EntryKind::BlockDevice { major, minor } => ('b', format!("{major},{minor}"), None),
        EntryKind::Fifo => ('p', String::new(), None),
    }
}

fn row(entry: &Entry) -> Vec<String> {
    let (letter, size, target) = kind(entry);
    let arrow = if letter == 'h' { "link to" } else { "->" };
    let target = target.map(|target| format!(" {arrow} {}", target.escape_debug())).unwrap_or_default();
    let xattrs = entry.xattrs.iter().map(|(name, value)| format!(" {name}={}", hex::encode(value)));
    let path = format!("{}{target}{}", entry.path, xattrs.collect::<String>());
    vec![format!("{letter}{:04o}", entry.mode), format!("{}:{}", entry.owner, entry.group), size, path]
}

fn entry_document(entry: &Entry) -> ApkEntryJson {
    let (letter, _, target) = kind(entry);
    ApkEntryJson::new(entry, letter, target)
}
