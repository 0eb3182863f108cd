//! Kernel sources: a tarball or a directory becomes a tree to build in.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::lock::digest::sorted_files;
use crate::sys::disk_guard::{DiskGuard, Metered, WriteMeter};
use crate::sys::fs::{FileError, io_diagnosis};
use crate::sys::report::{Report, Unit};
use crate::sys::xz;

/// Sources that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot unpack {}", path.display())]
    Unpack { path: PathBuf, source: io::Error },
    #[error("{} is not a Linux source tree: it has no Kconfig", .0.display())]
    NotLinux(PathBuf),
}

impl Diagnostic for SourceError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Unpack { source, .. } => io_diagnosis(source),
            Self::NotLinux(_) => Class::Invalid
                .hint("[kernel] source must be a tarball of the kernel's sources, as on kernel.org"),
        }
    }
}

/// What a build of a guest for `arch` may open. Other machines' code, the description of their hardware, and tests are left
/// out, which saves a third of the unpacking; Kconfig reads files of other machines though (`crypto/Kconfig` names them).
fn is_needed(path: &Path, arch: &str) -> bool {
    let mut parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    match (parts.next(), parts.next(), parts.next()) {
        (Some("arch"), Some(other), Some(_)) => other == arch || other == "um" || is_kconfig(path),
        (Some("Documentation"), Some("devicetree"), _) => false,
        (Some("tools"), Some("testing" | "perf"), _) => false,
        _ => true,
    }
}

fn is_kconfig(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"Kconfig"))
}

/// Unpacks a tarball (xz, gz or plain; its one top folder is dropped), or copies a directory, into `to`. A source may be
/// anybody's: it takes no more of the disk than what is built of it may.
pub fn unpack(source: &Path, arch: &str, to: &Path, report: &dyn Report) -> Result<(), SourceError> {
    crate::sys::fs::create_dir_all(to)?;
    unpack_within(&DiskGuard::of(to), source, arch, to, report)
}

fn unpack_within(
    guard: &DiskGuard,
    source: &Path,
    arch: &str,
    to: &Path,
    report: &dyn Report,
) -> Result<(), SourceError> {
    if source.is_dir() {
        copy_dir(source, to, &mut guard.meter(), report)?;
    } else {
        unpack_tarball(source, arch, to, (&mut guard.meter(), &mut guard.meter()), report)?;
    }
    if to.join("Kconfig").is_file() { Ok(()) } else { Err(SourceError::NotLinux(source.to_owned())) }
}

fn copy_dir(
    source: &Path,
    to: &Path,
    meter: &mut WriteMeter<'_>,
    report: &dyn Report,
) -> Result<(), FileError> {
    let files = sorted_files(source)?;
    let task = report.begin("copy kernel source", Some(files.len() as u64), Unit::Steps);
    for path in files {
        let target = to.join(path.strip_prefix(source).unwrap_or(&path));
        if let Some(dir) = target.parent() {
            crate::sys::fs::create_dir_all(dir)?;
        }
        copy_entry(&path, &target, meter).map_err(FileError::when("copy", &path))?;
        task.advance(1);
    }
    task.finish("copied");
    Ok(())
}

fn copy_entry(path: &Path, target: &Path, meter: &mut WriteMeter<'_>) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    meter.take_entry()?;
    if meta.is_symlink() {
        return fs::read_link(path).and_then(|link| std::os::unix::fs::symlink(link, target));
    }
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let from = BufReader::with_capacity(1 << 18, Metered { from: File::open(path)?, meter });
    let mut copy = File::create(target)?;
    io::copy(&mut { from }, &mut copy)?;
    copy.set_permissions(meta.permissions())
}

/// One meter counts what is read of the archive, whatever of it is kept, and the other what is made of it.
fn unpack_tarball(
    source: &Path,
    arch: &str,
    to: &Path,
    (read, made): (&mut WriteMeter<'_>, &mut WriteMeter<'_>),
    report: &dyn Report,
) -> Result<(), SourceError> {
    let failed = |error: io::Error| SourceError::Unpack { path: source.to_owned(), source: error };
    let file = File::open(source).map_err(FileError::when("open", source))?;
    let size = file.metadata().map_err(FileError::when("read", source))?.len();
    let task = report.begin("unpack kernel source", Some(size), Unit::Bytes);
    let mut counted = BufReader::with_capacity(1 << 18, Counted { file, task: &*task });
    let magic = io::BufRead::fill_buf(&mut counted).map_err(failed)?.get(..2).unwrap_or_default().to_vec();
    let stream: Box<dyn Read + '_> = match magic.as_slice() {
        [0xfd, b'7'] => Box::new(xz(counted).map_err(failed)?),
        [0x1f, 0x8b] => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
        _ => Box::new(counted),
    };
    let mut archive = tar::Archive::new(Metered { from: stream, meter: read });
    archive.set_preserve_mtime(false);
    for entry in archive.entries().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        made.take_entry().map_err(failed)?;
        unpack_entry(entry, arch, to).map_err(failed)?;
    }
    task.finish("unpacked");
    Ok(())
}

fn xz<R: io::BufRead>(packed: R) -> io::Result<liblzma::bufread::XzDecoder<R>> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let decoder = liblzma::stream::MtStreamBuilder::new()
        .threads(threads)
        .memlimit_threading(xz::MEMORY)
        .memlimit_stop(xz::MEMORY)
        .decoder()?;
    Ok(liblzma::bufread::XzDecoder::new_stream(packed, decoder))
}

/// Unpacks an entry where the architecture needs it, without the first directory of its path.
fn unpack_entry(mut entry: tar::Entry<'_, impl Read>, arch: &str, to: &Path) -> io::Result<()> {
    let path = entry.path()?.into_owned();
    let inner: PathBuf = path.components().skip(1).collect();
    if !inner.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(io::Error::other(format!("it contains the path {}", path.display())));
    }
    if inner.as_os_str().is_empty() || !is_needed(&inner, arch) {
        return Ok(());
    }
    let kind = entry.header().entry_type();
    let is_file = kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse();
    // Hard links lead to files by their whole path, which may be any file of this machine.
    if !is_file && !kind.is_dir() && !kind.is_symlink() {
        return Err(io::Error::other(format!("{} is not a file, a directory or a link", path.display())));
    }
    let target = to.join(&inner);
    let dir = target.parent().unwrap_or(to);
    // What makes a directory takes one that a link leads to.
    if !passes_no_link(to, if kind.is_dir() { &target } else { dir }) {
        return Err(io::Error::other(format!("{} is below a symbolic link", path.display())));
    }
    fs::create_dir_all(dir)?;
    entry.unpack(&target).map(drop)
}

/// Whether no link stands between two directories, of which the lower one may not be there yet.
fn passes_no_link(top: &Path, dir: &Path) -> bool {
    let between = dir.ancestors().take_while(|above| *above != top);
    between
        .into_iter()
        .all(|above| fs::symlink_metadata(above).is_ok_and(|meta| meta.is_dir()) || !above.is_symlink())
}

struct Counted<'a> {
    file: File,
    task: &'a dyn crate::sys::report::Task,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.task.advance(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::report::Silent;

    fn tarball(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_source_that_needs_too_much_memory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut packed) = (dir.path().join("linux.tar.xz"), Vec::new());
        let tar = tarball(&[("linux-6.1/Kconfig", "x")]);
        liblzma::read::XzEncoder::new(&tar[..], 1).read_to_end(&mut packed).unwrap();
        fs::write(&path, &packed).unwrap();
        unpack(&path, "x86", &dir.path().join("small"), &Silent).unwrap();
        // The block's header, 12 bytes from the start: that of LZMA2 has the size of the dictionary, here 1 GiB, and a sum at its end.
        let end = 12 + (usize::from(packed[12]) + 1) * 4;
        assert_eq!(packed[14..16], [0x21, 1]);
        packed[16] = 36;
        let mut sum = flate2::Crc::new();
        sum.update(&packed[12..end - 4]);
        packed[end - 4..end].copy_from_slice(&sum.sum().to_le_bytes());
        fs::write(&path, &packed).unwrap();
        let error = unpack(&path, "x86", &dir.path().join("large"), &Silent).unwrap_err();
        assert!(crate::base::diagnostic::one_line(&error).contains("memory"), "{error:?}");
    }

    #[test]
    fn a_source_takes_no_more_of_the_disk_than_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let zeros = "\0".repeat(8 << 20);
        let packed = |entries: &[(&str, &str)]| {
            let mut packed = Vec::new();
            let tar = tarball(entries);
            flate2::read::GzEncoder::new(&tar[..], flate2::Compression::best())
                .read_to_end(&mut packed)
                .unwrap();
            packed
        };
        fs::write(at("bomb.tar.gz"), packed(&[("linux/Kconfig", "x"), ("linux/bomb", &zeros)])).unwrap();
        assert!(at("bomb.tar.gz").metadata().unwrap().len() < 1 << 20);
        let names: Vec<_> = (0..2000).map(|number| format!("linux/{number}")).collect();
        let empty: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        fs::write(at("many.tar.gz"), packed(&empty)).unwrap();
        fs::create_dir(at("source")).unwrap();
        fs::write(at("source/Kconfig"), "x").unwrap();
        fs::write(at("source/bomb"), &zeros).unwrap();
        for source in ["bomb.tar.gz", "many.tar.gz", "source"] {
            let to = at("to");
            fs::create_dir(&to).unwrap();
            let guard = DiskGuard::of(&to).of_at_most(4 << 20);
            let error = unpack_within(&guard, &at(source), "x86", &to, &Silent).unwrap_err();
            let said = crate::base::diagnostic::one_line(&error);
            assert!(said.contains("more than 4 MiB of the disk"), "{said}");
            assert!(crate::sys::fs::allocated_within(&to) <= 5 << 20, "{source}");
            fs::remove_dir_all(&to).unwrap();
        }
        fs::remove_file(at("source/bomb")).unwrap();
        let to = at("to");
        unpack_within(&DiskGuard::of(dir.path()).of_at_most(4 << 20), &at("source"), "x86", &to, &Silent)
            .unwrap();
    }

    #[test]
    fn the_top_folder_and_foreign_code_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("linux.tar");
        let entries = [
            ("linux-6.1/Kconfig", "x"),
            ("linux-6.1/arch/x86/Makefile", "x"),
            ("linux-6.1/arch/mips/Makefile", "x"),
            ("linux-6.1/arch/arm/crypto/Kconfig", "x"),
        ];
        fs::write(&path, tarball(&entries)).unwrap();
        let to = dir.path().join("src");
        unpack(&path, "x86", &to, &Silent).unwrap();
        assert!(to.join("Kconfig").exists() && to.join("arch/x86/Makefile").exists());
        assert!(!to.join("arch/mips").exists());
        assert!(to.join("arch/arm/crypto/Kconfig").exists(), "crypto/Kconfig reads it");
    }

    #[test]
    fn a_tarball_that_leaves_its_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("linux.tar");
        fs::write(&path, tarball(&[("linux-6.1/../../evil", "x")])).unwrap();
        let error = unpack(&path, "x86", &dir.path().join("src"), &Silent).unwrap_err();
        assert!(matches!(error, SourceError::Unpack { .. }), "{error}");
        assert!(!dir.path().join("evil").exists());
    }

    #[test]
    fn a_tarball_whose_links_lead_out_of_its_folder_writes_nothing_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("linux.tar");
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let link = |kind, name: &str, target: &Path| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            let mut builder = tar::Builder::new(Vec::new());
            builder.append_link(&mut header, name, target).unwrap();
            // Without the two blocks that end an archive.
            let mut bytes = builder.into_inner().unwrap();
            bytes.truncate(bytes.len() - 1024);
            bytes
        };
        let through = [
            link(tar::EntryType::Symlink, "linux-6.1/out", &outside),
            tarball(&[("linux-6.1/out/evil", "x")]),
        ];
        fs::write(&path, through.concat()).unwrap();
        let error = unpack(&path, "x86", &dir.path().join("1"), &Silent).unwrap_err();
        assert!(format!("{error:?}").contains("is below a symbolic link"), "{error:?}");
        assert!(!outside.join("evil").exists());

        fs::write(outside.join("secret"), "").unwrap();
        fs::write(&path, link(tar::EntryType::Link, "linux-6.1/Kconfig", &outside.join("secret"))).unwrap();
        let error = unpack(&path, "x86", &dir.path().join("2"), &Silent).unwrap_err();
        assert!(format!("{error:?}").contains("not a file, a directory or a link"), "{error:?}");
    }

    #[test]
    fn a_tarball_of_something_else_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.tar");
        fs::write(&path, tarball(&[("other/README", "x")])).unwrap();
        let error = unpack(&path, "x86", &dir.path().join("src"), &Silent).unwrap_err();
        assert!(
            error.to_string().ends_with("other.tar is not a Linux source tree: it has no Kconfig"),
            "{error}"
        );
    }
}
