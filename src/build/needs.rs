//! What recipes need of the kernel, against what it has.

use crate::fleet::{KernelOption, Label, OptionValue};
use crate::lock::kernel::{DotConfig, KernelWishes, Origin};

use super::kernel::KernelError;

/// An option that a recipe needs and the kernel does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "recipe {recipe} needs the kernel option {option}, which is off; add it to [kernel] options, or a fragment that sets it"
)]
pub struct UnmetNeed {
    pub recipe: Label,
    pub option: KernelOption,
}

/// The needs of recipes that a final config does not meet.
///
/// # Errors
/// All of them together.
pub fn check_needs(config: &DotConfig, needs: &[(Label, KernelOption)]) -> Result<(), KernelError> {
    let unmet = needs.iter().filter(|(_, option)| !config.is_on(option));
    let unmet: Vec<_> =
        unmet.map(|(recipe, option)| UnmetNeed { recipe: recipe.clone(), option: option.clone() }).collect();
    if unmet.is_empty() { Ok(()) } else { Err(KernelError::Needs(unmet)) }
}

/// An option that a recipe needs, and that the wishes do not turn on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeedDoubt {
    #[error("recipe {recipe} needs the kernel option {option}, which {origin} turns off")]
    TurnedOff { recipe: Label, option: KernelOption, origin: Origin },
    #[error(
        "recipe {recipe} needs the kernel option {option}, which neither base, fragments nor options mention"
    )]
    NotMentioned { recipe: Label, option: KernelOption },
}

/// The needs of recipes that wishes do not meet by themselves. What is not mentioned may still come out on, because other
/// options select it; what is turned off hardly.
pub fn need_doubts(wishes: &KernelWishes, needs: &[(Label, KernelOption)]) -> Vec<NeedDoubt> {
    let doubt = |(recipe, option): &(Label, KernelOption)| {
        let (recipe, option) = (recipe.clone(), option.clone());
        match wishes.get(&option) {
            Some(wish) if wish.value == OptionValue::Yes => None,
            Some(wish) => Some(NeedDoubt::TurnedOff { recipe, option, origin: wish.origin.clone() }),
            None => Some(NeedDoubt::NotMentioned { recipe, option }),
        }
    };
    needs.iter().filter_map(doubt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_of_a_recipe_that_the_kernel_does_not_meet_is_named() {
        let config = DotConfig::parse(".config", "CONFIG_TUN=y\n").unwrap();
        let need = |option: &str| ("rootless-podman".parse().unwrap(), KernelOption::parse(option).unwrap());
        check_needs(&config, &[need("TUN")]).unwrap();
        let error = check_needs(&config, &[need("TUN"), need("FUSE_FS")]).unwrap_err();
        assert!(
            error.to_string().starts_with("recipe rootless-podman needs the kernel option FUSE_FS"),
            "{error}"
        );
    }

    #[test]
    fn a_need_that_the_configuration_does_not_turn_on_is_doubted() {
        let mut wishes = KernelWishes::default();
        wishes.overlay_file("base.config", "CONFIG_TUN=y\n# CONFIG_FUSE_FS is not set\n").unwrap();
        let needs = ["TUN", "FUSE_FS", "MEMCG"]
            .map(|option| ("podman".parse().unwrap(), KernelOption::parse(option).unwrap()));
        let doubts: Vec<_> = need_doubts(&wishes, &needs).iter().map(ToString::to_string).collect();
        assert_eq!(
            doubts,
            [
                "recipe podman needs the kernel option FUSE_FS, which base.config:2 turns off",
                "recipe podman needs the kernel option MEMCG, which neither base, fragments nor options mention"
            ]
        );
    }
}
