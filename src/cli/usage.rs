//! Wrong usage, as clap finds it: in clap's words, or with `--json` as the document that every error is.

use std::process::ExitCode;

use clap::error::ErrorKind;

use super::output::FailureJson;
use super::render;

/// Prints what clap has to say, which may be the help that was asked for, and gives the exit status.
pub fn print(error: &clap::Error, as_json: bool) -> ExitCode {
    if as_json && error.use_stderr() {
        let (error, hint) = words(error);
        render::json(&FailureJson::Words { error, causes: Vec::new(), hint: Some(hint) });
    } else {
        // Nobody is left to be told where that fails.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(u8::MAX))
}

/// What is wrong, and what to do.
fn words(error: &clap::Error) -> (String, String) {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return ("a command is missing".to_owned(), "`--help` lists all".to_owned());
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (message, more) = text.split_once("\n\n").unwrap_or((text, ""));
    let lines = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    (lines(message).replace('\n', " "), lines(more))
}
