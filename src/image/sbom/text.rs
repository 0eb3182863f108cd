//! Spellings that both formats of bills share.

use crate::base::{Sha256, uuid_from, uuid_text};

/// A UUID that follows from these bytes.
pub(super) fn uuid_of(bytes: &[u8]) -> String {
    let Sha256(digest) = Sha256::of(bytes);
    uuid_text(uuid_from(std::array::from_fn(|index| digest[index])))
}

/// Name and address of `Name <name@example.org>`.
pub(super) fn person(maintainer: &str) -> Option<(String, Option<String>)> {
    let (name, address) = match maintainer.split_once('<') {
        Some((name, rest)) => (name.trim(), rest.split('>').next().map(str::trim)),
        None => (maintainer.trim(), None),
    };
    let is_address = |text: &&str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>".contains(&byte));
        plain && text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
    };
    let address = address.filter(is_address).map(str::to_owned);
    // Brackets mark the address in a bill.
    let name: String = name.chars().filter(|c| !"()".contains(*c) && !c.is_control()).collect();
    let name = if name.is_empty() { address.clone()? } else { name };
    Some((name, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maintainer_has_a_name_and_may_have_an_address() {
        let of = |text| person(text);
        let known = |name: &str, address: Option<&str>| Some((name.to_owned(), address.map(str::to_owned)));
        assert_eq!(of("Natanael Copa <n@example.org>"), known("Natanael Copa", Some("n@example.org")));
        assert_eq!(of("<n@example.org>"), known("n@example.org", Some("n@example.org")));
        assert_eq!(of("A Team (of two)"), known("A Team of two", None));
        assert_eq!(of("X <nowhere>"), known("X", None));
        assert_eq!(of(""), None);
    }
}
