//! File capabilities: between `setcap`'s text and the bytes of `security.capability`.

/// Names by number (`include/uapi/linux/capability.h`).
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// `VFS_CAP_REVISION_2`
const REVISION_2: u32 = 0x0200_0000;
/// `VFS_CAP_REVISION_3`: the same and the user id that is root in the namespace where it counts.
const REVISION_3: u32 = 0x0300_0000;
/// `VFS_CAP_REVISION_MASK`
const REVISION_MASK: u32 = 0xff00_0000;
/// `VFS_CAP_FLAGS_EFFECTIVE`
const EFFECTIVE: u32 = 1;

/// The value of `security.capability` for a text such as `cap_setuid,cap_setgid=ep`: a `struct vfs_cap_data` of version
/// 2. The error is a sentence part.
pub(super) fn parse(text: &str) -> Result<Vec<u8>, String> {
    let (names, flags) = text.split_once(['=', '+']).ok_or("must be like `cap_setuid=ep`")?;
    if flags.is_empty() || !flags.bytes().all(|flag| b"eip".contains(&flag)) {
        return Err(format!("the flags {flags:?} must be of `e`, `i` and `p`"));
    }
    let mut set: u64 = 0;
    for name in names.split(',') {
        let short = name.strip_prefix("cap_").unwrap_or(name);
        let number = NAMES.iter().position(|known| *known == short);
        set |= 1 << number.ok_or_else(|| format!("there is no capability {name:?}"))?;
    }
    let of_flag = |flag| if flags.contains(flag) { set } else { 0 };
    let (permitted, inheritable) = (of_flag('p'), of_flag('i'));
    let head = REVISION_2 | if flags.contains('e') { EFFECTIVE } else { 0 };
    let halves = |value: u64| [value as u32, (value >> 32) as u32];
    let ([permitted_low, permitted_high], [inheritable_low, inheritable_high]) =
        (halves(permitted), halves(inheritable));
    let words = [head, permitted_low, inheritable_low, permitted_high, inheritable_high];
    Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
}

/// The text that `getcap` prints of a value of `security.capability`, such as `cap_setuid,cap_setgid=ep`; `None` for bytes
/// that are none.
pub(in crate::image) fn describe(value: &[u8]) -> Option<String> {
    let word = |index: usize| {
        let bytes = value.get(4 * index..4 * index + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let head = word(0)?;
    let root = match (head & REVISION_MASK, value.len()) {
        (REVISION_2, 20) => None,
        (REVISION_3, 24) => word(5),
        _ => return None,
    };
    let set = |low: usize| Some(u64::from(word(low)?) | u64::from(word(low + 2)?) << 32);
    let (permitted, inheritable) = (set(1)?, set(2)?);
    let flags_of = |number: u32| {
        let has = |set: u64| set >> number & 1 == 1;
        let flags = [(head & EFFECTIVE != 0, 'e'), (has(inheritable), 'i'), (has(permitted), 'p')];
        let is_in = has(permitted) || has(inheritable);
        let flags: String = flags.iter().filter(|(has, _)| *has).map(|(_, flag)| flag).collect();
        is_in.then_some(flags)
    };
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for number in 0..u64::BITS {
        let Some(flags) = flags_of(number) else { continue };
        let name =
            NAMES.get(number as usize).map_or_else(|| number.to_string(), |name| format!("cap_{name}"));
        match groups.iter_mut().find(|(known, _)| *known == flags) {
            Some((_, names)) => names.push(name),
            None => groups.push((flags, vec![name])),
        }
    }
    let mut words: Vec<_> =
        groups.into_iter().map(|(flags, names)| format!("{}={flags}", names.join(","))).collect();
    if words.is_empty() {
        words.push("=".into());
    }
    words.extend(root.map(|root| format!("[rootid={root}]")));
    Some(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_described_alike() {
        for text in ["cap_setuid=ep", "cap_chown,cap_bpf=i", "cap_setgid,cap_setuid=eip"] {
            assert_eq!(describe(&parse(text).unwrap()).as_deref(), Some(text));
        }
        let bytes = |text| hex::decode(text).unwrap();
        // Inheritable alone beside permitted ones; a bit without a name; a namespace's root.
        let mixed = bytes("0100000280000000010000000002000000000000");
        assert_eq!(describe(&mixed).as_deref(), Some("cap_chown=ei cap_setuid,41=ep"));
        let of_namespace = bytes("0100000380000000000000000000000000000000e8030000");
        assert_eq!(describe(&of_namespace).as_deref(), Some("cap_setuid=ep [rootid=1000]"));
        for wrong in ["", "01", "0100000280000000", "0100000180000000000000000000000000000000"] {
            assert_eq!(describe(&bytes(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn capabilities_are_what_setcap_writes() {
        let bytes = |text| parse(text).map(hex::encode);
        assert_eq!(bytes("cap_setuid=ep").unwrap(), "0100000280000000000000000000000000000000");
        assert_eq!(bytes("cap_setgid+ep").unwrap(), "0100000240000000000000000000000000000000");
        assert_eq!(bytes("cap_bpf,cap_chown=i").unwrap(), "0000000200000000010000000000000080000000");
        for wrong in ["", "cap_setuid", "cap_setuid=", "cap_setuid=x", "cap_none=ep", "=ep"] {
            assert!(bytes(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
