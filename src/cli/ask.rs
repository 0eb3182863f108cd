//! Asking before something is lost.

use std::io::{BufRead, IsTerminal};

use super::error::CliError;
use super::render;

/// Asks on the terminal whether to do something, such as `remove all of it`; only the whole word is a yes.
///
/// # Errors
/// Where the answer is another, or there is no terminal to ask on.
pub fn confirm(what: &str) -> Result<(), CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(
            CliError::invalid(format!("there is no terminal to ask whether to {what}")).hint("add --yes")
        );
    }
    render::tell_open(&format!("{what}? Type yes: "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" { Ok(()) } else { Err(CliError::failed("nothing was changed")) }
}
