//! A `vmlinux` of a few pages, and what becomes of each kind of page.

use super::*;

const BASE: u64 = 0x100_0000;

/// Pages of one byte each.
fn pages_of(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|&byte| [byte; PAGE as usize]).collect()
}

/// A vmlinux of one segment with code, then data, then a page of `.bss`; the notes are the first 8 bytes of data.
fn vmlinux(code: &[u8], data: &[u8]) -> Vec<u8> {
    let at = |pages: usize| PAGE * (1 + pages as u64);
    let [data_at, end] = [at(code.len()), at(code.len() + data.len())];
    let size = end - PAGE;
    let mut file = vec![0; PAGE as usize];
    file.extend(pages_of(code));
    file.extend(pages_of(data));
    let headers = [(PT_LOAD, PAGE, BASE, size, size + PAGE), (PT_NOTE, data_at, BASE + data_at - PAGE, 8, 8)];
    let mut table = Vec::new();
    for (p_type, p_offset, p_paddr, p_filesz, p_memsz) in headers {
        let p_vaddr = p_paddr + 0xffff_ffff_8000_0000;
        let header =
            ProgramHeader { p_type, p_flags: 7, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align: 4 };
        put(&header, &mut table);
    }
    let sections = [(0, 0, 0, 0), (1, 6, PAGE, data_at - PAGE), (1, 3, data_at, end - data_at)];
    for (sh_type, sh_flags, sh_offset, sh_size) in sections {
        let words = [u64::from(sh_type as u32) << 32, sh_flags, 0, sh_offset, sh_size, 0, 0, 0];
        file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16..24].copy_from_slice(&[2, 0, 0x3e, 0, 1, 0, 0, 0]);
    file[24..32].copy_from_slice(&BASE.to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[40..48].copy_from_slice(&end.to_le_bytes());
    for (index, value) in [64u16, 56, 2, 64, 3, 0].into_iter().enumerate() {
        file[52 + 2 * index..54 + 2 * index].copy_from_slice(&value.to_le_bytes());
    }
    file[64..64 + table.len()].copy_from_slice(&table);
    file
}

/// The segments of a file: page in memory, pages of contents, pages of memory.
fn segments(file: &[u8]) -> Vec<(u64, u64, u64)> {
    let elf = Elf::parse(file).unwrap();
    let loads = elf.program_headers.iter().filter(|header| header.p_type == PT_LOAD);
    loads.map(|load| ((load.p_paddr - BASE) / PAGE, load.p_filesz / PAGE, load.p_memsz / PAGE)).collect()
}

#[test]
fn filling_goes_but_for_its_ends_and_zeros_become_memory_without_contents() {
    let code = [1, INT3, INT3, INT3, INT3, 2, INT3, INT3, 3];
    let old = vmlinux(&code, &[4, 0, 0, 5, 0]);
    let new = compact(&old).unwrap();
    // The last has the page of .bss besides its own zeros.
    assert_eq!(segments(&new), [(0, 2, 2), (4, 6, 8), (12, 1, 3)]);
    assert_eq!(new.len() as u64, PAGE * (1 + 9));
    assert!(Elf::parse(&new).unwrap().section_headers.is_empty());
    assert_eq!(compact(&old), Ok(new));
}

#[test]
fn data_that_looks_like_filling_stays() {
    let new = compact(&vmlinux(&[1, 2], &[4, INT3, INT3, INT3, INT3, 5])).unwrap();
    assert_eq!(segments(&new), [(0, 8, 9)]);
}

#[test]
fn entry_notes_and_addresses_are_the_same() {
    let old = vmlinux(&[1, INT3, INT3, INT3, 2], &[4, 5]);
    let new = compact(&old).unwrap();
    let [before, after] = [&old, &new].map(|file| Elf::parse(file).unwrap());
    assert_eq!(before.header.e_entry, after.header.e_entry);
    let note = |elf: &Elf| elf.program_headers.iter().find(|header| header.p_type == PT_NOTE).cloned();
    let [before, after] = [note(&before).unwrap(), note(&after).unwrap()];
    assert_eq!(old[before.file_range()], new[after.file_range()]);
    assert_eq!(before, ProgramHeader { p_offset: before.p_offset, ..after });
    for load in Elf::parse(&new).unwrap().program_headers.iter().filter(|header| header.p_type == PT_LOAD) {
        assert_eq!(load.p_vaddr - load.p_paddr, 0xffff_ffff_8000_0000);
        assert_eq!(load.p_offset % PAGE, 0);
    }
}

#[test]
fn what_does_not_load_the_same_memory_is_noticed() {
    let old = vmlinux(&[1, 0, 0, 2], &[4]);
    let mut new = compact(&old).unwrap();
    let elf = Elf::parse(&old).unwrap();
    let loads = || elf.program_headers.iter().filter(|header| header.p_type == PT_LOAD);
    check_memory(loads(), &old, &new).unwrap();
    *new.last_mut().unwrap() ^= 1;
    let error = check_memory(loads(), &old, &new).unwrap_err();
    assert!(error.0.starts_with("the compacted file would load different bytes in page 4"), "{error}");
    // Zeros that are no part of a segment could be anything.
    let without_zeros = vmlinux(&[1, INT3, INT3, 2], &[4]);
    assert!(check_memory(loads(), &old, &without_zeros).is_err());
}

#[test]
fn a_layout_that_no_kernel_has_is_refused_with_its_reason() {
    let reason = |offset: usize, byte: u8| {
        let mut file = vmlinux(&[1, 2], &[4]);
        file[offset] = byte;
        compact(&file).map(|file| file.len()).unwrap_err().0
    };
    // Of the first program header, at 64: p_type, p_paddr, p_filesz, p_memsz.
    assert_eq!(reason(18, 3), "it is not a 64-bit executable for x86-64");
    assert_eq!(reason(60, 0), "it has no section headers, which tell code from data");
    assert_eq!(reason(64, 3), "its program header 0 is of type 0x3, which no kernel has");
    assert_eq!(reason(64 + 24, 1), "its program header 0 does not begin on a page");
    assert_eq!(reason(64 + 35, 1), "its program header 0 ends beyond the end of the file");
    assert_eq!(reason(64 + 41, 0x10), "its program header 0 has no contents, or more than it has memory");
    assert_eq!(reason(27, 7), "nothing is loaded at its entry 0x7000000");
    assert_eq!(reason(120 + 9, 0x90), "its program header 1 ends beyond the end of the file");
    assert_eq!(reason(120 + 9, 0), "its notes are not in one of its segments");
}
