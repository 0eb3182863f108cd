//! Where a file can be had.

/// An address, and mirrors of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MirroredUrl {
    pub url: String,
    /// Asked in this order where the address fails.
    pub mirrors: Vec<String>,
}

impl From<&str> for MirroredUrl {
    fn from(url: &str) -> Self {
        Self { url: url.to_owned(), mirrors: Vec::new() }
    }
}

impl MirroredUrl {
    /// The address of something below this one, with its mirrors.
    #[must_use]
    pub fn below(&self, path: &str) -> Self {
        let join = |base: &String| format!("{base}/{path}");
        Self { url: join(&self.url), mirrors: self.mirrors.iter().map(join).collect() }
    }

    /// The address of another file in the same directory, with its mirrors.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        let replace = |url: &String| format!("{}/{name}", url.rsplit_once('/').map_or("", |(dir, _)| dir));
        Self { url: replace(&self.url), mirrors: self.mirrors.iter().map(replace).collect() }
    }

    /// Every place, in the order in which they are asked.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.url).chain(&self.mirrors).map(String::as_str)
    }

    /// Whether it is a file of this host.
    pub fn is_local(&self) -> bool {
        self.url.starts_with("file://")
    }
}

/// Scheme, host and port of a URL.
pub(super) fn server(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |at| &url[..host + at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_an_address_is_below_its_mirrors() {
        let address = MirroredUrl { url: "http://a/b".into(), mirrors: vec!["https://c:1".into()] };
        assert_eq!(address.below("x/y").places().collect::<Vec<_>>(), ["http://a/b/x/y", "https://c:1/x/y"]);
        assert_eq!(address.below("x").beside("y"), address.below("y"));
        assert_eq!(
            [server("http://a/b"), server("https://c:1"), server("x")],
            ["http://a", "https://c:1", "x"]
        );
    }
}
