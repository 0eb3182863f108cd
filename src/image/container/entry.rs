//! One entry of a layer, and where it goes: by the rules of containers/storage, which unpacks within the layer's directory as root
//! of a file system, so that links of the layer are followed and lead nowhere else.

use super::super::tree::{Node, NodeKind, Tree, escaped, parent_of};
use super::tar::{EntryType, Header};

/// An entry that changes the tree; `path` as it is written, without what says nothing.
pub(super) struct LayerEntry {
    pub path: String,
    /// `None` for devices, which an unprivileged user cannot make: what is in their place goes.
    pub node: Option<Node<usize>>,
}

impl LayerEntry {
    /// `None` for what is no file. Otherwise why it is refused.
    pub fn of(number: usize, header: &Header) -> Result<Option<Self>, String> {
        let path = tree_path(&header.path).ok_or("leads out of the layer")?;
        let kind = match header.kind {
            EntryType::File => NodeKind::File { size: header.size, content: number },
            EntryType::Directory => NodeKind::Directory,
            EntryType::Symlink if header.link.is_empty() => {
                return Err("is a hard link to a missing file".into());
            }
            EntryType::Symlink => NodeKind::Symlink { target: escaped(&header.link) },
            EntryType::HardLink => NodeKind::HardLink { target: within(&header.link) },
            EntryType::Fifo => NodeKind::Fifo,
            EntryType::Device => return Ok(Some(Self { path, node: None })),
            EntryType::Global => return Ok(None),
            EntryType::Unknown(flag) => {
                return Err(format!("has an unsupported type ('{}')", flag.escape_ascii()));
            }
        };
        let id = |id: u64| u32::try_from(id).map_err(|_| "has an owner whose number is too large");
        let mut node = Node::new(kind, header.mode as u16).owned_by(id(header.uid)?, id(header.gid)?);
        node.mtime = stored_time(header);
        let kept = header.xattrs.iter().filter(|(name, _)| may_set(name));
        node.xattrs = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Some(Self { path, node: Some(node) }))
    }
}

/// The time that containers/storage sets: that of the epoch for one that Go's `time.Duration` does not reach from there
/// (`Chtimes`); of a symlink whatever is stated.
fn stored_time(header: &Header) -> i64 {
    const LAST: i64 = i64::MAX / 1_000_000_000;
    let is_set = header.kind == EntryType::Symlink || (0..=LAST).contains(&header.mtime);
    if is_set { header.mtime } else { 0 }
}

/// Attributes that an unprivileged user can set and that mean nothing to overlayfs.
fn may_set(name: &str) -> bool {
    name == "security.capability" || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

/// `./etc/motd`, `/etc/motd`, `etc/x/../motd` and `etc/motd/` are `/etc/motd`; the root is the empty path. `None` for a relative
/// name that leads above the root.
fn tree_path(name: &[u8]) -> Option<String> {
    let mut path = String::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if path.is_empty() && !name.starts_with(b"/") => return None,
            b".." => path.truncate(parent_of(&path).len()),
            part => {
                path.push('/');
                path.push_str(&escaped(part));
            }
        }
    }
    Some(path)
}

/// The path of a name that is looked up in the layer alone, where the parent of the root is the root.
fn within(name: &[u8]) -> String {
    tree_path(&[b"/", name].concat()).unwrap_or_default()
}

/// What stands in the way of a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Something above it is no directory.
    NoDirectory(String),
    /// A link above it leads to nothing in the layer, or in a circle.
    DeadLink(String),
}

impl std::fmt::Display for Blocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoDirectory(path) => write!(f, "is below {path}, which is not a directory"),
            Self::DeadLink(path) => {
                write!(f, "is below the link {path}, which does not lead to a directory of the layer")
            }
        }
    }
}

/// Where a path of a layer is, links above it followed; what is missing is left as it is.
pub(super) fn placed<C>(tree: &Tree<C>, path: &str) -> Result<String, Blocked> {
    let mut real = String::new();
    let parent = parent_of(path);
    for part in parent.split('/').filter(|part| !part.is_empty()) {
        let next = format!("{real}/{part}");
        real = match tree.get(&next).map(|node| &node.kind) {
            None | Some(NodeKind::Directory) => next,
            Some(NodeKind::Symlink { .. }) => {
                let target = tree.real_path_within(&format!("{next}/."));
                let is_directory = |path: &String| tree.get(path).is_some_and(Node::is_directory);
                target.filter(is_directory).ok_or(Blocked::DeadLink(next))?
            }
            Some(_) => return Err(Blocked::NoDirectory(next)),
        };
    }
    Ok(format!("{real}{}", &path[parent.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_within_its_layer() {
        let path = |name: &[u8]| tree_path(name);
        assert_eq!(path(b"./etc/motd").unwrap(), "/etc/motd");
        assert_eq!(path(b"/etc/").unwrap(), "/etc");
        assert_eq!(path(b"./").unwrap(), "");
        assert_eq!(path(b"etc/../x").unwrap(), "/x");
        assert_eq!(path(b"/../x").unwrap(), "/x");
        assert_eq!(path(b"etc/../../x"), None);
        assert_eq!(within(b"../../x"), "/x");
    }

    #[test]
    fn links_above_a_path_are_followed_within_the_layer() {
        let mut tree: Tree<usize> = Tree::new();
        let link = |target: &str| Node::new(NodeKind::Symlink { target: target.into() }, 0o777);
        tree.insert("/usr", Node::new(NodeKind::Directory, 0o755)).unwrap();
        tree.insert("/usr/bin", Node::new(NodeKind::Directory, 0o755)).unwrap();
        tree.insert("/bin", link("../../usr/bin")).unwrap();
        tree.insert("/lib", link("usr/lib")).unwrap();
        tree.insert("/file", Node::new(NodeKind::File { size: 0, content: 0 }, 0o644)).unwrap();
        assert_eq!(placed(&tree, "/bin/true").unwrap(), "/usr/bin/true");
        assert_eq!(placed(&tree, "/bin/new/true").unwrap(), "/usr/bin/new/true");
        assert_eq!(placed(&tree, "/bin").unwrap(), "/bin");
        assert_eq!(placed(&tree, "").unwrap(), "");
        assert_eq!(placed(&tree, "/lib/x"), Err(Blocked::DeadLink("/lib".into())));
        assert_eq!(placed(&tree, "/file/x"), Err(Blocked::NoDirectory("/file".into())));
    }

    #[test]
    fn a_layer_cannot_forge_what_overlayfs_reads() {
        assert!(may_set("user.mime"));
        assert!(may_set("security.capability"));
        for name in ["user.overlay.redirect", "trusted.overlay.opaque", "security.selinux"] {
            assert!(!may_set(name), "{name}");
        }
    }
}
