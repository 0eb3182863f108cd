//! A guest of a few instructions: it writes a text to its serial port and then does one thing more. `doctor` proves KVM
//! by it, and tests start it by the dozen.
//!
//! Small enough for KVM without hardware virtualization, where a whole kernel does not come up.
//! The file is what Firecracker takes as a kernel without a PVH note: a static x86-64 ELF, entered
//! in 64-bit mode with the first GiB mapped one to one.

/// What the guest does after its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterText {
    /// Halts for ever with interrupts off: it hears nothing, only a signal to the VMM ends it.
    Halt,
    /// Waits for a key on the i8042 keyboard controller, such as Ctrl+Alt+Del, and then resets, which
    /// ends Firecracker with status 0. It polls, and so keeps one host CPU busy.
    ResetOnKey,
    /// Writes numbers for ever, each a line of eight digits of base 16 (`0` to `?`, as ASCII orders them).
    Count,
    /// Writes numbers of eight digits, each one more than the last, on lines of their own, a few milliseconds apart, until
    /// it hears a key as in [`AfterText::ResetOnKey`]. The number is in its memory.
    Tick,
    /// Resets at once, which ends Firecracker with status 0.
    Reset,
}

/// Guest-physical address of the only segment: 16 MiB, where Linux is loaded as well.
const LOAD_ADDRESS: u64 = 0x100_0000;

/// Sizes of `Elf64_Ehdr` and `Elf64_Phdr` (System V ABI, chapters 4 and 5).
const HEADERS: u64 = 64 + 56;

/// Pulses the CPU's reset line through the i8042 command port.
const RESET: &[u8] = &[
    0xb0, 0xfe, // mov al, 0xfe
    0xe6, 0x64, // out 0x64, al
];

/// Until a byte is in the keyboard controller's output buffer.
const WAIT_FOR_KEY: &[u8] = &[
    0xe4, 0x64, // wait: in al, 0x64
    0xa8, 0x01, // test al, 1
    0x74, 0xfa, // jz wait
];

/// What [`AfterText::Tick`] counts in.
const DIGITS: &[u8] = b"00000000\n";

/// How often the keyboard controller is asked between two numbers; each time costs an exit to the VMM.
const POLLS: u32 = 2000;

/// Adds one to the digits behind `text_length` bytes of text, writes them, waits, and does so again.
fn tick(text_length: usize) -> Vec<u8> {
    let add = [
        0x8a, 0x07, // carry: mov al, [rdi]
        0xfe, 0xc0, // inc al
        0x3c, 0x39, // cmp al, '9'
        0x76, 0x08, // jbe store
        0xc6, 0x07, 0x30, // mov byte [rdi], '0'
        0x48, 0xff, 0xcf, // dec rdi
        0xeb, 0xf0, // jmp carry
        0x88, 0x07, // store: mov [rdi], al
    ];
    let write = [
        0xb9, 0x09, 0x00, 0x00, 0x00, // mov ecx, 9
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xac, // next: lodsb
        0xee, // out dx, al
        0xe2, 0xfc, // loop next
    ];
    let [p0, p1, p2, p3] = POLLS.to_le_bytes();
    let wait = [
        0xb9, p0, p1, p2, p3, // mov ecx, POLLS
        0xe4, 0x64, // wait: in al, 0x64
        0xa8, 0x01, // test al, 1
        0x75, 0x04, // jnz reset
        0xe2, 0xf8, // loop wait
    ];
    /// Length of a `lea` relative to the next instruction.
    const LEA: usize = 7;
    let body = 2 * LEA + add.len() + write.len() + wait.len() + 2;
    let rest = RESET.len() + HALT.len() + text_length;
    let to_last_digit = body - LEA + rest + DIGITS.len() - 2;
    let to_digits = body - LEA - add.len() - LEA + rest;
    let lea = |register: u8, distance: usize| {
        [&[0x48, 0x8d, register][..], &(distance as u32).to_le_bytes()].concat()
    };
    let again = [0xeb, (256 - body) as u8]; // jmp to the beginning
    let parts =
        [&lea(0x3d, to_last_digit)[..], &add, &lea(0x35, to_digits), &write, &wait, &again, RESET, HALT];
    parts.concat()
}

const HALT: &[u8] = &[
    0xf4, // halt: hlt
    0xeb, 0xfd, // jmp halt
];

/// `ebx` counts; each digit is four bits and `0`. `dx` is the serial port already.
const COUNT: &[u8] = &[
    0x31, 0xdb, // xor ebx, ebx
    0xb9, 0x08, 0x00, 0x00, 0x00, // next: mov ecx, 8
    0x89, 0xdf, // mov edi, ebx
    0xc1, 0xc7, 0x04, // digit: rol edi, 4
    0x89, 0xf8, // mov eax, edi
    0x24, 0x0f, // and al, 0xf
    0x04, 0x30, // add al, '0'
    0xee, // out dx, al
    0xe2, 0xf4, // loop digit
    0xb0, 0x0a, // mov al, '\n'
    0xee, // out dx, al
    0xff, 0xc3, // inc ebx
    0xeb, 0xe6, // jmp next
];

/// The guest's kernel image.
///
/// # Panics
/// Where `text` is empty, or has 4096 bytes or more.
pub fn elf(text: &str, then: AfterText) -> Vec<u8> {
    let code = code(text, then);
    let size = HEADERS + code.len() as u64;
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01"); // 64-bit, little-endian, version 1
    file.resize(16, 0);
    file.extend(2_u16.to_le_bytes()); // e_type: EXEC
    file.extend(62_u16.to_le_bytes()); // e_machine: x86-64
    file.extend(1_u32.to_le_bytes()); // e_version
    file.extend((LOAD_ADDRESS + HEADERS).to_le_bytes()); // e_entry
    file.extend(64_u64.to_le_bytes()); // e_phoff
    file.extend(0_u64.to_le_bytes()); // e_shoff
    file.extend(0_u32.to_le_bytes()); // e_flags
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes()); // e_ehsize, e_phentsize, e_phnum; no sections
    }
    file.extend(1_u32.to_le_bytes()); // p_type: LOAD
    file.extend(5_u32.to_le_bytes()); // p_flags: read, execute
    for word in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1000] {
        file.extend(word.to_le_bytes()); // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    }
    file.extend(code);
    file
}

fn code(text: &str, then: AfterText) -> Vec<u8> {
    assert!(
        (1..4096).contains(&text.len()),
        "`loop` with a count of 0 does not end, and this is a tiny guest"
    );
    let after = match then {
        AfterText::Halt => [HALT].concat(),
        AfterText::Count => [COUNT].concat(),
        AfterText::ResetOnKey => [WAIT_FOR_KEY, RESET, HALT].concat(),
        AfterText::Reset => [RESET, HALT].concat(),
        AfterText::Tick => tick(text.len()),
    };
    let write = [
        &[0xb9][..],
        &(text.len() as u32).to_le_bytes(), // mov ecx, len
        &[0x66, 0xba, 0xf8, 0x03],          // mov dx, 0x3f8
        &[0xac],                            // next: lodsb
        &[0xee],                            // out dx, al
        &[0xe2, 0xfc],                      // loop next
    ]
    .concat();
    let to_text = (write.len() + after.len()) as u32;
    let point = [&[0x48, 0x8d, 0x35][..], &to_text.to_le_bytes()].concat(); // lea rsi, [rip + to_text]
    let digits = if then == AfterText::Tick { DIGITS } else { b"" };
    [&point[..], &write, &after, text.as_bytes(), digits].concat()
}
