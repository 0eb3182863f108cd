//! HAProxy's configuration (its configuration manual), as Debian 12 has it (2.6).

use super::Resolver;

/// Connections through one proxy at the same time. What idles takes little; a guest's budget of connections holds too.
pub const CONNECTIONS: u32 = 8192;

/// The configuration. A connection goes where its name leads, whatever address the guest sent it to; the resolver knows no other
/// names than those that are allowed. TLS passes as it is: only the name that its first message says is read. Each request of HTTP/1
/// is looked at; what would hide the next ones (CONNECT, HTTP/2) is refused. The resolver is asked once for a name, since it asks
/// again itself where an answer does not come.
pub fn config(resolver: &Resolver) -> String {
    let seat = resolver.seat;
    [all(seat.dns_port()), tls(seat.tls_port()), http(seat.http_port())].concat()
}

fn all(dns: u16) -> String {
    format!(
        "global
  maxconn {CONNECTIONS}
defaults
  maxconn {CONNECTIONS}
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  timeout http-request 10s
  timeout http-keep-alive 1m
resolvers names
  nameserver own 127.0.0.1:{dns}
  accepted_payload_size 4096
  resolve_retries 1
  timeout resolve 1s
  timeout retry 5s
  hold valid 1s
  hold nx 1s
  hold other 1s
  hold refused 1s
  hold timeout 1s
"
    )
}

fn tls(port: u16) -> String {
    format!(
        "frontend tls
  mode tcp
  bind 0.0.0.0:{port}
  tcp-request inspect-delay 10s
  tcp-request content do-resolve(txn.to,names,ipv4) req.ssl_sni,lower if {{ req.ssl_hello_type 1 }}
  tcp-request content set-dst var(txn.to) if {{ var(txn.to) -m found }}
  tcp-request content set-dst-port int(443)
  tcp-request content accept if {{ var(txn.to) -m found }}
  tcp-request content reject if {{ req.ssl_hello_type 1 }}
  tcp-request content reject if WAIT_END
  default_backend tls
backend tls
  mode tcp
  server named 0.0.0.0:0
"
    )
}

fn http(port: u16) -> String {
    format!(
        "frontend http
  mode http
  bind 0.0.0.0:{port}
  option http-server-close
  option disable-h2-upgrade
  http-request deny status 403 if {{ method CONNECT }}
  http-request deny status 403 if {{ req.hdr(upgrade) -i -m sub h2c }}
  http-request do-resolve(txn.to,names,ipv4) req.fhdr(host),host_only,lower
  http-request deny status 403 unless {{ var(txn.to) -m found }}
  http-request set-dst var(txn.to)
  http-request set-dst-port int(80)
  default_backend http
backend http
  mode http
  http-reuse never
  server named 0.0.0.0:0
"
    )
}
