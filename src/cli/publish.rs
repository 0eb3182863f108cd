//! `publish`: ports of the host that lead to guests, and configurations of proxies for them.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use crate::host::proxy::{self, Proxy, ProxyPlace};
use crate::host::publish::PublishedPort;
use crate::run::publish;

use super::error::CliError;
use super::ui::Ui;
use super::{output, render};

#[derive(clap::Args)]
pub struct Args {
    /// Print the configuration of a proxy
    #[arg(long, value_enum, requires = "domain")]
    format: Option<ProxyName>,
    /// Each guest is NAME.GUEST.DOMAIN for the proxy
    #[arg(long, value_name = "DOMAIN", requires = "format", value_parser = domain)]
    domain: Option<String>,
    /// The host's address, for a proxy that is elsewhere and in `from`
    #[arg(long, value_name = "ADDRESS", requires = "format")]
    host: Option<Ipv4Addr>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ProxyName {
    /// A Caddyfile
    Caddy,
    /// A file for /etc/nginx/conf.d/
    Nginx,
    /// A whole haproxy.cfg
    Haproxy,
}

pub fn run(args: &Args, ui: &Ui) -> Result<ExitCode, CliError> {
    let (fleet, published) = publish::all(&ui.workspace())?;
    if let (Some(format), Some(domain)) = (args.format, &args.domain) {
        let proxy = match format {
            ProxyName::Caddy => Proxy::Caddy,
            ProxyName::Nginx => Proxy::Nginx,
            ProxyName::Haproxy => Proxy::HaProxy,
        };
        if published.is_empty() {
            return Err(CliError::invalid("no guest publishes anything".to_owned())
                .hint("`publish` of a network in fleet.toml says what does"));
        }
        let place = ProxyPlace { domain, host: args.host };
        render::text(&proxy::render(proxy, &fleet, &published, place));
    } else if ui.settings.json {
        render::json(&published.iter().map(output::PublishedJson::from).collect::<Vec<_>>());
    } else {
        let head = HEAD.map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(published.iter().map(row)).collect();
        render::text(&render::table(&rows));
    }
    Ok(ExitCode::SUCCESS)
}

const HEAD: [&str; 5] = ["GUEST", "NAME", "HOST", "GUEST PORT", "FROM"];

fn row(way: &PublishedPort) -> Vec<String> {
    let PublishedPort { guest, name, protocol, port, guest_port, from, .. } = way;
    let from: Vec<_> = from.iter().map(ToString::to_string).collect();
    vec![
        guest.to_string(),
        name.to_string(),
        format!("{port}/{protocol}"),
        guest_port.to_string(),
        from.join(", "),
    ]
}

/// A name of DNS, which is written into files that others read.
fn domain(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_domain = text.len() <= 200 && text.split('.').all(is_label);
    is_domain.then(|| text.to_owned()).ok_or_else(|| "must be a domain such as example.org".to_owned())
}
