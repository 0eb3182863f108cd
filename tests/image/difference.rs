//! What differs between two images, one change at a time.

use std::path::Path;

use sisforge::image::content::Content;
use sisforge::image::difference::{Aspect, Difference};
use sisforge::image::ext4::{Purpose, write_ext4};
use sisforge::image::inspect::InspectedImage;
use sisforge::image::tree::{Node, NodeKind, Tree};

use super::ext4::{Archive, archive, every_kind, options};

fn image(dir: &Path, name: &str, tree: &Tree<Content>, archive: &Archive) -> InspectedImage {
    let path = dir.join(name);
    write_ext4(tree, &[archive], &options(None, Purpose::ReadOnly), None, &path).unwrap();
    InspectedImage::read(&path).unwrap()
}

/// A path, how its node is changed, and in what it then differs.
type Change<'a> = (&'a str, &'a [Aspect], &'a dyn Fn(&mut Node<Content>));

#[test]
fn each_change_of_a_file_is_told_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let before = image(dir.path(), "before", &every_kind(), &archive());
    let inline =
        |text: &[u8]| NodeKind::File { size: text.len() as u64, content: Content::Inline(text.into()) };
    let changes: [Change; 11] = [
        ("/inline", &[Aspect::Content], &|node| node.kind = inline(b"Generated\n")),
        ("/inline", &[Aspect::Content], &|node| node.kind = inline(b"more")),
        ("/short", &[Aspect::Target], &|node| node.kind = NodeKind::Symlink { target: "bin".into() }),
        ("/null", &[Aspect::Device], &|node| node.kind = NodeKind::CharDevice { major: 1, minor: 5 }),
        ("/null", &[Aspect::Kind], &|node| node.kind = NodeKind::BlockDevice { major: 1, minor: 3 }),
        ("/empty", &[Aspect::Kind, Aspect::Mode], &|node| (node.kind, node.mode) = (NodeKind::Fifo, 0o600)),
        ("/many", &[Aspect::Mode], &|node| node.mode = 0o1777),
        ("/bin", &[Aspect::Owner], &|node| node.gid = 5),
        ("/bin/third", &[Aspect::Attributes], &|node| drop(node.xattrs.remove("user.long"))),
        ("/large", &[], &|node| node.mtime += 1),
        ("", &[Aspect::Mode], &|node| node.mode = 0o755),
    ];
    for (path, what, change) in changes {
        let mut tree = every_kind();
        let mut node = tree.get(path).unwrap().clone();
        change(&mut node);
        tree.insert(path, node).unwrap();
        let after = image(dir.path(), "after", &tree, &archive());
        let told = |times| Difference::between(&before, &after, times).unwrap();
        let found: Vec<_> = told(false).files.into_iter().map(|file| (file.path, file.what)).collect();
        let shown = if path.is_empty() { "/" } else { path };
        if what.is_empty() {
            assert_eq!((found, told(false).times_alone), (Vec::new(), 1), "{path}");
            assert_eq!(told(true).files[0].what, [Aspect::Time]);
        } else {
            assert_eq!(found, [(shown.to_owned(), what.to_vec())]);
        }
    }
}

#[test]
fn names_and_privileges_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let before = image(dir.path(), "before", &every_kind(), &archive());
    let mut tree = every_kind();
    tree.insert("/b", Node::new(NodeKind::HardLink { target: "/bin/first".into() }, 0)).unwrap();
    let mut third = tree.get("/bin/third").unwrap().clone();
    third.xattrs.remove("security.capability");
    tree.insert("/bin/third", third).unwrap();
    let after = image(dir.path(), "after", &tree, &archive());
    let found = Difference::between(&before, &after, false).unwrap();
    let files: Vec<_> = found.files.iter().map(|file| (file.path.as_str(), file.what.as_slice())).collect();
    assert_eq!(
        files,
        [
            ("/a", &[Aspect::Names][..]),
            ("/b", &[]),
            ("/bin/first", &[Aspect::Names]),
            ("/bin/third", &[Aspect::Attributes]),
        ]
    );
    // The new name of a setuid file is another way to it.
    let privileges: Vec<_> = found.privileged.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(privileges, ["/b", "/bin/third"]);
    let lost = found.privileged[1].from.as_ref().unwrap();
    assert_eq!((lost.capabilities.as_deref(), &found.privileged[1].to), (Some("cap_setuid=ep"), &None));
    assert!(Difference::between(&before, &before, true).unwrap().is_empty());
}
