//! The files of containers/storage, overlay driver, for images that are there from the beginning: a whole store, which Podman
//! takes as an additional one that it only reads.
//!
//! ```text
//! overlay-images/images.json                 every image: names, top layer, sizes and digests of its data
//! overlay-images/<id>/manifest =<base64>     manifest, again by its digest, and config
//! overlay-images/images.lock                 taken for reading; a read-only file system cannot make it
//! overlay-layers/layers.json layers.lock     every layer: parent, digests, sizes
//! overlay-layers/<layer>.tar-split.gz        how to give the layer's tar back
//! overlay/<layer>/diff link lower work merged
//! overlay/l/<LINK> -> ../<layer>/diff        short names, because mount options are short
//! ```
//!
//! Checked against what `podman load` of Podman 4.3 leaves for the same images. Ids and link names are functions of the
//! layers; dates are those of the images.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::base::Sha256;

use super::super::content::Content;
use super::super::tree::{Node, NodeKind, Tree};
use super::layer::Layer;
use super::oci::Image;
use super::packed::Compression;
use super::{ContainerError, ContainerProblem};

/// How ids within a container stand for ids of the guest: 0 is the user, and 1 on are the user's subordinate ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    pub uid: u32,
    pub gid: u32,
    pub subuids: SubIds,
    pub subgids: SubIds,
}

/// A line of `/etc/subuid` or `/etc/subgid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubIds {
    pub start: u32,
    pub count: u32,
}

impl SubIds {
    fn map(self, own: u32, id: u32) -> Option<u32> {
        match id {
            0 => Some(own),
            id if id <= self.count => self.start.checked_add(id - 1),
            _ => None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ImageRecord<'a> {
    id: String,
    digest: String,
    names: Vec<&'a str>,
    names_history: Vec<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    layer: &'a str,
    metadata: &'static str,
    big_data_names: Vec<&'a str>,
    big_data_sizes: BTreeMap<&'a str, usize>,
    big_data_digests: BTreeMap<&'a str, String>,
    created: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct LayerRecord<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    created: &'a str,
    compressed_diff_digest: &'a str,
    compressed_size: u64,
    diff_digest: String,
    diff_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<u8>,
    uidset: &'a BTreeSet<u32>,
    gidset: &'a BTreeSet<u32>,
}

/// Lays out a store of images at the root of a tree. Gives the layers whose files are streamed, numbered as sources from 0 on.
pub fn add_images(
    tree: &mut Tree<Content>,
    images: &[Image],
    owner: &IdMap,
) -> Result<Vec<Arc<Layer>>, ContainerError> {
    let mut storage = Storage { tree, owner, sources: Vec::new(), layers: Vec::new(), ids: BTreeSet::new() };
    let names = all_names(images)?;
    for image in images {
        storage.add(image).map_err(|problem| ContainerError { path: image.path.clone(), problem })?;
    }
    if let Some(image) = images.first() {
        let failed = |problem| ContainerError { path: image.path.clone(), problem };
        storage.finish(images, &names).map_err(failed)?;
    }
    Ok(storage.sources)
}

/// The names of each image: its own, and the spare one where nobody else has it.
fn all_names(images: &[Image]) -> Result<Vec<Vec<&str>>, ContainerError> {
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    let mut names: Vec<Vec<&str>> = Vec::new();
    for image in images {
        for name in &image.names.own {
            if !taken.insert(name) {
                let problem = ContainerProblem::NameTaken { name: name.clone() };
                return Err(ContainerError { path: image.path.clone(), problem });
            }
        }
        names.push(image.names.own.iter().map(String::as_str).collect());
    }
    for (image, names) in images.iter().zip(&mut names) {
        if let Some(spare) = image.names.spare.as_deref()
            && taken.insert(spare)
        {
            names.push(spare);
        }
    }
    Ok(names)
}

struct Storage<'t, 'a> {
    tree: &'t mut Tree<Content>,
    owner: &'t IdMap,
    sources: Vec<Arc<Layer>>,
    layers: Vec<LayerRecord<'a>>,
    ids: BTreeSet<String>,
}

impl<'a> Storage<'_, 'a> {
    fn add(&mut self, image: &'a Image) -> Result<(), ContainerProblem> {
        let ids = layer_ids(&image.layers);
        for (position, layer) in image.layers.iter().enumerate() {
            if !self.ids.insert(ids[position].clone()) {
                continue;
            }
            self.layers.push(LayerRecord {
                id: ids[position].clone(),
                parent: position.checked_sub(1).map(|below| ids[below].clone()),
                created: &image.created,
                compressed_diff_digest: &layer.blob.digest,
                compressed_size: layer.blob.size,
                diff_digest: format!("sha256:{}", layer.diff_id),
                diff_size: layer.diff_size,
                compression: (layer.compression != Compression::None).then_some(layer.compression.number()),
                uidset: &layer.uids,
                gidset: &layer.gids,
            });
            self.add_layer(&ids[..=position], layer)?;
        }
        Ok(())
    }

    /// Writes the directory of the last of `chain`; those before it are below it.
    fn add_layer(&mut self, chain: &[String], layer: &Arc<Layer>) -> Result<(), ContainerProblem> {
        let Some((id, below)) = chain.split_last() else { return Ok(()) };
        let source = self.sources.len();
        self.sources.push(layer.clone());
        let home = format!("/overlay/{id}");
        self.directory(&home)?;
        let link = link_name(id);
        self.file(&format!("{home}/link"), link.as_bytes(), 0o644)?;
        self.directory(&format!("{home}/work"))?;
        self.directory(&format!("{home}/merged"))?;
        if below.is_empty() {
            // Overlayfs wants something below even where a layer has nothing below it.
            self.directory(&format!("{home}/empty"))?;
        } else {
            let lower: Vec<String> = below.iter().rev().map(|id| format!("l/{}", link_name(id))).collect();
            self.file(&format!("{home}/lower"), lower.join(":").as_bytes(), 0o644)?;
        }
        let target = format!("../{id}/diff");
        self.insert(&format!("/overlay/l/{link}"), Node::new(NodeKind::Symlink { target }, 0o777))?;
        let split = format!("/overlay-layers/{id}.tar-split.gz");
        self.file(&split, &layer.tar_split, 0o600)?;
        self.graft(&format!("{home}/diff"), layer, source)
    }

    /// Puts a layer's files where its directory is, owners mapped.
    fn graft(&mut self, base: &str, layer: &Layer, source: usize) -> Result<(), ContainerProblem> {
        // Hard links come last: their targets may sort after them.
        let (links, others): (Vec<_>, Vec<_>) =
            layer.tree.iter().partition(|(_, node)| matches!(node.kind, NodeKind::HardLink { .. }));
        for (path, node) in others.into_iter().chain(links) {
            let unmapped = |kind, id, ids: SubIds| ContainerProblem::Unmapped {
                path: path.to_owned(),
                kind,
                id,
                count: ids.count,
            };
            let owner = self.owner;
            let uid = owner.subuids.map(owner.uid, node.uid);
            let gid = owner.subgids.map(owner.gid, node.gid);
            let mut mapped = Node {
                kind: node.kind.map(|entry| Content::Streamed { source, entry: *entry }),
                mode: node.mode,
                uid: uid.ok_or_else(|| unmapped("uid", node.uid, owner.subuids))?,
                gid: gid.ok_or_else(|| unmapped("gid", node.gid, owner.subgids))?,
                mtime: node.mtime,
                xattrs: node.xattrs.clone(),
            };
            if let NodeKind::HardLink { target } = &mut mapped.kind {
                target.insert_str(0, base);
            }
            if let Some(value) = mapped.xattrs.get_mut("security.capability") {
                *value = capability_of_namespace(value, owner.uid);
            }
            self.tree
                .insert(&format!("{base}{path}"), mapped)
                .map_err(|source| ContainerProblem::Tree { layer: layer.diff_id.short(), source })?;
        }
        Ok(())
    }

    fn finish(&mut self, images: &'a [Image], names: &[Vec<&'a str>]) -> Result<(), ContainerProblem> {
        let mut records: Vec<ImageRecord<'_>> = Vec::new();
        let ids: Vec<Vec<String>> = images.iter().map(|image| layer_ids(&image.layers)).collect();
        let keys: Vec<[String; 3]> = images.iter().map(big_data_keys).collect();
        for (((image, ids), keys), names) in images.iter().zip(&ids).zip(&keys).zip(names) {
            let id = image.id.to_string();
            // One image under two names is one record.
            if let Some(record) = records.iter_mut().find(|record| record.id == id) {
                record.names.extend(names);
                record.names_history.extend(names);
                continue;
            }
            let folder = format!("/overlay-images/{id}");
            self.directory(&folder)?;
            let data = big_data(image, keys);
            for (key, bytes, _) in &data {
                self.file(&format!("{folder}/{}", file_of_key(key)), bytes, 0o600)?;
            }
            records.push(ImageRecord {
                id,
                digest: format!("sha256:{}", image.digest),
                names: names.clone(),
                names_history: names.clone(),
                layer: ids.last().map_or("", String::as_str),
                metadata: "{}",
                big_data_names: data.iter().map(|(key, ..)| *key).collect(),
                big_data_sizes: data.iter().map(|(key, bytes, _)| (*key, bytes.len())).collect(),
                big_data_digests: data
                    .iter()
                    .map(|(key, _, digest)| (*key, format!("sha256:{digest}")))
                    .collect(),
                created: &image.created,
            });
        }
        let json = |what: &str, value: Result<Vec<u8>, serde_json::Error>| {
            value.map_err(|source| ContainerProblem::Json { what: what.to_owned(), source })
        };
        let layers = json("layers.json", serde_json::to_vec(&self.layers))?;
        let images = json("images.json", serde_json::to_vec(&records))?;
        self.file("/overlay-layers/layers.json", &layers, 0o600)?;
        self.file("/overlay-layers/layers.lock", b"", 0o600)?;
        self.file("/overlay-images/images.lock", b"", 0o600)?;
        self.file("/overlay-images/images.json", &images, 0o600)
    }

    fn directory(&mut self, path: &str) -> Result<(), ContainerProblem> {
        self.insert(path, Node::new(NodeKind::Directory, 0o700))
    }

    fn file(&mut self, path: &str, bytes: &[u8], mode: u16) -> Result<(), ContainerProblem> {
        let kind = NodeKind::File { size: bytes.len() as u64, content: Content::Inline(Arc::from(bytes)) };
        self.insert(path, Node::new(kind, mode))
    }

    /// A node of the user's, in directories of the user's.
    fn insert(&mut self, path: &str, node: Node<Content>) -> Result<(), ContainerProblem> {
        let (uid, gid) = (self.owner.uid, self.owner.gid);
        let failed = |source| ContainerProblem::Tree { layer: "storage".into(), source };
        let parent = || Node::new(NodeKind::Directory, 0o700).owned_by(uid, gid);
        self.tree.make_parents(path, parent).map_err(failed)?;
        self.tree.insert(path, node.owned_by(uid, gid)).map_err(failed)
    }
}

/// Data of an image beside its record, by key.
fn big_data<'a>(image: &'a Image, keys: &'a [String; 3]) -> [(&'a str, &'a [u8], Sha256); 3] {
    let [config, by_digest, manifest] = keys;
    [
        (config, &image.config, image.id),
        (by_digest, &image.manifest, image.digest),
        (manifest, &image.manifest, image.digest),
    ]
}

fn big_data_keys(image: &Image) -> [String; 3] {
    [format!("sha256:{}", image.id), format!("manifest-sha256:{}", image.digest), "manifest".into()]
}

/// containers/storage's `makeBigDataBaseName`.
fn file_of_key(key: &str) -> String {
    let plain = |b: u8| b == b'.' || b.is_ascii_digit() || b.is_ascii_lowercase();
    if key.bytes().all(plain) { key.to_owned() } else { format!("={}", STANDARD.encode(key)) }
}

/// Ids of layers as containers/image gives them: the digest of the tar for the lowest, then that of
/// `<id below>+<digest of the tar>`.
fn layer_ids(layers: &[Arc<Layer>]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for layer in layers {
        let own = layer.diff_id.to_string();
        ids.push(match ids.last() {
            Some(below) => Sha256::of(format!("{below}+{own}")).to_string(),
            None => own,
        });
    }
    ids
}

/// A link's name: 26 of the alphabet that containers/storage draws them from at random; here they follow from the layer.
fn link_name(id: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Sha256::of(format!("containers/storage link of {id}"));
    digest.0.iter().take(26).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

/// A file capability as the kernel stores it when root of a user namespace sets it: version 3, which holds that root's id
/// (`struct vfs_ns_cap_data`). What is no capability of version 2 or 3 is left as it is.
fn capability_of_namespace(value: &[u8], root: u32) -> Vec<u8> {
    const VERSION_MASK: u32 = 0xff00_0000;
    const VERSION_3: u32 = 0x0300_0000;
    let Some((head, rest)) = value.split_first_chunk::<4>() else { return value.to_vec() };
    let Some(sets) = rest.get(..16).filter(|_| matches!(rest.len(), 16 | 20)) else { return value.to_vec() };
    let flags = u32::from_le_bytes(*head) & !VERSION_MASK;
    [&(VERSION_3 | flags).to_le_bytes()[..], sets, &root.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_container_are_the_users_and_then_subordinate_ones() {
        let ids = SubIds { start: 100_000, count: 65_536 };
        assert_eq!(ids.map(1000, 0), Some(1000));
        assert_eq!(ids.map(1000, 1), Some(100_000));
        assert_eq!(ids.map(1000, 65_536), Some(165_535));
        assert_eq!(ids.map(1000, 65_537), None);
    }

    #[test]
    fn a_capability_names_the_root_of_its_namespace() {
        let version_2 = hex::decode("0100000280000000000000000000000000000000").unwrap();
        let version_3 = hex::decode("0100000380000000000000000000000000000000e8030000").unwrap();
        assert_eq!(capability_of_namespace(&version_2, 1000), version_3);
        assert_eq!(capability_of_namespace(&version_3, 1000), version_3);
    }

    #[test]
    fn data_of_an_image_are_stored_under_names_that_podman_looks_for() {
        assert_eq!(file_of_key("manifest"), "manifest");
        assert_eq!(file_of_key("sha256:ab"), "=c2hhMjU2OmFi");
    }
}
