//! `apk`: what apk would install; what is in packages and whether it holds; packages and signed repositories of one's own files.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::apk::{
    Contents, INDEX_FILE, PackMap, PackageInfo, Packed, SigningKey, UnknownDependency, convert_debs, pack,
    sign_directory,
};
use crate::base::text::counted;
use crate::sys::fs;

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
        Command::Pack(args) => run_pack(args, ui),
        Command::Index(args) => {
            let key = SigningKey::read(&args.key)?;
            let target = args.dir.join(INDEX_FILE);
            fs::write(&target, &sign_directory(&args.dir, &key)?, 0o644)?;
            ui.wrote(&target, &format!(", signed by {}", key.public_name()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Key(args) => {
            let key = SigningKey::generate(&args.path)?;
            ui.wrote(&args.path, &format!(" and {}", key.public_name()));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run_pack(args: &PackArgs, ui: &Ui) -> Result<ExitCode, CliError> {
    let key = args.key.as_deref().map(SigningKey::read).transpose()?;
    let map = args.map.as_deref().map(PackMap::read).transpose()?.unwrap_or_default();
    let is_deb = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let packed = if args.inputs.iter().all(is_deb) {
        pack_debs(args, &map, key.as_ref())?
    } else {
        vec![pack_files(args, &map, key.as_ref())?]
    };
    for package in &packed {
        let target = args.to.join(package.info.file_name());
        fs::write(&target, &package.bytes, 0o644)?;
        if ui.settings.json {
            render::json(&PackedJson {
                name: package.info.name.to_string(),
                version: package.info.version.to_string(),
                file: target,
                notes: package.notes.clone(),
            });
        } else if ui.settings.verbose {
            package.notes.iter().for_each(|note| ui.say(&format!("{}: {note}", package.info.name)));
        }
    }
    let bytes: usize = packed.iter().map(|package| package.bytes.len()).sum();
    ui.say(&format!(
        "packed {}, {:.1} MB, into {}",
        counted(packed.len(), "package"),
        bytes as f64 / 1e6,
        args.to.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn pack_debs(args: &PackArgs, map: &PackMap, key: Option<&SigningKey>) -> Result<Vec<Packed>, CliError> {
    if args.name.is_some() || args.pkgver.is_some() || !args.provides.is_empty() || !args.depends.is_empty() {
        return Err(CliError::invalid(
            "--name, --pkgver, --provides and --depends are for a directory or a tarball",
        )
        .hint("a .deb has its own; change them with --map"));
    }
    let missing = if args.ignore_missing { UnknownDependency::Ignore } else { UnknownDependency::Keep };
    Ok(convert_debs(&args.inputs, map, missing, key)?)
}

fn pack_files(args: &PackArgs, map: &PackMap, key: Option<&SigningKey>) -> Result<Packed, CliError> {
    let [input] = args.inputs.as_slice() else {
        return Err(CliError::invalid("several inputs are allowed for .deb files only")
            .hint("pack one directory or tar at a time"));
    };
    let (Some(name), Some(version)) = (&args.name, &args.pkgver) else {
        return Err(CliError::invalid(format!("{} needs a name and a version", input.display()))
            .hint("add --name NAME --pkgver 1.0-r0"));
    };
    let version =
        version.parse().map_err(|error| CliError::invalid(format!("--pkgver {version}: {error}")))?;
    let mut info = PackageInfo::new(name, version, &args.arch)?;
    info.extend(&args.provides, &args.depends)?;
    let mut contents =
        if input.is_dir() { Contents::from_directory(input)? } else { Contents::from_tar_file(input)? };
    map.apply(input, &mut info, &mut contents)?;
    Ok(pack(info, contents, key)?)
}
