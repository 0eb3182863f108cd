//! `[kernel]`: either a ready image or the parts of a build.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use super::super::file::KernelSection;
use super::super::model::{KernelBuild, KernelSpec, OptionValue};
use super::super::reader::Named;
use super::{Location, MentionTarget, Validator, all, span_of};
use crate::base::KernelOption;
use crate::base::problem::{Problem, Read, ReadRef};

impl Validator<'_> {
    pub(super) fn kernel(&mut self, section: &KernelSection) -> Read<KernelSpec> {
        let image = section.image.by_ref()?;
        let built_with = build_keys(section);
        if let Some(image) = image {
            if !built_with.is_empty() {
                return Err(self.conflict(image.span(), &built_with));
            }
            let (place, image) = (image.span(), self.path_to_build(image, MentionTarget::File));
            let sha256 = section.sha256.clone()?.map(Spanned::into_inner);
            return Ok(KernelSpec::Ready { image, place, sha256 });
        }
        self.kernel_build(section).map(KernelSpec::Build)
    }

    fn conflict(
        &mut self,
        image: Range<usize>,
        built_with: &[(&str, Range<usize>)],
    ) -> crate::base::problem::Reported {
        let keys = built_with.iter().map(|(key, _)| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let (_, first) = &built_with[0];
        self.problems.report(
            Problem::new(
                image,
                format!(
                    "a kernel is either prebuilt or built from source: `image` \
              conflicts with {keys}"
                ),
            )
            .label("a prebuilt kernel")
            .also(first.clone(), "a kernel that is built from source")
            .hint(format!("keep `image`, or remove it and keep {keys}")),
        )
    }

    fn kernel_build(&mut self, section: &KernelSection) -> Read<KernelBuild> {
        let source = section.source.by_ref().and_then(|source| match source {
            Some(source) => Ok(self.source(source, MentionTarget::FileOrDirectory)),
            None => Err(self.problems.report(
                Problem::new(section.place.clone(), "the kernel has neither `source` nor `image`")
                    .hint("set `source` to build a kernel, or `image` to use a prebuilt one"),
            )),
        });
        let of = section.source.as_ref().ok().and_then(Option::as_ref);
        let mirrors = self.mirrors(of, &section.mirrors);
        let keyring = self.keyring(of, section);
        let base = section.base.by_ref().and_then(|base| match base {
            Some(base) => Ok(self.label(base, MentionTarget::KernelBase)),
            // Without a source, the kernel may be meant to be a ready one: that was told.
            None => source.clone().and_then(|_| {
                Err(self.problems.report(Problem::new(section.place.clone(), "`base` is missing").hint(
                    "building from source needs a base configuration, one of \
                          kernel-configs/BASE.config",
                )))
            }),
        });
        let fragments = section.fragments.by_ref().and_then(|fragments| {
            fragments
                .as_ref()
                .map_or(Ok(Vec::new()), |list| self.labels(list.get_ref(), MentionTarget::KernelFragment))
        });
        let options = section.options.by_ref().and_then(|options| {
            options.as_ref().map_or(Ok(BTreeMap::new()), |options| self.options(options.get_ref()))
        });
        let patches = section.patches.by_ref().and_then(|patches| {
            let patches = patches.iter().flat_map(|list| list.get_ref());
            all(patches.map(|path| Ok(self.path(path.by_ref()?, MentionTarget::File))))
        });
        Ok(KernelBuild {
            source: source?,
            mirrors: mirrors?,
            sha256: section.sha256.clone()?.map(Spanned::into_inner),
            keyring: keyring?,
            base: base?,
            fragments: fragments?,
            options: options?,
            patches: patches?,
        })
    }

    /// Who must vouch for the digest of a source in the network that `fleet.toml` does not say itself.
    fn keyring(
        &mut self,
        source: Option<&Spanned<Location>>,
        section: &KernelSection,
    ) -> Read<Option<PathBuf>> {
        let Some(keyring) = section.keyring.by_ref()? else { return Ok(None) };
        let said = match (section.sha256.by_ref()?, source) {
            (Some(sha256), _) => Some((
                sha256.span(),
                "the digest",
                "`sha256` and `keyring` both determine the digest of the \
                  source",
            )),
            (None, Some(source)) if matches!(source.get_ref(), Location::Path(_)) => {
                Some((source.span(), "a path", "a local path cannot have a `keyring`"))
            }
            _ => None,
        };
        match said {
            None => Ok(Some(self.path(keyring, MentionTarget::File))),
            Some((place, label, text)) => Err(self
                .problems
                .report(Problem::new(keyring.span(), text).also(place, label).hint("remove one of the two"))),
        }
    }

    fn options(
        &mut self,
        options: &Named<KernelOption, OptionValue>,
    ) -> Read<BTreeMap<KernelOption, OptionValue>> {
        let mut places: BTreeMap<&KernelOption, Range<usize>> = BTreeMap::new();
        for (name, _) in options.iter() {
            if let Some(first) = places.insert(name.get_ref(), name.span()) {
                let (first, second) =
                    if first.start < name.span().start { (first, name.span()) } else { (name.span(), first) };
                self.problems.report(
                    Problem::new(second, format!("kernel option {} is set twice", name.get_ref()))
                        .label("again")
                        .also(first, "first")
                        .hint("NAME and CONFIG_NAME are the same option"),
                );
            }
        }
        options.iter().map(|(name, value)| Ok((name.get_ref().clone(), value.clone()?))).collect()
    }
}

/// The keys of a build that are there, and where.
fn build_keys(section: &KernelSection) -> Vec<(&'static str, Range<usize>)> {
    let keys = [
        ("source", span_of(&section.source)),
        ("mirrors", span_of(&section.mirrors)),
        ("keyring", span_of(&section.keyring)),
        ("base", span_of(&section.base)),
        ("fragments", span_of(&section.fragments)),
        ("options", span_of(&section.options)),
        ("patches", span_of(&section.patches)),
    ];
    keys.into_iter().filter_map(|(key, place)| Some((key, place?))).collect()
}
