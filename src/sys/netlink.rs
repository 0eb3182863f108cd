//! Questions to the kernel's netfilter over netlink (netlink(7), `linux/netfilter/nfnetlink.h`), where asking `nft` or `conntrack`
//! costs a thousand times more: they read every element of every set first. Requests about interfaces too (rtnetlink(7)), which are
//! made for each guest: most of what `ip` costs is its start.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::Protocol;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Set in the number of an attribute that holds attributes (`NLA_F_NESTED`, `linux/netlink.h`).
pub const NESTED: u16 = 0x8000;

/// A socket to netfilter, of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netfilter(OwnedFd);

/// A socket to what the kernel knows of interfaces, of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Rtnetlink(OwnedFd);

/// What the kernel tells of one thing: the header of its kind, and attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtnetlinkItem {
    bytes: Vec<u8>,
    header: usize,
}

/// What a message is about: subsystem and kind, as `nlmsg_type` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageKind(pub u8, pub u8);

/// Messages that the kernel takes as one transaction (`NFNL_MSG_BATCH_BEGIN`).
#[derive(Clone, Debug)]
pub struct NetfilterBatch {
    bytes: Vec<u8>,
    subsystem: u8,
    /// Where the last message begins.
    last: usize,
}

/// Requests that the kernel takes one after the other in one call, which nothing but an end of the host comes between.
#[derive(Clone, Debug, Default)]
pub struct RtnetlinkBatch {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
}

impl RtnetlinkBatch {
    /// Adds a request. `family_header` is what the kind has before its attributes.
    pub fn push(&mut self, kind: MessageKind, family_header: &[u8], attributes: &[u8]) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.last = self.bytes.len();
        self.bytes.extend(packed(kind, NLM_F_REQUEST, family_header, attributes));
    }
}

/// An attribute of a message: its number without flags, and what it holds.
pub type Attribute<'a> = (u16, &'a [u8]);

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const BATCH_BEGIN: MessageKind = MessageKind(0, 0x10);
const BATCH_END: MessageKind = MessageKind(0, 0x11);
/// `nlmsghdr` and `nfgenmsg`.
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
/// What the kernel fills of a dump at once, at most.
const BUFFER: usize = 64 << 10;
/// Number of the last message of a batch, by which its answer is known.
const LAST: u32 = 1;
/// Dumps of what changed meanwhile are made again, this often at most.
const ATTEMPTS: usize = 8;

impl AsFd for Netfilter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Netfilter {
    /// Opens one.
    pub fn open() -> io::Result<Self> {
        Self::open_for(0)
    }

    /// Opens one that is told what goes on: a bit for each group of messages (`enum nfnetlink_groups`), the lowest that of group 1.
    pub fn open_for(groups: u32) -> io::Result<Self> {
        open(Some(NETFILTER), groups).map(Self)
    }

    /// Everything of a kind, each with its attributes behind the headers.
    pub fn dump(&self, kind: MessageKind, family: u8, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        for _ in 0..ATTEMPTS {
            self.send(kind, family, 0, NLM_F_REQUEST | NLM_F_DUMP, attributes)?;
            if let Some(all) = receive_all(&self.0)? {
                return Ok(behind_family(all));
            }
        }
        Err(io::Error::from(rustix::io::Errno::INTR))
    }

    /// The answer to a question about one thing, each message with its attributes behind the headers.
    pub fn ask(&self, kind: MessageKind, family: u8, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.send(kind, family, 0, NLM_F_REQUEST | NLM_F_ACK, attributes)?;
        receive_all(&self.0).map(Option::unwrap_or_default).map(behind_family)
    }

    /// Has something done, and waits until it is.
    pub fn request(&self, kind: MessageKind, family: u8, attributes: &[u8]) -> io::Result<()> {
        self.request_of(kind, family, 0, attributes)
    }

    /// The same about one of several things that have numbers (`nfgenmsg.res_id`).
    pub fn request_of(
        &self,
        kind: MessageKind,
        family: u8,
        resource: u16,
        attributes: &[u8],
    ) -> io::Result<()> {
        self.send(kind, family, resource, NLM_F_REQUEST | NLM_F_ACK, attributes)?;
        receive_all(&self.0).map(drop)
    }

    /// The messages that come next, each with its attributes behind the headers; waits for them no longer than that.
    ///
    /// # Errors
    /// `ENOBUFS` where messages were lost, because nobody read them in time.
    pub fn receive_within(&self, patience: Duration) -> io::Result<Vec<(MessageKind, Vec<u8>)>> {
        let limit = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        let mut waiting = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut waiting, Some(&limit)) {
            Ok(0) | Err(Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = vec![0; BUFFER];
        let (length, _) = rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT)?;
        let (mut all, mut rest) = (Vec::new(), &buffer[..length]);
        while let Some((kind, _, payload, next)) = message(rest) {
            rest = next;
            let [subsystem, number] = kind.to_be_bytes();
            let content = payload.get(FAMILY_HEADER..).unwrap_or_default().to_vec();
            all.push((MessageKind(subsystem, number), content));
        }
        Ok(all)
    }

    /// Has all of a batch done, or nothing of it; waits until it is.
    pub fn run(&self, mut batch: NetfilterBatch) -> io::Result<()> {
        // The last one is answered, and so is whichever fails.
        let flags = batch.last + 6;
        batch.bytes[flags..flags + 2]
            .copy_from_slice(&(NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK).to_ne_bytes());
        let header = [0, 0, 0, batch.subsystem];
        batch.bytes.extend(packed(BATCH_END, NLM_F_REQUEST, &header, &[]));
        rustix::net::sendto(&self.0, &batch.bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        receive_all(&self.0).map(drop)
    }

    fn send(
        &self,
        kind: MessageKind,
        family: u8,
        resource: u16,
        flags: u16,
        attributes: &[u8],
    ) -> io::Result<()> {
        let [high, low] = resource.to_be_bytes();
        send(&self.0, kind, flags, &[family, 0, high, low], attributes)
    }
}

impl NetfilterBatch {
    /// An empty one for a subsystem.
    pub fn of(subsystem: u8) -> Self {
        let bytes = packed(BATCH_BEGIN, NLM_F_REQUEST, &[0, 0, 0, subsystem], &[]);
        Self { bytes, subsystem, last: 0 }
    }

    /// Adds a message that makes or removes something.
    pub fn push(&mut self, kind: MessageKind, family: u8, attributes: &[u8]) {
        self.last = self.bytes.len();
        self.bytes.extend(packed(kind, NLM_F_REQUEST | NLM_F_CREATE, &[family, 0, 0, 0], attributes));
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.last == 0
    }
}

impl Rtnetlink {
    /// Opens one.
    pub fn open() -> io::Result<Self> {
        // Its protocol is number 0.
        open(None, 0).map(Self)
    }

    /// Everything of a kind. `family_header` is what the kind has before its attributes, such as `ifinfomsg`.
    pub fn dump(
        &self,
        kind: MessageKind,
        family_header: &[u8],
        attributes: &[u8],
    ) -> io::Result<Vec<RtnetlinkItem>> {
        for _ in 0..ATTEMPTS {
            send(&self.0, kind, NLM_F_REQUEST | NLM_F_DUMP, family_header, attributes)?;
            if let Some(all) = receive_all(&self.0)? {
                return Ok(items(all, family_header));
            }
        }
        Err(Errno::INTR.into())
    }

    /// The answer to a question about one thing.
    pub fn ask(&self, kind: MessageKind, family_header: &[u8]) -> io::Result<Vec<RtnetlinkItem>> {
        send(&self.0, kind, NLM_F_REQUEST | NLM_F_ACK, family_header, &[])?;
        Ok(items(receive_all(&self.0)?.unwrap_or_default(), family_header))
    }

    /// Has something done, and waits until it is. `family_header` is what the kind has before its attributes, such as `ifinfomsg`;
    /// `flags` are those beyond a request's.
    pub fn request(
        &self,
        kind: MessageKind,
        flags: u16,
        family_header: &[u8],
        attributes: &[u8],
    ) -> io::Result<()> {
        send(&self.0, kind, NLM_F_REQUEST | NLM_F_ACK | flags, family_header, attributes)?;
        receive_all(&self.0).map(drop)
    }

    /// Has all of a batch done, whatever becomes of one, and waits until it is.
    pub fn run(&self, mut batch: RtnetlinkBatch, is_fine: impl Fn(Errno) -> bool) -> io::Result<()> {
        let flags = batch.last + 6;
        let sequence = batch.last + 8;
        // The last one is answered, and so is whichever fails.
        batch.bytes[flags..flags + 2].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        batch.bytes[sequence..sequence + 4].copy_from_slice(&LAST.to_ne_bytes());
        rustix::net::sendto(&self.0, &batch.bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = vec![0; BUFFER];
        let mut done = Ok(());
        loop {
            let receive = || rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty());
            let (length, _) = rustix::io::retry_on_intr(receive)?;
            let mut rest = &buffer[..length];
            while let Some((_, _, payload, next)) = message(rest) {
                rest = next;
                // `struct nlmsgerr`: the number of an error, and the header of what it answers.
                let word = |at: usize| payload.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word));
                let error = word(0).map_or(0, |code| (code as i32).wrapping_neg());
                if error != 0 && !is_fine(Errno::from_raw_os_error(error)) {
                    done = Err(io::Error::from_raw_os_error(error));
                }
                if word(12) == Some(LAST) {
                    return done;
                }
            }
        }
    }
}

impl RtnetlinkItem {
    /// One of a header and attributes.
    pub fn of(header: &[u8], attributes: &[u8]) -> Self {
        Self { bytes: [header, attributes].concat(), header: header.len() }
    }

    /// The attributes.
    pub fn attributes(&self) -> &[u8] {
        self.bytes.get(self.header..).unwrap_or_default()
    }

    /// A byte of the header.
    pub fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or_default()
    }

    /// A number of the header, of 16 bits.
    pub fn short(&self, at: usize) -> u16 {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u16::from_ne_bytes(*bytes))
    }

    /// A number of the header, of 32 bits.
    pub fn word(&self, at: usize) -> u32 {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

fn items(payloads: Vec<Vec<u8>>, family_header: &[u8]) -> Vec<RtnetlinkItem> {
    payloads.into_iter().map(|bytes| RtnetlinkItem { bytes, header: family_header.len() }).collect()
}

/// What is behind the header that all messages of netfilter have.
fn behind_family(payloads: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let behind = |payload: Vec<u8>| payload.get(FAMILY_HEADER..).unwrap_or_default().to_vec();
    payloads.into_iter().map(behind).collect()
}

fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

fn send(
    socket: &OwnedFd,
    kind: MessageKind,
    flags: u16,
    family_header: &[u8],
    attributes: &[u8],
) -> io::Result<()> {
    let message = packed(kind, flags, family_header, attributes);
    rustix::net::sendto(socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

fn packed(
    MessageKind(subsystem, number): MessageKind,
    flags: u16,
    family_header: &[u8],
    attributes: &[u8],
) -> Vec<u8> {
    let length = (HEADER + family_header.len() + attributes.len()) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend([number, subsystem]);
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(family_header);
    message.extend(attributes);
    message
}

/// The payloads that come until the end; `None` where it changed while it was read.
fn receive_all(socket: &OwnedFd) -> io::Result<Option<Vec<Vec<u8>>>> {
    let mut buffer = vec![0; BUFFER];
    let (mut all, mut whole) = (Vec::new(), true);
    loop {
        let receive = || rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty());
        let (length, _) = rustix::io::retry_on_intr(receive)?;
        let mut rest = &buffer[..length];
        while let Some((kind, flags, payload, next)) = message(rest) {
            rest = next;
            whole &= flags & NLM_F_DUMP_INTR == 0;
            match kind {
                NLMSG_DONE => return Ok(whole.then_some(all)),
                NLMSG_ERROR => {
                    let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return match code {
                        0 => Ok(whole.then_some(all)),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => all.push(payload.to_vec()),
            }
        }
    }
}

/// The first message of some: its type, flags, what is behind its header, and the rest.
fn message(bytes: &[u8]) -> Option<(u16, u16, &[u8], &[u8])> {
    let header = bytes.first_chunk::<HEADER>()?;
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let payload = bytes.get(HEADER..length)?;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let flags = u16::from_ne_bytes([header[6], header[7]]);
    Some((kind, flags, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Number and content of each attribute, in order.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The two highest bits say that it is nested, and that its numbers are in network order.
        let number = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let content = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((number, content))
    })
}

/// The content of an attribute.
pub fn find(bytes: &[u8], number: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == number).map(|(_, content)| content)
}

/// The number of an attribute, of 32 bits.
pub fn number(bytes: &[u8], attribute: u16) -> Option<u32> {
    find(bytes, attribute)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

/// The text of an attribute, without the zero at its end.
pub fn text(bytes: &[u8], number: u16) -> Option<String> {
    let content = find(bytes, number)?;
    Some(String::from_utf8_lossy(content.strip_suffix(&[0]).unwrap_or(content)).into_owned())
}

/// Appends an attribute.
pub fn push(message: &mut Vec<u8>, number: u16, content: &[u8]) {
    let length = (content.len() + 4) as u16;
    message.extend(length.to_ne_bytes());
    message.extend(number.to_ne_bytes());
    message.extend(content);
    message.resize(message.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        push(&mut bytes, 1, b"sis\0");
        push(&mut bytes, 2 | 0x8000, b"12345");
        push(&mut bytes, 3, b"");
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(1, &b"sis\0"[..]), (2, b"12345"), (3, b"")]);
        assert_eq!(text(&bytes, 1).as_deref(), Some("sis"));
        assert_eq!(find(&bytes, 4), None);
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        for bytes in [&[][..], &[8, 0, 1], &[9, 0, 1, 0, 1, 2, 3, 4], &[3, 0, 1, 0]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
            assert_eq!(message(bytes), None);
        }
    }
}
