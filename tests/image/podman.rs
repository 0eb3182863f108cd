//! Container images that guests share from the beginning, used by the real Podman.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sisforge::base::ByteSize;
use sisforge::fleet::{ContainerImage, SourceFiles};
use sisforge::image::container::Image;
use sisforge::image::disk::{data_disk, image_store, images_owner};
use sisforge::image::ext4::{Ext4Options, Purpose, write_ext4};
use sisforge::image::recipe::{Parameters, Recipes};
use sisforge::sys::digest::verity_digest;
use sisforge::sys::tool::Tool;
use tar::EntryType;

use super::oci::{self, Item, directory, file, link};
use super::{e2fsck, missing, only, open_ext4, skip};

const TEST: &str = "image::podman::shared_images_are_there_for_podman";

/// As root in a mount namespace of its own, where the user of the recipes exists; then as that user.
const AS_THE_USER: &str = r#"
set -eu
for file in passwd group subuid subgid; do mount --bind "$DIR/etc/$file" "/etc/$file"; done
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -o loop "$DIR/disk.ext4" "$DIR/home"
mount -t tmpfs tmpfs /var/lib
mkdir -p /var/lib/containers/shared
# What the image has there where there are no images to share.
mkdir -p "$DIR/none/overlay" "$DIR/none/overlay-images" "$DIR/none/overlay-layers"
touch "$DIR/none/overlay-images/images.lock" "$DIR/none/overlay-layers/layers.lock"
if [ "$IMAGES" = none ]; then
    mount --bind "$DIR/none" /var/lib/containers/shared
    mount -o remount,ro,bind /var/lib/containers/shared
else
    mount -o loop,ro "$DIR/$IMAGES" /var/lib/containers/shared
fi
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
echo images: $(podman images --format '{{.Repository}}:{{.Tag}} {{.ReadOnly}}')
[ $(du -sk .local/share/containers/storage | cut -f1) -lt 200 ] && echo own: next to nothing
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
printf 'FROM localhost/hello\nRUN busybox rm /etc/motd\n' >Containerfile
podman build -q --network=host --isolation=chroot -t localhost/built . >/dev/null
echo built: $(podman run --rm --network=none --cgroups=disabled localhost/built busybox ls /etc | grep -x -e owned -e motd)
podman rmi localhost/more localhost/built >/dev/null
podman rmi localhost/hello 2>/dev/null || echo read-only images stay
echo left: $(podman images --format '{{.Repository}}') $(ls .local/share/containers/storage/overlay)
podman system migrate
"#;

/// Runs a script as the user of the recipe, with the disk as home and images to share.
fn as_the_user(dir: &Path, images: &str, script: &str) -> String {
    let namespaces =
        ["--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child", "--"];
    let said = Tool::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", AS_THE_USER])
        .env("DIR", dir)
        .env("IMAGES", images)
        .env("SCRIPT", script)
        .run()
        .unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8_lossy(&said).into_owned()
}

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
fn shared_images_are_there_for_podman() {
    let needed = ["podman", "crun", "unshare", "setpriv", "newuidmap", "busybox"];
    if let Some(reason) = missing(&needed) {
        return skip(TEST, &reason);
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let layers = hello_archive(&dir.path().join("hello.tar"));
    let image =
        Image::open(&ContainerImage::OciArchive { path: dir.path().join("hello.tar"), reference: None })
            .unwrap();
    let image = only(image);

    let files = SourceFiles::new(env!("CARGO_MANIFEST_DIR"));
    let recipes = Recipes::load(&["rootless-podman".parse().unwrap()], &Parameters::new(), &files).unwrap();
    let options = Ext4Options {
        label: "home".into(),
        uuid: [1; 16],
        hash_seed: [2; 16],
        size: Some(ByteSize::from_mib(512)),
        purpose: Purpose::ReadWrite,
    };
    let path = dir.path().join("disk.ext4");
    write_ext4(&data_disk(&recipes, None).unwrap(), &[], &options, None, &path).unwrap();
    let images = [image];
    let store = image_store(&images_owner(&recipes).unwrap(), &images).unwrap();
    let [image] = images;
    let options = Ext4Options { size: None, purpose: Purpose::ReadOnly, ..options };
    let images = dir.path().join("images.ext4");
    let written = write_ext4(&store.tree, &store.sources(), &options, None, &images).unwrap();
    e2fsck(&path);
    e2fsck(&images);

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
    let nothing = as_the_user(dir.path(), "none", "podman images -q; echo none; podman system migrate");
    assert_eq!(nothing, "none\n", "no images to share are no error");
    let said = as_the_user(dir.path(), "images.ext4", WITH_PODMAN);
    let expected = "\
        images: localhost/hello:latest true\n\
        own: next to nothing\n\
        said: hi\n\
        root: bin capable deep dev etc opaque proc run sys\n\
        opaque: above\n\
        owner: 33:34:640\n\
        motd: welcome\n\
        layers: 2 2023-11-14 22:13:20 +0000 UTC\n\
        committed: more\n\
        built: owned\n\
        read-only images stay\n\
        left: localhost/hello l\n";
    assert_eq!(said, expected);
    e2fsck(&path);
    let (after, _) = verity_digest(&images).unwrap();
    assert_eq!(after, written.digest, "nothing was written to the images");
    assert_saved(&path, &layers);
    assert_read_again(&path, &image);
}

/// What Podman saved as Docker does is the same image for us.
fn assert_read_again(disk: &Path, before: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("saved.tar");
    let saved = open_ext4(disk).read("/saved.tar").unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &saved).unwrap();
    for bytes in [saved, gzip.finish().unwrap()] {
        fs::write(&path, bytes).unwrap();
        let image = only(Image::open(&ContainerImage::DockerArchive(path.clone())).unwrap());
        let layers = |image: &Image| image.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>();
        assert_eq!(image.names.own, ["localhost/hello:latest"]);
        assert_eq!(layers(&image), layers(before));
        assert_eq!(image.id, before.id);
    }
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
