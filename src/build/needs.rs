//! What recipes and machines need of the kernel, against what it has.

use std::fmt;

use crate::base::{Class, Diagnosis, Diagnostic};
use crate::base::{KernelOption, Label};
use crate::fleet::OptionValue;
use crate::lock::kernel::{DotConfig, FLEET, OptionOrigin, RequestedOptions};

/// A kernel option that something needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    pub whose: NeededBy,
    pub option: KernelOption,
}

/// What needs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeededBy {
    Recipe(Label),
    /// A kind of machine, or one that is written out in this user or pool.
    Machine(String),
}

impl fmt::Display for NeededBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recipe(name) => write!(f, "recipe {name}"),
            Self::Machine(name) => write!(f, "machine {name}"),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} needs the kernel option {}", self.whose, self.option)
    }
}

/// An option that something needs and the kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}, which is off; add it to [kernel] options, or add a fragment that sets it")]
pub struct UnmetNeed(pub Need);

impl Diagnostic for UnmetNeed {
    fn diagnosis(&self) -> Diagnosis {
        Class::Invalid.no_hint()
    }
}

/// Fails with the needs that a final config does not meet.
pub fn check_needs(config: &DotConfig, needs: &[Need]) -> Result<(), Vec<UnmetNeed>> {
    let unmet = needs.iter().filter(|need| !config.is_on(&need.option));
    let unmet: Vec<_> = unmet.map(|need| UnmetNeed(need.clone())).collect();
    if unmet.is_empty() { Ok(()) } else { Err(unmet) }
}

/// An option that something needs, and that the requested options do not turn on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeedDoubt {
    #[error("{need}, which {origin} turns off")]
    TurnedOff { need: Need, origin: OptionOrigin },
    #[error("{0}, which is not in the base, the fragments or the options")]
    NotMentioned(Need),
}

impl Diagnostic for NeedDoubt {
    fn diagnosis(&self) -> Diagnosis {
        let place = match self {
            Self::TurnedOff { origin, .. } if origin.file != FLEET => origin.file.clone(),
            Self::TurnedOff { .. } | Self::NotMentioned(_) => "[kernel] options".to_owned(),
        };
        let what = match self {
            Self::TurnedOff { .. } => "leave the option out of",
            Self::NotMentioned(_) => "add the option to",
        };
        Class::Invalid.hint(format!("{what} {place}, or what needs it out of the image or the machine"))
    }
}

/// The needs that the requested options do not meet by themselves. What is not mentioned may still come out on, because other
/// options select it; what is turned off hardly.
pub fn need_doubts(requested: &RequestedOptions, needs: &[Need]) -> Vec<NeedDoubt> {
    let doubt = |need: &Need| match requested.get(&need.option) {
        Some(request) if request.value == OptionValue::Yes => None,
        Some(request) => Some(NeedDoubt::TurnedOff { need: need.clone(), origin: request.origin.clone() }),
        None => Some(NeedDoubt::NotMentioned(need.clone())),
    };
    needs.iter().filter_map(doubt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(recipe: &str, option: &str) -> Need {
        let whose = NeededBy::Recipe(recipe.parse().unwrap());
        Need { whose, option: KernelOption::parse(option).unwrap() }
    }

    #[test]
    fn a_need_of_a_recipe_that_the_kernel_does_not_meet_is_named() {
        let config = DotConfig::parse(".config", "CONFIG_TUN=y\n").unwrap();
        let need = |option: &str| need("rootless-podman", option);
        check_needs(&config, &[need("TUN")]).unwrap();
        let unmet = check_needs(&config, &[need("TUN"), need("FUSE_FS")]).unwrap_err();
        let [error] = &unmet[..] else { panic!("{unmet:?}") };
        assert!(
            error.to_string().starts_with("recipe rootless-podman needs the kernel option FUSE_FS"),
            "{error}"
        );
    }

    #[test]
    fn a_need_that_the_configuration_does_not_turn_on_is_doubted() {
        let mut requested = RequestedOptions::default();
        requested.overlay_file("base.config", "CONFIG_TUN=y\n# CONFIG_FUSE_FS is not set\n").unwrap();
        let mut needs = ["TUN", "FUSE_FS", "MEMCG"].map(|option| need("podman", option)).to_vec();
        let whose = NeededBy::Machine("small".into());
        needs.push(Need { whose, option: KernelOption::parse("VIRTIO_BALLOON").unwrap() });
        let doubts: Vec<_> = need_doubts(&requested, &needs).iter().map(ToString::to_string).collect();
        assert_eq!(
            doubts,
            [
                "recipe podman needs the kernel option FUSE_FS, which base.config:2 turns off",
                "recipe podman needs the kernel option MEMCG, which is not in the base, the fragments or \
                 the options",
                "machine small needs the kernel option VIRTIO_BALLOON, which is not in the base, the \
                 fragments or the options"
            ]
        );
    }
}
