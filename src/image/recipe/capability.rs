//! File capabilities, from `setcap`'s text to the bytes of `security.capability`.

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
/// `VFS_CAP_FLAGS_EFFECTIVE`
const EFFECTIVE: u32 = 1;

/// The value of `security.capability` for a text such as `cap_setuid,cap_setgid=ep`: a `struct vfs_cap_data` of version 2.
///
/// # Errors
/// A sentence part on what is wrong with the text.
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

#[cfg(test)]
mod tests {
    use super::*;

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
