//! `[network.NAME] names`: what guests may ask for.

use std::path::PathBuf;

use toml::Spanned;

use super::super::file::{NamesSection, NetworkSection, RuleSection};
use super::super::model::{NamePolicy, Preset};
use super::super::reader::List;
use super::super::scalar::{DefaultAction, Destination, LocalPath};
use super::{MentionTarget, Validator};
use crate::base::problem::{Problem, Read, ReadRef};

impl Validator<'_> {
    /// The names of a policy, and that nothing else in it goes against them.
    pub(super) fn names(&mut self, section: &NetworkSection) -> Read<Option<NamePolicy>> {
        let Some(names) = section.names.by_ref()? else { return Ok(None) };
        let (place, NamesSection { deny, allow, .. }) = (names.span(), names.get_ref());
        let deny = deny.by_ref()?.as_ref().map(|list| self.name_lists(list)).transpose();
        let allow = allow.by_ref()?.as_ref().map(|list| self.name_lists(list)).transpose();
        let wrong = self.against_names(section, names, allow.as_ref().is_ok_and(Option::is_some));
        let (deny, allow) = (deny?, allow?);
        if deny.is_none() && allow.is_none() {
            return Err(self.problems.report(
                Problem::new(place, "`names` names no names")
                    .hint("name files of them: names = { deny = [\"names.txt\"] }"),
            ));
        }
        wrong?;
        Ok(Some(NamePolicy { place, deny: deny.unwrap_or_default(), allow }))
    }

    fn name_lists(&mut self, list: &Spanned<List<LocalPath>>) -> Read<Vec<PathBuf>> {
        if list.get_ref().is_empty() {
            return Err(self.problems.report(
                Problem::new(list.span(), "the list names no file").hint("name files with one name a line"),
            ));
        }
        list.get_ref().iter().map(|path| Ok(self.path(path.by_ref()?, MentionTarget::File))).collect()
    }

    /// What would make the names void: nobody to ask, or everything open whatever its name.
    fn against_names(
        &mut self,
        section: &NetworkSection,
        names: &Spanned<NamesSection>,
        only: bool,
    ) -> Read<()> {
        if section.dns.by_ref()?.is_empty() {
            return Err(self.problems.report(
                Problem::new(names.span(), "`names` needs name servers to ask for all other names")
                    .hint("name them, as in dns = [\"9.9.9.9\"]"),
            ));
        }
        let preset = section.preset.by_ref()?.as_ref().filter(|preset| *preset.get_ref() == Preset::Open);
        let default =
            section.default.by_ref()?.as_ref().filter(|default| *default.get_ref() == DefaultAction::Allow);
        let whole = |rule: &RuleSection| {
            let has_ports =
                [&rule.tcp, &rule.udp].iter().any(|ports| ports.as_ref().is_ok_and(Option::is_some));
            let icmp = rule.icmp.as_ref().is_ok_and(|icmp| icmp.as_ref().is_some_and(|icmp| *icmp.get_ref()));
            let to = rule.to.by_ref().ok().and_then(Option::as_ref).map(Spanned::get_ref);
            let is_whole = |to: &Read<Spanned<Destination>>| {
                to.as_ref().is_ok_and(|to| to.get_ref().0.prefix_len() == 0)
            };
            !has_ports && !icmp && to.is_some_and(|to| to.iter().any(is_whole))
        };
        let allow = section.allow.by_ref()?.iter().filter_map(|rule| rule.as_ref().ok());
        let rule = allow.filter(|rule| whole(rule)).map(|rule| rule.place.clone()).next();
        let open = preset.map(Spanned::span).or_else(|| default.map(Spanned::span)).or(rule);
        match open.filter(|_| only) {
            None => Ok(()),
            Some(open) => Err(self.problems.report(
                Problem::new(
                    names.span(),
                    "only these names are to be reached, and the policy opens everything",
                )
                .also(open, "this opens everything, by any name")
                .hint("use preset = \"closed\" or \"browse\", and `allow` what has no name"),
            )),
        }
    }
}
