//! A vendor directory: files of the network under the paths that they have there, `<dir>/<host>/<path>`, as `wget -x` lays
//! them out. A repository in it is one that apk can read too.

use std::path::{Path, PathBuf};

/// Where a vendor directory has what a URL names; `None` for a URL whose path would lead elsewhere.
pub fn place(dir: &Path, url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    let parts: Vec<&str> = path.split('/').collect();
    (parts.len() > 1 && parts.iter().all(|part| is_plain(part))).then(|| dir.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_one_place_below_the_directory_or_none() {
        let place = |url| place(Path::new("v"), url);
        assert_eq!(place("https://a.org/x/b.apk"), Some(PathBuf::from("v/a.org/x/b.apk")));
        assert_eq!(place("http://a:80/b"), Some(PathBuf::from("v/a:80/b")));
        for url in [
            "https://a/../../etc/passwd",
            "https://../b",
            "https://a",
            "https://a//b",
            "file:///a",
            "https://a/./b",
        ] {
            assert_eq!(place(url), None, "{url}");
        }
    }
}
