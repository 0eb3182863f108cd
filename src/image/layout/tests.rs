use std::fs;

use crate::apk::{Contents, PackageInfo, pack};
use crate::fleet::{FileContent, SourceFiles};
use crate::image::recipe::Parameters;

use super::*;

/// Builds packages of a few files.
struct Package {
    info: PackageInfo,
    tar: tar::Builder<Vec<u8>>,
}

fn package(name: &str) -> Package {
    let info = PackageInfo::new(name, "1-r0".parse().unwrap(), "noarch").unwrap();
    Package { info, tar: tar::Builder::new(Vec::new()) }
}

impl Package {
    fn add(mut self, kind: tar::EntryType, path: &str, mode: u32, owner: &str, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(7);
        header.set_mtime(1_700_000_000);
        header.set_username(owner).unwrap();
        header.set_groupname(owner).unwrap();
        if matches!(kind, tar::EntryType::Link | tar::EntryType::Symlink) {
            header.set_size(0);
            self.tar.append_link(&mut header, path, std::str::from_utf8(bytes).unwrap()).unwrap();
        } else {
            header.set_size(bytes.len() as u64);
            self.tar.append_data(&mut header, path, bytes).unwrap();
        }
        self
    }

    fn directory(self, path: &str, mode: u32) -> Self {
        self.add(tar::EntryType::Directory, path, mode, "root", b"")
    }

    fn file(self, path: &str, text: &str) -> Self {
        self.add(tar::EntryType::Regular, path, 0o644, "root", text.as_bytes())
    }

    fn replaces(mut self, other: &str, priority: Option<i64>) -> Self {
        self.info.replaces.push(other.parse().unwrap());
        self.info.replaces_priority = priority;
        self
    }

    fn origin(mut self, origin: &str) -> Self {
        self.info.origin = Some(origin.to_owned());
        self
    }

    fn packed(self) -> PackageContents {
        let contents = Contents::from_tar(&self.tar.into_inner().unwrap()[..]).unwrap();
        let packed = pack(self.info, contents, None).unwrap();
        PackageContents::inspect(packed.bytes.as_slice().into()).unwrap()
    }
}

fn recipes(text: &str) -> Recipes {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("recipes/r")).unwrap();
    fs::write(dir.path().join("recipes/r/recipe.toml"), format!("description = \"\"\n{text}")).unwrap();
    Recipes::load(&["r".parse().unwrap()], &Parameters::new(), &SourceFiles::new(dir.path())).unwrap()
}

fn laid_out(packages: &[PackageContents], recipe: &str) -> Result<Tree<Content>, String> {
    rootfs(packages, &recipes(recipe), &BTreeMap::new(), &ApkSettings::default())
        .map(|rootfs| rootfs.tree)
        .map_err(|error| error.to_string())
}

/// Number of the package whose file stands at a path.
fn source_of(tree: &Tree<Content>, path: &str) -> usize {
    match &tree.get(path).unwrap().kind {
        NodeKind::File { content: Content::Streamed { source, .. }, .. } => *source,
        other => panic!("{path} is {other:?}"),
    }
}

fn two(first: Package, second: Package) -> Result<usize, String> {
    let packages = [first.file("f", "1").packed(), second.file("f", "2").packed()];
    laid_out(&packages, "").map(|tree| source_of(&tree, "/f"))
}

#[test]
fn a_file_of_two_packages_is_an_error_unless_one_replaces_the_other() {
    let clash =
        Err("/f is in package a-1-r0 and in package b-1-r0, and neither replaces the other".to_owned());
    assert_eq!(two(package("a"), package("b")), clash);
    assert_eq!(two(package("a"), package("b").replaces("a", None)), Ok(1));
    assert_eq!(two(package("a").replaces("b", None), package("b")), Ok(0));
    assert_eq!(two(package("a").replaces("b<1", None), package("b")), clash, "it replaces another version");
    assert_eq!(two(package("a").replaces("b", Some(2)), package("b").replaces("a", Some(1))), Ok(0));
    assert_eq!(two(package("a").replaces("b", Some(1)), package("b").replaces("a", Some(1))), Ok(1));
    assert_eq!(two(package("a").origin("o"), package("b").origin("o")), Ok(1));
}

#[test]
fn the_highest_priority_owns_a_directory_and_then_the_smaller_name() {
    let mode = |first: Package, second: Package| {
        let packages = [first.directory("d", 0o700).packed(), second.directory("d", 0o711).packed()];
        laid_out(&packages, "").unwrap().get("/d").unwrap().mode
    };
    assert_eq!(mode(package("a"), package("b")), 0o700);
    assert_eq!(mode(package("b"), package("a")), 0o711);
    assert_eq!(mode(package("a"), package("b").replaces("x", Some(1000))), 0o711);
    assert_eq!(mode(package("o-doc").origin("o"), package("o").origin("o")), 0o711);
    assert_eq!(mode(package("o").origin("o"), package("a").origin("o")), 0o700);
}

/// apk-tools 2.14 itself; the genuine one is asked the same in `tests/image/layouts.rs`.
#[test]
fn an_image_that_holds_apk_2_is_laid_out_by_its_rules() {
    let apk = |version: &str| {
        let mut apk = package("apk-tools");
        apk.info.version = version.parse().unwrap();
        apk.packed()
    };
    let laid = |version: &str| {
        let first = package("a").origin("o").replaces("b", Some(2)).directory("d", 0o750).file("f", "1");
        let second = package("b").origin("o").replaces("a", Some(1)).directory("d", 0o705).file("f", "2");
        let tree = laid_out(&[apk(version), first.packed(), second.packed()], "").unwrap();
        (source_of(&tree, "/f"), tree.get("/d").unwrap().mode)
    };
    assert_eq!(laid("2.14.4-r0"), (2, 0o700), "one origin takes, and a directory has what all allow");
    assert_eq!(laid("3.0.0-r0"), (1, 0o750), "the priority decides on both");
}

#[test]
fn what_apk_does_not_install_is_not_in_the_image() {
    let packages = [package("a").directory("d", 0o755).file("d/.keep_d", "").file(".profile", "").packed()];
    let tree = laid_out(&packages, "").unwrap();
    assert!(tree.get("/d").is_some() && tree.get("/d/.keep_d").is_none() && tree.get("/.profile").is_none());
}

#[test]
fn a_file_and_a_directory_do_not_stand_in_one_place() {
    let packages = [package("a").file("x", "").packed(), package("b").directory("x", 0o755).packed()];
    let error = laid_out(&packages, "").unwrap_err();
    assert_eq!(error, "/x is a file of package a-1-r0, and a directory of package b-1-r0");
}

#[test]
fn a_directory_that_is_a_symlink_already_is_entered() {
    let merged = package("a").directory("usr/lib", 0o755).add(
        tar::EntryType::Symlink,
        "lib",
        0o777,
        "root",
        b"usr/lib",
    );
    let packages = [merged.packed(), package("b").directory("lib", 0o700).file("lib/x", "").packed()];
    let tree = laid_out(&packages, "").unwrap();
    assert_eq!(source_of(&tree, "/usr/lib/x"), 1);
    assert_eq!(tree.get("/usr/lib").unwrap().mode, 0o755);
}

#[test]
fn nothing_is_laid_through_a_link_that_leaves_the_root_or_leads_nowhere() {
    let first = |target: &str| {
        let first = package("a").directory("etc", 0o755).file("etc/file", "");
        first.add(tar::EntryType::Symlink, "opt", 0o777, "root", target.as_bytes()).packed()
    };
    for target in ["../../etc", "../usr/../../etc", "/../etc", "nowhere", "opt", "/etc/file"] {
        let alone = laid_out(&[first(target)], "");
        assert!(alone.is_ok(), "a link may point anywhere: {target}: {:?}", alone.err());
        let through = package("b").directory("opt", 0o755).file("opt/x", "").packed();
        let error = laid_out(&[first(target), through], "").map(drop).expect_err(target);
        assert_eq!(
            error, "/opt is a symlink of package a-1-r0, and a directory of package b-1-r0",
            "{target}"
        );
    }
}

#[test]
fn owners_are_resolved_by_name_and_else_by_number() {
    let packages = [
        package("a").file("etc/passwd", "web:x:80:80:::\n").file("etc/group", "web:x:81:\n").packed(),
        package("b")
            .add(tar::EntryType::Regular, "of-web", 0o644, "web", b"")
            .add(tar::EntryType::Regular, "of-nobody-known", 0o644, "unknown", b"")
            .packed(),
    ];
    let tree = laid_out(&packages, "").unwrap();
    let owner = |path| tree.get(path).map(|node| (node.uid, node.gid)).unwrap();
    assert_eq!(owner("/of-web"), (80, 81));
    assert_eq!(owner("/of-nobody-known"), (7, 7));
}

#[test]
fn users_of_a_recipe_are_in_the_image_and_shadow_is_closed() {
    let tree = laid_out(
        &[package("a").add(tar::EntryType::Regular, "of-ann", 0o644, "ann", b"").packed()],
        "group = [{ name = \"ann\", gid = 5 }]\n[[user]]\nname = \"ann\"\nuid = 5\ngroup = \"ann\"\n\
         home = \"/home/ann\"\nshell = \"/bin/sh\"\n",
    )
    .unwrap();
    assert_eq!(
        text_of(&tree, "/etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nann:x:5:5::/home/ann:/bin/sh\n"
    );
    let shadow = tree.get("/etc/shadow").unwrap();
    assert_eq!((shadow.mode, shadow.uid, shadow.gid), (0o640, 0, 42));
    assert_eq!(tree.get("/of-ann").unwrap().uid, 5);
}

fn text_of(tree: &Tree<Content>, path: &str) -> String {
    match &tree.get(path).unwrap().kind {
        NodeKind::File { content: Content::Inline(bytes), .. } => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{path} is {other:?}"),
    }
}

#[test]
fn busybox_is_linked_where_nothing_stands() {
    let busybox =
        package("busybox").file("etc/busybox-paths.d/busybox", "bin/sh\nusr/bin/wc\n").file("bin/sh", "");
    let tree = laid_out(&[busybox.packed()], "").unwrap();
    let target = NodeKind::Symlink { target: "/bin/busybox".into() };
    assert_eq!(tree.get("/usr/bin/wc").unwrap().kind, target);
    assert_eq!(source_of(&tree, "/bin/sh"), 0);
}

#[test]
fn busybox_without_the_list_of_its_links_is_refused() {
    let error = laid_out(&[package("busybox").file("bin/busybox", "").packed()], "").unwrap_err();
    let words = "package busybox-1-r0 comes without /etc/busybox-paths.d/busybox, the list of its links";
    assert!(error.starts_with(words), "{error}");
    let list = package("list").file("etc/busybox-paths.d/busybox", "sbin/init\n");
    let tree = laid_out(&[package("busybox").packed(), list.packed()], "").unwrap();
    assert!(tree.get("/sbin/init").is_some(), "Debian's has its list from another package");
}

#[test]
fn a_recipe_changes_what_packages_bring() {
    let tools = || package("a").file("usr/bin/newuidmap", "ELF").file("etc/init.d/net", "#!").packed();
    let recipe = "attribute = [{ path = \"/usr/bin/newuidmap\", mode = 0o755, capabilities = \"cap_setuid=ep\", xattrs = { \"user.x\" = \"0x0a\" } }]\n\
        service = [{ name = \"net\", runlevel = \"boot\" }]\n";
    let tree = laid_out(&[tools()], recipe).unwrap();
    let newuidmap = tree.get("/usr/bin/newuidmap").unwrap();
    assert_eq!(newuidmap.mode, 0o755);
    assert_eq!(
        hex::encode(&newuidmap.xattrs["security.capability"]),
        "0100000280000000000000000000000000000000"
    );
    assert_eq!(newuidmap.xattrs["user.x"], b"\n");
    let target = NodeKind::Symlink { target: "/etc/init.d/net".into() };
    assert_eq!(tree.get("/etc/runlevels/boot/net").unwrap().kind, target);

    let error = |recipe| laid_out(&[tools()], recipe).unwrap_err();
    assert_eq!(
        error("service = [{ name = \"ntp\", runlevel = \"boot\" }]"),
        "recipe r starts the service ntp, but there is no /etc/init.d/ntp"
    );
    assert_eq!(
        error("service = [{ name = \"net\", runlevel = \"boot\", enabled = false }]"),
        "recipe r turns off the service net, which is not in the runlevel boot"
    );
    assert_eq!(
        error("attribute = [{ path = \"/usr/bin/none\", mode = 0o1 }]"),
        "recipe r changes /usr/bin/none, which no package installs as a file or directory"
    );
    assert_eq!(
        error("directory = [{ path = \"/d\", owner = \"ann\" }]"),
        "recipe r: /d should belong to the user ann, which the image does not have"
    );
    assert_eq!(
        error("symlink = [{ path = \"/usr\", target = \"/x\" }]"),
        "recipe r cannot put /usr into the image"
    );
}

#[test]
fn a_service_that_a_package_has_on_can_be_off() {
    let package = package("a").add(
        tar::EntryType::Symlink,
        "etc/runlevels/boot/net",
        0o777,
        "root",
        b"/etc/init.d/net",
    );
    let off = "service = [{ name = 'net', runlevel = 'boot', enabled = false }]";
    let tree = laid_out(&[package.packed()], off).unwrap();
    assert!(tree.get("/etc/runlevels/boot").is_some() && tree.get("/etc/runlevels/boot/net").is_none());
}

#[test]
fn a_file_of_the_fleet_wins() {
    let spec = FileSpec {
        content: FileContent::Inline("mine\n".into()),
        mode: 0o600,
        owner: "root".into(),
        group: "shadow".into(),
    };
    let files = BTreeMap::from([("/etc/motd".parse().unwrap(), spec)]);
    let packages = [package("a").file("etc/motd", "theirs\n").packed()];
    let recipes = recipes("file = [{ path = \"/etc/motd\", content = \"the recipe's\\n\" }]");
    let tree = rootfs(&packages, &recipes, &files, &ApkSettings::default()).unwrap().tree;
    assert_eq!(text_of(&tree, "/etc/motd"), "mine\n");
    let motd = tree.get("/etc/motd").unwrap();
    assert_eq!((motd.mode, motd.gid, motd.mtime), (0o600, 42, GENERATED_AT));
}
