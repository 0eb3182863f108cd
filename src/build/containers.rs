//! Containers of guests whose images are on no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::base::{GuestName, Label};
use crate::fleet::{ContainerImage, Fleet};
use crate::image::container::{ContainerError, full_name, names_in};

/// A container that guests do not have the image of when they first boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsentImage {
    /// Where `fleet.toml` has it.
    pub place: Range<usize>,
    /// Those whose disk lacks it.
    pub guests: Vec<GuestName>,
    pub container: Label,
    /// As `fleet.toml` has it.
    pub image: String,
    /// `localhost/` is no registry: nobody can pull it.
    pub can_be_pulled: bool,
}

impl std::fmt::Display for AbsentImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { guests, container, image, can_be_pulled, .. } = self;
        let (first, more) = (&guests[0], guests.len() - 1);
        let guests = match more {
            0 => first.to_string(),
            1 => format!("{first} and {}", guests[1]),
            _ => format!("{first} and {more} other guests"),
        };
        let what = if *can_be_pulled { "it has to be pulled there" } else { "no registry has it" };
        write!(
            f,
            "the container {container} is of {image}, which is not among the images of the disk of {guests}: {what}"
        )
    }
}

/// Every container whose image its disk does not bring. Only disks of guests with containers are looked into.
pub fn absent_images(fleet: &Fleet) -> Result<Vec<AbsentImage>, ContainerError> {
    let mut known: BTreeMap<&ContainerImage, BTreeSet<String>> = BTreeMap::new();
    let mut absent: Vec<AbsentImage> = Vec::new();
    for (guest, spec) in fleet.guests.iter().filter(|(_, spec)| !spec.containers.is_empty()) {
        for image in &spec.disk.images {
            if !known.contains_key(image) {
                known.insert(image, called(image)?);
            }
        }
        for (container, place) in spec.containers.iter().zip(&spec.container_places) {
            // Which digest an image has is known once it is opened.
            let Some(image) = container.image() else { continue };
            let name = full_name(image).filter(|name| !name.contains('@'));
            let Some(name) = name else { continue };
            let is_there =
                |image: &ContainerImage| known.get(image).is_some_and(|names| names.contains(&name));
            if spec.disk.images.iter().any(is_there) {
                continue;
            }
            // What a pool or `[defaults]` says of several guests is said of it once.
            match absent.iter_mut().find(|absent| absent.place == *place) {
                Some(absent) => absent.guests.push(guest.clone()),
                None => absent.push(AbsentImage {
                    place: place.clone(),
                    guests: vec![guest.clone()],
                    container: container.name.clone(),
                    image: image.to_owned(),
                    can_be_pulled: !image.starts_with("localhost/"),
                }),
            }
        }
    }
    Ok(absent)
}

fn called(image: &ContainerImage) -> Result<BTreeSet<String>, ContainerError> {
    if let ContainerImage::Registry(image) = image {
        return Ok(full_name(&image.called()).into_iter().collect());
    }
    Ok(names_in(image)?.into_iter().flat_map(|names| names.own.into_iter().chain(names.spare)).collect())
}
