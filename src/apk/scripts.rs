//! The scripts of a package, and when apk would run them. sisforge runs none.

use serde::{Deserialize, Serialize};

use crate::fleet::ScriptMoment;

/// A script of a package. sisforge never runs one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    pub kind: ScriptKind,
    pub body: Vec<u8>,
}

/// When apk would run a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ScriptKind {
    PreInstall,
    PostInstall,
    PreDeinstall,
    PostDeinstall,
    PreUpgrade,
    PostUpgrade,
    Trigger,
}

impl ScriptKind {
    pub(super) const ALL: [Self; 7] = [
        Self::PreInstall,
        Self::PostInstall,
        Self::PreDeinstall,
        Self::PostDeinstall,
        Self::PreUpgrade,
        Self::PostUpgrade,
        Self::Trigger,
    ];

    /// apk's word for it: the script's file is `.<word>` in a package.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreInstall => "pre-install",
            Self::PostInstall => "post-install",
            Self::PreDeinstall => "pre-deinstall",
            Self::PostDeinstall => "post-deinstall",
            Self::PreUpgrade => "pre-upgrade",
            Self::PostUpgrade => "post-upgrade",
            Self::Trigger => "trigger",
        }
    }

    /// `None` for upgrades and removals, which do not happen while an image is made.
    pub(super) fn moment(self) -> Option<ScriptMoment> {
        match self {
            Self::PreInstall => Some(ScriptMoment::PreInstall),
            Self::PostInstall => Some(ScriptMoment::PostInstall),
            Self::Trigger => Some(ScriptMoment::Trigger),
            Self::PreUpgrade | Self::PostUpgrade | Self::PreDeinstall | Self::PostDeinstall => None,
        }
    }
}
