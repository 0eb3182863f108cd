//! Users and groups of a recipe.

use std::ops::Range;

use toml::Spanned;

use crate::base::GUEST_USER;
use crate::base::GuestPath;
use crate::base::problem::{Problem, Read, ReadRef};
use crate::fleet::scalar::Count;

use super::super::schema::{GroupSection, UserSection};
use super::super::{Group, SubIds, User};
use super::Composing;

/// Who owns what does not say otherwise.
const ROOT: &str = "root";
/// A second field of `/etc/shadow` that admits no password.
const LOCKED: &str = "!";

impl Composing<'_> {
    pub(super) fn add_group(&mut self, section: &GroupSection) -> Read<()> {
        let place = section.name.by_ref()?.span();
        let name = self.name_of_account(section.name.by_ref()?)?;
        let group = Group { gid: self.number(section.gid.by_ref()?)? };
        let what = format!("group {name}");
        self.declare(|recipes| &mut recipes.groups, name, group, place, &what)
    }

    pub(super) fn add_user(&mut self, section: &UserSection) -> Read<()> {
        let place = section.name.by_ref()?.span();
        let name = self.name_of_account(section.name.by_ref()?)?;
        let uid = section.uid.by_ref().and_then(|uid| self.number(uid));
        let group = section.group.by_ref().and_then(|group| self.name_of_account(group));
        let home = section.home.by_ref().and_then(|home| self.path_field(home));
        let shell = section.shell.by_ref().and_then(|shell| self.path_field(shell));
        let gecos = self.optional_field(&section.gecos, "");
        let password = self.optional_field(&section.password, LOCKED);
        let subids = match section.subids.by_ref()? {
            None => None,
            Some(ids) => Some(self.subids(ids.start.by_ref()?, ids.count?.0, &name, place.clone())?),
        };
        let user = User {
            uid: uid?,
            group: group?,
            home: home?,
            shell: shell?,
            gecos: gecos?,
            password: password?,
            subids,
        };
        let what = format!("user {name}");
        let own_group = self.recipes.groups.contains_key(&user.group);
        if user.subids.is_some() && !own_group {
            let message = format!("user {name} has subids, so its group {} must be a [[group]]", user.group);
            return Err(self.report(place, message));
        }
        self.declare(|recipes| &mut recipes.users, name, user, place, &what)
    }

    /// Subordinate ids. Who has them owns the data disk, and there is one such user.
    fn subids(
        &mut self,
        start: &Spanned<Count<1, { u32::MAX }>>,
        count: u32,
        user: &str,
        place: Range<usize>,
    ) -> Read<SubIds> {
        let ids = SubIds { start: start.get_ref().0, count };
        if ids.start.checked_add(count).is_none() {
            return Err(self.report(start.span(), "the subids end above 2^32 - 1"));
        }
        let other = self.recipes.users.iter().find(|(name, one)| one.value.subids.is_some() && *name != user);
        if let Some((_, other)) = other {
            let first = other.recipe.clone();
            return Err(self.conflict(place, "the data disk (users with subids)", &first));
        }
        if user != GUEST_USER {
            let problem = Problem::new(place, format!("the user with subids is called {user}"))
                .hint(format!("name it `{GUEST_USER}`: the host logs in as that user"));
            return Err(self.recipe.problems.report(problem));
        }
        Ok(ids)
    }

    /// A text that becomes a field of `/etc/passwd` or `/etc/shadow`.
    fn field(&mut self, text: &Spanned<String>) -> Read<String> {
        let value = self.text(text)?;
        if value.contains(':') || value.chars().any(char::is_control) {
            return Err(self.report(text.span(), format!("{value:?} contains a ':' or a control character")));
        }
        Ok(value)
    }

    fn path_field(&mut self, text: &Spanned<String>) -> Read<String> {
        self.value::<GuestPath>(text)?;
        self.field(text)
    }

    fn optional_field(&mut self, text: &Read<Option<Spanned<String>>>, default: &str) -> Read<String> {
        match text.by_ref()? {
            None => Ok(default.to_owned()),
            Some(text) => self.field(text),
        }
    }

    /// Name of an owner; root where none is given.
    pub(super) fn account(&mut self, text: &Read<Option<Spanned<String>>>) -> Read<String> {
        match text.by_ref()? {
            None => Ok(ROOT.to_owned()),
            Some(text) => self.name_of_account(text),
        }
    }

    /// Name of a user or group (shadow's `is_valid_name`).
    pub(super) fn name_of_account(&mut self, text: &Spanned<String>) -> Read<String> {
        let name = self.text(text)?;
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let first = name.bytes().next();
        if name.len() <= 32
            && name.bytes().all(good)
            && first.is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        {
            Ok(name)
        } else {
            Err(self.report(text.span(), format!("{name:?} cannot be the name of a user or group")))
        }
    }
}
