//! The corpus: container files of every form, and what is to become of each.

use serde_json::{Value, json};

use super::tars::{
    Files, GNU, Head, INDEX, MANIFEST, Tar, V7, annotated, bzip2, config, digest, gzip, on, seal, xz, zstd,
};

/// What a file is given as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Oci,
    Directory,
    Docker,
}

/// What Podman and sisforge are to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    Refused,
    /// Podman 4.3 refuses it (two entries of one name, GNU's old sparse files, a whiteout of what is in the
    /// layer, and more), though
    /// GNU tar, umoci or the specification have it; these are among the files.
    OursAlone(&'static [&'static str]),
    /// Podman takes it; it is refused with these words.
    PodmansAlone(&'static str),
}

use Verdict::{OursAlone, PodmansAlone, Refused, Same};

pub struct Case {
    pub name: &'static str,
    pub form: Form,
    pub files: Files,
    pub pack: fn(&[u8]) -> Vec<u8>,
    pub verdict: Verdict,
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

fn case(name: &'static str, form: Form, files: Files, verdict: Verdict) -> Case {
    Case { name, form, files, pack: plain, verdict }
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(entries());
    cases.extend(links());
    cases.extend(replaced());
    cases.extend(whiteouts());
    cases.extend(sparse());
    cases.extend(odd_tars());
    cases.extend(compressed());
    cases.extend(indexes());
    cases.extend(names());
    cases.extend(docker());
    cases
}

/// An image of these layers in an OCI archive, called after the case.
fn layers(name: &'static str, tars: &[Vec<u8>], verdict: Verdict) -> Case {
    let mut files = Files::default();
    let layers: Vec<_> = tars.iter().map(|tar| ("", tar.clone(), tar.clone())).collect();
    let manifest = files.image("amd64", &layers);
    let manifest =
        annotated(manifest, &[("org.opencontainers.image.ref.name", &format!("localhost/{name}:1"))]);
    case(name, Form::Oci, files.index(&[manifest]), verdict)
}

fn layer(name: &'static str, tar: Tar, verdict: Verdict) -> Case {
    layers(name, &[tar.ended()], verdict)
}

fn tar() -> Tar {
    Tar::default()
}

fn entries() -> Vec<Case> {
    let long = "d/".repeat(60) + "file";
    let v7 = |head: Head| Head { magic: V7, ..head };
    vec![
        layer("plain", tar().directory("etc/").file("etc/motd", b"hello\n").file("empty", b""), Same),
        layer("no-parents", tar().file("a/b/c/d", b"x").directory("e/f/"), Same),
        layer(
            "dot-names",
            tar().head(Head::new(b'5', "./").mode(0o700)).directory("./etc").file("./etc/a", b"a"),
            Same,
        ),
        layer("absolute-names", tar().directory("/etc").file("/etc/a", b"a"), Same),
        layer("dots-inside", tar().directory("a").file("a/../b", b"x").file("a//.//c", b"y"), Same),
        layer("out-of-the-layer", tar().file("../evil", b"x"), PodmansAlone("leads out of the layer")),
        layer("old-directory", tar().head(v7(Head::new(0, "old/").mode(0o755))).file("old/a", b"x"), Same),
        layer("v7-file", tar().with(v7(Head::new(0, "a")), b"x"), Same),
        layer("contiguous-file", tar().with(Head::new(b'7', "a"), b"x"), OursAlone(&["/a file 1 "])),
        layer(
            "gnu-long-name",
            tar()
                .with(Head { magic: GNU, ..Head::new(b'L', "././@LongLink") }, format!("{long}\0").as_bytes())
                .file("short", b"x"),
            Same,
        ),
        layer(
            "gnu-long-link",
            tar()
                .with(Head { magic: GNU, ..Head::new(b'K', "././@LongLink") }, format!("{long}\0").as_bytes())
                .symlink("link", "short"),
            Same,
        ),
        layer(
            "pax-names",
            tar()
                .pax(&[("path", long.as_bytes())])
                .file("short", b"x")
                .pax(&[("linkpath", long.as_bytes())])
                .symlink("link", "short"),
            Same,
        ),
        layer(
            "ustar-prefix",
            tar().with(Head { prefix: b"usr/share", ..Head::new(b'0', "doc") }, b"x"),
            Same,
        ),
        layer(
            "large-owner",
            tar()
                .head(Head::new(b'5', "d").owner(60_000, 65_000))
                .pax(&[("uid", b"33"), ("gid", b"34")])
                .file("f", b"x"),
            Same,
        ),
        layer("owner-in-base-256", base_256(), Same),
        layer(
            "times",
            tar()
                .pax(&[("mtime", b"1600000000.75")])
                .file("a", b"x")
                .with(Head { mtime: 1, ..Head::new(b'0', "b") }, b"x"),
            Same,
        ),
        layer(
            "times-far-away",
            tar()
                .pax(&[("mtime", b"-100")])
                .file("before", b"x")
                .pax(&[("mtime", b"-100")])
                .symlink("link", "before")
                .pax(&[("mtime", b"9223372037")])
                .file("behind", b"x")
                .pax(&[("mtime", b"9223372036")])
                .file("last", b"x")
                .pax(&[("mtime", b"20000000000")])
                .head(Head::new(b'6', "pipe")),
            Same,
        ),
        layer("blank-fields", blank_fields(), Same),
        layer(
            "modes",
            tar()
                .with(Head::new(b'0', "su").mode(0o4755), b"x")
                .with(Head::new(b'0', "sg").mode(0o2711), b"x")
                .head(Head::new(b'5', "tmp").mode(0o1777))
                .with(Head::new(b'0', "none").mode(0), b"x")
                .with(Head::new(b'0', "kind").mode(0o100_644), b"x"),
            Same,
        ),
        layer(
            "latin-1",
            tar()
                .file(b"caf\xe9", b"x")
                .directory(b"d\xe9/")
                .file(b"d\xe9/\xff", b"y")
                .symlink("link", b"caf\xe9")
                .symlink("long", [b"\xe9".repeat(90)].concat())
                .hard_link("hard", b"d\xe9/\xff"),
            Same,
        ),
        layer("utf-8", tar().file("Főtanúsítvány \u{10fe41}", b"x"), Same),
        layer("pipe", tar().head(Head::new(b'6', "fifo").owner(1, 2)), Same),
        layer(
            "devices",
            tar()
                .directory("dev")
                .head(Head::new(b'3', "dev/null"))
                .head(Head::new(b'4', "dev/sda"))
                .file("dev/x", b"x"),
            Same,
        ),
        layer(
            "attributes",
            tar()
                .pax(&[
                    ("SCHILY.xattr.user.mime", b"a\nb=c"),
                    (
                        "SCHILY.xattr.security.capability",
                        &hex::decode("0100000280000000000000000000000000000000").unwrap(),
                    ),
                ])
                .file("a", b"x")
                .pax(&[("SCHILY.xattr.user.d", b"1")])
                .directory("d"),
            Same,
        ),
        layer(
            "comments",
            tar().with(Head::new(b'g', "pax_global_header"), b"20 comment=a commit\n").file("a", b"x"),
            Same,
        ),
    ]
}

fn base_256() -> Tar {
    let mut block = Head { magic: GNU, ..Head::new(b'5', "d") }.block();
    block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0xea, 0x60]);
    seal(&mut block);
    tar().raw(&block)
}

fn blank_fields() -> Tar {
    let mut block = Head::new(b'5', "d").block();
    for field in [108..124, 124..148] {
        block[field].fill(b' ');
    }
    seal(&mut block);
    tar().raw(&block).file("d/a", b"x")
}

fn links() -> Vec<Case> {
    let bin = || tar().directory("usr").directory("usr/bin");
    vec![
        layer(
            "symlinks",
            tar().symlink("a", "b").symlink("c", "/etc/passwd").symlink("d", "../../..").symlink("e", "a/"),
            Same,
        ),
        layer(
            "hard-links",
            tar()
                .file("a", b"x")
                .hard_link("b", "a")
                .hard_link("c", "b")
                .hard_link("d", "/a")
                .hard_link("e", "./a"),
            Same,
        ),
        layer(
            "hard-link-owner",
            tar().file("a", b"x").head(Head::new(b'1', "b").to("a").owner(3, 4).mode(0o600)),
            Same,
        ),
        layer("hard-link-to-symlink", tar().file("a", b"x").symlink("s", "a").hard_link("h", "s"), Same),
        layer(
            "hard-link-through-symlink",
            bin().file("usr/bin/a", b"x").symlink("bin", "usr/bin").hard_link("h", "bin/a"),
            Same,
        ),
        layer(
            "hard-link-to-pipe",
            tar().head(Head::new(b'6', "p")).hard_link("q", "p").hard_link("r", "q").file("a", b"x"),
            Same,
        ),
        layer(
            "hard-link-to-device",
            tar()
                .directory("dev")
                .head(Head::new(b'3', "dev/null"))
                .hard_link("null", "dev/null")
                .hard_link("zero", "null")
                .file("a", b"x"),
            Same,
        ),
        layer("hard-link-to-nothing", tar().hard_link("b", "a"), Refused),
        layer("hard-link-before-its-file", tar().hard_link("b", "a").file("a", b"x"), Refused),
        layer("hard-link-to-directory", tar().directory("a").hard_link("b", "a"), Refused),
        layer("hard-link-to-itself", tar().file("a", b"x").hard_link("a", "a"), Refused),
        layer(
            "through-symlink",
            bin().symlink("bin", "usr/bin").file("bin/true", b"x").file("bin/new/true", b"y"),
            Same,
        ),
        layer("through-absolute-symlink", bin().symlink("bin", "/usr/bin").file("bin/true", b"x"), Same),
        layer(
            "through-leaving-symlink",
            bin().symlink("bin", "../../../usr/bin").file("bin/true", b"x"),
            Same,
        ),
        layer(
            "through-two-symlinks",
            bin().symlink("a", "usr").symlink("b", "a/bin").file("b/true", b"x"),
            Same,
        ),
        layer("through-dead-symlink", tar().symlink("bin", "usr/bin").file("bin/true", b"x"), Refused),
        layer("through-circle", tar().symlink("a", "b").symlink("b", "a").file("a/x", b"x"), Refused),
        layer("below-a-file", tar().file("a", b"x").file("a/b", b"y"), Refused),
        layers(
            "through-symlink-below",
            &[bin().symlink("bin", "usr/bin").ended(), tar().file("bin/true", b"x").ended()],
            Same,
        ),
    ]
}

fn replaced() -> Vec<Case> {
    let x = |name: &str| tar().pax(&[(&format!("SCHILY.xattr.user.{name}"), b"1")]);
    let merged = x("a")
        .directory("d")
        .0
        .into_iter()
        .chain(x("b").head(Head::new(b'5', "d").mode(0o700).owner(1, 1)).0);
    vec![
        layer(
            "file-twice",
            tar().file("a", b"one").file("b", b"x").with(Head::new(b'0', "a").owner(1, 1), b"two"),
            OursAlone(&["/a file 3 3fc4ccfe7458 1 names 644 1:1 "]),
        ),
        layer(
            "hard-link-replaced",
            tar().file("a", b"one").hard_link("b", "a").file("a", b"two"),
            OursAlone(&["/a file 3 3fc4ccfe7458 1 names", "/b file 3 7692c3ad3540 1 names"]),
        ),
        layer(
            "file-then-directory",
            tar().file("a", b"x").directory("a").file("a/b", b"y"),
            OursAlone(&["/a directory", "/a/b file 1 "]),
        ),
        layer(
            "directory-then-file",
            tar().directory("a").file("a/b", b"x").hard_link("c", "a/b").file("a", b"y"),
            OursAlone(&["/a file 1 ", "/c file 1 "]),
        ),
        layer(
            "symlink-then-directory",
            tar().directory("t").symlink("a", "t").directory("a").file("a/b", b"y"),
            OursAlone(&["/a directory", "/a/b file 1 "]),
        ),
        layer(
            "directory-then-symlink",
            tar().directory("t").directory("a").file("a/b", b"x").symlink("a", "t").file("a/c", b"y"),
            OursAlone(&["/a link \"t\"", "/t/c file 1 "]),
        ),
        layer(
            "device-then-file",
            tar().head(Head::new(b'3', "a")).file("a", b"x"),
            OursAlone(&["/a file 1 "]),
        ),
        layer(
            "directory-twice",
            Tar(merged.collect()),
            OursAlone(&["/d directory 700 1:1 0 user.a=31 user.b=31"]),
        ),
    ]
}

fn whiteouts() -> Vec<Case> {
    let base = || tar().directory("d").file("d/a", b"x").file("f", b"y").ended();
    let upper = |name, upper: Tar, verdict| layers(name, &[base(), upper.ended()], verdict);
    vec![
        upper("whiteout", tar().with(Head::new(b'0', ".wh.f").owner(1, 2), b"").file("d/.wh.a", b""), Same),
        upper("whiteout-of-directory", tar().file(".wh.d", b""), Same),
        upper("whiteout-without-parent", tar().file("x/y/.wh.z", b""), Same),
        upper("opaque", tar().directory("d").file("d/.wh..wh..opq", b"").file("d/b", b"z"), Same),
        upper("opaque-afterwards", tar().directory("d").file("d/b", b"z").file("d/.wh..wh..opq", b""), Same),
        upper(
            "opaque-before-its-directory",
            tar().file("d/.wh..wh..opq", b"").head(Head::new(b'5', "d").mode(0o711)),
            Same,
        ),
        upper("opaque-root", tar().file(".wh..wh..opq", b"").file("n", b"z"), Same),
        upper("whiteout-then-file", tar().file(".wh.f", b"").file("f", b"new"), Same),
        upper("whiteout-then-directory", tar().file(".wh.d", b"").directory("d").file("d/b", b"new"), Same),
        upper("file-then-whiteout", tar().file("f", b"new").file(".wh.f", b""), OursAlone(&["/f file 3 "])),
        upper(
            "directory-then-whiteout",
            tar().directory("d").file("d/n", b"new").file(".wh.d", b""),
            OursAlone(&["/d directory 755 0:0 0 user.overlay.opaque=79", "/d/n file 3 "]),
        ),
        upper("whiteout-twice", tar().file(".wh.f", b"").file(".wh.f", b""), OursAlone(&["/f whiteout"])),
        upper("whiteout-below-whiteout", tar().file(".wh.d", b"").file("d/.wh.a", b""), Same),
        upper("whiteout-below-link", tar().directory("d").symlink("l", "d").file("l/.wh.a", b""), Same),
        upper("aufs", tar().file(".wh..wh.aufs", b"").directory(".wh..wh.plnk").file("n", b"z"), Same),
    ]
}

fn sparse() -> Vec<Case> {
    let old = |pieces: &[(u64, u64)], size: u64, stored: &[u8]| {
        let mut head = Head { magic: GNU, size: stored.len() as u64, ..Head::new(b'S', "disk.img") }.block();
        let (first, more) = pieces.split_at(pieces.len().min(4));
        let piece = |(offset, length): &(u64, u64)| format!("{offset:011o}\0{length:011o}\0").into_bytes();
        let table = first.iter().flat_map(piece).collect::<Vec<u8>>();
        head[386..386 + table.len()].copy_from_slice(&table);
        head[482] = u8::from(!more.is_empty());
        head[483..495].copy_from_slice(format!("{size:011o}\0").as_bytes());
        seal(&mut head);
        let mut tar = tar().raw(&head);
        for (at, chunk) in more.chunks(21).enumerate() {
            let mut block = chunk.iter().flat_map(piece).collect::<Vec<u8>>();
            block.resize(512, 0);
            block[504] = u8::from((at + 1) * 21 < more.len());
            tar = tar.raw(&block);
        }
        tar.raw(stored).file("after", b"x")
    };
    let many: Vec<(u64, u64)> = (0..60).map(|n| (n * 1024, 512)).collect();
    let bytes: Vec<u8> = (0..60 * 512).map(|n| (n % 251) as u8).collect();
    let map = |pieces: &[(u64, u64)]| {
        let numbers = pieces.iter().flat_map(|(offset, length)| [offset.to_string(), length.to_string()]);
        numbers.collect::<Vec<_>>()
    };
    let in_content = |pieces: &[(u64, u64)], size: &[u8], stored: &[u8]| {
        let mut content = format!("{}\n{}\n", pieces.len(), map(pieces).join("\n")).into_bytes();
        content.resize(content.len().next_multiple_of(512), 0);
        content.extend(stored);
        tar()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"disk.img"),
                ("GNU.sparse.realsize", size),
            ])
            .file("GNUSparseFile.1/disk.img", &content)
            .file("after", b"x")
    };
    let few = [(4096, 3), (9000, 4)];
    let in_map = map(&few).join(",");
    vec![
        layer(
            "sparse-old",
            old(&few, 20_000, b"abcdefg"),
            OursAlone(&["/disk.img file 20000 a99171c22b86 ", "/after file 1 "]),
        ),
        layer(
            "sparse-old-extended",
            old(&many, 61_440, &bytes),
            OursAlone(&["/disk.img file 61440 64b45d90d423 ", "/after file 1 "]),
        ),
        layer(
            "sparse-old-hole-alone",
            old(&[(8192, 0)], 8192, b""),
            OursAlone(&["/disk.img file 8192 9f1dcbc35c35 ", "/after file 1 "]),
        ),
        layer("sparse-old-too-short", old(&few, 5000, b"abcdefg"), Refused),
        layer(
            "sparse-0-0",
            tar()
                .pax(&[
                    ("GNU.sparse.size", b"20000"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.offset", b"4096"),
                    ("GNU.sparse.numbytes", b"3"),
                    ("GNU.sparse.offset", b"9000"),
                    ("GNU.sparse.numbytes", b"4"),
                ])
                .file("disk.img", b"abcdefg")
                .file("after", b"x"),
            Same,
        ),
        layer(
            "sparse-0-1",
            tar()
                .pax(&[
                    ("GNU.sparse.size", b"20000"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.name", b"disk.img"),
                    ("GNU.sparse.map", in_map.as_bytes()),
                ])
                .file("GNUSparseFile.1/disk.img", b"abcdefg")
                .file("after", b"x"),
            Same,
        ),
        layer("sparse-1-0", in_content(&few, b"20000", b"abcdefg"), Same),
        layer("sparse-1-0-many", in_content(&many, b"61440", &bytes), Same),
        layer("sparse-1-0-disorder", in_content(&[(9000, 4), (4096, 3)], b"20000", b"abcdefg"), Refused),
        layer("sparse-1-0-stored-less", in_content(&few, b"20000", b"abc"), Refused),
    ]
}

fn odd_tars() -> Vec<Case> {
    let good = || tar().file("a", b"x");
    let mut checksum = good();
    checksum.0[0] = b'b';
    vec![
        layers("no-end", &[good().0], Same),
        layers("one-block-at-the-end", &[good().raw(&[0; 512]).0], Same),
        layers("padded-end", &[[good().ended(), vec![0; 20_480]].concat()], Same),
        layers("bytes-behind-the-end", &[[good().ended(), vec![7; 700]].concat()], Same),
        layers("cut-in-a-file", &[tar().with(Head::new(b'0', "a"), &[7; 2000]).0[..1024].to_vec()], Refused),
        layers("cut-in-a-header", &[good().0.iter().copied().chain([7; 100]).collect()], Refused),
        layers("wrong-checksum", &[checksum.ended()], Refused),
        layers("no-entries", &[vec![0; 1024]], Same),
        layers("unknown-type", &[good().head(Head::new(b'Z', "z")).ended()], Refused),
    ]
}

fn compressed() -> Vec<Case> {
    let bytes = tar().file("a", &[7; 5000]).symlink("b", "a").ended();
    let one = |name, kind: &'static str, packed: Vec<u8>, verdict| {
        let mut files = Files::default();
        let manifest = files.image("amd64", &[(kind, packed, bytes.clone())]);
        let reference = format!("localhost/{name}:1");
        let manifest = annotated(manifest, &[("org.opencontainers.image.ref.name", &reference)]);
        case(name, Form::Oci, files.index(&[manifest]), verdict)
    };
    let halves = [gzip(&bytes[..1000]), gzip(&bytes[1000..])].concat();
    let packed = |name, pack: fn(&[u8]) -> Vec<u8>| Case { pack, ..layer(name, tar().file("a", b"x"), Same) };
    vec![
        one("gzip", "+gzip", gzip(&bytes), Same),
        one("gzip-of-two-members", "+gzip", halves, Same),
        one("zstd", "+zstd", zstd(&bytes), Same),
        one("zstd-of-two-frames", "+zstd", [zstd(&bytes[..1000]), zstd(&bytes[1000..])].concat(), Same),
        one("gzip-that-is-plain", "+gzip", bytes.clone(), Same),
        one("plain-that-is-gzip", "", gzip(&bytes), Same),
        one("plain-that-is-xz", "", xz(&bytes), Same),
        one("plain-that-is-bzip2", "", bzip2(&bytes), Same),
        one("bzip2-of-two-streams", "", [bzip2(&bytes[..1000]), bzip2(&bytes[1000..])].concat(), Same),
        one("bzip2-that-is-cut", "", bzip2(&bytes)[..40].to_vec(), Refused),
        one("gzip-that-is-zstd", "+gzip", zstd(&bytes), Same),
        one("gzip-that-is-cut", "+gzip", gzip(&bytes)[..40].to_vec(), Refused),
        packed("archive-in-gzip", gzip),
        packed("archive-in-xz", xz),
        packed("archive-in-bzip2", bzip2),
        packed("archive-in-zstd", zstd),
        Case { form: Form::Directory, ..layer("directory", tar().file("a", b"x"), Same) },
    ]
}

/// An image that holds one file of this name, for a machine.
fn image(files: &mut Files, file: &str, arch: &str) -> Value {
    let bytes = tar().file(file, b"x").ended();
    files.image(arch, &[("+gzip", gzip(&bytes), bytes.clone())])
}

fn named(value: Value, name: &str) -> Value {
    annotated(value, &[("org.opencontainers.image.ref.name", &format!("localhost/{name}:1"))])
}

fn attestation(files: &mut Files) -> Value {
    let statement = files.blob("application/vnd.in-toto+json", b"{}".to_vec());
    let config = files.document(
        "application/vnd.oci.image.config.v1+json",
        &json!({ "architecture": "unknown", "os": "unknown" }),
    );
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [statement] });
    on(files.document(MANIFEST, &manifest), "unknown", "unknown")
}

fn indexes() -> Vec<Case> {
    let nested = |name: &'static str, arches: &[&str], attested: bool, verdict| {
        let mut files = Files::default();
        let mut manifests: Vec<Value> =
            arches.iter().map(|arch| on(image(&mut files, arch, arch), "linux", arch)).collect();
        if attested {
            manifests.push(attestation(&mut files));
        }
        let index =
            files.document(INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }));
        case(name, Form::Oci, files.index(&[named(index, name)]), verdict)
    };
    let one = |name: &'static str, arch: &str, verdict| {
        let mut files = Files::default();
        let manifest = image(&mut files, "a", arch);
        case(name, Form::Oci, files.index(&[named(manifest, name)]), verdict)
    };
    let mut two = Files::default();
    let both = [named(image(&mut two, "a", "amd64"), "a"), named(image(&mut two, "b", "amd64"), "b")];
    let mut beside = Files::default();
    let with_attestation = [named(image(&mut beside, "a", "amd64"), "beside"), attestation(&mut beside)];
    let mut tags = Files::default();
    let manifest = image(&mut tags, "a", "amd64");
    let two_tags = [named(manifest.clone(), "one"), named(manifest, "two")];
    let mut empty = Files::default();
    let no_layers = empty.image("amd64", &[]);
    vec![
        nested("attested", &["amd64"], true, Same),
        nested("for-several", &["arm64", "amd64", "s390x"], true, Same),
        nested("for-another", &["arm64"], true, Refused),
        variants("for-v2-alone", &["v3", "v2"], OursAlone(&["/filev2 file 1 "])),
        variants("for-v3-and-all", &["v3", "v1", ""], Same),
        variants("for-v4-alone", &["v4"], Refused),
        nulls(),
        one("config-of-another", "arm64", PodmansAlone("it is for linux/arm64, but guests are linux/amd64")),
        case("two-images", Form::Oci, two.index(&both), Refused),
        case("attested-beside", Form::Oci, beside.index(&with_attestation), OursAlone(&["/a file 1 "])),
        case("two-tags", Form::Oci, tags.index(&two_tags), OursAlone(&["/a file 1 "])),
        case("no-layers", Form::Oci, empty.index(&[named(no_layers, "no-layers")]), Same),
        damaged("layer-missing", |name| name.starts_with("blobs"), |_| None),
        damaged(
            "layer-changed",
            |name| name.starts_with("blobs"),
            |mut bytes| {
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
                Some(bytes)
            },
        ),
        damaged("no-index", |name| name == "index.json", |_| None),
        damaged("index-cut", |name| name == "index.json", |bytes| Some(bytes[..bytes.len() / 2].to_vec())),
    ]
}

/// An index of images for amd64, of these variants.
fn variants(name: &'static str, all: &[&str], verdict: Verdict) -> Case {
    let mut files = Files::default();
    let mut of = |variant: &&str| {
        let mut image = on(image(&mut files, &format!("file{variant}"), "amd64"), "linux", "amd64");
        if !variant.is_empty() {
            image["platform"]["variant"] = json!(variant);
        }
        image
    };
    let manifests: Vec<Value> = all.iter().map(&mut of).collect();
    let index =
        files.document(INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }));
    case(name, Form::Oci, files.index(&[named(index, name)]), verdict)
}

/// An image without layers, as a program writes it that says `null` of what is empty.
fn nulls() -> Case {
    let mut files = Files::default();
    let config = files.document("application/vnd.oci.image.config.v1+json", &config("amd64", &[]));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": null, "annotations": null,
    });
    let mut manifest = files.document(MANIFEST, &manifest);
    (manifest["annotations"], manifest["platform"]) = (Value::Null, Value::Null);
    case("nulls", Form::Oci, files.index(&[manifest]), Same)
}

/// A good archive, one of whose files is changed or left out.
fn damaged(name: &'static str, which: fn(&str) -> bool, change: fn(Vec<u8>) -> Option<Vec<u8>>) -> Case {
    let mut good = layer(name, tar().file("a", b"x"), Refused);
    // The layer is the last of the blobs before the manifest.
    let is_it = |(file, _): &(String, Vec<u8>)| which(file) && !file.starts_with("blobs");
    let at = good.files.0.iter().position(is_it).unwrap_or(1);
    let (file, bytes) = good.files.0.remove(at);
    good.files.0.extend(change(bytes).map(|bytes| (file, bytes)));
    good
}

fn names() -> Vec<Case> {
    const CONTAINERD: &str = "io.containerd.image.name";
    const REFERENCE: &str = "org.opencontainers.image.ref.name";
    let called = |name: &'static str, annotations: &[(&str, &str)], verdict| {
        let mut files = Files::default();
        let manifest = image(&mut files, name, "amd64");
        case(name, Form::Oci, files.index(&[annotated(manifest, annotations)]), verdict)
    };
    let at_digest = format!("quay.io/a/b:1@{}", digest(b""));
    vec![
        called("containerd", &[(CONTAINERD, "docker.io/library/browser:1.0"), (REFERENCE, "1.0")], Same),
        called("bare-tag", &[(REFERENCE, "1.0")], Same),
        called("bare-name", &[(REFERENCE, "browser")], Same),
        called("no-name", &[], Same),
        called("short-name", &[(REFERENCE, "team/browser:2")], Same),
        called("docker-name", &[(REFERENCE, "docker.io/browser")], Same),
        called("registry-with-port", &[(REFERENCE, "registry.example:5000/a/b")], Same),
        called("local-name", &[(REFERENCE, "localhost:5000/b:x")], Same),
        called("registry-with-underscore", &[(REFERENCE, "my_registry.local/a:1")], Same),
        called("longest-name", &[(REFERENCE, &format!("quay.io/{}:1", "a".repeat(247)))], Same),
        called("name-too-long", &[(REFERENCE, &format!("quay.io/{}:1", "a".repeat(248)))], Refused),
        called("local-name-too-long", &[(REFERENCE, &"a".repeat(246))], Refused),
        called("name-at-another-digest", &[(REFERENCE, &at_digest)], Refused),
        called("name-in-capitals", &[(REFERENCE, "quay.io/A/B:1")], Refused),
        called("name-with-space", &[(REFERENCE, "a b:1")], Refused),
    ]
}

/// Layers by their names, as they are stored.
type Layers<'a> = &'a [(&'a str, Vec<u8>)];

/// A `docker save` archive: each image its tags, and its layers by name and bytes as they are stored.
fn saved(images: &[(&[&str], Layers<'_>)], arch: &str, tars: &[Vec<u8>]) -> Files {
    let mut files = Files::default();
    let mut list = Vec::new();
    for (number, (tags, layers)) in images.iter().enumerate() {
        let of = if images.len() == 1 { tars } else { &tars[number..=number] };
        let mut config = config(arch, &of.iter().map(Vec::as_slice).collect::<Vec<_>>());
        config["author"] = json!(number.to_string());
        let name = format!("{}.json", &digest(config.to_string().as_bytes())[7..]);
        files.0.push((name.clone(), config.to_string().into_bytes()));
        files.0.extend(layers.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())));
        let layers: Vec<_> = layers.iter().map(|(name, _)| *name).collect();
        list.push(json!({ "Config": name, "RepoTags": tags, "Layers": layers }));
    }
    files.0.push(("manifest.json".into(), Value::from(list).to_string().into_bytes()));
    files
}

fn docker() -> Vec<Case> {
    let one = tar().directory("etc").file("etc/a", b"x").ended();
    let two = tar().file("b", b"y").ended();
    let docker = |name, files, verdict| case(name, Form::Docker, files, verdict);
    let both: Layers<'_> = &[("1/layer.tar", one.clone()), ("2/layer.tar", two.clone())];
    let tars = [one.clone(), two.clone()];
    let first: Layers<'_> = &[("1/layer.tar", one.clone())];
    let second: Layers<'_> = &[("2/layer.tar", two.clone())];
    let packed: Layers<'_> = &[("1/layer.tar", gzip(&one)), ("2/layer.tar", zstd(&two))];
    let none: Layers<'_> = &[];
    vec![
        docker("docker-one", saved(&[(&["browser:1"], both)], "amd64", &tars), Same),
        docker(
            "docker-tags",
            saved(&[(&["browser:1", "quay.io/a/b:2", "docker.io/c:3"], both)], "amd64", &tars),
            Same,
        ),
        docker(
            "docker-images",
            saved(&[(&["one:1"], first), (&["two:1", "two:2"], second)], "amd64", &tars),
            Same,
        ),
        docker(
            "docker-image-without-tag",
            saved(&[(&["one:1"], first), (&[], second)], "amd64", &tars),
            Same,
        ),
        docker("docker-untagged", saved(&[(&[], both)], "amd64", &tars), Same),
        docker("docker-packed-layers", saved(&[(&["packed:1"], packed)], "amd64", &tars), Same),
        docker("docker-no-layers", saved(&[(&["none:1"], none)], "amd64", &[]), Same),
        docker(
            "docker-other-layers",
            saved(&[(&["other:1"], both)], "amd64", &[two.clone(), one.clone()]),
            Refused,
        ),
        docker(
            "docker-for-another",
            saved(&[(&["arm:1"], both)], "arm64", &tars),
            PodmansAlone("it is for linux/arm64"),
        ),
        Case {
            pack: gzip,
            ..docker(
                "docker-in-gzip",
                saved(&[(&["gz:1"], both)], "amd64", &tars),
                OursAlone(&["/etc/a file 1 ", "/b file 1 "]),
            )
        },
    ]
}
