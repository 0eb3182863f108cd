//! Which Firecracker can do what (its `CHANGELOG.md`), and whether a host's does what a fleet asks for.

use crate::base::FileDigest;
use crate::base::{Class, Diagnosis, Diagnostic};
use crate::fleet::MachineSpec;
use crate::sys::firecracker::FirecrackerVersion;

/// The first version that is known to work.
pub const OLDEST: FirecrackerVersion = version(1, 10);
/// Major and minor number of the last ones, whatever their third number.
const NEWEST: (u64, u64) = (1, 16);

/// What came with a version after [`OLDEST`].
struct Feature {
    /// The key of `[machine.NAME]` that asks for it.
    key: &'static str,
    since: FirecrackerVersion,
    /// Whether a machine asks for it.
    asked: fn(&MachineSpec<FileDigest>) -> bool,
}

/// One that fails on processors whose name tells no frequency.
pub const BROKEN: FirecrackerVersion = version(1, 4);

/// The first that gives a guest another TAP while it loads its snapshot.
const CHANGES_TAP: FirecrackerVersion = version(1, 12);
/// The first that leaves out of a snapshot what was never touched, though no log of written pages was kept.
const LEAVES_UNTOUCHED: FirecrackerVersion = version(1, 13);
/// The first that puts a guest's clock forward while it loads its snapshot, and the first series of Linux that it asks for that.
const FORWARDS_CLOCK: FirecrackerVersion = version(1, 16);
const FORWARDS_CLOCK_ON: (u32, u32) = (5, 16);

const fn version(major: u64, minor: u64) -> FirecrackerVersion {
    FirecrackerVersion { major, minor, patch: 0 }
}

const FEATURES: [Feature; 3] = [
    Feature {
        key: "metadata.imds",
        since: version(1, 13),
        asked: |spec| spec.metadata.as_ref().is_some_and(|metadata| metadata.imds),
    },
    Feature {
        key: "balloon.reporting",
        since: version(1, 14),
        asked: |spec| spec.balloon.is_some_and(|balloon| balloon.reporting),
    },
    Feature { key: "network.mtu", since: version(1, 16), asked: |spec| spec.network.mtu.is_some() },
];

/// Why a host's Firecracker cannot run a fleet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    #[error(
        "firecracker is version {firecracker} but jailer is version {jailer}: they must be of the same \
         release"
    )]
    Differ { firecracker: FirecrackerVersion, jailer: FirecrackerVersion },
    #[error("Firecracker {0} is too old: the oldest supported release is {OLDEST}")]
    TooOld(FirecrackerVersion),
}

impl Diagnostic for VersionError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Differ { .. } | Self::TooOld(_) => Class::Failed.hint(
                "install firecracker and jailer of one release, 1.10 to 1.16, and look with `firecracker \
                 --version`",
            ),
        }
    }
}

/// Looks whether the programs belong together and are known to work.
pub fn check(firecracker: FirecrackerVersion, jailer: FirecrackerVersion) -> Result<(), VersionError> {
    if firecracker != jailer {
        return Err(VersionError::Differ { firecracker, jailer });
    }
    if firecracker < OLDEST { Err(VersionError::TooOld(firecracker)) } else { Ok(()) }
}

/// What is worth knowing of a version; nothing of one that is known to work.
pub fn note(firecracker: FirecrackerVersion) -> Option<String> {
    let (major, minor) = NEWEST;
    ((firecracker.major, firecracker.minor) > NEWEST).then(|| {
        format!(
            "Firecracker {firecracker} is newer than {major}.{minor}, the newest release that sisforge \
          was tested with"
        )
    })
}

/// The keys of a machine that a version can do nothing with, and the version that can.
pub fn unsupported(
    spec: &MachineSpec<FileDigest>,
    firecracker: FirecrackerVersion,
) -> Vec<(&'static str, FirecrackerVersion)> {
    let beyond = FEATURES.iter().filter(|feature| (feature.asked)(spec) && firecracker < feature.since);
    beyond.map(|feature| (feature.key, feature.since)).collect()
}

/// Whether a Firecracker of this version, such as `1.16.1`, can give a guest another TAP while it loads its snapshot. One that is
/// not known cannot.
pub fn can_change_tap(firecracker: &str) -> bool {
    firecracker.parse().is_ok_and(|version: FirecrackerVersion| version >= CHANGES_TAP)
}

/// Whether such a Firecracker can leave out of a snapshot the pages that were never touched.
pub fn can_leave_untouched(firecracker: &str) -> bool {
    firecracker.parse().is_ok_and(|version: FirecrackerVersion| version >= LEAVES_UNTOUCHED)
}

/// Whether such a Firecracker can put a guest's clock forward while it loads its snapshot, on a kernel of such a release.
pub fn can_forward_clock(firecracker: &str, kernel: &str) -> bool {
    firecracker.parse().is_ok_and(|version: FirecrackerVersion| version >= FORWARDS_CLOCK)
        && series(kernel).is_some_and(|series| series >= FORWARDS_CLOCK_ON)
}

/// The first two numbers of a kernel's release, such as `6.1.0-18-amd64`; distributions write all sorts of things behind them.
fn series(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256;
    use crate::fleet::{Balloon, Metadata, NetworkLimits};

    fn of(text: &str) -> FirecrackerVersion {
        text.parse().unwrap()
    }

    #[test]
    fn firecracker_and_jailer_are_of_one_release_and_not_too_old() {
        check(of("1.16.1"), of("1.16.1")).unwrap();
        let error = check(of("1.16.1"), of("1.15.0")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "firecracker is version 1.16.1 but jailer is version 1.15.0: they must be of the same release"
        );
        assert_eq!(check(of("1.9.1"), of("1.9.1")), Err(VersionError::TooOld(of("1.9.1"))));
        check(of("1.10.0"), of("1.10.0")).unwrap();
    }

    #[test]
    fn a_version_that_nobody_has_tried_is_noted() {
        assert_eq!(note(of("1.16.9")), None);
        assert!(note(of("1.17.0")).unwrap().contains("1.17.0 is newer than 1.16"));
    }

    #[test]
    fn what_came_later_is_refused_with_the_version_that_has_it() {
        let spec = MachineSpec {
            balloon: Some(Balloon { size_mib: 0, deflate_on_oom: true, statistics: 0, reporting: true }),
            metadata: Some(Metadata { file: Sha256::of("m").into(), imds: true }),
            network: NetworkLimits { mtu: Some(1400), ..NetworkLimits::default() },
            ..MachineSpec::default()
        };
        let keys = |version: &str| {
            unsupported(&spec, of(version)).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        assert_eq!(keys("1.12.1"), ["metadata.imds", "balloon.reporting", "network.mtu"]);
        assert_eq!(keys("1.13.0"), ["balloon.reporting", "network.mtu"]);
        assert_eq!(unsupported(&spec, of("1.15.0")), [("network.mtu", of("1.16.0"))]);
        assert_eq!(keys("1.16.0"), [""; 0]);
        assert_eq!(unsupported(&MachineSpec::default(), of("1.10.0")), []);
    }

    #[test]
    fn what_a_load_can_do_depends_on_version_and_kernel() {
        assert!(can_change_tap("1.12.0") && can_change_tap("1.17.0-dev"));
        assert!(!can_change_tap("1.11.9") && !can_change_tap("another build"));
        assert!(can_forward_clock("1.16.1", "6.1.0-18-amd64") && can_forward_clock("1.16.0", "5.16"));
        assert!(!can_forward_clock("1.9.2", "6.1.0") && !can_forward_clock("1.16.1", "5.15.153.1-wsl"));
        assert!(!can_forward_clock("another build", "6.1.0") && !can_forward_clock("1.16.1", "unknown"));
    }
}
