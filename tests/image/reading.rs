//! Images read by sisforge: its own against what they were made of, those of mke2fs, and such as are damaged or forged.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use proptest::test_runner::{RngAlgorithm, TestRng};
use sisforge::base::ByteSize;
use sisforge::image::content::Content;
use sisforge::image::ext4::{AUTO_MARGIN, Purpose, write_ext4};
use sisforge::image::inspect::InspectedImage;
use sisforge::image::read::{InodeKind, Inventory, Volume, VolumeInfo};
use sisforge::image::read_back::{Mismatch, read_back};
use sisforge::image::tree::{Node, NodeKind, Tree};
use sisforge::sys::tool::{self, Tool};

use super::ext4::{Archive, archive, every_kind, options};
use super::{e2fsck, missing, skip};
use crate::apk::oracle::data;

/// An image of every kind of file, in a directory that goes with it.
fn written() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    write_ext4(&every_kind(), &[&archive()], &options(None, Purpose::ReadOnly), None, &image).unwrap();
    (dir, image)
}

/// An error and its cause.
fn refused(image: &Path) -> String {
    let error = InspectedImage::read(image).map(|opened| opened.inventory.len()).unwrap_err();
    format!("{error}: {}", std::error::Error::source(&error).unwrap())
}

#[test]
fn an_image_is_read_back_as_it_was_to_be() {
    let (_dir, image) = written();
    let tree = every_kind();
    let found = read_back(&image, &tree, &[&archive()], &options(None, Purpose::ReadOnly)).unwrap();
    assert_eq!(found.mismatches, []);
    assert_eq!(found.paths, tree.len());
    assert_eq!(found.bytes, 5 + (1 << 20) + 5 + 10 + 600);
}

/// A change to a tree, and what reading an image of the unchanged one then tells.
type Change<'a> = (&'a str, &'a str, &'a dyn Fn(&mut Node<Content>));

#[test]
fn everything_that_is_not_as_it_was_to_be_is_found() {
    let (_dir, image) = written();
    let changes: [Change; 9] = [
        ("/", "its mode is 750, not 700", &|node| node.mode = 0o700),
        ("/bin/third", "its owner is 1000:100001, not 0:100001", &|node| node.uid = 0),
        ("/large", "its owner is 1000:100001, not 1000:0", &|node| node.gid = 0),
        ("/empty", "its time is 1700000000, not 1700000001", &|node| node.mtime += 1),
        ("/pipe", "its attributes are , not user.a=62", &|node| {
            node.xattrs.insert("user.a".into(), b"b".to_vec());
        }),
        ("/short", "its target is bin/first, not bin/third", &|node| {
            node.kind = NodeKind::Symlink { target: "bin/third".into() };
        }),
        ("/loop", "its device is 7:300, not 7:301", &|node| {
            node.kind = NodeKind::BlockDevice { major: 7, minor: 301 };
        }),
        ("/null", "it is a character device, not a named pipe", &|node| node.kind = NodeKind::Fifo),
        ("/inline", "its content differs", &|node| {
            node.kind = NodeKind::File { size: 10, content: Content::Inline((*b"Generated\n").into()) };
        }),
    ];
    let differing = |tree: &Tree<Content>, archive: &Archive| {
        read_back(&image, tree, &[archive], &options(None, Purpose::ReadOnly)).unwrap().mismatches
    };
    let mismatch = |path: &str, what: &str| Mismatch { path: path.into(), what: what.into() };
    for (path, what, change) in changes {
        let mut tree = every_kind();
        let at = if path == "/" { "" } else { path };
        let mut node = tree.get(at).unwrap().clone();
        change(&mut node);
        tree.insert(at, node).unwrap();
        let what = what.replace("attributes are", "attributes is");
        assert_eq!(differing(&tree, &archive()), [mismatch(path, &what)]);
    }

    let mut tree = every_kind();
    tree.insert("/more", Node::new(NodeKind::Fifo, 0o600)).unwrap();
    assert_eq!(differing(&tree, &archive()), [mismatch("/more", "it is not there")]);
    let mut tree = every_kind();
    tree.insert("/b", Node::new(NodeKind::HardLink { target: "/bin/third".into() }, 0)).unwrap();
    let found = differing(&tree, &archive());
    assert_eq!(
        found,
        [mismatch("/b", "it is not there"), mismatch("/bin/third", "its number of names is 1, not 2")]
    );
    let mut tree = every_kind();
    tree.insert("/a", Node::new(NodeKind::HardLink { target: "/bin/third".into() }, 0)).unwrap();
    assert!(differing(&tree, &archive()).contains(&mismatch("/a", "it is not a hard link to /bin/third")));
    // Nothing but the root was wanted.
    let all = differing(&Tree::new(), &archive());
    assert!(all.contains(&mismatch("/bin/third", "this file is unexpected")), "{all:?}");
    let mut changed = archive();
    changed.0[1][700_000] ^= 1;
    assert_eq!(differing(&every_kind(), &changed), [mismatch("/large", "its content differs")]);
    let mut other = options(Some(ByteSize::from_mib(99)), Purpose::ReadOnly);
    (other.label, other.uuid) = ("other".into(), [9; 16]);
    let found = read_back(&image, &every_kind(), &[&archive()], &other).unwrap().mismatches;
    assert_eq!(found.iter().filter(|found| found.path == "the file system").count(), 3, "{found:?}");
}

#[test]
fn sizes_margin_and_journal_are_what_is_said_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    // More than the least size of a file system, a quarter of which may be a journal.
    let (mut tree, mut archive) = (every_kind(), archive());
    let content = Content::Streamed { source: 0, entry: archive.0.len() };
    tree.insert("/larger", Node::new(NodeKind::File { size: 20 << 20, content }, 0o644)).unwrap();
    archive.0.push(vec![1; 20 << 20]);
    let facts = |size: Option<u64>| {
        let given = options(size.map(ByteSize::from_mib), Purpose::ReadOnly);
        write_ext4(&tree, &[&archive], &given, None, &image).unwrap();
        e2fsck(&image);
        let facts = Volume::open(&image).unwrap().facts().unwrap();
        assert_eq!(fs::metadata(&image).unwrap().len(), facts.size);
        facts
    };
    let auto = facts(None);
    let margin = AUTO_MARGIN.bytes();
    // What is needed is estimated from above, and the whole is rounded up to a MiB.
    assert!((margin..margin + (3 << 20)).contains(&auto.free), "{auto:?}");
    assert_eq!(auto.size % (1 << 20), 0);
    // JBD2_MIN_JOURNAL_BLOCKS of 4 KiB, the least that the kernel takes.
    assert_eq!(auto.journal, 4 << 20);
    // Each group's table is rounded up to a block of sixteen.
    assert!(auto.free_inodes < 32, "a root that is only read needs no more files: {auto:?}");
    assert_eq!((auto.label.as_str(), auto.uuid.as_str()), ("test", "07070707-0707-0707-0707-070707070707"));
    let exact = facts(Some(300));
    assert_eq!((exact.size, exact.journal), (300 << 20, 4 << 20));
    for VolumeInfo { allocated, size, .. } in [auto, exact] {
        assert!(allocated < (25 << 20) + size / 512, "{allocated} of {size} bytes are on disk");
    }
}

#[test]
fn a_file_that_is_no_image_is_refused_with_the_reason() {
    let (dir, image) = written();
    let good = fs::read(&image).unwrap();
    let other = dir.path().join("other");
    let with = |bytes: &[u8]| {
        fs::write(&other, bytes).unwrap();
        refused(&other)
    };
    let is = |text: String, reason: &str| {
        assert!(text.starts_with("cannot read the image "), "{text}");
        assert!(text.contains(reason), "{reason}: {text}");
    };
    is(with(b""), "it is not an ext4 file system that can be read: it has 0 bytes");
    is(with(&[0; 4096]), "bad magic 0x0000");
    is(with(&good[..good.len() / 2]), "it is truncated");
    is(refused(dir.path()), "it is a directory");
    is(refused(&dir.path().join("none")), "it cannot be opened");
    let changed = |place: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[place] = value;
        with(&bytes)
    };
    is(changed(1024 + 0x18, 60), "its blocks are not of 4096 bytes");
    is(changed(1024 + 0x20, 1), "contradict each other");
    is(changed(1024 + 0x07, 0xff), "it is truncated");
    is(changed(1024 + 0x60, 0x46), "it was not unmounted");
    is(changed(1024 + 0x78, b'x'), "checksum");
}

#[test]
fn a_directory_whose_checksum_is_wrong_is_refused() {
    if tool::find("debugfs").is_none() {
        return skip("a_directory_whose_checksum_is_wrong_is_refused", "debugfs is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let mut tree: Tree<Content> = Tree::new();
    for name in ["/few", "/many"] {
        tree.insert(name, Node::new(NodeKind::Directory, 0o755)).unwrap();
    }
    tree.insert("/few/one", Node::new(NodeKind::Fifo, 0o644)).unwrap();
    for number in 0..600 {
        let path = format!("/many/a-name-that-takes-some-room-{number}");
        tree.insert(&path, Node::new(NodeKind::Fifo, 0o644)).unwrap();
    }
    write_ext4(&tree, &[], &options(None, Purpose::ReadOnly), None, &image).unwrap();
    assert_eq!(InspectedImage::read(&image).unwrap().inventory.len(), tree.len());
    let good = fs::read(&image).unwrap();
    let blocks = |path: &str| -> Vec<usize> {
        let said = Tool::new("debugfs").args(["-R", &format!("blocks {path}")]).arg(&image).output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        text.split_whitespace().map(|block| block.parse().unwrap()).collect()
    };
    let many = blocks("/many");
    assert!(many.len() > 5, "an index and its leaves: {many:?}");
    for block in many.into_iter().chain(blocks("/few")) {
        // Within the first name or entry of the index; the sum itself.
        for place in [0x26, 4094] {
            let mut bytes = good.clone();
            bytes[block * 4096 + place] ^= 1;
            fs::write(&image, &bytes).unwrap();
            let text = refused(&image);
            assert!(text.contains(&format!("the checksum of block {block} is wrong")), "{place}: {text}");
        }
    }
}

/// An image of mke2fs, in which sums do not give damage away.
fn without_sums(dir: &Path) -> PathBuf {
    let (tree, image) = (dir.join("tree"), dir.join("forged"));
    for name in ["d", "many"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    fs::write(tree.join("d/file"), vec![b'x'; 9000]).unwrap();
    fs::hard_link(tree.join("d/file"), tree.join("d/file-too")).unwrap();
    std::os::unix::fs::symlink("x/".repeat(100), tree.join("long")).unwrap();
    for number in 0..200 {
        fs::write(tree.join(format!("many/a-name-that-takes-some-room-{number}")), "x").unwrap();
    }
    fs::File::create(&image).unwrap().set_len(2 << 20).unwrap();
    let call = Tool::new("mke2fs").args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-O",
        "^metadata_csum,^has_journal",
        "-d",
    ]);
    call.arg(&tree).arg(&image).run().unwrap();
    image
}

fn debugfs(image: &Path, request: &str) {
    let said = Tool::new("debugfs").args(["-w", "-R", request]).arg(image).output().unwrap();
    assert!(said.status.success(), "{said:?}");
}

#[test]
fn a_forged_image_is_refused_with_the_place() {
    if tool::find("debugfs").is_none() || tool::find("mke2fs").is_none() {
        return skip("a_forged_image_is_refused_with_the_place", "e2fsprogs is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let good = without_sums(dir.path());
    let forged = |requests: &[&str]| {
        let image = dir.path().join("one");
        fs::copy(&good, &image).unwrap();
        requests.iter().for_each(|request| debugfs(&image, request));
        image
    };
    let is = |requests: &[&str], reason: &str| {
        let text = refused(&forged(requests));
        assert!(text.contains(reason), "{reason}: {text}");
    };
    is(&["link /d /d/again"], "this directory has a second name");
    is(&["link <2> /d/root"], "this directory has a second name");
    is(&["sif /d size 4611686018427387904"], "/d: corrupt directory: it is cut");
    is(
        &["sif /long size 1152921504606846976"],
        "/long: corrupt symlink: its target has 1152921504606846976 bytes",
    );
    is(&["sif /d/file mode 070000"], "has an unknown file type");
    is(&["sif /many block[0] 0"], "/many: corrupt extent tree: it has no root");

    // A size that nobody has room for is told only where the bytes are wanted.
    let image = forged(&["sif /d/file size 1152921504606846976"]);
    let volume = Volume::open(&image).unwrap();
    let inventory = Inventory::of(&volume).unwrap();
    let file = inventory.get("/d/file").unwrap();
    assert_eq!(file.size(), 1 << 60);
    assert!(volume.bytes_of(file.inode).is_err());
}

#[test]
fn no_damage_makes_reading_fail_otherwise_than_with_an_error() {
    if tool::find("mke2fs").is_none() {
        return skip("no_damage_makes_reading_fail_otherwise_than_with_an_error", "mke2fs is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let good = fs::read(without_sums(dir.path())).unwrap();
    let image = dir.path().join("damaged");
    // Blocks that hold something are those whose damage is seen.
    let used: Vec<usize> = (0..good.len()).step_by(64).filter(|at| good[*at..*at + 64] != [0; 64]).collect();
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    const ROUNDS: usize = 600;
    let mut refusals = 0;
    for _ in 0..ROUNDS {
        use proptest::prelude::RngCore;
        let mut bytes = good.clone();
        for _ in 0..4 {
            let place = used[random.next_u32() as usize % used.len()] + random.next_u32() as usize % 64;
            bytes[place] = random.next_u32() as u8;
        }
        fs::write(&image, bytes).unwrap();
        match InspectedImage::read(&image) {
            Err(_) => refusals += 1,
            Ok(opened) => {
                for (_, entry) in opened.inventory.iter().filter(|(_, entry)| entry.size() > 0) {
                    if let Ok(mut reader) = opened.volume.bytes_of(entry.inode) {
                        let _ = std::io::copy(&mut reader, &mut std::io::sink());
                    }
                }
            }
        }
    }
    assert!(refusals > 50, "{refusals} of {ROUNDS} were refused: the damage is not where it is read");
}

/// Alpine's own minimal root in an image of mke2fs; beside it the root itself. `None`, said aloud, where it
/// cannot be made.
pub fn alpine(test: &str, dir: &Path) -> Option<(PathBuf, PathBuf)> {
    let archive = data("alpine-minirootfs-3.20.3-x86_64.tar.gz")?;
    if tool::find("mke2fs").is_none() {
        skip(test, "mke2fs is not installed");
        return None;
    }
    let (root, image) = (dir.join("root"), dir.join("image"));
    fs::create_dir(&root).unwrap();
    Tool::new("tar").args(["--exclude", "./dev", "-xzf"]).arg(archive).arg("-C").arg(&root).run().unwrap();
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let call = Tool::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-b", "4096", "-L", "alpine", "-d"]);
    call.arg(&root).arg(&image).run().unwrap();
    Some((image, root))
}

#[test]
fn an_image_of_mke2fs_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let Some((image, root)) = alpine("an_image_of_mke2fs_is_read", dir.path()) else { return };
    let opened = InspectedImage::read(&image).unwrap();
    for (path, entry) in opened.inventory.iter() {
        use std::os::unix::fs::MetadataExt;
        let at = root.join(path.trim_start_matches('/'));
        let meta = fs::symlink_metadata(&at).unwrap();
        assert_eq!(u32::from(entry.mode), meta.mode() & 0o7777, "{path}");
        assert_eq!((entry.uid, entry.gid), (meta.uid(), meta.gid()), "{path}");
        match &entry.kind {
            InodeKind::Directory => assert!(meta.is_dir(), "{path}"),
            InodeKind::Symlink { target } => assert_eq!(Path::new(target), fs::read_link(&at).unwrap()),
            InodeKind::File { .. } => {
                let mut bytes = Vec::new();
                opened.volume.bytes_of(entry.inode).unwrap().read_to_end(&mut bytes).unwrap();
                assert!(bytes == fs::read(&at).unwrap(), "{path}");
            }
            kind => panic!("{path} is a {}", kind.name()),
        }
    }
    let text = Tool::new("find").arg(&root).text().unwrap();
    assert_eq!(opened.inventory.len(), text.lines().count());
    let system = &opened.system;
    assert_eq!((system.distribution.as_deref(), system.arch.as_deref()), (Some("alpine"), Some("x86_64")));
    assert_eq!(system.packages.len(), 14);
    assert_eq!(system.users.first().map(|user| user.name.as_str()), Some("root"));
}

/// Asserts that the kernel, which mounts an image read-only, sees in it what reading it has found: every
/// path, mode, owner,
/// time, attribute, link, device and byte. Not done, said aloud, where nothing can be mounted.
pub fn is_what_the_kernel_sees(test: &str, image: &Path) {
    if let Some(reason) = missing(&["mount"]) {
        return skip(test, &reason);
    }
    let opened = InspectedImage::read(image).unwrap();
    let dir = tempfile::tempdir().unwrap();
    Tool::new("mount").args(["-t", "ext4", "-o", "loop,ro"]).arg(image).arg(dir.path()).run().unwrap();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compare(&opened, dir.path())));
    Tool::new("umount").arg(dir.path()).run().unwrap();
    found.unwrap();
}

fn compare(opened: &InspectedImage, root: &Path) {
    use std::os::unix::fs::MetadataExt;
    for (path, entry) in opened.inventory.iter() {
        let at = root.join(path.trim_start_matches('/'));
        let meta = fs::symlink_metadata(&at).unwrap();
        let numbers = [entry.mode.into(), entry.uid, entry.gid];
        assert_eq!([meta.mode() & 0o7777, meta.uid(), meta.gid()], numbers, "{path}");
        assert_eq!((meta.mtime(), meta.ino()), (entry.mtime, u64::from(entry.inode)), "{path}");
        let device = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        match &entry.kind {
            InodeKind::Directory => assert!(meta.is_dir(), "{path}"),
            InodeKind::File { size } => {
                assert_eq!((meta.nlink(), meta.len()), (u64::from(entry.links), *size), "{path}");
                let mut bytes = Vec::new();
                opened.volume.bytes_of(entry.inode).unwrap().read_to_end(&mut bytes).unwrap();
                assert!(bytes == fs::read(&at).unwrap(), "the bytes of {path}");
            }
            InodeKind::Symlink { target } => assert_eq!(fs::read_link(&at).unwrap(), Path::new(target)),
            InodeKind::CharDevice { major, minor } | InodeKind::BlockDevice { major, minor } => {
                assert_eq!(device, (*major, *minor), "{path}");
            }
            InodeKind::Fifo | InodeKind::Socket => {}
        }
        let mut names = vec![0; 4096];
        let length = rustix::fs::llistxattr(&at, &mut names).unwrap();
        let names = String::from_utf8(names[..length].to_vec()).unwrap();
        let mut seen: Vec<_> = names.split_terminator('\0').collect();
        seen.sort_unstable();
        assert_eq!(seen, entry.xattrs.keys().map(String::as_str).collect::<Vec<_>>(), "{path}");
        for (name, value) in &entry.xattrs {
            let mut bytes = vec![0; 4096];
            let length = rustix::fs::lgetxattr(&at, name.as_str(), &mut bytes).unwrap();
            assert_eq!(bytes[..length], value[..], "{path} {name}");
        }
    }
    let walked = Tool::new("find").arg(root).args(["-path", "*/lost+found", "-prune", "-o", "-print"]);
    assert_eq!(walked.text().unwrap().lines().count(), opened.inventory.len());
}

#[test]
fn the_kernel_sees_what_is_read() {
    let (_dir, image) = written();
    is_what_the_kernel_sees("the_kernel_sees_what_is_read", &image);
}
