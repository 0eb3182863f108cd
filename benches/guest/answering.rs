//! A guest that answers at every TCP port, for `benches/session`, which measures by it when somebody outside gets through to a
//! session.
//!
//! It is no Linux but a static ELF that Firecracker enters as it enters a kernel, and small enough for KVM without hardware
//! virtualization. There each instruction is emulated, if it is a plain one: frames, and all else that is shared with a device, are
//! atomics, of which the compiler makes no vectors. Interrupts stay off, and all is polled.
//!
//! It keeps no connections: what a segment says is enough to answer it. Who sends something is sent a few bytes, and that this is all.
//! After a pause it goes on. A key such as Ctrl+Alt+Del ends it.
//!
//! - The 64-bit boot protocol of Linux: `rsi` has the address of the zero page, which leads to the command line. `ip=` there is the
//!   guest's address, and each `virtio_mmio.device=` is a device.
//! - Virtio 1.2: 2.7 (split virtqueues), 3.1.1 (how a device begins), 4.2 (devices in memory), 5.1 (network device).
//! - RFC 826 (ARP), 791 (IPv4), 9293 (TCP), 1071 (checksums). It checks no checksums: all comes from the host that it is on.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::mem::zeroed;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

const TEXT: &[u8] = b"hello\n";

const SERIAL: u16 = 0x3f8;
/// The keyboard controller. Bit 0 of its status is that a key waits, and one of its commands resets the machine.
const KEYBOARD: u16 = 0x64;
const RESET: u8 = 0xfe;

/// Turns until the keyboard is asked again, and a dot tells the serial log that the guest runs; both cost exits to the VMM.
const TURNS: u32 = 200;

#[repr(align(4096))]
struct Page<T>(T);

// SAFETY: as of all further statics: they are numbers, of which 0 is one.
static STACK: Page<[AtomicU8; 16384]> = unsafe { zeroed() };
/// The page table for the GiB that the devices are in.
static DIRECTORY: Page<[AtomicU64; 512]> = unsafe { zeroed() };

global_asm!(
    ".globl _start",
    "_start: lea rsp, [{stack} + 16384]",
    "mov rdi, rsi",
    "call {main}",
    stack = sym STACK,
    main = sym main,
);

extern "C" fn main(zero_page: u64) -> ! {
    // SAFETY: the line's address stands there. It ends in a NUL, and the VMM has room for one of 2048 bytes.
    let line = unsafe {
        let start = ((zero_page + 0x228) as *const u32).read_unaligned();
        core::slice::from_raw_parts(start as usize as *const u8, 2048)
    };
    let (mut address, mut network) = (0, None);
    for word in line.split(|byte| matches!(byte, b' ' | 0)) {
        if let Some(ip) = after(word, b"ip=") {
            address = parse_address(ip);
        } else if let Some(place) = after(word, b"virtio_mmio.device=4K@0x") {
            let device = Device::at(parse_hexadecimal(place));
            network = network.or(device.is_network().then_some(device));
        }
    }
    let Some(device) = network else {
        say(b"no network device\n");
        end()
    };
    device.begin();
    let own = Own { mac: device.mac(), address };
    say(b"sisforge: ready\n");
    let (mut received, mut turns) = (0_u16, 0);
    loop {
        if let Some(which) = RECEIVED.used(received) {
            received = received.wrapping_add(1);
            let frame = &FRAMES[which as usize % SIZE];
            if let Some(length) = frame.answer(&own) {
                SENT.descriptors[0].set(frame, length, 0);
                SENT.offer(device, 1, 0);
                while SENT.used_index.load(Acquire) != SENT.available_index.load(Relaxed) {}
            }
            RECEIVED.offer(device, 0, which);
        }
        turns = (turns + 1) % TURNS;
        if turns == 0 {
            say(b".\n");
            if key_waits() {
                end();
            }
        }
    }
}

/// What comes after the beginning of a word.
fn after<'a>(word: &'a [u8], beginning: &[u8]) -> Option<&'a [u8]> {
    let rest = word.get(beginning.len()..)?;
    word.iter().zip(beginning).all(|(one, other)| one == other).then_some(rest)
}

/// Of a word such as `10.107.0.2::10.107.0.1`.
fn parse_address(word: &[u8]) -> u32 {
    word.iter().take_while(|byte| **byte != b':').fold(0, |address, byte| match byte {
        b'.' => address << 8,
        digit => address & !0xff | (address & 0xff) * 10 + u32::from(digit & 15),
    })
}

/// Of a word such as `c0001000:5`.
fn parse_hexadecimal(word: &[u8]) -> u64 {
    let digits = word.iter().map_while(|byte| char::from(*byte).to_digit(16));
    digits.fold(0, |number, digit| number << 4 | u64::from(digit))
}

fn output(port: u16, byte: u8) {
    // SAFETY: the ports in question change no memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack)) };
}

fn say(text: &[u8]) {
    text.iter().for_each(|byte| output(SERIAL, *byte));
}

fn key_waits() -> bool {
    let status: u8;
    // SAFETY: as above.
    unsafe { asm!("in al, dx", in("dx") KEYBOARD, out("al") status, options(nomem, nostack)) };
    status & 1 == 1
}

fn end() -> ! {
    loop {
        output(KEYBOARD, RESET);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    end()
}

/// A device of virtio; numbers are offsets of its registers (4.2.2).
#[derive(Clone, Copy)]
struct Device(u64);

impl Device {
    /// Maps the 2 MiB around an address below 512 GiB one to one. The VMM did so with the first GiB; all devices are in one other.
    fn at(address: u64) -> Self {
        let root: u64;
        // SAFETY: the VMM's tables are in memory that it mapped, and that is the guest's own. The first of the root leads on.
        unsafe {
            asm!("mov {}, cr3", out(reg) root, options(nomem, nostack));
            let pointers = (*(root as *const u64) & !0xfff) as *mut u64;
            let directory = &raw const DIRECTORY as u64 | 3; // writable, present
            pointers.add((address >> 30) as usize % 512).write_volatile(directory);
        }
        let page = address >> 21 << 21 | 0x93; // large, not cached, writable, present
        DIRECTORY.0[(address >> 21) as usize % 512].store(page, Release);
        Self(address)
    }

    fn read(self, register: u64) -> u32 {
        // SAFETY: it is mapped, and no memory.
        unsafe { ((self.0 + register) as *const u32).read_volatile() }
    }

    fn write(self, register: u64, value: u32) {
        // SAFETY: as above, and what the device is led to is there for ever.
        unsafe { ((self.0 + register) as *mut u32).write_volatile(value) };
    }

    fn is_network(self) -> bool {
        self.read(0) == u32::from_le_bytes(*b"virt") && self.read(0x8) == 1
    }

    fn mac(self) -> [u8; 6] {
        // SAFETY: as in `read`; these registers are bytes.
        [0, 1, 2, 3, 4, 5].map(|at| unsafe { ((self.0 + 0x100 + at) as *const u8).read_volatile() })
    }

    /// Has it receive and send.
    fn begin(self) {
        [0, 1, 3].iter().for_each(|status| self.write(0x70, *status)); // reset, noticed, has a driver
        // The driver knows of its address and of virtio 1; without more, a frame is in one buffer, with all checksums.
        self.choose(0, 1 << 5);
        self.choose(1, 1);
        self.write(0x70, 11); // the features are chosen
        self.lead_to(0, &RECEIVED);
        self.lead_to(1, &SENT);
        self.write(0x70, 15); // the driver runs
        for (which, frame) in FRAMES.iter().enumerate() {
            RECEIVED.descriptors[which].set(frame, FRAME as u32, 2); // for the device to write to
            RECEIVED.offer(self, 0, which as u32);
        }
    }

    fn choose(self, half: u32, features: u32) {
        self.write(0x24, half);
        self.write(0x20, features);
    }

    fn lead_to(self, number: u32, queue: &'static Queue) {
        self.write(0x30, number);
        self.write(0x38, SIZE as u32);
        // All is below 4 GiB; the higher halves are 0 since the reset.
        self.write(0x80, &raw const queue.descriptors as u32);
        self.write(0x90, &raw const queue.available_flags as u32);
        self.write(0xa0, &raw const queue.used_flags as u32);
        self.write(0x44, 1);
    }
}

/// Buffers of a queue. Firecracker receives only while two or more of this size are free.
const SIZE: usize = 8;
const FRAME: usize = 65536;

static RECEIVED: Queue = unsafe { zeroed() };
static SENT: Queue = unsafe { zeroed() };
static FRAMES: [Frame; SIZE] = unsafe { zeroed() };

/// A split virtqueue, as the device reads it. Each descriptor is a buffer of its own.
#[repr(C, align(16))]
struct Queue {
    descriptors: [Descriptor; SIZE],
    available_flags: AtomicU16,
    available_index: AtomicU16,
    available: [AtomicU16; SIZE],
    /// What asks for fewer interrupts, and two bytes by which the next is aligned.
    unused: [AtomicU16; 2],
    used_flags: AtomicU16,
    used_index: AtomicU16,
    /// Which, and how much of it.
    used: [[AtomicU32; 2]; SIZE],
}

#[repr(C)]
struct Descriptor {
    address: AtomicU64,
    length: AtomicU32,
    flags: AtomicU32,
}

impl Descriptor {
    fn set(&self, frame: &'static Frame, length: u32, flags: u32) {
        self.address.store(&raw const *frame as u64, Relaxed);
        self.length.store(length, Relaxed);
        self.flags.store(flags, Relaxed);
    }
}

impl Queue {
    /// Gives a buffer to the device, and tells it.
    fn offer(&self, device: Device, number: u32, which: u32) {
        let index = self.available_index.load(Relaxed);
        self.available[index as usize % SIZE].store(which as u16, Relaxed);
        self.available_index.store(index.wrapping_add(1), Release);
        device.write(0x50, number);
    }

    /// The buffer that the device gave back after so many others, if it did.
    fn used(&self, count: u16) -> Option<u32> {
        let is_there = self.used_index.load(Acquire) != count;
        is_there.then(|| self.used[count as usize % SIZE][0].load(Relaxed))
    }
}

/// Who answers.
struct Own {
    mac: [u8; 6],
    address: u32,
}

/// What a network device receives and sends: a header of 12 bytes (5.1.6), and a frame of Ethernet.
struct Frame([AtomicU8; FRAME]);

/// Where the fields are: of Ethernet,
const TO: usize = 12;
const FROM: usize = TO + 6;
const KIND: usize = FROM + 6;
/// of ARP, where a hardware address has an IP address behind it,
const ARP_KIND: usize = KIND + 8;
const ARP_FROM: usize = ARP_KIND + 2;
const ARP_TO: usize = ARP_FROM + 10;
/// of IP without options,
const IP: usize = KIND + 2;
const IP_LENGTH: usize = IP + 2;
const IP_FRAGMENT: usize = IP + 6;
const IP_HOPS_AND_PROTOCOL: usize = IP + 8;
const IP_CHECKSUM: usize = IP + 10;
const IP_FROM: usize = IP + 12;
const IP_TO: usize = IP + 16;
/// and of TCP.
const TCP: usize = IP + 20;
const TCP_NUMBER: usize = TCP + 4;
const TCP_ACKNOWLEDGED: usize = TCP + 8;
const TCP_FLAGS: usize = TCP + 12;
const TCP_WINDOW: usize = TCP + 14;
const TCP_CHECKSUM: usize = TCP + 16;
const TCP_DATA: usize = TCP + 20;

const FIN: u16 = 1;
const SYN: u16 = 2;
const RST: u16 = 4;
const ACK: u16 = 16;

impl Frame {
    fn byte(&self, at: usize) -> &AtomicU8 {
        &self.0[at % FRAME]
    }

    fn get(&self, at: usize) -> u16 {
        u16::from(self.byte(at).load(Relaxed)) << 8 | u16::from(self.byte(at + 1).load(Relaxed))
    }

    fn put(&self, at: usize, value: u16) {
        self.byte(at).store((value >> 8) as u8, Relaxed);
        self.byte(at + 1).store(value as u8, Relaxed);
    }

    fn get_long(&self, at: usize) -> u32 {
        u32::from(self.get(at)) << 16 | u32::from(self.get(at + 2))
    }

    fn put_long(&self, at: usize, value: u32) {
        self.put(at, (value >> 16) as u16);
        self.put(at + 2, value as u16);
    }

    fn put_bytes(&self, at: usize, bytes: &[u8]) {
        (at..).zip(bytes).for_each(|(at, byte)| self.byte(at).store(*byte, Relaxed));
    }

    fn copy(&self, from: usize, to: usize, bytes: usize) {
        (0..bytes).for_each(|at| self.byte(to + at).store(self.byte(from + at).load(Relaxed), Relaxed));
    }

    /// RFC 1071, of an even number of bytes.
    fn checksum(&self, from: usize, to: usize, more: usize) -> u16 {
        let sum = (from..to).step_by(2).fold(more as u32, |sum, at| sum + u32::from(self.get(at)));
        let sum = (sum & 0xffff) + (sum >> 16);
        !((sum + (sum >> 16)) as u16)
    }

    /// Makes it the answer to itself, if there is one, and gives the length of that.
    fn answer(&self, own: &Own) -> Option<u32> {
        let end = match self.get(KIND) {
            0x806 => self.answer_arp(own)?,
            0x800 => self.answer_tcp(own)?,
            _ => return None,
        };
        self.put_bytes(0, &[0; TO]);
        self.copy(FROM, TO, 6);
        self.put_bytes(FROM, &own.mac);
        Some(end as u32)
    }

    fn answer_arp(&self, own: &Own) -> Option<usize> {
        if self.get(ARP_KIND) != 1 || self.get_long(ARP_TO + 6) != own.address {
            return None;
        }
        self.put(ARP_KIND, 2);
        self.copy(ARP_FROM, ARP_TO, 10);
        self.put_bytes(ARP_FROM, &own.mac);
        self.put_long(ARP_FROM + 6, own.address);
        Some(ARP_TO + 10)
    }

    /// The guest counts from 0, so that who acknowledges 1 has not been sent the text yet, and who acknowledges more has.
    fn answer_tcp(&self, own: &Own) -> Option<usize> {
        let is_whole = self.get(IP) >> 8 == 0x45 && self.get(IP_FRAGMENT) & 0x3fff == 0;
        let is_tcp = self.get(IP_HOPS_AND_PROTOCOL) & 0xff == 6;
        if !is_whole || !is_tcp || self.get_long(IP_TO) != own.address {
            return None;
        }
        let (flags, acknowledged) = (self.get(TCP_FLAGS), self.get_long(TCP_ACKNOWLEDGED));
        let data = self.get(IP_LENGTH).checked_sub(20 + (flags >> 12) * 4)?;
        let came = u32::from(data) + u32::from(flags & (SYN | FIN) != 0);
        let (number, answer, text) = match flags & (SYN | RST | ACK) {
            SYN => (0, SYN | ACK, &b""[..]),
            ACK if came > 0 && acknowledged == 1 => (1, ACK | FIN, TEXT),
            ACK if came > 0 => (acknowledged, ACK, &b""[..]),
            _ => return None,
        };
        let end = TCP_DATA + text.len();

        self.put(IP, 0x4500);
        self.put(IP_LENGTH, (end - IP) as u16);
        self.put_long(IP + 4, 0x4000); // no number: nobody may take it apart
        self.put(IP_HOPS_AND_PROTOCOL, 64 << 8 | 6);
        self.put(IP_CHECKSUM, 0);
        self.copy(IP_FROM, IP_TO, 4);
        self.put_long(IP_FROM, own.address);
        self.put(IP_CHECKSUM, self.checksum(IP, TCP, 0));

        let to = self.get(TCP);
        self.copy(TCP + 2, TCP, 2);
        self.put(TCP + 2, to);
        self.put_long(TCP_ACKNOWLEDGED, self.get_long(TCP_NUMBER).wrapping_add(came));
        self.put_long(TCP_NUMBER, number);
        self.put(TCP_FLAGS, 5 << 12 | answer);
        self.put(TCP_WINDOW, 0xffff);
        self.put_long(TCP_CHECKSUM, 0); // and nothing is urgent
        self.put_bytes(TCP_DATA, text);
        // Also over both addresses, which stand before it, its protocol, and its length.
        self.put(TCP_CHECKSUM, self.checksum(IP_FROM, end, 6 + end - TCP));
        Some(end)
    }
}
