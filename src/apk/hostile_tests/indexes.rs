//! Indexes that are damaged, or signed and not what an index is.

use super::super::index::{Index, signature_member};
use super::signatures::{good, trusted};
use super::*;

const RECORD: &str = "C:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\nP:a\nV:1-r0\nA:x86_64\nS:10\nI:20\nT:x\nU:x\nL:x\n\n";

/// An index of these files, signed.
fn index(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = TarWriter::default();
    files.iter().for_each(|(name, bytes)| tar.add(&file(name, bytes.len()), bytes));
    signed(&compress(&tar.ended()))
}

fn signed(body: &[u8]) -> Vec<u8> {
    [signature_member(good(), body).unwrap(), body.to_vec()].concat()
}

fn verdict(bytes: &[u8]) -> Result<Index, String> {
    Index::verify(bytes, &trusted()).map_err(|error| error.to_string())
}

#[test]
fn the_order_and_the_description_do_not_matter() {
    let text = RECORD.as_bytes();
    for files in [
        &[("DESCRIPTION", &b"main"[..]), ("APKINDEX", text)][..],
        &[("APKINDEX", text), ("DESCRIPTION", b"main")],
        &[("APKINDEX", text)],
    ] {
        let index = verdict(&index(files)).unwrap();
        assert_eq!((index.packages.len(), index.key.as_deref()), (1, Some("good.rsa.pub")));
    }
}

#[test]
fn an_index_that_is_not_what_it_should_be_is_refused() {
    let text = RECORD.as_bytes();
    let whole = index(&[("APKINDEX", text)]);
    let body = {
        let mut tar = TarWriter::default();
        tar.add(&file("APKINDEX", text.len()), text);
        compress(&tar.ended())
    };
    let wrong = "the index: the signature by good.rsa.pub is wrong";
    let cases: [(&str, Vec<u8>, &str); 10] = [
        ("unsigned", body.clone(), "the index: it is not signed"),
        ("empty", Vec::new(), "the index: it is empty"),
        ("cut", whole[..whole.len() - 9].to_vec(), wrong),
        ("something behind it", [&whole[..], b"x"].concat(), wrong),
        ("a member behind it", [&whole[..], &compress(b"x")].concat(), wrong),
        (
            "signed with what is behind it",
            signed(&[&body[..], b"x"].concat()),
            "the index: bytes follow its end",
        ),
        // What each signs is the index, not the other's signature.
        ("a signature of a signature", signed(&signed(&body)), wrong),
        ("no APKINDEX", index(&[("DESCRIPTION", text)]), "the index has no APKINDEX"),
        ("two of them", index(&[("APKINDEX", text), ("APKINDEX", b"")]), "the index has two files APKINDEX"),
        ("no archive", signed(&compress(&[7; 700])), "the index: a header has a wrong checksum"),
    ];
    for (what, bytes, said) in cases {
        assert_eq!(verdict(&bytes).unwrap_err(), said, "{what}");
    }
}

#[test]
fn a_giant_index_is_refused_before_it_is_all_in_memory() {
    let bomb = signed(&compress(&vec![b'\n'; (256 << 20) + 1]));
    assert_eq!(verdict(&bomb).unwrap_err(), "the index: it inflates to more than 268435456 bytes");
}

#[test]
fn a_record_without_a_right_identity_or_size_cannot_be_installed() {
    let rejected = |from: &str, to: &str| {
        let index = Index::parse(&RECORD.replace(from, to));
        index.rejected.into_iter().map(|(name, reason)| format!("{name}: {reason}")).collect::<Vec<_>>()
    };
    for (from, to) in [
        ("C:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", ""),
        ("C:Q1AAAA", "C:Q9AAAA"),
        ("C:Q1AAAA", "C:Q1"),
        ("C:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "C:Q1!!!!"),
        ("S:10", "S:-1"),
        ("S:10", "S:99999999999999999999"),
        ("S:10", "S:ten"),
        ("P:a\n", ""),
        ("P:a", "P:a/b"),
        ("V:1-r0\n", ""),
        ("V:1-r0", "V:one"),
    ] {
        assert_eq!(rejected(from, to).len(), 1, "{to:?} was accepted");
    }
    assert_eq!(rejected("", ""), [""; 0]);
}
