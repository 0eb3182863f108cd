//! Why a download is not there, and whether another attempt may help.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::base::diagnostic::{each, together};
use crate::base::{Class, Diagnosis, Diagnostic};

use super::super::fs::FileError;
use super::super::http::{HttpError, OTHER_FILE};

/// Why a download is not there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    File(#[from] FileError),
    /// The network may not be used.
    #[error("{url} is not in the cache {}{}, and this run is offline", dir.display(), or_in(vendor.as_deref()))]
    Offline { url: String, dir: PathBuf, vendor: Option<PathBuf> },
    /// Another file than the one that was asked for.
    #[error(
        "{url} has the SHA-256 {found}, but {expected} is expected: the file was replaced or tampered with"
    )]
    Digest { url: String, expected: String, found: String },
    /// In the order of the places, the address first.
    #[error("none of {} URLs has it: {}", .0.len(), each(.0))]
    Nowhere(Vec<FetchError>),
}

impl Diagnostic for FetchError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Http(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis().of(Class::Failed),
            Self::Offline { .. } => Class::Failed.hint("run once without --offline"),
            Self::Digest { .. } => Class::Failed.hint(OTHER_FILE),
            Self::Nowhere(errors) => together(errors),
        }
    }
}

/// What came in place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnexpectedBody {
    /// Nothing: the server has no such file.
    Nothing,
    /// An HTML page.
    Page,
    /// Another file, or a part of it.
    Other,
}

impl FetchError {
    /// That of the only place, or those of all.
    pub(super) fn of_places(mut errors: Vec<Self>) -> Self {
        match errors.len() {
            1 => errors.remove(0),
            _ => Self::Nowhere(errors),
        }
    }

    /// What a server sent that is not the file; `None` where it sent none, or there are several servers.
    pub fn what_came(&self) -> Option<UnexpectedBody> {
        match self {
            Self::Http(HttpError::Status { status: 404 | 410, .. }) => Some(UnexpectedBody::Nothing),
            Self::Http(HttpError::Page { .. }) => Some(UnexpectedBody::Page),
            Self::Http(HttpError::Length { .. }) | Self::Digest { .. } => Some(UnexpectedBody::Other),
            Self::Http(_) | Self::File(_) | Self::Offline { .. } | Self::Nowhere(_) => None,
        }
    }

    /// Whether the same request may go better later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Http(error) => error.may_pass(),
            Self::Nowhere(errors) => errors.iter().any(Self::may_pass),
            Self::File(_) | Self::Offline { .. } | Self::Digest { .. } => false,
        }
    }
}

fn or_in(vendor: Option<&Path>) -> String {
    vendor.map(|dir| format!(" or in {}", dir.display())).unwrap_or_default()
}

/// What is to be done after a place gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It may give it later, another place may at once.
    Later,
    /// Another place may.
    Elsewhere,
    /// Nothing that a place does changes it.
    None,
}

/// An error that knows what may help.
pub trait Retryable {
    /// What may.
    fn remedy(&self) -> Remedy;
}

impl Retryable for FetchError {
    fn remedy(&self) -> Remedy {
        match self {
            Self::Http(HttpError::Store { .. }) | Self::File(_) => Remedy::None,
            Self::Http(error) if error.may_pass() => Remedy::Later,
            _ => Remedy::Elsewhere,
        }
    }
}

/// Why a file that its taker looks at is not there.
#[derive(Debug, thiserror::Error)]
pub enum GetError<E: Error + 'static> {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It came, and was not accepted.
    #[error(transparent)]
    Refused(E),
}

impl<E: Diagnostic + 'static> Diagnostic for GetError<E> {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Fetch(error) => error.diagnosis(),
            Self::Refused(error) => error.diagnosis(),
        }
    }
}

impl<E: Error> Retryable for GetError<E> {
    fn remedy(&self) -> Remedy {
        match self {
            Self::Fetch(error) => error.remedy(),
            Self::Refused(_) => Remedy::Elsewhere,
        }
    }
}
