//! Container images that are on the data disk from the beginning, used by the real Podman.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sisforge::fleet::{ByteSize, ContainerImage, SourceFiles};
use sisforge::image::container::Image;
use sisforge::image::disk::data_disk;
use sisforge::image::ext4::{Ext4Options, Purpose, write_ext4};
use sisforge::image::recipe::{Parameters, Recipes};
use sisforge::sys::tool::Tool;
use tar::EntryType;

use super::oci::{self, Item, directory, file, link};
use super::{e2fsck, missing, open_ext4, skip};

const TEST: &str = "image::podman::images_of_a_data_disk_are_there_for_podman";

/// As root in a mount namespace of its own, where the user of the recipes exists; then as that user.
const AS_THE_USER: &str = r#"
set -eu
for file in passwd group subuid subgid; do mount --bind "$DIR/etc/$file" "/etc/$file"; done
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -o loop "$DIR/disk.ext4" "$DIR/home"
mount --make-rshared /
cd "$DIR/home"
setpriv --reuid 1000 --regid 1000 --clear-groups env -i \
    HOME="$DIR/home" PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin XDG_RUNTIME_DIR="$DIR/run" sh -eu -c "$SCRIPT"
cd /
# Podman's own processes end a little later.
tries=0
until umount "$DIR/home" 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 100 ]
    sleep 0.1
done
"#;

const WITH_PODMAN: &str = r#"
podman() { command podman --log-level=error "$@"; }
run() { podman run --rm --network=none --cgroups=disabled localhost/hello "$@"; }
echo images: $(podman images --format '{{.Repository}}:{{.Tag}}')
echo said: $(run echo hi)
echo root: $(run busybox ls /)
echo opaque: $(run busybox ls /opaque)
echo owner: $(run busybox stat -c %u:%g:%a /etc/owned)
echo motd: $(run busybox cat /etc/motd)
podman image inspect --format 'layers: {{len .RootFS.Layers}} {{.Created}}' localhost/hello
podman save -q --format docker-archive -o saved.tar localhost/hello
podman run --name kept --network=none --cgroups=disabled localhost/hello sh -c 'echo more >/etc/more'
podman commit -q kept localhost/more >/dev/null
echo committed: $(podman run --rm --network=none --cgroups=disabled localhost/more busybox cat /etc/more)
podman rm kept >/dev/null
podman rmi localhost/more localhost/hello >/dev/null
echo left: $(podman images -q) $(ls .local/share/containers/storage/overlay)
podman load -q -i saved.tar >/dev/null
echo again: $(run echo hi)
podman system migrate
"#;

fn hello_archive(path: &Path) -> [Vec<u8>; 2] {
    let busybox = fs::read("/bin/busybox").unwrap();
    let lower = oci::layer(&[
        directory("bin/"),
        Item { mode: 0o755, ..file("bin/busybox", &busybox) },
        link(EntryType::Symlink, "bin/sh", "busybox"),
        link(EntryType::Link, "bin/echo", "bin/busybox"),
        directory("etc/"),
        file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n"),
        Item { mode: 0o640, owner: (33, 34), ..file("etc/owned", b"x") },
        file("gone", b"x"),
        directory("opaque/"),
        file("opaque/below", b"x"),
        directory("dev/"),
        Item { kind: EntryType::Char, ..file("dev/null", b"") },
        file("deep/er/file", b"x"),
    ]);
    let capability = hex::decode("0100000280000000000000000000000000000000").unwrap();
    let upper = oci::layer(&[
        file(".wh.gone", b""),
        directory("opaque/"),
        file("opaque/.wh..wh..opq", b""),
        file("opaque/above", b"x"),
        directory("etc/"),
        Item { record: Some(("SCHILY.xattr.user.x", b"y")), ..file("etc/motd", b"welcome\n") },
        Item { record: Some(("SCHILY.xattr.security.capability", &capability)), ..file("capable", b"x") },
    ]);
    let layers = [lower, upper];
    oci::write_archive(path, "localhost/hello:latest", &layers, |_, _| {});
    layers
}

#[test]
fn images_of_a_data_disk_are_there_for_podman() {
    let needed = ["podman", "crun", "unshare", "setpriv", "newuidmap", "busybox"];
    if let Some(reason) = missing(&needed) {
        return skip(TEST, &reason);
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let layers = hello_archive(&dir.path().join("hello.tar"));
    let image = Image::open(&ContainerImage::OciArchive(dir.path().join("hello.tar"))).unwrap();

    let files = SourceFiles::new(env!("CARGO_MANIFEST_DIR"));
    let recipes = Recipes::load(&["rootless-podman".parse().unwrap()], &Parameters::new(), &files).unwrap();
    let disk = data_disk(&recipes, &[image]).unwrap();
    let options = Ext4Options {
        label: "home".into(),
        uuid: [1; 16],
        hash_seed: [2; 16],
        size: Some(ByteSize::from_mib(512)),
        purpose: Purpose::ReadWrite,
    };
    let path = dir.path().join("disk.ext4");
    write_ext4(&disk.tree, &disk.sources(), &options, None, &path).unwrap();
    e2fsck(&path);

    for folder in ["etc", "home", "run"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    fs::set_permissions(dir.path().join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(dir.path().join("run"), Some(1000), Some(1000)).unwrap();
    let home = dir.path().join("home");
    for (file, text) in [
        ("passwd", format!("root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::{}:/bin/sh\n", home.display())),
        ("group", "root:x:0:\nuser:x:1000:\n".to_owned()),
        ("subuid", "user:100000:65536\n".to_owned()),
        ("subgid", "user:100000:65536\n".to_owned()),
    ] {
        fs::write(dir.path().join("etc").join(file), text).unwrap();
    }
    let said = Tool::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "--",
        ])
        .args(["sh", "-c", AS_THE_USER])
        .env("DIR", dir.path())
        .env("SCRIPT", WITH_PODMAN)
        .run()
        .unwrap_or_else(|error| panic!("{error}"));
    let expected = "\
        images: localhost/hello:latest\n\
        said: hi\n\
        root: bin capable deep dev etc opaque proc run sys\n\
        opaque: above\n\
        owner: 33:34:640\n\
        motd: welcome\n\
        layers: 2 2023-11-14 22:13:20 +0000 UTC\n\
        committed: more\n\
        left: l\n\
        again: hi\n";
    assert_eq!(String::from_utf8_lossy(&said), expected);
    e2fsck(&path);
    assert_saved(&path, &layers);
}

/// What Podman saved holds the very tars that the image was made of: tar-split gave them back.
fn assert_saved(disk: &Path, layers: &[Vec<u8>]) {
    let saved = open_ext4(disk).read("/saved.tar").unwrap();
    let mut found = 0;
    for entry in tar::Archive::new(&saved[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        found += layers.iter().filter(|layer| **layer == bytes).count();
    }
    assert_eq!(found, layers.len());
}
