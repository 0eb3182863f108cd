//! Packages with scripts: sisforge packs none, so that they are put into a package that it packed.

use std::io::{Read, Write};

/// The same `.apk` with a script, such as `.post-install`, in its control member. The `.apk` is not signed.
pub fn with_script(apk: &[u8], kind: &str, body: &str) -> Vec<u8> {
    let mut rest = apk;
    let mut control = Vec::new();
    flate2::bufread::GzDecoder::new(&mut rest).read_to_end(&mut control).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path(format!(".{kind}")).unwrap();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o755);
    header.set_size(body.len() as u64);
    header.set_cksum();
    control.extend(header.as_bytes());
    control.extend(body.as_bytes());
    control.resize(control.len().next_multiple_of(512), 0);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&control).unwrap();
    [gzip.finish().unwrap().as_slice(), rest].concat()
}
