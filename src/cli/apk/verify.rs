//! `apk verify`: are packages and indexes what their makers made?

use std::path::PathBuf;
use std::process::ExitCode;

use rayon::prelude::*;

use super::{CliError, Ui, render};
use crate::apk::{IndexedPackages, KeyRing, Trusted, VerifyError, check_file, package_files};
use crate::base::diagnostic::one_line;
use crate::base::text::counted;
use crate::cli::output::VerifiedJson;

#[derive(clap::Args)]
pub struct Args {
    /// Packages, indexes, and directories that have them
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Directory of trusted keys, *.rsa.pub
    #[arg(long, required = true, value_name = "DIR")]
    keys: Vec<PathBuf>,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let keys = KeyRing::read(&args.keys)?;
    let files = package_files(&args.paths)?;
    if files.is_empty() {
        return Err(CliError::invalid("there is neither a package nor an index to check")
            .hint("packages are *.apk files, an index is an APKINDEX.tar.gz"));
    }
    let listings = IndexedPackages::read(&files, &keys);
    let checked: Vec<_> = files.par_iter().map(|file| check_file(file, &keys, &listings)).collect();
    let results = || files.iter().zip(&checked);
    if ui.settings.json {
        let document = |(file, result): (&PathBuf, &Result<Trusted, VerifyError>)| {
            VerifiedJson::new(file.clone(), result.as_ref().map_err(|distrust| one_line(distrust)))
        };
        let documents: Vec<_> = results().map(document).collect();
        render::json(&documents);
    } else {
        let line = |(file, result): (&PathBuf, &Result<Trusted, VerifyError>)| match result {
            Ok(trusted) => format!("{}: OK ({})\n", file.display(), words(trusted)),
            Err(distrust) => format!("{}: {}\n", file.display(), one_line(distrust)),
        };
        render::text(&results().map(line).collect::<String>());
    }
    let bad = checked.iter().filter(|result| result.is_err()).count();
    ui.say(&format!("{} of {} are intact", files.len() - bad, files.len()));
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was checked, and with which key.
fn words(trusted: &Trusted) -> String {
    match trusted {
        Trusted::Package { key, entries, listed, .. } => {
            let index = if *listed { ", as the index says" } else { "" };
            format!("{}, signed by {key}{index}", counted(*entries, "entry"))
        }
        Trusted::Index { key, packages, rejected } => match rejected.as_slice() {
            [] => format!("{}, signed by {key}", counted(*packages, "package")),
            [(label, reason), ..] => {
                let count = rejected.len();
                format!(
                    "{}, signed by {key}; apk would not install {count} more: {label}: {reason}",
                    counted(*packages, "package")
                )
            }
        },
    }
}
