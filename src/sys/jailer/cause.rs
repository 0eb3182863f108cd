//! What the jailer's and Firecracker's own messages mean, and what to do about it. They were read from version 1.16, each
//! after the fault was made.

/// Why a jailed Firecracker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    pub what: &'static str,
    pub remedy: &'static str,
}

/// What a message holds (all of these words), and what it means.
struct Known {
    words: &'static [&'static str],
    cause: Cause,
}

const fn known(words: &'static [&'static str], what: &'static str, remedy: &'static str) -> Known {
    Known { words, cause: Cause { what, remedy } }
}

/// The first that fits is meant: what is more special stands before.
const KNOWN: [Known; 15] = [
    known(
        &["via mknod inside the jail", "File exists"],
        "its jail was used before, but a jail is used only once",
        "`sisforge up` makes a fresh jail for each start; if this comes again, `sisforge down` removes what \
         is left",
    ),
    known(
        &["Failed to open file", "File exists"],
        "its jail was used before, but a jail is used only once",
        "`sisforge up` makes a fresh jail for each start; if this comes again, `sisforge down` removes what \
         is left",
    ),
    known(
        &["via mknod inside the jail", "Operation not permitted"],
        "device nodes cannot be created here, as in a container without CAP_MKNOD",
        "run sisforge outside of the container, or give it the capability",
    ),
    known(
        &["Failed to exec into Firecracker", "Permission denied"],
        "programs cannot run from its jail's file system, which is mounted noexec",
        "mount it without noexec, or move [host] store to another file system",
    ),
    known(
        &["Failed to exec into Firecracker", "No such file or directory"],
        "firecracker is not statically linked: its libraries are not in its jail",
        "install the static binary from Firecracker's releases",
    ),
    known(
        &["Failed to exec into Firecracker", "Exec format error"],
        "firecracker is not a program for this machine",
        "install the static x86_64 binary from Firecracker's releases",
    ),
    known(
        &["Detected hard link"],
        "the jailer found a second hard link to a file that it writes",
        "`sisforge down` and `sisforge up` create a new jail",
    ),
    known(
        &["Controller", "is unavailable"],
        "a cgroup controller is missing",
        "boot the host with all controllers enabled, without cgroup_disable= on its kernel command line",
    ),
    known(
        &["Couldn't open /dev/net/tun", "Permission denied"],
        "device nodes do not work in its jail, whose file system is mounted nodev",
        "mount it without nodev, or move [host] store to another file system",
    ),
    known(
        &["Error creating KVM object", "Permission denied"],
        "device nodes do not work in its jail, whose file system is mounted nodev, or it has no access to \
         KVM",
        "mount it without nodev, or move [host] store to another file system",
    ),
    known(
        &["Error creating KVM object"],
        "this host's KVM cannot be used",
        "`sisforge doctor` says why; [fleet] vmm = \"qemu\" does not need KVM",
    ),
    known(
        &["Open tap device failed", "Device or resource busy"],
        "another process holds its TAP",
        "end that process; `sisforge down` and `sisforge up` create a new TAP",
    ),
    known(
        &["Open tap device failed", "Operation not permitted"],
        "its TAP belongs to another user",
        "`sisforge down` and `sisforge up` create a new TAP",
    ),
    known(
        &["Filter deserialization failed"],
        "its seccomp filters were not compiled for this Firecracker",
        "compile them with the seccompiler-bin of the same release, or remove `seccomp` from the machine",
    ),
    known(
        &["Failed to get CPU template"],
        "the machine's `cpu-template` is not for this processor",
        "use one that is, or remove the key: Firecracker's docs/cpu_templates lists the processors for each",
    ),
];

/// What a log says of why a VMM ended; `None` where nothing in it is known.
pub fn cause(log: &str) -> Option<Cause> {
    let fits = |known: &&Known| log.lines().any(|line| known.words.iter().all(|word| line.contains(word)));
    KNOWN.iter().find(fits).map(|known| known.cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_becomes_a_cause_and_a_remedy() {
        let what = |log: &str| cause(log).unwrap().what;
        let reused = "Failed to create /dev/net/tun via mknod inside the jail: File exists (os error 17)\n\
            Error: MknodDev(Os { code: 17, kind: AlreadyExists, message: \"File exists\" }, \
            \"/dev/net/tun\")\n";
        assert_eq!(what(reused), "its jail was used before, but a jail is used only once");
        let pid = "Failed to open file /firecracker.pid: File exists (os error 17)\n";
        assert_eq!(what(pid), what(reused));
        let noexec = "Failed to exec into Firecracker: Permission denied (os error 13)\n";
        assert!(what(noexec).contains("noexec"));
        let dynamic = "Failed to exec into Firecracker: No such file or directory (os error 2)\n";
        assert!(what(dynamic).contains("not statically linked"));
        assert!(what("Controller cpu is unavailable\n").contains("controller"));
        let kvm = "RunWithApiError error: Failed to build MicroVM from Json: Could not Start MicroVM from one single json: \
            Kvm error: Error creating KVM object: Permission denied (os error 13) Make sure the user\n";
        assert!(what(kvm).contains("nodev"));
        let template = "Could not Start MicroVM from one single json: Failed to get CPU template: CPU \
          vendor mismatched\n";
        assert!(what(template).contains("`cpu-template`"));
    }

    #[test]
    fn words_of_different_lines_are_no_message() {
        assert_eq!(cause("Failed to exec into Firecracker: x\nPermission denied\n"), None);
        assert_eq!(cause("the guest shut down\n"), None);
    }
}
