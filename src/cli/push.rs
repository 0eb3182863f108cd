//! `push`, `pull` and `sign`: what was built, through a registry.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::base::text::counted;
use crate::fleet::ArtifactPlace;
use crate::run::{ArtifactSettings, exchange};

use super::build::show;
use super::error::CliError;
use super::output::{ArtifactJson, EventJson};
use super::render;
use super::ui::Ui;

const PUSH_HELP: &str = "\
One OCI artifact: kernel, images, data disks and stores of container images, each in zstd pieces that are cut by their content, with \
fleet.lock, the digests that it pins and the signatures over them (`sisforge sign`), bills of materials and provenance. The same files \
make the same manifest. Pieces that the registry has are not sent again.";

const PULL_HELP: &str = "\
The registry is trusted with nothing: a file that has not the digest which fleet.lock pins is refused. Of an image that is in out/ in \
an earlier version, what did not change is taken from there.";

const SIGN_HELP: &str = "\
Writes fleet.digests, a manifest of the digests that fleet.lock pins, and adds a signature to fleet.digests.sig. Commit both, or push \
them. By hand: ssh-keygen -Y verify -n sisforge -f ALLOWED_SIGNERS -I WHO -s fleet.digests.sig < fleet.digests";

#[derive(clap::Args)]
#[command(after_long_help = PUSH_HELP)]
pub struct Args {
    /// Where to, as oci://HOST/NAME[:TAG] [default: that of [fleet] artifacts]
    #[arg(value_name = "OCI_ADDRESS", value_parser = place)]
    to: Option<ArtifactPlace>,
}

#[derive(clap::Args)]
#[command(after_long_help = PULL_HELP)]
pub struct PullArgs {
    /// Where from, as oci://HOST/NAME[:TAG] [default: that of [fleet] artifacts]
    #[arg(value_name = "OCI_ADDRESS", value_parser = place)]
    from: Option<ArtifactPlace>,
    /// A file of SSH keys (ssh-keygen(1), ALLOWED SIGNERS): fail unless one of them signed the digests [default:
    /// /etc/sisforge/signers, where it is there]
    #[arg(long, value_name = "ALLOWED_SIGNERS")]
    verify: Option<PathBuf>,
}

#[derive(clap::Args)]
#[command(after_long_help = SIGN_HELP)]
pub struct SignArgs {
    /// A private SSH key, or the public half of one that ssh-agent holds
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

fn place(text: &str) -> Result<ArtifactPlace, String> {
    text.parse().map_err(|error: crate::base::InvalidValue| error.to_string())
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let settings = ArtifactSettings { place: args.to.clone(), ..ArtifactSettings::default() };
    let (place, pushed) = exchange::push(&ui.workspace_for(settings))?;
    if ui.settings.json {
        render::json(&EventJson::pushed(&place, &pushed));
        return Ok(ExitCode::SUCCESS);
    }
    let (sent, all) = (render::bytes(pushed.sent_bytes), render::bytes(pushed.bytes));
    render::text(&format!("{place}@sha256:{}\n", pushed.manifest));
    ui.say(&format!("sent {} of {} blobs, {sent} of {all}", pushed.sent, pushed.blobs));
    Ok(ExitCode::SUCCESS)
}

pub fn pull(args: &PullArgs, ui: &Ui) -> Result<ExitCode, CliError> {
    let (place, signers) = (args.from.clone(), args.verify.clone());
    let built = exchange::pull(&ui.workspace_for(ArtifactSettings { place, signers, no_build: true }))?;
    if ui.settings.json {
        render::json(&EventJson::Pulled { artifacts: built.iter().map(ArtifactJson::from).collect() });
    } else {
        show(&built);
    }
    Ok(ExitCode::SUCCESS)
}

pub fn sign(args: &SignArgs, ui: &Ui) -> Result<ExitCode, CliError> {
    let signed = exchange::sign(&ui.workspace(), &args.key)?;
    if ui.settings.json {
        render::json(&EventJson::signed(&signed));
    }
    let (artifacts, path) = (signed.artifacts, signed.path.display());
    ui.say(&format!(
        "signed the digests of {}: {path}.sig has {}",
        counted(artifacts, "artifact"),
        counted(signed.signatures, "signature")
    ));
    Ok(ExitCode::SUCCESS)
}
