//! Which server is asked for a file, and which after it.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::base::diagnostic::each;

use super::super::http::{ATTEMPTS, Client};
use super::super::report::Report;
use super::address::{MirroredUrl, server};
use super::error::{Remedy, Retryable};

/// What is known of servers; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    /// Those that gave nothing in this run: they are asked last.
    failing: Arc<Mutex<BTreeSet<String>>>,
}

impl Servers {
    /// Asks one place after the other, those whose servers failed before last; all of them again, after a pause of the client, for as
    /// long as that may help. `ask` is given the place and how often it may try. The errors are those of the places that gave
    /// nothing, at least one.
    pub fn ask<T, E: Retryable + Error>(
        &self,
        client: &Client,
        address: &MirroredUrl,
        progress: &dyn Report,
        mut ask: impl FnMut(&str, u32) -> Result<T, E>,
    ) -> Result<T, Vec<E>> {
        if address.mirrors.is_empty() {
            return ask(&address.url, ATTEMPTS).map_err(|error| vec![error]);
        }
        let mut places: Vec<&str> = address.places().collect();
        places.sort_by_key(|place| self.failing().contains(server(place)));
        for round in 1.. {
            let mut errors = Vec::new();
            let mut left = Vec::new();
            for (index, place) in places.iter().enumerate() {
                let error = match ask(place, 1) {
                    Ok(found) => return Ok(found),
                    Err(error) => error,
                };
                match error.remedy() {
                    Remedy::None => return Err(vec![error]),
                    Remedy::Later => {
                        self.failing().insert(server(place).to_owned());
                        left.push(*place);
                    }
                    Remedy::Elsewhere => {}
                }
                if round == 1 && index + 1 < places.len() {
                    let error = each(std::slice::from_ref(&error));
                    progress.note(&format!("{error}; trying the next mirror"));
                }
                errors.push(error);
            }
            if left.is_empty() || round == ATTEMPTS {
                return Err(errors);
            }
            places = left;
            thread::sleep(client.pause(round));
        }
        Err(Vec::new())
    }

    fn failing(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
