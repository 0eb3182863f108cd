//! Series of Linux, such as 6.1.

/// The series that Firecracker supports for guests and their snapshots, of those that have a base here
/// (its docs/kernel-policy.md).
pub const SUPPORTED: &str = "6.1";

/// The series of a release such as `6.1.155` or `6.12-rc1`.
pub fn of_release(release: &str) -> Option<String> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().filter(|number| !number.is_empty());
    Some(format!("{}.{}", number()?, number()?))
}

/// The series that the name of a source tells: `linux-6.1.155.tar.xz`, `linux-source-6.12`.
pub fn of_file_name(path: &str) -> Option<String> {
    let name = path.rsplit('/').find(|part| !part.is_empty())?;
    let release = name.strip_prefix("linux-")?;
    of_release(release.strip_prefix("source-").unwrap_or(release))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_read_of_releases_and_of_names_of_sources() {
        assert_eq!(of_release("6.1.192").as_deref(), Some("6.1"));
        assert_eq!(of_release("6.12-rc1").as_deref(), Some("6.12"));
        assert_eq!(of_release("next"), None);
        assert_eq!(of_file_name("https://cdn/v6.x/linux-6.1.155.tar.xz").as_deref(), Some("6.1"));
        assert_eq!(of_file_name("/usr/src/linux-source-6.12.tar.xz").as_deref(), Some("6.12"));
        assert_eq!(of_file_name("src/linux/").as_deref(), None);
        assert_eq!(of_file_name("linux-next.tar"), None);
    }
}
