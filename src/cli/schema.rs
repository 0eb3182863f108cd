//! `schema`: the JSON Schemas of what the program reads, and of what it prints with `--json`.

use std::process::ExitCode;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::error::CliError;
use super::output::DocumentJson;
use super::render;

#[derive(clap::Args)]
pub struct Args {
    /// Of which file, or of what is printed with --json
    #[arg(value_enum, value_name = "NAME", default_value_t = Of::Fleet)]
    of: Of,
}

#[derive(Clone, Copy)]
enum Of {
    Fleet,
    Recipe,
    Output(DocumentJson),
}

/// All that have a schema, files first.
static ALL: std::sync::LazyLock<Vec<Of>> = std::sync::LazyLock::new(|| {
    let documents = DocumentJson::value_variants().iter().map(|document| Of::Output(*document));
    [Of::Fleet, Of::Recipe].into_iter().chain(documents).collect()
});

impl ValueEnum for Of {
    fn value_variants<'a>() -> &'a [Self] {
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Fleet => Some(PossibleValue::new("fleet").help("fleet.toml")),
            Self::Recipe => Some(PossibleValue::new("recipe").help("recipes/NAME/recipe.toml")),
            Self::Output(document) => document.to_possible_value(),
        }
    }
}

pub fn run(args: &Args) -> Result<ExitCode, CliError> {
    let schema = match args.of {
        Of::Fleet => crate::fleet::schema(),
        Of::Recipe => crate::image::recipe::schema(),
        Of::Output(document) => document.schema(),
    };
    render::text(&format!("{schema:#}\n"));
    Ok(ExitCode::SUCCESS)
}
