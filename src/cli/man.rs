//! `man`: a page for each command, generated from the same definitions as the command line, and one for fleet.toml.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Command;

use crate::sys::fs::{self, FileError};

use super::error::CliError;
use super::render;

mod reference;

#[derive(clap::Args)]
pub struct ManArgs {
    /// Write the pages of all commands, and that of fleet.toml, into this directory, instead of the main page to stdout
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn pages(args: &ManArgs, mut command: Command) -> Result<ExitCode, CliError> {
    command.build();
    match &args.dir {
        None => render::text(&page(&command)?),
        Some(dir) => {
            fs::create_dir_all(dir)?;
            let mut pages = vec![("fleet.toml.5".to_owned(), reference::page(&crate::fleet::schema()))];
            all(&command, &mut pages)?;
            for (name, page) in &pages {
                fs::write(&dir.join(name), page.as_bytes(), 0o644)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The pages of a command and of what is below it, each with the name of its file.
fn all(command: &Command, pages: &mut Vec<(String, String)>) -> Result<(), CliError> {
    pages.push((format!("{}.1", name(command)), page(command)?));
    let shown = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
    command.get_subcommands().filter(shown).try_for_each(|command| all(command, pages))
}

/// Such as `sisforge-disk-ls`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

/// What every page ends with.
const COMMON: &str = r#".SH "EXIT STATUS"
.TP
0
It is done.
.TP
1
It was not done, and may be another time.
.TP
2
Wrong usage, or an invalid configuration; nothing was changed.
.TP
130, 143
It was interrupted, by Ctrl\-C or SIGTERM; it says what it left undone.
.PP
.B plan \-\-detailed\-exitcode
ends with 0 where there is nothing to do, with 2 where there are changes, and with 1 on any error.
.B exec
and
.B ssh
end as the command in the guest does.
.B policy explain
ends with 3 where a packet would not pass.
.SH ENVIRONMENT
Each global option has a variable of its name, such as
.B SISFORGE_OFFLINE=1
for
.BR \-\-offline .
.B SISFORGE_CACHE_DIR
is where downloads are kept; otherwise that is
.I $XDG_CACHE_HOME/sisforge
or
.IR ~/.cache/sisforge .
.B SISFORGE_VERIFY_ARTIFACTS
names a file in the place of
.IR /etc/sisforge/signers .
.BR http_proxy ,
.BR https_proxy ,
.BR no_proxy ,
.BR SSL_CERT_FILE ,
.BR HTTP_AUTH ,
.BR NETRC ,
.BR REGISTRY_AUTH_FILE ,
.B DOCKER_CONFIG
and
.B NO_COLOR
mean what they mean elsewhere.
.SH FILES
.TP
.I fleet.toml
The fleet; see
.BR fleet.toml (5).
.TP
.I /etc/sisforge/signers
SSH keys as
.BR ssh\-keygen (1)
has them under ALLOWED SIGNERS. Where it is there, nothing is started on this host whose digests none of them signed
.RB ( "sisforge sign" ).
.TP
.I fleet.lock
Versions, digests and numbers that were chosen; commit it.
.TP
.I out/
What was built.
.TP
.I /var/lib/sisforge
What runs on this host, unless
.I fleet.toml
names another store.
.TP
.I /var/lib/sisforge-host
What must not be in a backup of that: the key for which other hosts export snapshots, and the witness of each fleet's ledger of snapshots.
.SH "SEE ALSO"
.BR sisforge (1),
.BR fleet.toml (5)
"#;

fn page(command: &Command) -> Result<String, CliError> {
    let title = name(command);
    let man = clap_mangen::Man::new(command.clone()).title(title);
    let mut page = Vec::new();
    let mut rendered = || {
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut page)?;
        }
        Ok::<_, std::io::Error>(())
    };
    rendered().map_err(FileError::when("write", "man page"))?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    if let Some(examples) = command.get_after_help() {
        page.push_str(".SH EXAMPLES\n.nf\n");
        for line in examples.to_string().lines().skip(1) {
            page.push_str(&reference::escaped(line.trim_start()));
            page.push('\n');
        }
        page.push_str(".fi\n");
    }
    Ok(page + COMMON)
}
