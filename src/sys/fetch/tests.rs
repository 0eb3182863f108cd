//! Downloads from servers that do what servers do.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::super::report::Silent;
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

impl Server {
    fn address(&self) -> MirroredUrl {
        self.url.as_str().into()
    }
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

fn latest(cache: &Cache, address: &MirroredUrl, limit: u64) -> Result<Vec<u8>, FetchError> {
    let accept = |bytes: &[u8]| Ok::<_, io::Error>(bytes.to_vec());
    cache.latest(address, limit, &Silent, accept).map_err(|mut errors| match errors.remove(0) {
        GetError::Fetch(error) => error,
        GetError::Refused(error) => panic!("{error}"),
    })
}

fn expected() -> ExpectedFile {
    ExpectedFile { sha256: Some(Sha256::of(BODY)), size: Some(16) }
}

fn ranges(server: &Server) -> Vec<String> {
    server.ranges.lock().unwrap().clone()
}

#[test]
fn a_download_is_made_once_and_found_offline() {
    let (_dir, cache) = cache();
    let server = serve(&[Whole]);
    let error = cache.get(&server.address(), expected(), true, &Silent).unwrap_err();
    assert!(error.to_string().contains("this run is offline"), "{error}");
    let path = cache.get(&server.address(), expected(), false, &Silent).unwrap();
    assert_eq!(fs::read(&path).unwrap(), BODY);
    assert_eq!(cache.get(&server.address(), expected(), true, &Silent).unwrap(), path);
    assert_eq!(path.file_name().unwrap().to_str().unwrap(), Sha256::of(BODY).to_string());
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_broke_off() {
    let (_dir, cache) = cache();
    let server = serve(&[Part(5), Status("503 Busy"), Part(4), Part(99)]);
    let path = cache.get(&server.address(), expected(), false, &Silent).unwrap();
    assert_eq!(fs::read(path).unwrap(), BODY);
    assert_eq!(ranges(&server), ["", "5-", "5-", "9-"]);
}

#[test]
fn a_server_without_ranges_is_asked_for_all_of_it() {
    let (_dir, cache) = cache();
    let server = serve(&[Part(5), Whole]);
    let path = cache.get(&server.address(), expected(), false, &Silent).unwrap();
    assert_eq!(fs::read(path).unwrap(), BODY);
}

#[test]
fn the_beginning_of_another_file_is_thrown_away() {
    let (_dir, cache) = cache();
    let partial = cache.dir.join("partial").join(Sha256::of(BODY).to_string());
    create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, "other").unwrap();
    let server = serve(&[Part(99), Whole]);
    let path = cache.get(&server.address(), expected(), false, &Silent).unwrap();
    assert_eq!(fs::read(path).unwrap(), BODY);
    assert_eq!(ranges(&server), ["5-", ""]);
    assert!(!partial.exists());
}

#[test]
fn another_file_than_the_expected_is_not_kept() {
    let (_dir, cache) = cache();
    let wanted = ExpectedFile { sha256: Some(Sha256([7; 32])), size: Some(16) };
    let error = cache.get(&serve(&[Whole]).address(), wanted, false, &Silent).unwrap_err();
    assert!(matches!(error, FetchError::Digest { .. }), "{error}");
    let longer = ExpectedFile { sha256: Some(Sha256([7; 32])), size: Some(17) };
    let error = cache.get(&serve(&[Whole]).address(), longer, false, &Silent).unwrap_err();
    assert!(error.to_string().contains("has 16 bytes, but 17 are expected"), "{error}");
    assert!(!cache.path(&Sha256([7; 32])).exists());
}

#[test]
fn an_answer_without_end_is_cut_off_at_the_expected_size() {
    let (_dir, cache) = cache();
    let error = cache.get(&serve(&[Endless]).address(), expected(), false, &Silent).unwrap_err();
    assert!(matches!(error, FetchError::Http(HttpError::Length { expected: 16, .. })), "{error}");
    let error = latest(&cache, &serve(&[Endless]).address(), 1000).unwrap_err();
    assert!(matches!(error, FetchError::Http(HttpError::TooLarge { limit: 1000, .. })), "{error}");
    let error = latest(&cache, &serve(&[Whole]).address(), 15).unwrap_err();
    assert!(matches!(error, FetchError::Http(HttpError::TooLarge { limit: 15, .. })), "{error}");
    assert_eq!(latest(&cache, &serve(&[Unmeasured]).address(), 16).unwrap(), BODY);
}

#[test]
fn what_is_gone_is_not_asked_for_again() {
    let (_dir, cache) = cache();
    let server = serve(&[Status("404 Not Found"), Whole]);
    let error = cache.get(&server.address(), expected(), false, &Silent).unwrap_err();
    assert!(error.to_string().contains("the server answers 404 (it is no longer there"), "{error}");
    assert_eq!(ranges(&server).len(), 1);
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let (_dir, cache) = cache();
    let server = serve(&[Status("429 Slow down\r\nRetry-After: 1"), Whole]);
    let started = Instant::now();
    cache.get(&server.address(), expected(), false, &Silent).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_server_that_stays_in_trouble_is_given_up() {
    let (_dir, cache) = cache();
    let server = serve(&[Status("500 No"); 9]);
    let error = cache.get(&server.address(), expected(), false, &Silent).unwrap_err();
    assert!(error.to_string().contains("answers 500"), "{error}");
    assert_eq!(ranges(&server).len(), 5);
}

#[test]
fn nobody_listening_is_told_plainly() {
    let (_dir, cache) = cache();
    let error = cache.get(&"http://127.0.0.1:1/x".into(), expected(), false, &Silent).unwrap_err();
    assert!(error.to_string().starts_with("cannot reach the server of http://127.0.0.1:1/x"), "{error}");
}

#[test]
fn a_damaged_file_is_seen_by_its_size_or_when_verifying() {
    let (_dir, cache) = cache();
    let path = cache.get(&serve(&[Whole]).address(), expected(), false, &Silent).unwrap();
    let damage = |bytes: &[u8]| {
        remove(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    };
    damage(b"short");
    cache.get(&serve(&[Whole]).address(), expected(), false, &Silent).unwrap();
    assert_eq!(fs::read(&path).unwrap(), BODY);
    damage(b"0123456789abcdeX");
    let verifying = cache.clone().verifying();
    verifying.get(&serve(&[Whole]).address(), expected(), false, &Silent).unwrap();
    assert_eq!(fs::read(&path).unwrap(), BODY);
}

#[test]
fn many_at_once_download_once() {
    let (_dir, cache) = cache();
    let server = serve(&[Whole]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| cache.get(&server.address(), expected(), false, &Silent).unwrap());
        }
    });
    assert_eq!(ranges(&server), [""]);
}

#[test]
fn without_a_digest_it_is_fetched_each_time_and_named_by_what_came() {
    let (dir, cache) = cache();
    let server = serve(&[Part(5), Whole, Whole]);
    let first = cache.get(&server.address(), ExpectedFile::default(), false, &Silent).unwrap();
    assert_eq!(cache.get(&server.address(), ExpectedFile::default(), false, &Silent).unwrap(), first);
    assert_eq!(ranges(&server).len(), 3);
    assert_eq!(first, cache.path(&Sha256::of(BODY)));
    assert_eq!(fs::read_dir(dir.path().join("cache/partial")).unwrap().count(), 0);
    // A local file needs no network.
    let local = dir.path().join("local");
    fs::write(&local, BODY).unwrap();
    let url = format!("file://{}", local.display());
    assert_eq!(cache.get(&url.as_str().into(), ExpectedFile::default(), true, &Silent).unwrap(), first);
    assert_eq!(latest(&cache, &url.as_str().into(), 16).unwrap(), BODY);
}
