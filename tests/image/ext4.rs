//! Trees written as ext4: found good by e2fsck, and read back by another reader and by the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use sisforge::base::ByteSize;
use sisforge::image::content::{Content, SequentialArchive, Visit};
use sisforge::image::ext4::{Ext4Error, Ext4Options, Purpose, write_ext4};
use sisforge::image::read::{Inventory, Volume};
use sisforge::image::read_back::read_back;
use sisforge::image::tree::{Node, NodeKind, Tree};
use sisforge::sys::tool::Tool;

use super::{e2fsck, missing, open_ext4, skip};

/// An archive of files.
pub struct Archive(pub Vec<Vec<u8>>);

impl SequentialArchive for Archive {
    fn each_file(&self, visit: Visit<'_>) -> Result<(), Ext4Error> {
        self.0.iter().enumerate().try_for_each(|(entry, bytes)| visit(entry, &mut &bytes[..]))
    }
}

pub fn options(size: Option<ByteSize>, purpose: Purpose) -> Ext4Options {
    Ext4Options { label: "test".into(), uuid: [7; 16], hash_seed: [9; 16], size, purpose }
}

pub fn archive() -> Archive {
    Archive(vec![b"first".to_vec(), (0..=255).cycle().take(1 << 20).collect(), b"third".to_vec()])
}

fn streamed(entry: usize, size: u64) -> NodeKind<Content> {
    NodeKind::File { size, content: Content::Streamed { source: 0, entry } }
}

pub fn every_kind() -> Tree<Content> {
    let inline = |text: &str| {
        let content = Content::Inline(Arc::from(text.as_bytes()));
        NodeKind::File { size: text.len() as u64, content }
    };
    let symlink = |target: &str| NodeKind::Symlink { target: target.into() };
    let mut tree = Tree::new();
    for (path, kind, mode) in [
        ("", NodeKind::Directory, 0o750),
        ("/bin", NodeKind::Directory, 0o755),
        ("/bin/first", streamed(0, 5), 0o4755),
        ("/large", streamed(1, 1 << 20), 0o600),
        ("/bin/third", streamed(2, 5), 0o644),
        ("/a", NodeKind::HardLink { target: "/bin/first".into() }, 0),
        ("/empty", inline(""), 0o400),
        ("/inline", inline("generated\n"), 0o640),
        ("/short", symlink("bin/first"), 0o777),
        ("/long", symlink(&"x/".repeat(200)), 0o777),
        ("/null", NodeKind::CharDevice { major: 1, minor: 3 }, 0o666),
        ("/loop", NodeKind::BlockDevice { major: 7, minor: 300 }, 0o660),
        ("/pipe", NodeKind::Fifo, 0o600),
    ] {
        let mut node = Node { mtime: 1_700_000_000, ..Node::new(kind, mode) }.owned_by(1000, 100_001);
        if path == "/bin/third" {
            node.xattrs.insert("security.capability".into(), hex::decode(CAPABILITY).unwrap());
            node.xattrs.insert("user.long".into(), vec![b'x'; 300]);
        }
        tree.insert(path, node).unwrap();
    }
    tree.insert("/many", Node::new(NodeKind::Directory, 0o755)).unwrap();
    for number in 0..600 {
        let path = format!("/many/a-name-that-takes-some-room-{number}");
        tree.insert(&path, Node::new(inline("x"), 0o644)).unwrap();
    }
    tree
}

const CAPABILITY: &str = "0100000280000000000000000000000000000000";

/// What both sides are compared by: kind and target or bytes, mode, owner, time.
fn line(kind: &str, mode: u32, uid: u32, gid: u32, mtime: i64) -> String {
    format!("{kind} {mode:o} {uid}:{gid} @{mtime}")
}

fn expected(tree: &Tree<Content>, archive: &Archive) -> BTreeMap<String, String> {
    let of = |(path, node): (&str, &Node<Content>)| {
        let inode = match &node.kind {
            NodeKind::HardLink { target } => tree.get(target).unwrap(),
            _ => node,
        };
        let kind = match &inode.kind {
            NodeKind::Directory => "directory".to_owned(),
            NodeKind::File { content: Content::Inline(bytes), .. } => said(bytes),
            NodeKind::File { content: Content::Streamed { entry, .. }, .. } => said(&archive.0[*entry]),
            NodeKind::Symlink { target } => format!("-> {target}"),
            NodeKind::CharDevice { major, minor } => format!("char {major}:{minor}"),
            NodeKind::BlockDevice { major, minor } => format!("block {major}:{minor}"),
            _ => "pipe".to_owned(),
        };
        (path.to_owned(), line(&kind, u32::from(inode.mode), inode.uid, inode.gid, inode.mtime))
    };
    tree.iter().map(of).collect()
}

fn said(bytes: &[u8]) -> String {
    format!("file {}", sisforge::base::Sha256::of(bytes).short())
}

fn by_another_reader(image: &Path) -> BTreeMap<String, String> {
    let ext4 = open_ext4(image);
    let mut found = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(path) = open.pop() {
        let at = if path.is_empty() { "/" } else { &path };
        let meta = ext4.symlink_metadata(at).unwrap();
        let kind = if meta.is_dir() {
            for entry in ext4.read_dir(at).unwrap() {
                let name = entry.unwrap().file_name().as_str().unwrap().to_owned();
                if !matches!(name.as_str(), "." | ".." | "lost+found") {
                    open.push(format!("{path}/{name}"));
                }
            }
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("-> {}", ext4.read_link(at).unwrap().display())
        } else if meta.file_type().is_regular_file() {
            said(&ext4.read(at).unwrap())
        } else {
            // It does not read device numbers; the kernel does.
            continue;
        };
        let mtime = meta.modified().seconds();
        found.insert(path, line(&kind, u32::from(meta.mode()) & 0o7777, meta.uid(), meta.gid(), mtime));
    }
    found
}

pub fn by_the_kernel(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(path) = open.pop() {
        let at = root.join(path.trim_start_matches('/'));
        let meta = fs::symlink_metadata(&at).unwrap();
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        let kind = if meta.is_dir() {
            for entry in fs::read_dir(&at).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name != "lost+found" {
                    open.push(format!("{path}/{name}"));
                }
            }
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("-> {}", fs::read_link(&at).unwrap().display())
        } else if meta.file_type().is_char_device() {
            format!("char {major}:{minor}")
        } else if meta.file_type().is_block_device() {
            format!("block {major}:{minor}")
        } else if meta.file_type().is_fifo() {
            "pipe".to_owned()
        } else {
            said(&fs::read(&at).unwrap())
        };
        found.insert(path, line(&kind, meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime()));
    }
    found
}

/// Gives what `look` finds in an image that the kernel has mounted; the mount ends with the closure.
pub fn mounted<T>(image: &Path, look: impl FnOnce(&Path) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    Tool::new("mount").args(["-o", "loop"]).arg(image).arg(dir.path()).run().unwrap();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(dir.path())));
    Tool::new("umount").arg(dir.path()).run().unwrap();
    found.unwrap()
}

#[test]
fn a_written_tree_is_read_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let (tree, archive) = (every_kind(), archive());
    write_ext4(&tree, &[&archive], &options(None, Purpose::ReadOnly), None, &image).unwrap();
    e2fsck(&image);
    let mut expected = expected(&tree, &archive);
    let devices: Vec<_> = ["/null", "/loop", "/pipe"].map(|path| expected.remove_entry(path).unwrap()).into();
    assert_eq!(by_another_reader(&image), expected);
    expected.extend(devices);
    if let Some(reason) = missing(&["mount"]) {
        return skip("a_written_tree_is_read_back_the_same", &reason);
    }
    mounted(&image, |root| {
        assert_eq!(by_the_kernel(root), expected);
        let inode = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
        assert_eq!(inode("a"), inode("bin/first"));
        let mut value = vec![0; 400];
        let mut attribute = |name: &str| {
            let length = rustix::fs::getxattr(root.join("bin/third"), name, &mut value).unwrap();
            hex::encode(&value[..length])
        };
        assert_eq!(attribute("security.capability"), CAPABILITY);
        assert_eq!(attribute("user.long"), "78".repeat(300));
        // The kernel can go on where the image ends.
        fs::write(root.join("written"), "by the kernel").unwrap();
    });
    e2fsck(&image);
}

#[test]
fn the_same_inputs_give_the_same_bytes_and_another_seed_gives_others() {
    let write = |options: &Ext4Options| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        write_ext4(&every_kind(), &[&archive()], options, None, &path).unwrap();
        sisforge::base::Sha256::of(fs::read(path).unwrap())
    };
    let given = options(None, Purpose::ReadOnly);
    assert_eq!(write(&given), write(&given));
    assert_ne!(write(&given), write(&Ext4Options { hash_seed: [8; 16], ..given.clone() }));
    assert_ne!(write(&given), write(&Ext4Options { uuid: [8; 16], ..given.clone() }));
}

#[test]
fn a_size_that_is_too_small_is_refused_with_one_that_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let mut tree = every_kind();
    let large = 20 << 20;
    tree.insert("/larger", Node::new(streamed(3, large), 0o644)).unwrap();
    let mut archive = archive();
    archive.0.push(vec![1; large as usize]);
    let write = |mib| {
        write_ext4(
            &tree,
            &[&archive],
            &options(Some(ByteSize::from_mib(mib)), Purpose::ReadOnly),
            None,
            &path,
        )
    };
    let Err(Ext4Error::TooSmall { needed, .. }) = write(16) else { panic!("it was written") };
    assert!(matches!(write(needed.mib() - 1), Err(Ext4Error::TooSmall { .. })), "{needed}");
    write(needed.mib()).unwrap();
    assert!(needed.mib() <= 29, "{needed} for 21 MiB and a journal of 4 MiB");
    e2fsck(&path);
}

#[test]
fn a_data_disk_takes_no_more_room_than_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    for (gib, allocated_mib) in [(1, 1), (100, 16)] {
        let size = ByteSize::from_mib(gib << 10);
        write_ext4(&every_kind(), &[&archive()], &options(Some(size), Purpose::ReadWrite), None, &path)
            .unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), size.bytes());
        let allocated = (meta.blocks() * 512) >> 20;
        assert!(allocated <= allocated_mib + 3, "{gib} GiB takes {allocated} MiB");
    }
    e2fsck(&path);
}

/// A file that is not all there.
struct Short;

impl SequentialArchive for Short {
    fn each_file(&self, visit: Visit<'_>) -> Result<(), Ext4Error> {
        visit(0, &mut std::io::empty().take(0))
    }
}

#[test]
fn a_file_that_is_not_all_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let mut tree = Tree::new();
    tree.insert("/f", Node::new(streamed(0, 5), 0o644)).unwrap();
    let given = options(None, Purpose::ReadOnly);
    let write = |sources: &[&dyn SequentialArchive]| {
        write_ext4(&tree, sources, &given, None, &path).unwrap_err().to_string()
    };
    assert_eq!(write(&[&Short]), "cannot read /f");
    assert_eq!(write(&[&Archive(Vec::new())]), "1 files of the tree have no source");
    assert_eq!(write(&[]), "1 files of the tree have no source");
}

#[test]
fn what_e2fsck_finds_has_one_place() {
    let with = |nodes: &[(&str, NodeKind<Content>)]| {
        let mut tree = Tree::new();
        for (path, kind) in nodes {
            tree.insert(path, Node::new(kind.clone(), 0o755)).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.ext4");
        let written = write_ext4(&tree, &[], &options(None, Purpose::ReadOnly), None, &path).map(drop);
        if written.is_ok() {
            e2fsck(&path);
            let back = read_back(&path, &tree, &[], &options(None, Purpose::ReadOnly)).unwrap();
            assert_eq!(back.mismatches, []);
        }
        written
    };
    let place = "/lost+found";
    with(&[(place, NodeKind::Directory)]).unwrap();
    for wrong in
        [vec![(place, NodeKind::Fifo)], vec![(place, NodeKind::Directory), ("/lost+found/x", NodeKind::Fifo)]]
    {
        let error = with(&wrong).unwrap_err();
        assert!(error.to_string().starts_with("/lost+found must be an empty directory"), "{error}");
    }
}

#[test]
fn times_beyond_those_of_ext4_are_its_last_and_first() {
    let mut tree = Tree::new();
    let times =
        [("/future", i64::MAX), ("/past", i64::MIN), ("/last", 15_032_385_535), ("/2400", 13_569_465_600)];
    for (path, mtime) in times {
        tree.insert(path, Node { mtime, ..Node::new(NodeKind::Fifo, 0o600) }).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.ext4");
    write_ext4(&tree, &[], &options(None, Purpose::ReadOnly), None, &path).unwrap();
    e2fsck(&path);
    let volume = Volume::open(&path).unwrap();
    let found = Inventory::of(&volume).unwrap();
    let time = |path: &str| found.get(path).unwrap().mtime;
    assert_eq!(
        (time("/future"), time("/last"), time("/2400")),
        (15_032_385_535, 15_032_385_535, 13_569_465_600)
    );
    assert_eq!(time("/past"), -2_147_483_648);
    let back = read_back(&path, &tree, &[], &options(None, Purpose::ReadOnly)).unwrap();
    assert_eq!(back.mismatches, []);
}

#[test]
fn the_largest_disk_that_a_fleet_may_have_can_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    let mut tree = Tree::new();
    tree.insert("", Node::new(NodeKind::Directory, 0o700)).unwrap();
    let size = ByteSize::from_mib((16 << 20) - 1);
    write_ext4(&tree, &[], &options(Some(size), Purpose::ReadWrite), None, &path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), size.bytes());
}
