//! An HTTP server of a directory that fails in the ways that servers and networks fail.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::sandbox::own_network;

/// What happens to one request, instead of the file being sent.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A status without a body, and headers such as `Retry-After: 1`.
    Status(u16, &'static str),
    /// The connection breaks before anything was said.
    Hangup,
    /// The connection breaks after so many bytes of the body.
    Cut(usize),
    /// A `Content-Length` that many bytes off what is sent.
    Lie(i64),
    /// No `Content-Length`, and an end after so many bytes that looks like a good one.
    Unmeasured(usize),
    /// Other bytes of the same length.
    Garbled,
    /// To another address.
    Redirect(String),
    /// A file that comes slowly: so many bytes, then a pause of a millisecond.
    Slow(usize),
}

#[derive(Default)]
struct Plan {
    /// By file name: what happens to the next requests, in this order.
    next: HashMap<String, Vec<Fault>>,
    /// By file name: what happens to all other requests.
    always: HashMap<String, Fault>,
    /// `GET /path` and, behind it, its `Range`.
    requests: Vec<String>,
    /// What requests have said of who asks, `-` where nothing.
    authorizations: Vec<String>,
    /// Statuses that were answered.
    answers: Vec<u16>,
}

/// Gone when it is dropped: whoever asks it then finds nobody.
pub struct Server {
    port: u16,
    plan: Arc<Mutex<Plan>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Serves a directory, in the network of the fleet that this thread makes, which may come later.
    pub fn of(root: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        own_network(&format!("server-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (plan, stop) = (Arc::<Mutex<Plan>>::default(), Arc::<AtomicBool>::default());
        let (root, shared, stopped) = (root.to_owned(), Arc::clone(&plan), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (stream, root, plan) = (stream.unwrap(), root.clone(), Arc::clone(&shared));
                // A client that has heard enough hangs up.
                thread::spawn(move || answer(stream, &root, &plan));
            }
        });
        Self { port, plan, stop, thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// What happens to the next requests for files of this name.
    pub fn next(&self, name: &str, faults: &[Fault]) {
        self.plan.lock().unwrap().next.insert(name.into(), faults.to_vec());
    }

    /// What happens to every request for a file of this name; `*` is any.
    pub fn always(&self, name: &str, fault: Fault) {
        self.plan.lock().unwrap().always.insert(name.into(), fault);
    }

    /// Forgets all faults and requests.
    pub fn heal(&self) {
        *self.plan.lock().unwrap() = Plan::default();
    }

    /// Requests so far for files of this name, each with its range.
    pub fn requests(&self, name: &str) -> Vec<String> {
        let plan = self.plan.lock().unwrap();
        let is_of = |request: &&String| {
            request.split(' ').next().is_some_and(|path| path.rsplit('/').next() == Some(name))
        };
        plan.requests.iter().filter(is_of).cloned().collect()
    }

    /// The `Authorization` of each request so far, `-` where there was none.
    pub fn authorizations(&self) -> Vec<String> {
        self.plan.lock().unwrap().authorizations.clone()
    }

    /// How often a status was answered.
    pub fn answers(&self, status: u16) -> usize {
        self.plan.lock().unwrap().answers.iter().filter(|answer| **answer == status).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// What a request says.
#[derive(Default)]
struct Request {
    path: String,
    from: usize,
    if_none_match: String,
    authorization: String,
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut request = Request { path: first.split(' ').nth(1)?.to_owned(), ..Request::default() };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.from = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?,
            "authorization" => value.clone_into(&mut request.authorization),
            "if-none-match" => value.clone_into(&mut request.if_none_match),
            _ => {}
        }
    }
    Some(request)
}

fn fault(plan: &Mutex<Plan>, request: &Request) -> Option<Fault> {
    let mut plan = plan.lock().unwrap();
    let range = if request.from > 0 { format!(" {}-", request.from) } else { String::new() };
    plan.requests.push(format!("{}{range}", request.path));
    plan.authorizations.push(if request.authorization.is_empty() {
        "-".into()
    } else {
        request.authorization.clone()
    });
    let name = request.path.rsplit('/').next().unwrap_or_default();
    if let Some(faults) = plan.next.get_mut(name).filter(|faults| !faults.is_empty()) {
        return Some(faults.remove(0));
    }
    plan.always.get(name).or_else(|| plan.always.get("*")).cloned()
}

fn answer(mut stream: TcpStream, root: &Path, plan: &Mutex<Plan>) -> Option<()> {
    let request = read_request(&stream)?;
    let fault = fault(plan, &request);
    let file: PathBuf = root.join(request.path.trim_start_matches('/'));
    let mut body = fs::read(file).ok();
    let mut head = |status: u16, headers: &str| {
        plan.lock().unwrap().answers.push(status);
        stream.write_all(format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{headers}\r\n").as_bytes()).ok()
    };
    let (mut claim, mut sent, mut slow) = (0, usize::MAX, None);
    match fault {
        Some(Fault::Hangup) => return None,
        Some(Fault::Status(status, "")) => return head(status, "Content-Length: 0\r\n"),
        Some(Fault::Status(status, more)) => {
            return head(status, &format!("Content-Length: 0\r\n{more}\r\n"));
        }
        Some(Fault::Redirect(to)) => return head(302, &format!("Content-Length: 0\r\nLocation: {to}\r\n")),
        Some(Fault::Cut(bytes)) => sent = bytes,
        Some(Fault::Lie(bytes)) => claim = bytes,
        Some(Fault::Unmeasured(bytes)) => {
            head(200, "")?;
            let body = body?;
            return stream.write_all(&body[..bytes.min(body.len())]).ok();
        }
        Some(Fault::Garbled) => {
            body.iter_mut().flatten().for_each(|byte| *byte ^= 0x55);
        }
        Some(Fault::Slow(bytes)) => slow = Some(bytes),
        None => {}
    }
    let Some(body) = body else { return head(404, "Content-Length: 0\r\n") };
    let tag = format!("\"{}\"", sisforge::base::Sha256::of(&body));
    if request.if_none_match == tag {
        return head(304, &format!("ETag: {tag}\r\n"));
    }
    let part = body.get(request.from..)?;
    let length = i64::try_from(part.len()).ok()? + claim;
    let tagged = format!("Content-Length: {length}\r\nETag: {tag}\r\n");
    if request.from > 0 {
        let (from, last, whole) = (request.from, body.len() - 1, body.len());
        head(206, &format!("{tagged}Content-Range: bytes {from}-{last}/{whole}\r\n"))?;
    } else {
        head(200, &tagged)?;
    }
    let part = &part[..sent.min(part.len())];
    for piece in part.chunks(slow.unwrap_or(usize::MAX)) {
        stream.write_all(piece).ok()?;
        if slow.is_some() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    Some(())
}
