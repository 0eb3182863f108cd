//! Spellings that both formats of bills share.

use sha2::Digest as _;

/// A version 8 UUID (RFC 9562) that follows from these bytes.
pub(super) fn uuid_of(bytes: &[u8]) -> String {
    let mut id: [u8; 16] = std::array::from_fn({
        let digest = sha2::Sha256::digest(bytes);
        move |index| digest[index]
    });
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    let text = hex::encode(id);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

/// The last second that [`time`] can write: of the year 9999.
pub(super) const LAST_TIME: u64 = 253_402_300_799;

/// A time in UTC as RFC 3339 has it, such as `2024-02-29T12:00:00Z`.
pub(super) fn time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of so many days since 1970 in the Gregorian calendar. A year begins in March here, so that the leap
/// day is its last.
fn date(days: u64) -> (u64, u64, u64) {
    /// Days in 400 years, in which the calendar repeats.
    const ERA: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carried) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + carried, month, day)
}

/// Percent-encoding of all that a package URL does not take as it is.
pub(super) fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
    let shown = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(shown).collect()
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
    fn times_are_those_of_the_calendar() {
        let seconds = [0, 951_782_400, 951_868_799, 1_709_208_000, 4_107_542_400, LAST_TIME];
        assert_eq!(
            seconds.map(time),
            [
                "1970-01-01T00:00:00Z",
                "2000-02-29T00:00:00Z",
                "2000-02-29T23:59:59Z",
                "2024-02-29T12:00:00Z",
                "2100-03-01T00:00:00Z",
                "9999-12-31T23:59:59Z",
            ]
        );
    }

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

    #[test]
    fn what_a_package_url_does_not_take_is_encoded() {
        assert_eq!(percent("libstdc++"), "libstdc%2B%2B");
        assert_eq!(percent("1.2_p3~a-r0"), "1.2_p3~a-r0");
    }
}
