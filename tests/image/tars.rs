//! Tars written header by header, so that every form there is can be made.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Entries one after the other, without an end.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

/// What a header holds; the rest is as [`Head::new`] has it.
#[derive(Clone)]
pub struct Head {
    pub flag: u8,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub owner: (u64, u64),
    pub mtime: i64,
    pub magic: &'static [u8; 8],
    pub prefix: &'static [u8],
    pub size: u64,
}

pub const USTAR: &[u8; 8] = b"ustar\x0000";
pub const GNU: &[u8; 8] = b"ustar  \0";
pub const V7: &[u8; 8] = &[0; 8];

impl Head {
    pub fn new(flag: u8, name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref().to_vec();
        let mode = if flag == b'5' { 0o755 } else { 0o644 };
        let (link, prefix) = (Vec::new(), &b""[..]);
        Self { flag, name, link, mode, owner: (0, 0), mtime: 1_700_000_000, magic: USTAR, prefix, size: 0 }
    }

    pub fn to(self, link: impl AsRef<[u8]>) -> Self {
        Self { link: link.as_ref().to_vec(), ..self }
    }

    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub fn owner(self, uid: u64, gid: u64) -> Self {
        Self { owner: (uid, gid), ..self }
    }

    pub fn block(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        for (at, id) in [(108, self.owner.0), (116, self.owner.1)] {
            match id {
                0..0o10_000_000 => put(at, format!("{id:07o}\0").as_bytes()),
                large => put(at, &(large | 1 << 63).to_be_bytes()),
            }
        }
        put(124, format!("{:011o}\0", self.size).as_bytes());
        match u64::try_from(self.mtime) {
            Ok(mtime) => put(136, format!("{mtime:011o}\0").as_bytes()),
            Err(_) => {
                put(136, &[0xff; 12]);
                put(140, &self.mtime.to_be_bytes());
            }
        }
        put(156, &[self.flag]);
        put(157, &self.link);
        put(257, self.magic);
        if matches!(self.flag, b'3' | b'4') {
            put(329, b"0000001\x000000003\0");
        }
        put(345, self.prefix);
        seal(&mut block);
        block
    }
}

/// Writes a header's checksum.
pub fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

impl Tar {
    pub fn head(mut self, head: Head) -> Self {
        self.0.extend(head.block());
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn with(self, head: Head, bytes: &[u8]) -> Self {
        self.head(Head { size: bytes.len() as u64, ..head }).raw(bytes)
    }

    pub fn file(self, name: impl AsRef<[u8]>, bytes: &[u8]) -> Self {
        self.with(Head::new(b'0', name), bytes)
    }

    pub fn directory(self, name: impl AsRef<[u8]>) -> Self {
        self.head(Head::new(b'5', name))
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.head(Head::new(b'2', name).to(target).mode(0o777))
    }

    pub fn hard_link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.head(Head::new(b'1', name).to(target))
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let body = records.iter().flat_map(|(key, value)| record(key, value)).collect::<Vec<u8>>();
        self.with(Head::new(b'x', "PaxHeaders/x"), &body)
    }

    /// The whole of it, with two blocks of zeros.
    pub fn ended(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    [length.to_string().as_bytes(), &rest].concat()
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

pub fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut liblzma::read::XzEncoder::new(bytes, 1), &mut out).unwrap();
    out
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The files of an archive, in their order.
#[derive(Clone, Default)]
pub struct Files(pub Vec<(String, Vec<u8>)>);

impl Files {
    pub fn blob(&mut self, kind: &str, bytes: Vec<u8>) -> Value {
        let digest = digest(&bytes);
        let value = json!({ "mediaType": kind, "digest": digest, "size": bytes.len() });
        self.0.push((format!("blobs/{}", digest.replace(':', "/")), bytes));
        value
    }

    pub fn document(&mut self, kind: &str, value: &Value) -> Value {
        self.blob(kind, value.to_string().into_bytes())
    }

    /// A manifest of layers, each with its media type, its bytes as they are packed, and its tar.
    pub fn image(&mut self, arch: &str, layers: &[(&str, Vec<u8>, Vec<u8>)]) -> Value {
        let config = config(arch, &layers.iter().map(|(.., tar)| tar.as_slice()).collect::<Vec<_>>());
        let config = self.document("application/vnd.oci.image.config.v1+json", &config);
        let layers: Vec<Value> = layers
            .iter()
            .map(|(kind, packed, _)| self.blob(&format!("{LAYER}{kind}"), packed.clone()))
            .collect();
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        self.document(MANIFEST, &manifest)
    }

    /// The layout whose index names these manifests.
    pub fn index(mut self, manifests: &[Value]) -> Self {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        self.0.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        self.0.push(("index.json".into(), index.to_string().into_bytes()));
        self
    }

    pub fn tar(&self) -> Vec<u8> {
        self.0.iter().fold(Tar::default(), |tar, (name, bytes)| tar.file(name, bytes)).ended()
    }

    pub fn write_to(&self, dir: &Path) {
        for (name, bytes) in &self.0 {
            std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }
}

pub fn config(arch: &str, layers: &[&[u8]]) -> Value {
    json!({
        "created": "2023-11-14T22:13:20Z", "architecture": arch, "os": "linux", "config": { "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|tar| digest(tar)).collect::<Vec<_>>() },
        "history": layers.iter().map(|_| json!({ "created_by": "a test" })).collect::<Vec<_>>(),
    })
}

/// A descriptor with annotations.
pub fn annotated(mut descriptor: Value, annotations: &[(&str, &str)]) -> Value {
    descriptor["annotations"] = annotations
        .iter()
        .map(|(key, value)| (key.to_string(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    descriptor
}

/// A descriptor with a platform.
pub fn on(mut descriptor: Value, os: &str, arch: &str) -> Value {
    descriptor["platform"] = json!({ "os": os, "architecture": arch });
    descriptor
}
