//! Hostile packages in a repository that a trusted key has signed: refused by name, member and reason, within little memory,
//! and nothing is written.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use sisforge::apk::{Checksum, Index, PackageInfo, SigningKey};

use crate::common::sandbox::{Run, Sandbox};

/// Most memory that the program may have resident, in KiB: much less than what is held out to it.
const ROOM: u64 = 192 << 10;
const LARGE: u64 = 384 << 20;

fn gzip(mut bytes: impl Read) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::copy(&mut bytes, &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn header(kind: u8, name: &str, link: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    let fields = header.as_ustar_mut().unwrap();
    fields.typeflag = [kind];
    fields.name[..name.len()].copy_from_slice(name.as_bytes());
    fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

/// A data member of empty entries.
fn data(entries: &[(u8, &str, &str)]) -> Vec<u8> {
    let headers = entries.iter().flat_map(|(kind, name, link)| *header(*kind, name, link, 0).as_bytes());
    gzip(&headers.chain([0; 1024]).collect::<Vec<u8>>()[..])
}

/// A member that begins with a header and goes on with nothing but zeros.
fn endless(kind: u8) -> Vec<u8> {
    gzip(header(kind, "a", "", LARGE).as_bytes().chain(std::io::repeat(0).take(LARGE)))
}

fn control(text: &str) -> Vec<u8> {
    let length = text.len() as u64;
    let padding = vec![0; text.len().next_multiple_of(512) - text.len()];
    gzip(&[header(b'0', ".PKGINFO", "", length).as_bytes(), text.as_bytes(), &padding].concat()[..])
}

/// A control member whose data hash holds.
fn vouching(name: &str, data: &[u8]) -> Vec<u8> {
    let hash = hex::encode(Sha256::digest(data));
    control(&format!("pkgname = {name}\npkgver = 1.0-r0\narch = x86_64\ndatahash = {hash}\n"))
}

/// Puts a package in the place of `tiny`, and signs an index that vouches for it.
fn serve(sandbox: &Sandbox, control: &[u8], data: &[u8]) {
    let package = [control, data].concat();
    let mut info = PackageInfo::new("tiny", "1.0-r0".parse().unwrap(), "x86_64").unwrap();
    (info.checksum, info.size) = (Checksum::of(control), package.len() as u64);
    let key = SigningKey::read(&sandbox.path("me.rsa")).unwrap();
    let index = Index { packages: vec![info], ..Index::default() }.to_signed(&key).unwrap();
    sandbox.write("repository/x86_64/tiny-1.0-r0.apk", package);
    sandbox.write("repository/x86_64/APKINDEX.tar.gz", index);
}

/// Runs the program, which must stay within [`ROOM`].
#[track_caller]
fn run(sandbox: &Sandbox, args: &str) -> Run {
    let mut command = sandbox.command();
    command.args(args.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        most = line.map_or(most, |line| line.trim().trim_end_matches(" kB").parse().unwrap());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!((1..ROOM).contains(&most), "sisforge {args} took {most} KiB");
    Run::from(child.wait_with_output().unwrap())
}

#[test]
fn a_hostile_package_is_refused_by_package_member_and_reason_within_little_memory() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let good = data(&[(b'5', "etc", ""), (b'0', "etc/tiny", "")]);
    let names = |entries: &[(u8, &str, &str)]| {
        let data = data(entries);
        (vouching("tiny", &data), data)
    };
    let of = |data: Vec<u8>| (vouching("tiny", &data), data);
    let path = "its name is absolute, or has an empty, '.' or '..' part";
    let cases = [
        (
            "leaves the root",
            names(&[(b'0', "../../etc/shadow", "")]),
            "data member: ../../etc/shadow: ",
            path,
        ),
        ("absolute", names(&[(b'0', "/etc/shadow", "")]), "data member: /etc/shadow: ", path),
        (
            "below a link",
            names(&[(b'2', "etc", "/etc"), (b'0', "etc/shadow", "")]),
            "data member: etc/shadow: ",
            "its parent is not a directory",
        ),
        (
            "a hard link to the host",
            names(&[(b'1', "x", "/etc/shadow")]),
            "data member: x: ",
            "not a regular file earlier in this package",
        ),
        (
            "a device",
            names(&[(b'4', "sda", "")]),
            "data member: sda: ",
            "device nodes are allowed below \
          dev/ only",
        ),
        (
            "a bell",
            names(&[(b'0', "a\x07b", "")]),
            "data member: a\\u{7}b: ",
            "its name contains a control character",
        ),
        ("another data member", (vouching("tiny", b"x"), good.clone()), "data member: ", "its SHA-256 is"),
        ("another name", (vouching("other", &good), good.clone()), "", "it says that it is other-1.0-r0"),
        (
            "no data hash",
            (control("pkgname = tiny\npkgver = 1.0-r0\n"), good.clone()),
            "control member: ",
            "it has no datahash",
        ),
        (
            "a giant extended header",
            of(endless(b'x')),
            "data member: ",
            "has 402653184 bytes; at most 1048576 are allowed",
        ),
        (
            "a giant long name",
            of(endless(b'L')),
            "data member: ",
            "has 402653184 bytes; at most 1048576 are allowed",
        ),
        (
            "a control bomb",
            (endless(b'0'), good.clone()),
            "control member: ",
            "it inflates to more than 16777216 bytes",
        ),
        (
            "a bomb behind the end",
            of(gzip((&[0; 1024][..]).chain(std::io::repeat(1).take(LARGE)))),
            "data member: ",
            "bytes follow the end of the archive",
        ),
    ];
    for (what, (control, data), member, reason) in cases {
        serve(&sandbox, &control, &data);
        for command in ["lock", "build image i"] {
            let run = run(&sandbox, command);
            assert_eq!(run.code, 2, "{what}\n{run}");
            let said = format!("package tiny-1.0-r0: {member}");
            let unnamed = format!("package (name not known yet): {member}");
            assert!(run.err.contains(&said) || run.err.contains(&unnamed), "{what}\n{run}");
            for word in ["a package of the repository repository is refused", reason, "help: "] {
                assert!(run.err.contains(word), "{what}: not said: {word:?}\n{run}");
            }
            assert!(!run.err.contains('\x07'), "{what}: the terminal was reached");
            assert!(!sandbox.path("fleet.lock").exists(), "{what}");
            let find =
                Run::of(Command::new("find").arg(sandbox.path("out")).args(["-type", "f", "-size", "+0"]));
            assert_eq!(find.out, "", "{what}: something was written");
        }
    }
    serve(&sandbox, &vouching("tiny", &good), &good);
    run(&sandbox, "lock").fails(0, &[]);
}

#[test]
fn a_large_file_is_verified_within_little_memory() {
    let sandbox = Sandbox::new();
    sandbox.fleet("a");
    let end = std::io::repeat(0).take(1024);
    let data =
        gzip(header(b'0', "zeros", "", LARGE).as_bytes().chain(std::io::repeat(0).take(LARGE)).chain(end));
    serve(&sandbox, &vouching("tiny", &data), &data);
    run(&sandbox, "lock").fails(0, &[]);
    // A file that says that it is larger than it is.
    let data = gzip(header(b'0', "zeros", "", 8 << 30).as_bytes().chain(std::io::repeat(0).take(LARGE / 4)));
    serve(&sandbox, &vouching("tiny", &data), &data);
    run(&sandbox, "lock --update")
        .fails(2, &["package tiny-1.0-r0: data member: ", "the archive ends within a file"]);
}
