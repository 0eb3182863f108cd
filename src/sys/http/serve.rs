//! A server of one page: what scrapers ask for (RFC 9112).

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long one caller may take to ask, and to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest question.
const LONGEST: usize = 8 << 10;

/// Answers GET and HEAD of one path, one caller after the other, for ever. What `page` gives is the page, or why there is none.
pub fn serve(listener: &TcpListener, path: &str, kind: &str, page: impl Fn() -> Result<String, String>) -> ! {
    loop {
        // A caller that went away, or too many files: the next one may have more luck.
        if let Ok((stream, _)) = listener.accept() {
            let _ = answer(stream, path, kind, &page);
        } else {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn answer(
    mut stream: TcpStream,
    path: &str,
    kind: &str,
    page: &impl Fn() -> Result<String, String>,
) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || head.len() > LONGEST {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 1024];
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            count => head.extend_from_slice(&piece[..count]),
        }
    }
    let (status, kind, body) = match asked(&head) {
        Some((method, asked)) if asked == path && matches!(method.as_str(), "GET" | "HEAD") => match page() {
            Ok(page) => ("200 OK", kind, page),
            Err(error) => ("503 Service Unavailable", "text/plain; charset=utf-8", error + "\n"),
        },
        Some((method, asked)) if asked == path => {
            ("405 Method Not Allowed", "text/plain; charset=utf-8", format!("{method} is not GET\n"))
        }
        Some(_) => ("404 Not Found", "text/plain; charset=utf-8", format!("what is here is {path}\n")),
        None => ("400 Bad Request", "text/plain; charset=utf-8", String::new()),
    };
    let length = body.len();
    let head_only = asked(&head).is_some_and(|(method, _)| method == "HEAD");
    let body = if head_only { "" } else { &body };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes())
}

/// The method and the path, without a query.
fn asked(head: &[u8]) -> Option<(String, String)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).ok()?;
    let path = request.path?.split('?').next()?;
    Some((request.method?.to_owned(), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: std::net::SocketAddr, question: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn one_page_is_served_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener, "/metrics", "text/plain", || Ok("a 1\n".to_owned())));
        let page = ask(address, "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(
            page.starts_with("HTTP/1.1 200 OK\r\n")
                && page.ends_with("Content-Length: 4\r\nConnection: close\r\n\r\na 1\n"),
            "{page}"
        );
        let head = ask(address, "HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for (question, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("nonsense\r\n\r\n", "400"),
        ] {
            let answer = ask(address, question);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{question}: {answer}");
        }
        // One that says nothing is not waited for without a limit, and one that goes away harms nobody.
        drop(TcpStream::connect(address).unwrap());
        assert!(ask(address, "GET /metrics HTTP/1.1\r\n\r\n").contains("200 OK"));
    }
}
