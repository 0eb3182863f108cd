//! Container files of every form, each held against what `podman load` makes of it: the same names, the same files, or both refuse.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;
use sha2::{Digest, Sha256};
use sisforge::fleet::ContainerImage;
use sisforge::image::container::{IdMap, Image, SubIds};
use sisforge::image::content::Content;
use sisforge::image::disk::image_store;
use sisforge::image::ext4::{Ext4Options, Purpose, write_ext4};
use sisforge::image::read_back::read_back;
use sisforge::image::tree::{NodeKind, escaped};
use sisforge::sys::tool::Tool;

use super::files::{Case, Form, Verdict, cases};
use super::{e2fsck, missing, skip};

/// What an image store holds: names by image, and the files of each layer by path.
#[derive(Debug, Default, PartialEq)]
struct Stored {
    names: BTreeMap<String, Vec<String>>,
    files: BTreeMap<String, String>,
}

/// The file or directory that a case is about.
fn write(case: &Case, dir: &Path) -> (PathBuf, ContainerImage) {
    let path = dir.join(format!("{}.tar", case.name));
    if case.form == Form::Directory {
        let path = dir.join(case.name);
        case.files.write_to(&path);
        return (path.clone(), ContainerImage::OciLayout { path, reference: None });
    }
    fs::write(&path, (case.pack)(&case.files.tar())).unwrap();
    let image = match case.form {
        Form::Docker => ContainerImage::DockerArchive(path.clone()),
        _ => ContainerImage::OciArchive { path: path.clone(), reference: None },
    };
    (path, image)
}

fn ours(case: &Case, image: &ContainerImage, dir: &Path) -> Result<Stored, String> {
    let said = |error: &dyn std::error::Error| {
        let mut all = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            all += &format!(": {error}");
            source = error.source();
        }
        all
    };
    let images = Image::open(image).map_err(|error| said(&error))?;
    let ids = SubIds { start: 1, count: 65_536 };
    let owner = IdMap { uid: 0, gid: 0, subuids: ids, subgids: ids };
    let store = image_store(&owner, &images).map_err(|error| said(&error))?;
    let bytes: Mutex<BTreeMap<(usize, usize), String>> = Mutex::default();
    for (number, source) in store.sources().iter().enumerate() {
        source
            .each_file(&mut |entry, reader| {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).unwrap();
                bytes.lock().unwrap().insert((number, entry), summary(&all));
                Ok(())
            })
            .map_err(|error| said(&error))?;
    }
    let bytes = bytes.into_inner().unwrap();
    let mut stored = Stored::default();
    let mut list = Value::Null;
    for (path, node) in store.tree.iter() {
        if let (NodeKind::File { content: Content::Inline(bytes), .. }, "/overlay-images/images.json") =
            (&node.kind, path)
        {
            list = serde_json::from_slice(bytes).unwrap();
        }
        let Some(inside) = in_layer(path) else { continue };
        let real = match &node.kind {
            NodeKind::HardLink { target } => store.tree.get(target).unwrap(),
            _ => node,
        };
        let first = match &node.kind {
            NodeKind::HardLink { target } => target.as_str(),
            _ => path,
        };
        let is_link =
            |other: &NodeKind<Content>| matches!(other, NodeKind::HardLink { target } if target == first);
        let names = store.tree.iter().filter(|(name, other)| *name == first || is_link(&other.kind)).count();
        let what = match &real.kind {
            NodeKind::Directory => "directory".to_owned(),
            NodeKind::File { content: Content::Streamed { source, entry }, .. } => {
                format!("file {} {names} names", bytes[&(*source, *entry)])
            }
            NodeKind::Symlink { target } => format!("link {target:?}"),
            NodeKind::CharDevice { major: 0, minor: 0 } => "whiteout".to_owned(),
            NodeKind::Fifo => format!("pipe {names} names"),
            other => panic!("{path}: {}", other.name()),
        };
        let xattrs: Vec<String> = real.xattrs.iter().map(|(name, value)| attribute(name, value)).collect();
        let has_time = matches!(real.kind, NodeKind::File { .. } | NodeKind::Symlink { .. } | NodeKind::Fifo);
        let time = if has_time { real.mtime } else { 0 };
        stored.files.insert(inside, facts(&what, real.mode.into(), real.uid, real.gid, time, &xattrs));
    }
    stored.names = names_of(&list);
    write_and_check(case, &store, dir);
    Ok(stored)
}

/// The store as a file system, which e2fsck finds no fault with.
fn write_and_check(case: &Case, store: &sisforge::image::disk::ImageStore, dir: &Path) {
    let path = dir.join(format!("{}.ext4", case.name));
    let (uuid, hash_seed) = ([1; 16], [2; 16]);
    let options =
        Ext4Options { label: "images".into(), uuid, hash_seed, size: None, purpose: Purpose::ReadOnly };
    let written = write_ext4(&store.tree, &store.sources(), &options, None, &path);
    written.unwrap_or_else(|error| panic!("{}: {error:?}", case.name));
    let back = read_back(&path, &store.tree, &store.sources(), &options).unwrap();
    assert_eq!(back.mismatches, [], "{}", case.name);
    if case.name == "latin-1" || case.name.len().is_multiple_of(8) {
        e2fsck(&path);
    }
    fs::remove_file(path).unwrap();
}

/// `<layer>/<path>` of a path of a store that lies in a layer.
fn in_layer(path: &str) -> Option<String> {
    let (layer, rest) = path.strip_prefix("/overlay/")?.split_once('/')?;
    let inside = rest.strip_prefix("diff").filter(|inside| inside.is_empty() || inside.starts_with('/'))?;
    Some(format!("{}{inside}", &layer[..12]))
}

fn summary(bytes: &[u8]) -> String {
    format!("{} {}", bytes.len(), &hex::encode(Sha256::digest(bytes))[..12])
}

fn attribute(name: &str, value: &[u8]) -> String {
    // A capability is that of the user's namespace with us.
    let value = if name == "security.capability" { b"" } else { value };
    format!("{name}={}", hex::encode(value))
}

fn facts(what: &str, mode: u32, uid: u32, gid: u32, time: i64, xattrs: &[String]) -> String {
    format!("{what} {mode:o} {uid}:{gid} {time} {}", xattrs.join(" "))
}

fn names_of(list: &Value) -> BTreeMap<String, Vec<String>> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let image = |image: &Value| {
        let mut names: Vec<String> = image["names"].as_array().into_iter().flatten().map(text).collect();
        names.sort();
        (text(&image["id"])[..12].to_owned(), names)
    };
    list.as_array().into_iter().flatten().map(image).collect()
}

/// What Podman makes of the same file, or what it says.
fn podmans(path: &Path, root: &Path) -> Result<Stored, String> {
    let storage = root.join("storage");
    let podman =
        Tool::new("unshare").args(["--mount", "--propagation", "private", "podman", "--root"]).arg(&storage);
    podman
        .arg("--runroot")
        .arg(root.join("run"))
        .args(["--storage-driver", "overlay", "load", "-q", "-i"])
        .arg(path)
        .run()
        .map_err(|error| error.to_string())?;
    let list = fs::read(storage.join("overlay-images/images.json")).unwrap();
    let mut stored = Stored { names: names_of(&serde_json::from_slice(&list).unwrap()), ..Stored::default() };
    for layer in fs::read_dir(storage.join("overlay")).into_iter().flatten() {
        let layer = layer.unwrap().path();
        let name = layer.file_name().unwrap().to_str().unwrap().to_owned();
        if name.len() == 64 {
            walk(&layer.join("diff"), name[..12].to_owned(), &mut stored.files);
        }
    }
    Ok(stored)
}

fn walk(path: &Path, name: String, found: &mut BTreeMap<String, String>) {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let what = if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_file() {
        format!("file {} {} names", summary(&fs::read(path).unwrap()), meta.nlink())
    } else if kind.is_symlink() {
        format!("link {:?}", escaped(fs::read_link(path).unwrap().as_os_str().as_bytes()))
    } else if kind.is_fifo() {
        format!("pipe {} names", meta.nlink())
    } else if meta.rdev() == 0 {
        "whiteout".to_owned()
    } else {
        // Root makes devices; the user of a guest cannot.
        return;
    };
    let has_time = kind.is_file() || kind.is_symlink() || kind.is_fifo();
    let time = if has_time { meta.mtime() } else { 0 };
    let (mode, xattrs) = (meta.mode() & 0o7777, xattrs(path));
    found.insert(name.clone(), facts(&what, mode, meta.uid(), meta.gid(), time, &xattrs));
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            walk(&entry.path(), format!("{name}/{}", escaped(entry.file_name().as_bytes())), found);
        }
    }
}

fn xattrs(path: &Path) -> Vec<String> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let mut found = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        let mut value = vec![0; 4096];
        let Ok(length) = rustix::fs::lgetxattr(path, name, &mut value) else { continue };
        match name {
            "trusted.overlay.opaque" => found.push(attribute("user.overlay.opaque", &value[..length])),
            "security.capability" => found.push(attribute(name, b"")),
            name if name.starts_with("user.") => found.push(attribute(name, &value[..length])),
            _ => {}
        }
    }
    found.sort();
    found
}

/// All of what differs, a line each.
fn differences(case: &Case, podmans: &Stored, ours: &Stored) -> Vec<String> {
    let mut found = Vec::new();
    for path in podmans.files.keys().chain(ours.files.keys()) {
        let (theirs, own) = (podmans.files.get(path), ours.files.get(path));
        let line = format!("{path}: Podman {theirs:?}, sisforge {own:?}");
        if theirs != own && !found.contains(&line) {
            found.push(line);
        }
    }
    if !podmans.names.keys().eq(ours.names.keys()) {
        found.push(format!("images: Podman {:?}, sisforge {:?}", podmans.names, ours.names));
    }
    // An OCI directory is called after its path by Podman, whatever it says itself.
    for (id, names) in podmans.names.iter().filter(|_| case.form != Form::Directory) {
        let own = ours.names.get(id).cloned().unwrap_or_default();
        let of_file = format!("localhost/{}:", case.name);
        let is_more = |name: &&String| !names.contains(name) && !name.starts_with(&of_file);
        if !names.iter().all(|name| own.contains(name)) || own.iter().any(|name| is_more(&name)) {
            found.push(format!("names: Podman {names:?}, sisforge {own:?}"));
        }
    }
    found
}

/// What is wrong with a case; nothing where it is as it should be.
fn fault(number: usize, case: &Case, dir: &Path) -> Option<String> {
    let (path, image) = write(case, dir);
    let own = ours(case, &image, dir);
    // Podman wants a short path.
    let root = dir.join(number.to_string());
    fs::create_dir(&root).unwrap();
    let theirs = podmans(&path, &root);
    match (case.verdict, theirs, own) {
        (Verdict::Same, Ok(theirs), Ok(own)) => {
            let found = differences(case, &theirs, &own);
            (!found.is_empty()).then(|| found.join("\n    "))
        }
        (Verdict::Refused, Err(_), Err(_)) => None,
        (Verdict::OursAlone(expected), Err(_), Ok(own)) => {
            let there = |file: &&&str| {
                !own.files.iter().any(|(path, what)| format!("{path} {what}").contains(**file))
            };
            let missing: Vec<_> = expected.iter().filter(there).collect();
            (!missing.is_empty()).then(|| format!("{missing:?} are not in {:#?}", own.files))
        }
        (Verdict::PodmansAlone(said), Ok(_), Err(own)) => {
            (!own.contains(said)).then(|| format!("refused, but not by {said:?}: {own}"))
        }
        (wanted, theirs, own) => Some(format!(
            "{wanted:?} was expected\n    Podman: {}\n    sisforge: {}",
            theirs.map_or_else(|error| error, |_| "takes it".into()),
            own.map_or_else(|error| error, |_| "takes it".into())
        )),
    }
}

#[test]
fn container_files_are_taken_as_podman_takes_them() {
    const TEST: &str = "image::corpus::container_files_are_taken_as_podman_takes_them";
    if let Some(reason) = missing(&["podman", "unshare"]) {
        return skip(TEST, &reason);
    }
    // Podman takes no capitals for a directory.
    let prefix = format!("corpus-{}", std::process::id());
    let dir = tempfile::Builder::new().prefix(&prefix).rand_bytes(0).tempdir().unwrap();
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { return };
                    if let Some(fault) = fault(number, case, dir.path()) {
                        faults.lock().unwrap().push(format!("{}: {fault}", case.name));
                    }
                }
            });
        }
    });
    let mut faults = faults.into_inner().unwrap();
    faults.sort();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

#[test]
fn an_image_is_named_by_its_reference() {
    use super::tars::{Files, Tar, annotated};
    let dir = tempfile::tempdir().unwrap();
    let mut files = Files::default();
    let image = |files: &mut Files, name: &str| {
        let tar = Tar::default().file(name, b"x").ended();
        let manifest = files.image("amd64", &[("", tar.clone(), tar)]);
        annotated(manifest, &[("org.opencontainers.image.ref.name", name)])
    };
    let manifests = [image(&mut files, "one"), image(&mut files, "quay.io/a/two:2")];
    let files = files.index(&manifests);
    let (archive, layout) = (dir.path().join("both.tar"), dir.path().join("layout"));
    fs::write(&archive, files.tar()).unwrap();
    files.write_to(&layout);
    let open = |image: ContainerImage| {
        let opened =
            Image::open(&image).map_err(|error| std::error::Error::source(&error).unwrap().to_string());
        opened.map(|images| images.into_iter().flat_map(|image| image.names.own).collect::<Vec<_>>())
    };
    let of = |reference: Option<&str>| {
        let (path, reference) = (archive.clone(), reference.map(str::to_owned));
        open(ContainerImage::OciArchive { path, reference })
    };
    assert_eq!(of(Some("one")).unwrap(), ["localhost/both:one"]);
    assert_eq!(of(Some("quay.io/a/two:2")).unwrap(), ["quay.io/a/two:2"]);
    let (path, reference) = (layout, Some("one".to_owned()));
    assert_eq!(open(ContainerImage::OciLayout { path, reference }).unwrap(), ["localhost/layout:one"]);
    assert_eq!(of(Some("three")).unwrap_err(), "it has no image \"three\"; there is one, quay.io/a/two:2");
    let which =
        "it contains 2 images, but one is expected: add its reference after the path, such as \"one\"";
    assert_eq!(of(None).unwrap_err(), which);
}
