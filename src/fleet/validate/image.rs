//! `[image.NAME]` and `[disk.NAME]`.

use toml::Spanned;

use super::super::file::{DiskSection, FileSection, ImageSection};
use super::super::model::{
    AcceptedScript, Backing, ContainerImage, DiskSpec, FileContent, FileSpec, GivenParameter, ImageSpec,
};
use super::super::scalar::{Auto, ImageLocation, LocalPath, Mode, WorldEntry};
use super::{MentionTarget, Validator, all};
use crate::base::problem::{Problem, Read, ReadRef, suggest};
use crate::base::{ByteSize, GuestPath, LOST_FOUND, is_lost_found};

/// An ext4 file system with a journal of 4 MiB, its inodes and something to hold.
pub(super) const LEAST_DISK_MIB: u64 = 16;

/// Blocks of 4 KiB are counted in 32 bits, by what writes file systems and by what is in them; one block less is what ext4 lets a file
/// of the host have.
const MOST_DISK_MIB: u64 = (16 << 20) - 1;

impl Validator<'_> {
    /// The size of a file system.
    pub(super) fn disk_size(&mut self, size: &Spanned<ByteSize>, what: &str) -> Read<ByteSize> {
        let value = self.size(size, what, LEAST_DISK_MIB)?;
        if value.mib() <= MOST_DISK_MIB {
            return Ok(value);
        }
        let most = ByteSize::from_mib(MOST_DISK_MIB);
        let message = format!("{value} is too large: {what} has at most {most}");
        Err(self.problems.report(Problem::new(size.span(), message)))
    }

    /// `tags` are those of the repositories; `None` where they are not known.
    pub(super) fn image(&mut self, section: &ImageSection, tags: Option<&[String]>) -> Read<ImageSpec> {
        let recipes = section.recipes.by_ref().and_then(|list| self.labels(list, MentionTarget::Recipe));
        let packages = section
            .packages
            .by_ref()
            .and_then(|list| all(list.iter().map(|package| self.package(package.by_ref()?, tags))));
        let size = section.size.clone().and_then(|size| self.image_size(size));
        let files = section.files.by_ref().and_then(|files| {
            all(files.iter().map(|(path, file)| {
                self.refuse_lost_found(path)?;
                Ok((path.get_ref().clone(), self.file(file.by_ref()?)?))
            }))
        });
        let parameters = section.parameters.by_ref().and_then(|parameters| {
            all(parameters.iter().map(|(name, value)| {
                let given = GivenParameter { place: name.span(), value: value.clone()? };
                Ok((name.get_ref().0.clone(), given))
            }))
        });
        let accepted = section.accept_scripts.by_ref().and_then(|scripts| {
            all(scripts.iter().map(|(name, digests)| {
                let digests = digests.by_ref()?.0.iter();
                let sha256 = digests.map(|digest| Spanned::new(digest.span(), digest.get_ref().0)).collect();
                Ok(AcceptedScript { name: name.clone(), sha256 })
            }))
        });
        Ok(ImageSpec {
            place: section.place.clone(),
            recipes: recipes?,
            packages: packages?,
            size: size?,
            files: files?,
            parameters: parameters?,
            accepted: accepted?,
        })
    }

    fn refuse_lost_found(&mut self, path: &Spanned<GuestPath>) -> Read<()> {
        if !is_lost_found(path.get_ref().as_str()) {
            return Ok(());
        }
        let problem = Problem::new(path.span(), format!("no file can be put into {LOST_FOUND}"));
        Err(self.problems.report(
            problem.hint("it is the file system's own, for what e2fsck recovers: choose another path"),
        ))
    }

    fn image_size(&mut self, size: Option<Spanned<Auto<ByteSize>>>) -> Read<Option<ByteSize>> {
        let given = size.and_then(|size| Some(Spanned::new(size.span(), size.into_inner().given()?)));
        given.map(|size| self.disk_size(&size, "an image")).transpose()
    }

    fn package(&mut self, package: &Spanned<WorldEntry>, tags: Option<&[String]>) -> Read<String> {
        let WorldEntry { entry, tag } = package.get_ref();
        let undeclared = tag.as_ref().zip(tags).filter(|(tag, tags)| !tags.contains(tag));
        if let Some((tag, tags)) = undeclared {
            return Err(self.problems.report(
                Problem::new(package.span(), format!("no repository has the tag `{tag}`")).hint(suggest(
                    "tags of repositories",
                    tag,
                    tags.iter().map(String::as_str),
                )),
            ));
        }
        Ok(entry.clone())
    }

    fn file(&mut self, section: &FileSection) -> Read<FileSpec> {
        let content = match (section.content.clone()?, section.file.clone()?) {
            (Some(content), None) => FileContent::Inline(content.into_inner()),
            (None, Some(file)) => FileContent::File(self.path(&file, MentionTarget::File)),
            (None, None) => {
                return Err(self.problems.report(
                    Problem::new(section.place.clone(), "the file has neither `content` nor `file`")
                        .hint("set `content` to its text, or `file` to the path of a file to copy"),
                ));
            }
            (Some(content), Some(file)) => {
                return Err(self.problems.report(
                    Problem::new(file.span(), "the file has both `content` and `file`")
                        .also(content.span(), "its text")
                        .hint("keep one of the two"),
                ));
            }
        };
        let account = |account: &Read<Option<super::super::scalar::Account>>| {
            account.clone().map(|account| account.map_or_else(|| "root".to_owned(), |account| account.0))
        };
        Ok(FileSpec {
            content,
            mode: section.mode?.unwrap_or(Mode(0o644)).0,
            owner: account(&section.owner)?,
            group: account(&section.group)?,
        })
    }

    pub(super) fn disk(&mut self, section: &DiskSection) -> Read<DiskSpec> {
        let size = section.size.clone().and_then(|size| self.disk_size(&size, "a disk"));
        let images = section
            .images
            .by_ref()
            .and_then(|images| all(images.iter().map(|image| Ok(self.container_image(image.by_ref()?)))));
        Ok(DiskSpec {
            size: size?,
            backing: section.backing?.unwrap_or(Backing::File),
            images: images?,
            label: section.label.clone()?.map(|label| label.0),
            owner: section.owner.clone()?.map(|owner| owner.0),
        })
    }

    fn container_image(&mut self, image: &Spanned<ImageLocation>) -> ContainerImage {
        let place = |path: &LocalPath| Spanned::new(image.span(), path.clone());
        match image.get_ref() {
            ImageLocation::OciArchive(path, reference) => ContainerImage::OciArchive {
                path: self.path_to_build(&place(path), MentionTarget::File),
                reference: reference.clone(),
            },
            ImageLocation::OciLayout(path, reference) => ContainerImage::OciLayout {
                path: self.path_to_build(&place(path), MentionTarget::Layout),
                reference: reference.clone(),
            },
            ImageLocation::DockerArchive(path) => {
                ContainerImage::DockerArchive(self.path_to_build(&place(path), MentionTarget::File))
            }
            ImageLocation::Registry(image) => ContainerImage::Registry(image.clone()),
        }
    }
}
