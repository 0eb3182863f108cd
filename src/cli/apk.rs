//! `apk`: what apk would install; what is in packages and whether it holds; packages and signed repositories of one's own files.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::apk::{SigningKey, UnknownDependency};
use crate::base::text::counted;
use crate::run::packing::{self, Description, PackRequest};

use super::error::CliError;
use super::output::PackedJson;
use super::render;
use super::ui::Ui;

mod ls;
mod solve;
mod verify;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Print what apk would install, in that order
    Solve(solve::Args),
    /// Verify packages and indexes: signatures, identities, hashes, every file
    Verify(verify::Args),
    /// Show what is in packages and indexes, without verifying signatures
    Ls(ls::Args),
    /// Make apk packages from Debian packages, a directory or a tarball
    Pack(PackArgs),
    /// Index the packages of a directory, and sign the index
    Index(IndexArgs),
    /// Generate a signing key: NAME.rsa, and its public key NAME.rsa.pub
    Key(KeyArgs),
}

#[derive(clap::Args)]
pub struct PackArgs {
    /// .deb files, or one directory, or one tar (plain, gzip or xz)
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Where the packages go
    #[arg(long, value_name = "DIR", default_value = ".")]
    to: PathBuf,
    /// Name of the package (of a directory or tar)
    #[arg(long)]
    name: Option<String>,
    /// Version of the package (of a directory or tar), such as 1.0-r0
    #[arg(long, value_name = "VERSION")]
    pkgver: Option<String>,
    /// Architecture (of a directory or tar)
    #[arg(long, default_value = "noarch")]
    arch: String,
    /// Another name that it provides, such as shadow-subids=4.13
    #[arg(long, value_name = "NAME[=VERSION]")]
    provides: Vec<String>,
    /// A package that it needs
    #[arg(long, value_name = "DEPENDENCY")]
    depends: Vec<String>,
    /// A TOML file of changes: extra names, dependencies to drop, paths to leave out, modes, owners
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Drop dependencies of .debs on packages that are not among the inputs
    #[arg(long)]
    ignore_missing: bool,
    /// Sign the packages with this private key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct IndexArgs {
    /// Directory of the packages, named after their architecture: REPOSITORY/x86_64
    dir: PathBuf,
    /// Private key to sign with
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(clap::Args)]
pub struct KeyArgs {
    /// File of the private key, such as keys/me.rsa
    path: PathBuf,
}

pub fn run(command: &Command, ui: &Ui) -> Result<ExitCode, CliError> {
    match command {
        Command::Solve(args) => solve::run(args, ui),
        Command::Verify(args) => verify::run(args, ui),
        Command::Ls(args) => ls::run(args, ui),
        Command::Pack(args) => pack(args, ui),
        Command::Index(args) => {
            let index = packing::index(&args.dir, &args.key)?;
            ui.wrote(&index.file, &format!(", signed by {}", index.key));
            Ok(ExitCode::SUCCESS)
        }
        Command::Key(args) => {
            let key = SigningKey::generate(&args.path)?;
            ui.wrote(&args.path, &format!(" and {}", key.public_name()));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn pack(args: &PackArgs, ui: &Ui) -> Result<ExitCode, CliError> {
    let packed = packing::pack(&PackRequest {
        inputs: args.inputs.clone(),
        to: args.to.clone(),
        description: Description {
            name: args.name.clone(),
            version: args.pkgver.clone(),
            provides: args.provides.clone(),
            depends: args.depends.clone(),
            arch: args.arch.clone(),
        },
        map: args.map.clone(),
        unknown: if args.ignore_missing { UnknownDependency::Ignore } else { UnknownDependency::Keep },
        key: args.key.clone(),
    })?;
    for package in &packed {
        if ui.settings.json {
            render::json(&PackedJson::from(package));
        } else if ui.settings.verbose {
            package.notes.iter().for_each(|note| ui.say(&format!("{}: {note}", package.info.name)));
        }
    }
    let bytes: usize = packed.iter().map(|package| package.size).sum();
    ui.say(&format!(
        "packed {}, {:.1} MB, into {}",
        counted(packed.len(), "package"),
        bytes as f64 / 1e6,
        args.to.display()
    ));
    Ok(ExitCode::SUCCESS)
}
