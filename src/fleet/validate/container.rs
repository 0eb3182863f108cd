//! Containers of a guest: each whole, and none in another's way.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::super::file::{ContainerSection, HealthSection, SecretSection};
use super::super::model::{
    ContainerSource, ContainerSpec, HealthCheck, PortMapping, Protocol, SecretPlace, SecretSpec,
};
use super::super::reader::List;
use super::super::scalar::{CommandWord, Count, Lifetime, TmpfsMount};
use super::{MentionTarget, Validator, all, optional};
use crate::base::problem::{Problem, Read, ReadRef};
use crate::base::{ByteSize, Label};

/// Below it, no program starts.
const LEAST_MEMORY_MIB: u64 = 4;

/// What all words of a container may take, in bytes, quoted for a shell: they travel as one argument, of which Linux takes 128 KiB
/// (`MAX_ARG_STRLEN`).
const LONGEST_WORDS: usize = 64 << 10;

/// The port that the guest's own sshd has.
const SSH: PortMapping = PortMapping { guest: 22, container: 22, protocol: Protocol::Tcp };

const DEFAULT_INTERVAL: u32 = 30;
const DEFAULT_TIMEOUT: u32 = 30;
const DEFAULT_RETRIES: u32 = 3;
/// An hour, for each time of a health check.
const LONGEST_TIME: u64 = 3600;

/// What the containers of one guest must not have twice, and where it stands first.
#[derive(Default)]
struct Taken {
    names: BTreeMap<Label, Range<usize>>,
    ports: BTreeMap<(Protocol, u16), Range<usize>>,
    secrets: BTreeMap<Label, (PathBuf, Range<usize>)>,
}

/// A container of a guest whose size is not known yet, and where it says what it takes of that.
#[derive(Clone)]
pub(super) struct PlacedContainer {
    spec: ContainerSpec,
    /// What it runs.
    source: Range<usize>,
    memory: Option<Range<usize>>,
    cpus: Option<Range<usize>>,
}

impl Validator<'_> {
    pub(super) fn containers(&mut self, sections: &[Read<ContainerSection>]) -> Read<Vec<PlacedContainer>> {
        let mut taken = Taken::default();
        all(sections.iter().map(|section| {
            let section = section.by_ref()?;
            let spec = self.container(section, &mut taken)?;
            let memory = section.memory.by_ref()?.as_ref().map(Spanned::span);
            let cpus = section.cpus.by_ref()?.as_ref().map(Spanned::span);
            let image = section.image.by_ref()?.as_ref().map(Spanned::span);
            let source = image.unwrap_or_else(|| section.place.clone());
            Ok(PlacedContainer { spec, source, memory, cpus })
        }))
    }

    /// The containers of a guest of this size, and where each says what it runs: a bound beyond that size would be none.
    pub(super) fn sized(
        &mut self,
        containers: Vec<PlacedContainer>,
        memory: ByteSize,
        vcpus: u8,
        what: &str,
    ) -> Read<(Vec<ContainerSpec>, Vec<Range<usize>>)> {
        let sized: Vec<_> = all(containers.into_iter().map(
            |PlacedContainer { spec, source, memory: memory_place, cpus }| {
                let more_memory = spec.memory_mib.is_some_and(|mib| mib > memory.mib());
                let more_cpus = spec.milli_cpus.is_some_and(|milli| milli > u32::from(vcpus) * 1000);
                let message =
                    |has: String| format!("container `{}` may take more than {what} has: {has}", spec.name);
                let wrong = [
                    memory_place
                        .filter(|_| more_memory)
                        .map(|place| (place, message(memory.to_string()), "memory")),
                    cpus.filter(|_| more_cpus).map(|place| {
                        (
                            place,
                            message(match vcpus {
                                1 => "1 vcpu".to_owned(),
                                _ => format!("{vcpus} vcpus"),
                            }),
                            "vcpus",
                        )
                    }),
                ];
                let wrong = wrong.into_iter().flatten().map(|(place, message, key)| {
                    let hint = format!("make it less, leave it out, or give the guest more `{key}`");
                    self.problems.report(Problem::new(place, message).hint(hint))
                });
                wrong.last().map_or(Ok((spec.clone(), source)), Err)
            },
        ))?;
        Ok(sized.into_iter().unzip())
    }

    fn container(&mut self, section: &ContainerSection, taken: &mut Taken) -> Read<ContainerSpec> {
        let name = section.name.by_ref().and_then(|name| {
            let first = taken.names.insert(name.get_ref().clone(), name.span());
            let what = format!("container `{}` is declared twice", name.get_ref());
            self.only_once(name.span(), first, what, "give each container of a guest its own name")?;
            Ok(name.get_ref().clone())
        });
        let source = self.source_of(section);
        let command = optional(&section.command, words);
        let env = self.variables(section);
        let ports = optional(&section.ports, |ports| self.ports(ports, taken));
        let mut places = BTreeMap::new();
        let mounts = self.mounts(section, &mut places);
        let memory = optional(&section.memory, |memory| self.size(memory, "a container", LEAST_MEMORY_MIB));
        let health = optional(&section.health, |health| self.health(health));
        let secrets = optional(&section.secrets, |secrets| {
            all(secrets.iter().map(|secret| self.secret(secret.by_ref()?, section, taken, &mut places)))
        });
        let (volumes, tmpfs) = mounts?;
        let container = ContainerSpec {
            command: command?.unwrap_or_default(),
            env: env?,
            ports: ports?.unwrap_or_default(),
            volumes,
            tmpfs,
            memory_mib: memory?.map(ByteSize::mib),
            milli_cpus: section.cpus.by_ref()?.as_ref().map(|cpus| cpus.get_ref().0),
            read_only: section.read_only?.unwrap_or(false),
            user: section.user.by_ref()?.as_ref().map(|user| user.0.clone()),
            restart: section.restart?.unwrap_or_default(),
            health: health?,
            secrets: secrets?.unwrap_or_default(),
            ..ContainerSpec::of_image(name?, "")
        };
        self.is_short_enough(&container, section)?;
        Ok(ContainerSpec { source: source?, ..container })
    }

    /// An image, or a file that says all.
    fn source_of(&mut self, section: &ContainerSection) -> Read<ContainerSource> {
        let (image, kube) = (section.image.by_ref()?, section.kube.by_ref()?);
        let place = section.place.clone();
        let problem = match (image, kube) {
            (Some(image), None) => return Ok(ContainerSource::Image(image.get_ref().0.clone())),
            (None, Some(kube)) => {
                let beside = beside_kube(section);
                if beside.is_empty() {
                    return Ok(ContainerSource::Kube(self.path(kube, MentionTarget::Kube)));
                }
                Problem::new(kube.span(), format!("{} cannot go with `kube`", beside.join(", ")))
                    .hint("say it in the file, or run an image instead")
            }
            (None, None) => Problem::new(place, "`image` is missing")
                .label("`image` or `kube` belongs here")
                .hint("name the image that it runs, or a file for `podman kube play`"),
            (Some(_), Some(kube)) => Problem::new(kube.span(), "a container has an image or a `kube` file")
                .label("there is an `image` too")
                .hint("keep one of the two"),
        };
        Err(self.problems.report(problem))
    }

    fn only_once(
        &mut self,
        place: Range<usize>,
        first: Option<Range<usize>>,
        what: String,
        hint: &str,
    ) -> Read<()> {
        match first {
            None => Ok(()),
            Some(first) => {
                Err(self.problems.report(Problem::new(place, what).also(first, "first").hint(hint)))
            }
        }
    }

    fn variables(&mut self, section: &ContainerSection) -> Read<BTreeMap<String, String>> {
        all(section
            .env
            .by_ref()?
            .iter()
            .map(|(name, value)| Ok((name.get_ref().0.clone(), value.by_ref()?.0.clone()))))
    }

    fn ports(&mut self, ports: &List<PortMapping>, taken: &mut Taken) -> Read<Vec<PortMapping>> {
        let one = |port: &Read<Spanned<PortMapping>>| {
            let port = port.by_ref()?;
            let mapping = *port.get_ref();
            if (mapping.guest, mapping.protocol) == (SSH.guest, SSH.protocol) {
                let problem = Problem::new(port.span(), "port 22 of the guest is that of its sshd");
                return Err(self.problems.report(problem.hint("lead another port there, as in \"2222:22\"")));
            }
            let first = taken.ports.insert((mapping.protocol, mapping.guest), port.span());
            let what = format!("port {}/{} of the guest is given twice", mapping.guest, mapping.protocol);
            self.only_once(port.span(), first, what, "give each container of a guest ports of its own")?;
            Ok(mapping)
        };
        all(ports.iter().map(one))
    }

    /// Volumes and directories in RAM, no two of them at the same place.
    #[allow(clippy::type_complexity, reason = "two lists")]
    fn mounts(
        &mut self,
        section: &ContainerSection,
        taken: &mut BTreeMap<String, Range<usize>>,
    ) -> Read<(Vec<super::super::model::VolumeMount>, Vec<String>)> {
        let volumes = optional(&section.volumes, |volumes| {
            all(volumes.iter().map(|volume| {
                let volume = volume.by_ref()?;
                self.mounted_once(&volume.get_ref().target, volume.span(), taken)?;
                Ok(volume.get_ref().clone())
            }))
        });
        let tmpfs = optional(&section.tmpfs, |tmpfs| {
            all(tmpfs.iter().map(|one| {
                let one = one.by_ref()?;
                let TmpfsMount(text) = one.get_ref();
                let path = text.split(':').next().unwrap_or_default();
                self.mounted_once(path, one.span(), taken)?;
                Ok(text.clone())
            }))
        });
        Ok((volumes?.unwrap_or_default(), tmpfs?.unwrap_or_default()))
    }

    fn mounted_once(
        &mut self,
        path: &str,
        place: Range<usize>,
        taken: &mut BTreeMap<String, Range<usize>>,
    ) -> Read<()> {
        let first = taken.insert(path.to_owned(), place.clone());
        self.only_once(place, first, format!("{path} is mounted twice"), "keep one of the two")
    }

    fn health(&mut self, section: &HealthSection) -> Read<HealthCheck> {
        let command = section.command.by_ref().and_then(|command| {
            let found = words(command.get_ref())?;
            if found.first().is_none_or(String::is_empty) {
                let problem = Problem::new(command.span(), "there is no program to run");
                return Err(self.problems.report(
                    problem.hint("such as [\"wget\", \"-q\", \"-O\", \"-\", \"http://127.0.0.1:8080/\"]"),
                ));
            }
            Ok(found)
        });
        let [interval, timeout, start_period] = [&section.interval, &section.timeout, &section.start_period]
            .map(|time| {
                optional(time, |time| {
                    let Lifetime(duration) = time.get_ref();
                    if *duration != Duration::from_secs(duration.as_secs())
                        || duration.as_secs() > LONGEST_TIME
                    {
                        let problem =
                            Problem::new(time.span(), "is not in whole seconds, or more than an hour");
                        return Err(self.problems.report(problem.hint("such as \"10s\" or \"2m\"")));
                    }
                    Ok(duration.as_secs() as u32)
                })
            });
        Ok(HealthCheck {
            command: command?,
            interval: interval?.unwrap_or(DEFAULT_INTERVAL),
            timeout: timeout?.unwrap_or(DEFAULT_TIMEOUT),
            retries: section.retries?.map_or(DEFAULT_RETRIES, |Count(retries)| retries),
            start_period: start_period?.unwrap_or(0),
        })
    }

    fn secret(
        &mut self,
        section: &SecretSection,
        container: &ContainerSection,
        taken: &mut Taken,
        places: &mut BTreeMap<String, Range<usize>>,
    ) -> Read<SecretSpec> {
        let file = section.file.by_ref().map(|file| self.path(file, MentionTarget::Secret));
        let name = section.name.by_ref()?;
        let place = self.secret_place(section, name, container, places)?;
        let file = file?;
        let first = taken.secrets.insert(name.get_ref().clone(), (file.clone(), name.span()));
        let other = first.filter(|(first, _)| *first != file).map(|(_, place)| place);
        let what = format!("secret `{}` is of two files", name.get_ref());
        self.only_once(name.span(), other, what, "give each file of a guest a secret of its own name")?;
        Ok(SecretSpec { name: name.get_ref().clone(), file, place })
    }

    fn secret_place(
        &mut self,
        section: &SecretSection,
        name: &Spanned<Label>,
        container: &ContainerSection,
        places: &mut BTreeMap<String, Range<usize>>,
    ) -> Read<SecretPlace> {
        Ok(match (section.env.by_ref()?, section.target.by_ref()?) {
            (Some(env), None) => {
                let variable = env.get_ref();
                let in_env = container.env.by_ref().ok();
                let other = in_env.and_then(|env| env.iter().find(|(name, _)| name.get_ref() == variable));
                let what = format!("the variable {} is given twice", variable.0);
                self.only_once(env.span(), other.map(|(name, _)| name.span()), what, "keep one of the two")?;
                // No path begins so.
                let first = places.insert(format!("${}", variable.0), env.span());
                let what = format!("the variable {} is given twice", variable.0);
                self.only_once(env.span(), first, what, "give each secret a variable of its own")?;
                SecretPlace::Env(variable.0.clone())
            }
            (None, Some(target)) => {
                self.mounted_once(&secret_path(&target.get_ref().0), target.span(), places)?;
                SecretPlace::Target(target.get_ref().0.clone())
            }
            (None, None) => {
                self.mounted_once(&secret_path(name.get_ref().as_str()), name.span(), places)?;
                SecretPlace::Target(name.get_ref().to_string())
            }
            (Some(env), Some(target)) => {
                let problem = Problem::new(env.span(), "a secret is a variable or a file");
                let problem = problem.also(target.span(), "there is a `target` too");
                return Err(self.problems.report(problem.hint("keep one of the two")));
            }
        })
    }

    fn is_short_enough(&mut self, container: &ContainerSpec, section: &ContainerSection) -> Read<()> {
        let health = container.health.iter().flat_map(|health| &health.command);
        let words = container.command.iter().chain(container.env.values()).chain(container.env.keys());
        // A quotation mark is four bytes where it is quoted.
        let cost = |word: &String| word.len() + 3 * word.matches('\'').count() + 16;
        let taken: usize = words.chain(health).map(cost).sum();
        if taken <= LONGEST_WORDS {
            return Ok(());
        }
        let message =
            format!("command, variables and health check take {taken} bytes: at most {LONGEST_WORDS}");
        let problem = Problem::new(section.place.clone(), message);
        Err(self.problems.report(problem.hint("put what is long into a file of a volume, or into a secret")))
    }
}

/// Where a container finds a secret of this target.
fn secret_path(target: &str) -> String {
    if target.starts_with('/') { target.to_owned() } else { format!("/run/secrets/{target}") }
}

fn words(list: &List<CommandWord>) -> Read<Vec<String>> {
    all(list.iter().map(|word| Ok(word.by_ref()?.get_ref().0.clone())))
}

/// What is said beside a file that says all.
fn beside_kube(section: &ContainerSection) -> Vec<&'static str> {
    fn is_there<T>(key: &Read<Option<T>>) -> bool {
        key.as_ref().is_ok_and(Option::is_some)
    }
    let keys = [
        ("`command`", is_there(&section.command)),
        ("`env`", section.env.as_ref().is_ok_and(|env| env.iter().next().is_some())),
        ("`ports`", is_there(&section.ports)),
        ("`volumes`", is_there(&section.volumes)),
        ("`tmpfs`", is_there(&section.tmpfs)),
        ("`memory`", is_there(&section.memory)),
        ("`cpus`", is_there(&section.cpus)),
        ("`read-only`", is_there(&section.read_only)),
        ("`user`", is_there(&section.user)),
        ("`restart`", is_there(&section.restart)),
        ("`health`", is_there(&section.health)),
        ("`secrets`", is_there(&section.secrets)),
    ];
    keys.into_iter().filter(|(_, is_there)| *is_there).map(|(key, _)| key).collect()
}
