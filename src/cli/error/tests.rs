//! What people are told: words, class and hint of errors from all over the library.

use std::io::{Error, ErrorKind};
use std::path::PathBuf;

use super::*;
use crate::apk::{IndexingError, KeyError, SignatureError};
use crate::apply::snapshot::SnapshotError;
use crate::apply::{ApplyError, VmmError};
use crate::base::problem::Problem;
use crate::base::{Class::Failed, Class::Invalid, GuestName, Label};
use crate::build::{BuildError, ProjectError, VendorError};
use crate::fleet::LoadError;
use crate::image::read::{Flaw, ReadError};
use crate::lock::kernel_config::ConfigError;
use crate::lock::model::LockFileError;
use crate::lock::repository::RepositoryError as Repository;
use crate::lock::resolve::ResolveError;
use crate::run::RunError;
use crate::run::forensics::EvidenceError;
use crate::sys::fetch::FetchError;
use crate::sys::fs::{FileError, NotText};
use crate::sys::git::GitError;
use crate::sys::http::HttpError;
use crate::sys::ip::IpError;
use crate::sys::launch::LaunchError;
use crate::sys::registry::{Action, KnownLogin, RegistryError};
use crate::sys::tool::ToolError;

fn file(kind: ErrorKind) -> FileError {
    FileError { action: "read", path: PathBuf::from("/x"), source: Error::from(kind) }
}

fn missing(tool: &str) -> ToolError {
    ToolError::Missing { tool: tool.to_owned() }
}

fn status(status: u16) -> HttpError {
    HttpError::Status { url: "http://x/y".to_owned(), status }
}

fn index(source: SignatureError) -> Repository {
    Repository::Index { repository: "r".to_owned(), source: source.into() }
}

fn guest() -> GuestName {
    "alice".parse().unwrap()
}

fn label() -> Label {
    "i".parse().unwrap()
}

/// An error, what it says with its causes, its class, and the beginning of its hint.
type Row = (CliError, &'static str, Class, Option<&'static str>);

#[track_caller]
fn hold(rows: Vec<Row>) {
    for (error, words, class, hint) in rows {
        let Body::Words { message, causes, hint: told } = &error.body else { panic!("{error:?}") };
        let said = std::iter::once(message).chain(causes).cloned().collect::<Vec<_>>().join(": ");
        assert!(said.contains(words), "{words:?} is not in {said:?}");
        assert_eq!(error.class(), class, "{said}");
        assert_eq!(error.status(), if class == Failed { 1 } else { 2 }, "{said}");
        match (hint, told) {
            (None, None) => {}
            (Some(hint), Some(told)) => assert!(told.contains(hint), "{said}: {told}"),
            _ => panic!("{said}: {told:?} in place of {hint:?}"),
        }
    }
}

#[test]
fn tools_and_files_tell_what_to_do() {
    let run = GitError::Tool { action: "fetch".to_owned(), source: missing("git") };
    let start = LaunchError::Missing { program: "firecracker".to_owned() };
    hold(vec![
        (missing("nft").into(), "nft is not installed", Failed, Some("apt-get install nftables")),
        (missing("xyz").into(), "xyz is not installed", Failed, Some("install xyz, or put it on PATH")),
        (run.into(), "cannot fetch: git is not installed", Failed, Some("apt-get install git")),
        (
            start.into(),
            "firecracker is not installed",
            Failed,
            Some("install firecracker, or put it on PATH"),
        ),
        (file(ErrorKind::PermissionDenied).into(), "cannot read /x", Failed, Some("run it as root")),
        (file(ErrorKind::StorageFull).into(), "cannot read /x", Failed, Some("free some space")),
        (file(ErrorKind::ReadOnlyFilesystem).into(), "cannot read /x", Failed, Some("mounted read-only")),
        (file(ErrorKind::NotFound).into(), "cannot read /x", Invalid, None),
        (file(ErrorKind::InvalidData).into(), "cannot read /x", Invalid, None),
        (file(ErrorKind::UnexpectedEof).into(), "cannot read /x", Invalid, Some("get that file again")),
        (
            FileError::when("read", "/x")(NotText.into()).into(),
            "it is not UTF-8",
            Invalid,
            Some("save it as UTF-8"),
        ),
        (file(ErrorKind::IsADirectory).into(), "cannot read /x", Invalid, Some("name a file")),
        (LoadError::Read(file(ErrorKind::NotFound)).into(), "/x", Invalid, Some("run `sisforge init`")),
        (LoadError::Read(file(ErrorKind::IsADirectory)).into(), "/x", Invalid, Some("give the file itself")),
    ]);
}

#[test]
fn one_cause_has_one_class_in_every_command() {
    let fetch = || FetchError::from(status(503));
    let offline = || Repository::Offline { repository: "r".to_owned() };
    let gone = || Repository::FetchIndex { repository: "r".to_owned(), source: status(404).into() };
    let untrusted =
        || index(SignatureError::Untrusted { signers: vec!["a".to_owned()], trusted: Vec::new() });
    let image = || RegistryError::Unsupported { image: "i".to_owned(), problem: "no".to_owned() };
    let both = |error: fn() -> ResolveError| ProjectError::from(error());
    hold(vec![
        (BuildError::KernelSource(fetch()).into(), "answers 503", Failed, None),
        (BuildError::from(offline()).into(), "this run is offline", Failed, Some("without --offline")),
        (
            both(|| Repository::Offline { repository: "r".to_owned() }.into()).into(),
            "offline",
            Failed,
            Some("without"),
        ),
        (BuildError::from(gone()).into(), "answers 404", Failed, None),
        (ProjectError::from(ResolveError::from(gone())).into(), "answers 404", Failed, None),
        (untrusted().into(), "not among the trusted keys", Invalid, Some("if you trust whoever signed it")),
        (BuildError::from(untrusted()).into(), "is refused", Invalid, Some("if you trust")),
        (
            ProjectError::from(ResolveError::from(untrusted())).into(),
            "is refused",
            Invalid,
            Some("if you trust"),
        ),
        (BuildError::from(image()).into(), "i: no", Invalid, None),
        (ProjectError::from(ResolveError::from(image())).into(), "i: no", Invalid, None),
        (BuildError::from(file(ErrorKind::NotFound)).into(), "cannot read /x", Invalid, None),
        (ProjectError::Wanted(file(ErrorKind::NotFound).into()).into(), "cannot read /x", Invalid, None),
    ]);
    let places = |errors| Repository::Nowhere { repository: "r".to_owned(), errors };
    let damaged = || index(SignatureError::Wrong("a".to_owned()));
    hold(vec![
        (places(vec![damaged(), gone()]).into(), "none of the 2 URLs", Failed, Some("it was damaged")),
        (places(vec![damaged(), damaged()]).into(), "none of the 2 URLs", Invalid, Some("it was damaged")),
    ]);
}

#[test]
fn what_is_asked_for_and_cannot_be_had_is_told_with_a_way_out() {
    let malformed = LockFileError::Malformed { path: "fleet.lock".to_owned(), reason: "no".to_owned() };
    let absent = |by: Option<&str>| ConfigError::Absent {
        path: "kernel-configs/x.config".to_owned(),
        by: by.map(str::to_owned),
    };
    let denied = RegistryError::Denied {
        host: "h".to_owned(),
        image: "i".to_owned(),
        status: 401,
        action: Action::Pull,
        login: KnownLogin::None,
    };
    hold(vec![
        (malformed.into(), "fleet.lock is not a valid lock file", Invalid, Some("restore it from Git")),
        (BuildError::Stale(vec!["why".to_owned()]).into(), "why", Invalid, Some("run `sisforge lock`")),
        (BuildError::NotLocked(label()).into(), "not in fleet.lock", Invalid, Some("run `sisforge lock`")),
        (BuildError::ContainerNotLocked("c".to_owned()).into(), "c", Invalid, Some("run `sisforge lock`")),
        (
            VendorError::Foreign("v".into()).into(),
            "not a vendor directory",
            Invalid,
            Some("name a directory"),
        ),
        (absent(None).into(), "there is no kernel-configs/x.config", Invalid, Some("write that file")),
        (absent(Some("kernel-configs/b.config")).into(), "b.config includes it", Invalid, Some("write")),
        (denied.into(), "does not allow anonymous pulls", Failed, Some("skopeo copy")),
        (
            KeyError::Empty("keys".into()).into(),
            "no key *.rsa.pub in keys",
            Invalid,
            Some("put the public keys"),
        ),
        (IndexingError::Empty("d".into()).into(), "d has no *.apk", Invalid, Some("with packages")),
        (
            ReadError { image: "i".into(), flaw: Flaw::Cut { expected: 2, found: 1 } }.into(),
            "cannot read the image i: its file system has 2 bytes",
            Invalid,
            Some("`e2fsck -fn`"),
        ),
        (
            ReadError { image: "i".into(), flaw: Flaw::Open(ErrorKind::NotFound.into()) }.into(),
            "cannot read the image i: it cannot be opened",
            Invalid,
            None,
        ),
    ]);
}

#[test]
fn a_host_that_fails_is_told_with_a_way_out() {
    let name = || "one".parse().unwrap();
    let not_made = SnapshotError::NotMade {
        guest: guest(),
        goes_on: true,
        source: Box::new(file(ErrorKind::StorageFull).into()),
    };
    hold(vec![
        // What a host lacks is no mistake, whatever says so.
        (ApplyError::from(file(ErrorKind::NotFound)).into(), "cannot read /x", Failed, None),
        (ApplyError::from(IpError::NoTun).into(), "modprobe tun", Failed, None),
        (ApplyError::from(missing("ip")).into(), "ip is not installed", Failed, Some("iproute2")),
        (
            ApplyError::NoVmm { program: "qemu-system-x86_64" }.into(),
            "not installed",
            Failed,
            Some("qemu-system-x86"),
        ),
        (
            ApplyError::from(VmmError::Gone(guest())).into(),
            "exited in the meantime",
            Failed,
            Some(
                "`sisforge logs alice \
          --vmm`",
            ),
        ),
        (ApplyError::from(VmmError::DoesNotEnd(guest())).into(), "SIGKILL", Failed, Some("dmesg")),
        (SnapshotError::NotFound(name()).into(), "there is no snapshot one", Invalid, Some("snapshot ls")),
        (
            ApplyError::from(SnapshotError::NotFound(name())).into(),
            "no snapshot one",
            Invalid,
            Some("snapshot ls"),
        ),
        (SnapshotError::Exists(name()).into(), "a snapshot one already", Invalid, Some("--name")),
        (
            not_made.into(),
            "no snapshot of alice was taken, and it goes on: cannot read /x",
            Failed,
            Some("free some space"),
        ),
    ]);
}

#[test]
fn problems_of_files_are_shown_whatever_wraps_them() {
    let invalid = || InvalidFile {
        path: "recipes/a/recipe.toml".into(),
        text: "a = 1\n".to_owned(),
        problems: vec![Problem::new(0..1, "unknown key `a`")],
    };
    let run = || RunError::from(LoadError::Invalid(invalid()));
    let errors: [CliError; 6] = [
        invalid().into(),
        LoadError::Invalid(invalid()).into(),
        ProjectError::Invalid(vec![invalid()]).into(),
        BuildError::Invalid(invalid()).into(),
        run().into(),
        EvidenceError::from(run()).into(),
    ];
    for error in errors {
        assert!(matches!(&error.body, Body::Files(files) if *files == [invalid()]), "{error:?}");
        assert_eq!(error.status(), 2);
        assert_eq!(error.message(), "1 problem in recipes/a/recipe.toml");
    }
}

/// Whoever mends `fleet.toml` because an error names it has to find the mistake there.
#[test]
fn what_is_wrong_elsewhere_is_not_blamed_on_the_fleet() {
    use crate::base::KernelOption;
    use crate::build::needs::{Need, NeedDoubt, NeededBy};
    use crate::lock::kernel::{FLEET, OptionOrigin};
    let hint = |file: &str| {
        let need = Need { whose: NeededBy::Recipe(label()), option: KernelOption::parse("TUN").unwrap() };
        NeedDoubt::TurnedOff { need, origin: OptionOrigin { file: file.to_owned(), line: Some(3) } }
            .hint()
            .unwrap()
    };
    assert!(hint(FLEET).starts_with("leave the option out of [kernel] options"));
    let own = hint("kernel-configs/fragments/own.config");
    assert!(own.starts_with("leave the option out of kernel-configs/fragments/own.config"), "{own}");
}
