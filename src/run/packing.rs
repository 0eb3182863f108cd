//! Packing: files and Debian packages become apk packages, and a directory of packages a signed repository.

use std::path::{Path, PathBuf};

use crate::apk::{
    Contents, ContentsError, ConvertError, INDEX_FILE, IndexingError, InvalidVersion, KeyError, PackError,
    PackMap, PackageInfo, Packed, SigningKey, UnknownDependency, Version, convert_debs,
    pack as pack_contents, sign_directory,
};
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::sys::fs::{self, FileError};

/// What to pack.
#[derive(Clone, Debug)]
pub struct PackRequest {
    /// `.deb` files, or one directory, or one tar.
    pub inputs: Vec<PathBuf>,
    /// Directory of the packages.
    pub to: PathBuf,
    /// Of a directory or tar; a `.deb` has its own.
    pub description: Description,
    /// File of changes.
    pub map: Option<PathBuf>,
    /// Of `.deb` files: what becomes of dependencies on packages that are not among them.
    pub unknown: UnknownDependency,
    /// File of the private key that signs.
    pub key: Option<PathBuf>,
}

/// What a package says of files that do not describe themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    pub name: Option<String>,
    pub version: Option<String>,
    pub provides: Vec<String>,
    pub depends: Vec<String>,
    pub arch: String,
}

/// A package, and the file that it is in.
pub struct WrittenPackage {
    pub info: PackageInfo,
    /// What was left out, and why.
    pub notes: Vec<String>,
    pub file: PathBuf,
    /// Bytes of the file.
    pub size: usize,
}

/// Why nothing was packed or indexed.
#[derive(Debug, thiserror::Error)]
pub enum PackingError {
    #[error("--name, --pkgver, --provides and --depends are for a directory or a tarball")]
    Described,
    #[error("several inputs are allowed for .deb files only")]
    SeveralInputs,
    #[error("{} needs a name and a version", .0.display())]
    NoName(PathBuf),
    #[error("--pkgver {version}: {why}")]
    Version { version: String, why: InvalidVersion },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Convert(#[from] ConvertError),
    #[error(transparent)]
    Contents(#[from] ContentsError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Index(#[from] IndexingError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl Diagnostic for PackingError {
    fn diagnosis(&self) -> Diagnosis {
        use Class::Invalid;
        match self {
            Self::Described => Invalid.hint("a .deb has its own; change them with --map"),
            Self::SeveralInputs => Invalid.hint("pack one directory or tar at a time"),
            Self::NoName(_) => Invalid.hint("add --name NAME --pkgver 1.0-r0"),
            Self::Version { .. } => Invalid.no_hint(),
            Self::Key(error) => error.diagnosis(),
            Self::Convert(error) => error.diagnosis(),
            Self::Contents(error) => error.diagnosis(),
            Self::Pack(error) => error.diagnosis(),
            Self::Index(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
        }
    }
}

/// Packs, and writes each package into a file that is named after it.
pub fn pack(request: &PackRequest) -> Result<Vec<WrittenPackage>, PackingError> {
    let key = request.key.as_deref().map(SigningKey::read).transpose()?;
    let map = request.map.as_deref().map(PackMap::read).transpose()?.unwrap_or_default();
    let is_deb = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let packed = if request.inputs.iter().all(is_deb) {
        let Description { name, version, provides, depends, .. } = &request.description;
        if name.is_some() || version.is_some() || !provides.is_empty() || !depends.is_empty() {
            return Err(PackingError::Described);
        }
        convert_debs(&request.inputs, &map, request.unknown, key.as_ref())?
    } else {
        vec![pack_files(request, &map, key.as_ref())?]
    };
    packed.into_iter().map(|package| write(package, &request.to)).collect()
}

fn pack_files(
    request: &PackRequest,
    map: &PackMap,
    key: Option<&SigningKey>,
) -> Result<Packed, PackingError> {
    let [input] = request.inputs.as_slice() else { return Err(PackingError::SeveralInputs) };
    let Description { name, version, provides, depends, arch } = &request.description;
    let (Some(name), Some(version)) = (name, version) else {
        return Err(PackingError::NoName(input.clone()));
    };
    let parsed: Version =
        version.parse().map_err(|why| PackingError::Version { version: version.clone(), why })?;
    let mut info = PackageInfo::new(name, parsed, arch)?;
    info.extend(provides, depends)?;
    let mut contents =
        if input.is_dir() { Contents::from_directory(input)? } else { Contents::from_tar_file(input)? };
    map.apply(input, &mut info, &mut contents)?;
    Ok(pack_contents(info, contents, key)?)
}

fn write(package: Packed, to: &Path) -> Result<WrittenPackage, PackingError> {
    let file = to.join(package.info.file_name());
    fs::write(&file, &package.bytes, 0o644)?;
    let Packed { info, notes, bytes, .. } = package;
    Ok(WrittenPackage { info, notes, file, size: bytes.len() })
}

/// An index that was signed.
pub struct WrittenIndex {
    pub file: PathBuf,
    /// File name of the public key.
    pub key: String,
}

/// Writes the index of a directory's packages into it, signed with the private key of a file.
pub fn index(dir: &Path, key: &Path) -> Result<WrittenIndex, PackingError> {
    let key = SigningKey::read(key)?;
    let file = dir.join(INDEX_FILE);
    fs::write(&file, &sign_directory(dir, &key)?, 0o644)?;
    Ok(WrittenIndex { file, key: key.public_name().to_owned() })
}
