//! `verify`: whether what was downloaded, built and stored still has the bytes of its digests.

use std::process::ExitCode;

use crate::run::gc::StorageKind;
use crate::run::verify::{ReadState, VerifiedFile, verify};

use super::error::CliError;
use super::output::VerificationJson;
use super::render;
use super::ui::Ui;

pub fn run(ui: &Ui) -> Result<ExitCode, CliError> {
    let found = verify(&ui.workspace())?;
    if !found.looked_at_store {
        ui.report.note("the store was not looked at: that needs root");
    }
    for what in &found.unbuilt {
        ui.report.note(&format!("{what} is not built yet"));
    }
    let damaged: Vec<_> = found.damaged().collect();
    if ui.settings.json {
        render::json(&VerificationJson::new(&found));
    } else {
        damaged.iter().for_each(|file| render::text(&format!("{}\n", sentence(file))));
    }
    ui.say(&format!(
        "{} files have the bytes of their digests, {} have not",
        found.files.len() - damaged.len(),
        damaged.len()
    ));
    Ok(if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wrong with a file, and what mends it.
fn sentence(file: &VerifiedFile) -> String {
    let path = file.path.display();
    let what = match &file.state {
        ReadState::Whole => return format!("{path} is whole"),
        ReadState::Changed(found) => format!("{path} was changed: it has the digest {found}"),
        ReadState::Unreadable(why) => why.clone(),
    };
    format!("{what}; {}", remedy(file.place))
}

/// How a damaged file is made again.
fn remedy(place: StorageKind) -> &'static str {
    match place {
        StorageKind::Artifact => "`sisforge build` makes it again",
        StorageKind::Stored => {
            "stop the guests that run on it (`sisforge down`), remove it, and `sisforge up` stores it again"
        }
        StorageKind::Download => "remove it, and `sisforge fetch` downloads it again",
    }
}
