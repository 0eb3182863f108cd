//! A cache of downloads by digest, shared by all processes of a user.
//!
//! ```text
//! <dir>/sha256/<hex>     a whole download, verified, read-only
//! <dir>/partial/<hex>    the beginning of one, to go on with
//! <dir>/locks/<2 hex>    held while a download whose digest begins so is made
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::fs::{FileError, FileLock, create_dir_all, remove};
use super::http::{Client, FileSink, HttpError, Sink, Wanted};
use super::report::{Report, Unit};

/// Why a download is not there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    File(#[from] FileError),
    /// The network may not be used.
    #[error("{url} is not in the cache {}, and this run is offline: run once with the network first", dir.display())]
    Offline { url: String, dir: PathBuf },
    /// Another file than the one that was asked for.
    #[error(
        "{url} has the SHA-256 {found}, and {expected} is expected: it is another file by now, or was tampered with"
    )]
    Digest { url: String, expected: String, found: String },
}

/// What is known of a download before it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Without it, the download is made each time.
    pub sha256: Option<[u8; 32]>,
    /// In bytes.
    pub size: Option<u64>,
}

/// The most bytes of a download whose size is not known: more than any kernel source or package.
const LARGEST: u64 = 8 << 30;

/// Downloads by digest.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    verify: bool,
    client: Client,
}

impl Cache {
    /// The cache in `dir`, which is made where it is missing. A file that is there already is trusted if its size is right.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), verify: false, client: Client::shared().clone() }
    }

    /// The same, but a file that is there already is hashed before it is used.
    #[must_use]
    pub fn verifying(mut self) -> Self {
        self.verify = true;
        self
    }

    /// The directory of the cache.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a download of this digest is or would be.
    pub fn path(&self, sha256: &[u8; 32]) -> PathBuf {
        self.dir.join("sha256").join(hex::encode(sha256))
    }

    /// The path of what `url` holds, downloaded if need be. Without a digest to expect, it is downloaded each time, and
    /// the name of the path is its digest.
    ///
    /// # Errors
    /// Names the address. A file that is not the expected one is not kept.
    pub fn get(
        &self,
        url: &str,
        expected: Expected,
        offline: bool,
        progress: &dyn Report,
    ) -> Result<PathBuf, FetchError> {
        let Some(sha256) = expected.sha256 else {
            self.refuse_offline(url, offline)?;
            return self.fetch_unpinned(url, expected.size, progress);
        };
        let path = self.path(&sha256);
        if self.holds(&path, &sha256, expected.size)? {
            return Ok(path);
        }
        self.refuse_offline(url, offline)?;
        let name = hex::encode(sha256);
        let _lock = FileLock::wait(&self.dir.join("locks").join(&name[..2]))?;
        // Another process may have made it meanwhile.
        if !self.holds(&path, &sha256, expected.size)? {
            self.fetch_pinned(url, &sha256, expected.size, progress)?;
        }
        Ok(path)
    }

    fn refuse_offline(&self, url: &str, offline: bool) -> Result<(), FetchError> {
        if offline && !url.starts_with("file://") {
            return Err(FetchError::Offline { url: url.to_owned(), dir: self.dir.clone() });
        }
        Ok(())
    }

    /// Whether the file is there and right; one that is wrong is removed.
    fn holds(&self, path: &Path, sha256: &[u8; 32], size: Option<u64>) -> Result<bool, FetchError> {
        let Ok(meta) = fs::metadata(path) else { return Ok(false) };
        let is_right = size.is_none_or(|size| size == meta.len())
            && (!self.verify || super::fs::sha256(path)?.0 == *sha256);
        if !is_right {
            remove(path)?;
        }
        Ok(is_right)
    }

    fn fetch_pinned(
        &self,
        url: &str,
        sha256: &[u8; 32],
        size: Option<u64>,
        progress: &dyn Report,
    ) -> Result<(), FetchError> {
        let name = hex::encode(sha256);
        let partial = self.dir.join("partial").join(&name);
        create_dir_all(&self.dir.join("partial"))?;
        loop {
            let resumed = fs::metadata(&partial).is_ok_and(|meta| meta.len() > 0);
            self.download(url, &partial, size, true, progress)?;
            let (found, _) = super::fs::sha256(&partial)?;
            if found == *sha256 {
                return self.keep(&partial, sha256).map(drop);
            }
            remove(&partial)?;
            // The beginning may have been of another file; then a whole one is right.
            if !resumed {
                let found = hex::encode(found);
                return Err(FetchError::Digest { url: url.to_owned(), expected: name, found });
            }
        }
    }

    fn fetch_unpinned(
        &self,
        url: &str,
        size: Option<u64>,
        progress: &dyn Report,
    ) -> Result<PathBuf, FetchError> {
        let dir = self.dir.join("partial");
        create_dir_all(&dir)?;
        let temporary =
            tempfile::NamedTempFile::new_in(&dir).map_err(FileError::when("create file in", &dir))?;
        self.download(url, temporary.path(), size, false, progress)?;
        let (sha256, _) = super::fs::sha256(temporary.path())?;
        let path = self.keep(temporary.path(), &sha256)?;
        // It has another name now; there is nothing left to remove.
        let _ = temporary.keep();
        Ok(path)
    }

    fn download(
        &self,
        url: &str,
        path: &Path,
        size: Option<u64>,
        resume: bool,
        progress: &dyn Report,
    ) -> Result<(), FetchError> {
        let open = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let sink = open.and_then(FileSink::new);
        let mut sink = sink.map_err(FileError::when("open", path))?;
        let name = url.rsplit('/').find(|part| !part.is_empty()).unwrap_or(url);
        let task = progress.begin(name, size, Unit::Bytes);
        task.advance(sink.len());
        let wanted = Wanted { size, limit: size.unwrap_or(LARGEST), resume };
        self.client.download(url, &mut sink, wanted, &|count| task.advance(count))?;
        task.finish("downloaded");
        Ok(())
    }

    /// Gives a verified file its name, durably.
    fn keep(&self, from: &Path, sha256: &[u8; 32]) -> Result<PathBuf, FetchError> {
        let path = self.path(sha256);
        create_dir_all(&self.dir.join("sha256"))?;
        let finish = || -> io::Result<()> {
            fs::set_permissions(from, fs::Permissions::from_mode(0o444))?;
            File::open(from)?.sync_all()?;
            fs::rename(from, &path)
        };
        finish().map_err(FileError::when("write", &path))?;
        Ok(path)
    }
}

/// Downloads a small file that changes, such as an index, into memory; at most `max_bytes` of it.
///
/// # Errors
/// Names the address.
pub fn get_fresh(url: &str, max_bytes: u64) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let wanted = Wanted { size: None, limit: max_bytes, resume: false };
    Client::shared().download(url, &mut bytes, wanted, &|_| {})?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::super::report::Silent;
    use sha2::{Digest, Sha256};

    use super::*;

    const BODY: &[u8] = b"0123456789abcdef";

    /// What the test's server answers to one request.
    #[derive(Clone, Copy)]
    enum Reply {
        /// Nothing but a status, and headers.
        Status(&'static str),
        /// The body, or the part asked for, of which only so many bytes come.
        Part(usize),
        /// All of it, whatever was asked for.
        Whole,
        /// All of it without a length.
        Unmeasured,
        /// Something longer than was asked for.
        Endless,
    }
    use Reply::*;

    struct Server {
        url: String,
        /// The `Range` of each request, or nothing.
        ranges: Arc<Mutex<Vec<String>>>,
    }

    fn serve(replies: &'static [Reply]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/dir/file.apk", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ranges);
        thread::spawn(move || {
            for reply in replies {
                let (stream, _) = listener.accept().unwrap();
                seen.lock().unwrap().push(answer(stream, *reply));
            }
        });
        Server { url, ranges }
    }

    fn answer(mut stream: TcpStream, reply: Reply) -> String {
        let mut range = String::new();
        for line in BufReader::new(stream.try_clone().unwrap()).lines() {
            let line = line.unwrap().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("range: bytes=") {
                range = value.to_owned();
            }
        }
        let from: usize = range.strip_suffix('-').and_then(|at| at.parse().ok()).unwrap_or(0);
        let head = |status: &str, length: usize| {
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n")
        };
        let rest = BODY.len() - from;
        let (head, body) = match reply {
            Status(status) => {
                (format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n"), &b""[..])
            }
            Part(count) if from > 0 => {
                let range = format!("Content-Range: bytes {from}-15/16\r\n");
                (head("206 Partial Content", rest) + &range, &BODY[from..][..count.min(rest)])
            }
            Part(count) => (head("200 OK", BODY.len()), &BODY[..count]),
            Whole => (head("200 OK", BODY.len()), BODY),
            Unmeasured => ("HTTP/1.1 200 OK\r\nConnection: close\r\n".to_owned(), BODY),
            Endless => ("HTTP/1.1 200 OK\r\nConnection: close\r\n".to_owned(), &[b'x'; 4096][..]),
        };
        // A client that has heard enough hangs up.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(b"\r\n"));
        let _ = stream.write_all(body);
        range
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::shared().clone().with_first_pause(Duration::from_millis(1));
        let cache = Cache { client, ..Cache::new(dir.path().join("cache")) };
        (dir, cache)
    }

    fn expected() -> Expected {
        Expected { sha256: Some(Sha256::digest(BODY).into()), size: Some(16) }
    }

    fn ranges(server: &Server) -> Vec<String> {
        server.ranges.lock().unwrap().clone()
    }

    #[test]
    fn a_download_is_made_once_and_found_offline() {
        let (_dir, cache) = cache();
        let server = serve(&[Whole]);
        let error = cache.get(&server.url, expected(), true, &Silent).unwrap_err();
        assert!(error.to_string().contains("this run is offline"), "{error}");
        let path = cache.get(&server.url, expected(), false, &Silent).unwrap();
        assert_eq!(fs::read(&path).unwrap(), BODY);
        assert_eq!(cache.get(&server.url, expected(), true, &Silent).unwrap(), path);
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), hex::encode(Sha256::digest(BODY)));
    }

    #[test]
    fn a_download_that_is_cut_goes_on_where_it_broke_off() {
        let (_dir, cache) = cache();
        let server = serve(&[Part(5), Status("503 Busy"), Part(4), Part(99)]);
        let path = cache.get(&server.url, expected(), false, &Silent).unwrap();
        assert_eq!(fs::read(path).unwrap(), BODY);
        assert_eq!(ranges(&server), ["", "5-", "5-", "9-"]);
    }

    #[test]
    fn a_server_without_ranges_is_asked_for_all_of_it() {
        let (_dir, cache) = cache();
        let server = serve(&[Part(5), Whole]);
        let path = cache.get(&server.url, expected(), false, &Silent).unwrap();
        assert_eq!(fs::read(path).unwrap(), BODY);
    }

    #[test]
    fn the_beginning_of_another_file_is_thrown_away() {
        let (_dir, cache) = cache();
        let partial = cache.dir.join("partial").join(hex::encode(Sha256::digest(BODY)));
        create_dir_all(partial.parent().unwrap()).unwrap();
        fs::write(&partial, "other").unwrap();
        let server = serve(&[Part(99), Whole]);
        let path = cache.get(&server.url, expected(), false, &Silent).unwrap();
        assert_eq!(fs::read(path).unwrap(), BODY);
        assert_eq!(ranges(&server), ["5-", ""]);
        assert!(!partial.exists());
    }

    #[test]
    fn another_file_than_the_expected_is_not_kept() {
        let (_dir, cache) = cache();
        let wanted = Expected { sha256: Some([7; 32]), size: Some(16) };
        let error = cache.get(&serve(&[Whole]).url, wanted, false, &Silent).unwrap_err();
        assert!(matches!(error, FetchError::Digest { .. }), "{error}");
        let longer = Expected { sha256: Some([7; 32]), size: Some(17) };
        let error = cache.get(&serve(&[Whole]).url, longer, false, &Silent).unwrap_err();
        assert!(error.to_string().contains("is 16 bytes long, and 17 are expected"), "{error}");
        assert!(!cache.path(&[7; 32]).exists());
    }

    #[test]
    fn an_answer_without_end_is_cut_off_at_the_expected_size() {
        let (_dir, cache) = cache();
        let error = cache.get(&serve(&[Endless]).url, expected(), false, &Silent).unwrap_err();
        assert!(matches!(error, FetchError::Http(HttpError::Length { expected: 16, .. })), "{error}");
        let error = get_fresh(&serve(&[Endless]).url, 1000).unwrap_err();
        assert!(matches!(error, FetchError::Http(HttpError::TooLarge { limit: 1000, .. })), "{error}");
        let error = get_fresh(&serve(&[Whole]).url, 15).unwrap_err();
        assert!(matches!(error, FetchError::Http(HttpError::TooLarge { limit: 15, .. })), "{error}");
        assert_eq!(get_fresh(&serve(&[Unmeasured]).url, 16).unwrap(), BODY);
    }

    #[test]
    fn what_is_gone_is_not_asked_for_again() {
        let (_dir, cache) = cache();
        let server = serve(&[Status("404 Not Found"), Whole]);
        let error = cache.get(&server.url, expected(), false, &Silent).unwrap_err();
        assert!(error.to_string().contains("the server answers 404 (it is gone from there"), "{error}");
        assert_eq!(ranges(&server).len(), 1);
    }

    #[test]
    fn a_busy_server_is_asked_again_when_it_says() {
        let (_dir, cache) = cache();
        let server = serve(&[Status("429 Slow down\r\nRetry-After: 1"), Whole]);
        let started = Instant::now();
        cache.get(&server.url, expected(), false, &Silent).unwrap();
        assert!(started.elapsed() >= Duration::from_secs(1));
    }

    #[test]
    fn a_server_that_stays_in_trouble_is_given_up() {
        let (_dir, cache) = cache();
        let server = serve(&[Status("500 No"); 9]);
        let error = cache.get(&server.url, expected(), false, &Silent).unwrap_err();
        assert!(error.to_string().contains("answers 500"), "{error}");
        assert_eq!(ranges(&server).len(), 5);
    }

    #[test]
    fn nobody_listening_is_told_plainly() {
        let (_dir, cache) = cache();
        let error = cache.get("http://127.0.0.1:1/x", expected(), false, &Silent).unwrap_err();
        assert!(error.to_string().starts_with("cannot reach the server of http://127.0.0.1:1/x"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_seen_by_its_size_or_when_verifying() {
        let (_dir, cache) = cache();
        let path = cache.get(&serve(&[Whole]).url, expected(), false, &Silent).unwrap();
        let damage = |bytes: &[u8]| {
            remove(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        };
        damage(b"short");
        cache.get(&serve(&[Whole]).url, expected(), false, &Silent).unwrap();
        assert_eq!(fs::read(&path).unwrap(), BODY);
        damage(b"0123456789abcdeX");
        let verifying = cache.clone().verifying();
        verifying.get(&serve(&[Whole]).url, expected(), false, &Silent).unwrap();
        assert_eq!(fs::read(&path).unwrap(), BODY);
    }

    #[test]
    fn many_at_once_download_once() {
        let (_dir, cache) = cache();
        let server = serve(&[Whole]);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| cache.get(&server.url, expected(), false, &Silent).unwrap());
            }
        });
        assert_eq!(ranges(&server), [""]);
    }

    #[test]
    fn without_a_digest_it_is_fetched_each_time_and_named_by_what_came() {
        let (dir, cache) = cache();
        let server = serve(&[Part(5), Whole, Whole]);
        let first = cache.get(&server.url, Expected::default(), false, &Silent).unwrap();
        assert_eq!(cache.get(&server.url, Expected::default(), false, &Silent).unwrap(), first);
        assert_eq!(ranges(&server).len(), 3);
        assert_eq!(first, cache.path(&Sha256::digest(BODY).into()));
        assert_eq!(fs::read_dir(dir.path().join("cache/partial")).unwrap().count(), 0);
        // A local file needs no network.
        let local = dir.path().join("local");
        fs::write(&local, BODY).unwrap();
        let url = format!("file://{}", local.display());
        assert_eq!(cache.get(&url, Expected::default(), true, &Silent).unwrap(), first);
        assert_eq!(get_fresh(&url, 16).unwrap(), BODY);
    }
}
