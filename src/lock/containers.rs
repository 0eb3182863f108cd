//! Container images of registries: which digest a tag is.

use std::collections::BTreeMap;

use crate::base::Sha256;
use crate::fleet::{ContainerImage, RegistryImage};
use crate::sys::fetch::Cache;
use crate::sys::registry::{ImageRepository, Puller, RegistryError};
use crate::sys::report::Report;

use super::request::{Request, Update};
use super::wanted::mentioned_containers;

/// What a tag leads to is found out once, when it is new or all is updated; from then on its digest stands.
pub(super) fn resolve(request: &Request<'_>) -> Result<BTreeMap<String, Sha256>, RegistryError> {
    let mentioned = mentioned_containers(request.fleet);
    let digest = |(spelled, known): (&String, &Option<Sha256>)| {
        let old = request.old.and_then(|lock| lock.container.get(spelled));
        let sha256 = match (known, old, mentioned.get(spelled)) {
            (Some(sha256), ..) => *sha256,
            (None, Some(old), _) if *request.update != Update::All => *old,
            (None, _, Some(ContainerImage::Registry(image))) => {
                let Request { cache, offline, report, .. } = *request;
                let tag = image.tag.as_deref().unwrap_or_default();
                puller(image, cache, offline, report).resolve(tag)?
            }
            (None, ..) => return Ok(None),
        };
        Ok(Some((spelled.clone(), sha256)))
    };
    request.wanted.containers.iter().filter_map(|wanted| digest(wanted).transpose()).collect()
}

/// The way to an image of a registry.
pub fn puller<'a>(
    image: &RegistryImage,
    cache: &'a Cache,
    offline: bool,
    report: &'a dyn Report,
) -> Puller<'a> {
    let repository = ImageRepository { host: image.host.clone(), name: image.name.clone() };
    Puller::new(repository, image.to_string(), cache, offline, report)
}
