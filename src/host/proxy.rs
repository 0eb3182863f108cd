//! What leads users to the ports that guests publish: configurations of proxies that distributions have. Certificates, names
//! and everything else of HTTP are theirs. Each guest is at `NAME.GUEST.DOMAIN`.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::base::FleetName;
use crate::fleet::Protocol;

use super::publish::PublishedPort;

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    Caddy,
    Nginx,
    HaProxy,
}

/// Where a proxy stands, and below which name it answers.
#[derive(Clone, Copy, Debug)]
pub struct ProxyPlace<'a> {
    pub domain: &'a str,
    /// The address of the host, of a proxy that is elsewhere; one on the host itself reaches guests directly.
    pub host: Option<Ipv4Addr>,
}

/// Renders the configuration. What is not published by TCP is named, and left out.
pub fn render(proxy: Proxy, fleet: &FleetName, published: &[PublishedPort], place: ProxyPlace<'_>) -> String {
    let word = match proxy {
        Proxy::Caddy => "caddy",
        Proxy::Nginx => "nginx",
        Proxy::HaProxy => "haproxy",
    };
    let mut text = format!("# Written by `sisforge publish --format {word}` for the fleet {fleet}.\n");
    let (ways, others): (Vec<_>, Vec<_>) = published.iter().partition(|way| way.protocol == Protocol::Tcp);
    for PublishedPort { guest, name, protocol, .. } in others {
        let _ = writeln!(text, "# {name} of {guest} is not here: it is published by {protocol}.");
    }
    let sites: Vec<_> = ways.into_iter().map(|way| Site::new(way, place)).collect();
    match proxy {
        Proxy::Caddy => sites.iter().for_each(|site| caddy(&mut text, site)),
        Proxy::Nginx => nginx(&mut text, &sites),
        Proxy::HaProxy => haproxy(&mut text, &sites),
    }
    text
}

/// One published port, as a proxy sees it.
struct Site {
    /// Unique in the configuration.
    id: String,
    name: String,
    to: String,
    from: Vec<String>,
}

impl Site {
    fn new(way: &PublishedPort, place: ProxyPlace<'_>) -> Self {
        let PublishedPort { guest, name, port, ip, guest_port, from, .. } = way;
        Self {
            id: format!("{guest}-{name}"),
            name: format!("{name}.{guest}.{}", place.domain),
            to: place.host.map_or_else(|| format!("{ip}:{guest_port}"), |host| format!("{host}:{port}")),
            from: from.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Caddy gets certificates, and passes websockets on, by itself.
fn caddy(text: &mut String, Site { name, to, from, .. }: &Site) {
    let from = from.join(" ");
    let _ = write!(
        text,
        "\n{name} {{\n\t@others not remote_ip {from}\n\trespond @others 403\n\treverse_proxy {to}\n}}\n"
    );
}

/// A file for `/etc/nginx/conf.d/`; `certbot --nginx` adds certificates to it.
fn nginx(text: &mut String, sites: &[Site]) {
    text.push_str("\nmap $http_upgrade $sisforge_connection {\n\tdefault upgrade;\n\t\"\" \"\";\n}\n");
    for Site { name, to, from, .. } in sites {
        let allow: String = from.iter().map(|net| format!("\tallow {net};\n")).collect();
        let _ = write!(
            text,
            "\nserver {{\n\tlisten 80;\n\tserver_name {name};\n{allow}\tdeny all;\n\tlocation / {{\n\t\tproxy_pass http://{to};\n\
             \t\tproxy_http_version 1.1;\n\t\tproxy_set_header Host $host;\n\t\tproxy_set_header Upgrade $http_upgrade;\n\
             \t\tproxy_set_header Connection $sisforge_connection;\n\t\tproxy_set_header X-Forwarded-For $remote_addr;\n\
             \t\tproxy_set_header X-Forwarded-Proto $scheme;\n\t\tproxy_read_timeout 1h;\n\t}}\n}}\n"
        );
    }
}

/// A whole `/etc/haproxy/haproxy.cfg`; `bind :443 ssl crt FILE` adds certificates.
fn haproxy(text: &mut String, sites: &[Site]) {
    text.push_str(
        "\nglobal\n\tlog /dev/log local0\n\tuser haproxy\n\tgroup haproxy\n\ndefaults\n\tmode http\n\tlog global\n\
         \toption forwardfor\n\ttimeout connect 5s\n\ttimeout client 1m\n\ttimeout server 1m\n\ttimeout tunnel 1h\n\n\
         frontend sisforge\n\tbind :80\n",
    );
    for Site { id, name, from, .. } in sites {
        let from = from.join(" ");
        let _ = writeln!(text, "\tuse_backend {id} if {{ hdr(host),host_only -i {name} }} {{ src {from} }}");
    }
    for Site { id, to, .. } in sites {
        let _ = write!(text, "\nbackend {id}\n\tserver guest {to}\n");
    }
}
