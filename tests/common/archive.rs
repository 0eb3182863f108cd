//! Archives as anybody can write them.

/// A member of an archive: its kind, its name and its content.
pub type Member<'a> = (tar::EntryType, &'a str, &'a [u8]);

/// A tar file of these members, compressed by zstd. Names stand in it as they are.
pub fn packed(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    zstd::encode_all(builder.into_inner().unwrap().as_slice(), 1).unwrap()
}
