//! A container image of a few files, as an OCI archive.

use std::io::Write;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// One entry of a layer: kind, name, mode, owner, bytes or link target.
pub struct Item<'a> {
    pub kind: EntryType,
    pub name: &'a str,
    pub mode: u32,
    pub owner: (u64, u64),
    pub bytes: &'a [u8],
    /// A PAX record, such as `SCHILY.xattr.user.x`.
    pub record: Option<(&'a str, &'a [u8])>,
}

pub fn directory(name: &str) -> Item<'_> {
    Item { kind: EntryType::Directory, name, mode: 0o755, owner: (0, 0), bytes: b"", record: None }
}

pub fn file<'a>(name: &'a str, bytes: &'a [u8]) -> Item<'a> {
    Item { kind: EntryType::Regular, name, mode: 0o644, owner: (0, 0), bytes, record: None }
}

pub fn link<'a>(kind: EntryType, name: &'a str, target: &'a str) -> Item<'a> {
    Item { kind, name, mode: 0o777, owner: (0, 0), bytes: target.as_bytes(), record: None }
}

/// The tar of a layer.
pub fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        if let Some(record) = item.record {
            tar.append_pax_extensions([record]).unwrap();
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(item.kind);
        header.set_mode(item.mode);
        header.set_uid(item.owner.0);
        header.set_gid(item.owner.1);
        header.set_mtime(1_700_000_000);
        if matches!(item.kind, EntryType::Symlink | EntryType::Link) {
            header.set_size(0);
            let target = std::str::from_utf8(item.bytes).unwrap();
            tar.append_link(&mut header, item.name, target).unwrap();
        } else {
            header.set_size(item.bytes.len() as u64);
            if item.kind == EntryType::Char {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            }
            tar.append_data(&mut header, item.name, item.bytes).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// Writes an OCI archive: the first layer gzipped, the others plain. `damage` changes a blob before it is written.
pub fn write_archive(path: &Path, name: &str, layers: &[Vec<u8>], damage: impl Fn(&str, &mut Vec<u8>)) {
    let mut blobs: Vec<(String, Vec<u8>)> = Vec::new();
    let mut descriptor = |kind: &str, bytes: Vec<u8>| {
        let value = json!({ "mediaType": kind, "digest": digest(&bytes), "size": bytes.len() });
        blobs.push((kind.to_owned(), bytes));
        value
    };
    let config = json!({
        "created": "2023-11-14T22:13:20Z",
        "architecture": "amd64",
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|tar| digest(tar)).collect::<Vec<_>>() },
        "history": layers.iter().map(|_| json!({ "created_by": "a test" })).collect::<Vec<_>>(),
    });
    let config = descriptor("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
    let layers: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(at, tar)| match at {
            0 => descriptor("application/vnd.oci.image.layer.v1.tar+gzip", gzip(tar)),
            _ => descriptor("application/vnd.oci.image.layer.v1.tar", tar.clone()),
        })
        .collect();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
    let mut manifest = descriptor(kind, manifest.to_string().into_bytes());
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });

    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    add("index.json", index.to_string().as_bytes());
    for (kind, bytes) in blobs {
        let name = digest(&bytes).replace(':', "/");
        let mut bytes = bytes;
        damage(&kind, &mut bytes);
        add(&format!("blobs/{name}"), &bytes);
    }
    tar.finish().unwrap();
}
