//! Which scripts of a package apk would run when it installs it. sisforge runs none.

use std::collections::BTreeMap;

use crate::base::Sha256;
use crate::fleet::ScriptMoment;

use super::package::{PackageContents, ScriptKind};

impl PackageContents {
    /// SHA-256 of each script that apk would run when it installs the package for the first time.
    pub fn scripts_at_install(&self) -> BTreeMap<ScriptMoment, Sha256> {
        let scripts = self.scripts.iter();
        scripts.filter_map(|script| Some((moment(script.kind)?, Sha256::of(&script.body)))).collect()
    }

    /// The body of the script that apk would run at this moment of an installation.
    pub fn script_at(&self, at: ScriptMoment) -> Option<&[u8]> {
        self.scripts
            .iter()
            .find(|script| moment(script.kind) == Some(at))
            .map(|script| script.body.as_slice())
    }
}

/// `None` for upgrades and removals, which do not happen while an image is made.
fn moment(kind: ScriptKind) -> Option<ScriptMoment> {
    match kind {
        ScriptKind::PreInstall => Some(ScriptMoment::PreInstall),
        ScriptKind::PostInstall => Some(ScriptMoment::PostInstall),
        ScriptKind::Trigger => Some(ScriptMoment::Trigger),
        ScriptKind::PreUpgrade
        | ScriptKind::PostUpgrade
        | ScriptKind::PreDeinstall
        | ScriptKind::PostDeinstall => None,
    }
}
