//! A `vmlinux` without what merely fills it: the same memory from half the file.
//!
//! The linker puts the kernel's parts on 2 MiB boundaries, so that they can be mapped with large pages of different
//! rights, and fills what lies between. Loading the filling costs a guest's host the copying, and a page of memory for
//! each of its pages. Three things are left out here, always in whole pages:
//!
//! - what lies between segments in the file alone, and no VMM reads;
//! - pages of zeros. The segment then has them as memory without contents, as it has `.bss`: ELF says they are zero;
//! - pages of `int3` (`0xcc`), which the kernel's linker script fills code with. They are no part of any segment then,
//!   and so zero, like all memory of a new guest. Nothing reads them and no jump leads there; they stand to stop a
//!   processor that went astray. So the first and the last page of such a run stay: whatever runs off the end of code
//!   still stops at once, and whatever landed in the middle (zeros are `add %al,(%rax)`) never reaches code.
//!
//! Symbols and section headers, which nothing needs for starting a kernel, go as well.

use std::ops::Range;

use goblin::elf::Elf;
use goblin::elf::header::{EM_X86_64, ET_EXEC, header64};
use goblin::elf::program_header::{PT_GNU_STACK, PT_LOAD, PT_NOTE, ProgramHeader, program_header64};
use goblin::elf::section_header::{SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, SectionHeader};

use crate::base::{Class, Diagnosis, Diagnostic};

/// Part of every kernel's build key: another number wherever other bytes are made of the same `vmlinux`.
pub const LAYOUT: &str = "1";

/// Bytes of a page of x86-64.
const PAGE: u64 = 4096;

/// What the kernel's linker script fills code with (`:text =0xcccc` in arch/x86/kernel/vmlinux.lds.S).
const INT3: u8 = 0xcc;

/// A `vmlinux` that is laid out otherwise than every kernel that is known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the layout of this vmlinux is not supported: {0}")]
pub struct UnsupportedVmlinux(String);

impl Diagnostic for UnsupportedVmlinux {
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.no_hint()
    }
}

fn refused<T>(reason: impl Into<String>) -> Result<T, UnsupportedVmlinux> {
    Err(UnsupportedVmlinux(reason.into()))
}

/// What a page of a segment is to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Contents,
    Zeros,
    Filling,
}

/// A part of a segment that becomes a segment: contents, then zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    /// Contents, in the old file. Never empty: not every VMM takes a segment without.
    contents: Range<u64>,
    /// Zeros behind them.
    zeros: u64,
    virtual_address: u64,
    physical_address: u64,
    flags: u32,
}

/// Rewrites a `vmlinux`; symbols and all that is not loaded go. An outcome that would not load the same memory is an
/// error.
pub fn compact(bytes: &[u8]) -> Result<Vec<u8>, UnsupportedVmlinux> {
    let elf = Elf::parse(bytes).map_err(|error| UnsupportedVmlinux(format!("it cannot be read: {error}")))?;
    check(&elf, bytes)?;
    let loads = elf.program_headers.iter().filter(|header| header.p_type == PT_LOAD);
    let pieces: Vec<_> = loads.clone().flat_map(|load| pieces(load, &pages(load, &elf, bytes))).collect();
    if !pieces.iter().any(|piece| piece.holds(elf.header.e_entry)) {
        return refused(format!("nothing is loaded at its entry {:#x}", elf.header.e_entry));
    }
    let notes = elf.program_headers.iter().filter(|header| header.p_type == PT_NOTE);
    let new = write(&pieces, notes, bytes)?;
    check_memory(loads, bytes, &new)?;
    Ok(new)
}

/// Looks whether all is as the pieces below take it to be.
fn check(elf: &Elf, bytes: &[u8]) -> Result<(), UnsupportedVmlinux> {
    let header = &elf.header;
    if !elf.is_64 || !elf.little_endian || header.e_machine != EM_X86_64 || header.e_type != ET_EXEC {
        return refused("it is not a 64-bit executable for x86-64");
    }
    if !elf.section_headers.iter().any(is_loaded) {
        return refused("it has no section headers, which tell code from data");
    }
    let mut taken: Vec<Range<u64>> = Vec::new();
    for (index, segment) in elf.program_headers.iter().enumerate() {
        let wrong = |reason: &str| refused(format!("its program header {index} {reason}"));
        let end = segment.p_offset.checked_add(segment.p_filesz);
        if end.is_none_or(|end| end > bytes.len() as u64) {
            return wrong("ends beyond the end of the file");
        }
        match segment.p_type {
            PT_NOTE | PT_GNU_STACK => continue,
            PT_LOAD => {}
            other => return wrong(&format!("is of type {other:#x}, which no kernel has")),
        }
        if (segment.p_paddr | segment.p_vaddr) % PAGE != 0 {
            return wrong("does not begin on a page");
        }
        let memory = segment.p_paddr..segment.p_paddr.saturating_add(segment.p_memsz);
        if segment.p_filesz == 0 || segment.p_filesz > segment.p_memsz || memory.end == u64::MAX {
            return wrong("has no contents, or more than it has memory");
        }
        if taken.iter().any(|other| other.start < memory.end && memory.start < other.end) {
            return wrong("lies over another in memory");
        }
        taken.push(memory);
    }
    Ok(())
}

/// Whether a section has contents that are loaded.
fn is_loaded(section: &SectionHeader) -> bool {
    section.sh_flags & u64::from(SHF_ALLOC) != 0 && section.sh_type != SHT_NOBITS
}

/// What each page of a segment's contents is.
fn pages(load: &ProgramHeader, elf: &Elf, bytes: &[u8]) -> Vec<Page> {
    let data = elf.section_headers.iter().filter(|section| is_loaded(section));
    let data: Vec<Range<u64>> = data
        .filter(|section| section.sh_flags & u64::from(SHF_EXECINSTR) == 0)
        .map(|section| section.sh_offset..section.sh_offset.saturating_add(section.sh_size))
        .collect();
    let contents = &bytes[load.p_offset as usize..(load.p_offset + load.p_filesz) as usize];
    let mut begin = load.p_offset;
    let mut pages = Vec::new();
    for page in contents.chunks(PAGE as usize) {
        let end = begin + page.len() as u64;
        let is_code = || !data.iter().any(|section| section.start < end && begin < section.end);
        pages.push(match page[0] {
            0 if page.iter().all(|&byte| byte == 0) => Page::Zeros,
            INT3 if page.iter().all(|&byte| byte == INT3) && is_code() => Page::Filling,
            _ => Page::Contents,
        });
        begin = end;
    }
    pages
}

/// Cuts a segment into pieces.
fn pieces(load: &ProgramHeader, pages: &[Page]) -> Vec<Piece> {
    let is_filling = |index: usize| pages.get(index) == Some(&Page::Filling);
    let mut pieces: Vec<Piece> = Vec::new();
    // Whether the page at hand may be left to the piece before it.
    let mut joined = false;
    for (index, page) in pages.iter().enumerate() {
        let begin = index as u64 * PAGE;
        let size = PAGE.min(load.p_filesz - begin);
        let between = index > 0 && is_filling(index - 1) && is_filling(index + 1);
        match (page, pieces.last_mut()) {
            (Page::Filling, _) if between => {
                joined = false;
                continue;
            }
            (Page::Zeros, Some(piece)) if joined => piece.zeros += size,
            (_, Some(piece)) if joined && piece.zeros == 0 => piece.contents.end += size,
            _ => pieces.push(Piece {
                contents: load.p_offset + begin..load.p_offset + begin + size,
                zeros: 0,
                virtual_address: load.p_vaddr + begin,
                physical_address: load.p_paddr + begin,
                flags: load.p_flags,
            }),
        }
        joined = true;
    }
    // The last page is never left out as filling: no other follows it.
    if let Some(piece) = pieces.last_mut() {
        piece.zeros += load.p_memsz - load.p_filesz;
    }
    pieces
}

impl Piece {
    fn size(&self) -> u64 {
        self.contents.end - self.contents.start
    }

    /// Whether its contents are at this address, which is physical or virtual.
    fn holds(&self, address: u64) -> bool {
        let begins = [self.physical_address, self.virtual_address];
        begins.iter().any(|&begin| address.checked_sub(begin).is_some_and(|within| within < self.size()))
    }
}

/// Writes headers, then the pieces, each on a page, as VMMs that map files want it.
fn write<'a>(
    pieces: &[Piece],
    notes: impl Iterator<Item = &'a ProgramHeader>,
    bytes: &[u8],
) -> Result<Vec<u8>, UnsupportedVmlinux> {
    let notes: Vec<_> = notes.collect();
    let count = pieces.len() + notes.len();
    let headers = header64::SIZEOF_EHDR + count * program_header64::SIZEOF_PHDR;
    let mut at = (headers as u64).next_multiple_of(PAGE);
    let mut table = Vec::new();
    for piece in pieces {
        table.push(ProgramHeader {
            p_type: PT_LOAD,
            p_flags: piece.flags,
            p_offset: at,
            p_vaddr: piece.virtual_address,
            p_paddr: piece.physical_address,
            p_filesz: piece.size(),
            p_memsz: piece.size() + piece.zeros,
            p_align: PAGE,
        });
        at = (at + piece.size()).next_multiple_of(PAGE);
    }
    for note in notes {
        let end = note.p_offset + note.p_filesz;
        let within = |piece: &Piece| piece.contents.start <= note.p_offset && end <= piece.contents.end;
        let Some(index) = pieces.iter().position(within) else {
            return refused("its notes are not in one of its segments");
        };
        let offset = table[index].p_offset + (note.p_offset - pieces[index].contents.start);
        table.push(ProgramHeader { p_offset: offset, ..note.clone() });
    }
    let Ok(count) = u16::try_from(count) else { return refused("it falls into too many pieces") };
    let mut new = bytes[..header64::SIZEOF_EHDR].to_vec();
    // e_phoff, e_shoff; then e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx (elf(5)).
    new[32..40].copy_from_slice(&(header64::SIZEOF_EHDR as u64).to_le_bytes());
    new[40..48].fill(0);
    for (index, value) in [program_header64::SIZEOF_PHDR as u16, count, 0, 0, 0].into_iter().enumerate() {
        new[54 + 2 * index..56 + 2 * index].copy_from_slice(&value.to_le_bytes());
    }
    table.iter().for_each(|header| put(header, &mut new));
    for (piece, header) in pieces.iter().zip(&table) {
        new.resize(header.p_offset as usize, 0);
        new.extend_from_slice(&bytes[piece.contents.start as usize..piece.contents.end as usize]);
    }
    Ok(new)
}

/// Writes a program header as elf(5) has it.
fn put(header: &ProgramHeader, to: &mut Vec<u8>) {
    to.extend(header.p_type.to_le_bytes());
    to.extend(header.p_flags.to_le_bytes());
    let (offset, addresses) = (header.p_offset, [header.p_vaddr, header.p_paddr]);
    let sizes = [header.p_filesz, header.p_memsz, header.p_align];
    for value in [offset].into_iter().chain(addresses).chain(sizes) {
        to.extend(value.to_le_bytes());
    }
}

/// Looks whether the new file fills memory as the old one does, filling apart.
fn check_memory<'a>(
    loads: impl Iterator<Item = &'a ProgramHeader>,
    old: &[u8],
    new: &[u8],
) -> Result<(), UnsupportedVmlinux> {
    let elf = Elf::parse(new).map_err(|error| {
        UnsupportedVmlinux(format!(
            "the compacted file cannot be read: \
      {error}"
        ))
    })?;
    for load in loads {
        let mut memory = vec![0; load.p_memsz as usize];
        let mut owned = vec![false; load.p_memsz.div_ceil(PAGE) as usize];
        let inside = |header: &&ProgramHeader| {
            header.p_type == PT_LOAD && (load.p_paddr..load.p_paddr + load.p_memsz).contains(&header.p_paddr)
        };
        for piece in elf.program_headers.iter().filter(inside) {
            let at = (piece.p_paddr - load.p_paddr) as usize;
            memory[at..at + piece.p_filesz as usize].copy_from_slice(&new[piece.file_range()]);
            owned[at / PAGE as usize..(at as u64 + piece.p_memsz).div_ceil(PAGE) as usize].fill(true);
        }
        let mut before = old[load.file_range()].to_vec();
        before.resize(load.p_memsz as usize, 0);
        let pages = before.chunks(PAGE as usize).zip(memory.chunks(PAGE as usize));
        for (index, ((before, after), owned)) in pages.zip(owned).enumerate() {
            let is_filling = !owned && before.iter().all(|&byte| byte == INT3);
            if !(is_filling || owned && before == after) {
                return refused(format!(
                    "the compacted file would load different bytes in page {index} at {:#x}",
                    load.p_paddr
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
