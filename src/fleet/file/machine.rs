//! `[machine.NAME]`: what a VMM is told beyond processors and memory.

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use super::super::model::{LogLevel, StaticTemplate};
use super::super::reader::{FieldSchema, FromToml, Section, Value, key, section, section_schema, unexpected};
use super::super::scalar::{Bandwidth, Count, HugePages, LocalPath, Seconds};
use crate::base::problem::{Problem, Problems, Read, suggest};
use crate::base::{ByteSize, Label};

section! {
    /// A kind of machine. What only Firecracker can do is refused with `vmm = "qemu"`.
    pub struct MachineSection {
        /// Size of the guest's memory pages; the host must have reserved as many huge pages. "2MiB", or not given.
        huge_pages as "huge-pages": Option<Spanned<HugePages>>,
        /// Which processor features the guest sees: C3, T2, T2A, T2CL, T2S, or a JSON file of a Firecracker custom template.
        cpu_template as "cpu-template": Option<Spanned<TemplateChoice>>,
        /// Compiled seccomp filters (seccompiler-bin) in place of Firecracker's own.
        seccomp: Option<Spanned<LocalPath>>,
        /// How much Firecracker logs; "info" unless given.
        log_level as "log-level": Option<Spanned<LogLevel>>,
        /// Whether Firecracker writes metrics, which `logs --metrics` shows; false unless given.
        metrics: Option<Spanned<bool>>,
        /// Memory that the guest gives back to its host.
        balloon: Option<Spanned<BalloonSection>>,
        /// Limits of the random numbers that the guest reads from its host.
        entropy: Option<Spanned<LimitSection>>,
        /// Whether host and guest can connect through vsock; false unless given.
        vsock: Option<Spanned<bool>>,
        /// What the guest reads at 169.254.169.254.
        metadata: Option<Spanned<MetadataSection>>,
        /// Limits of each of the guest's disks.
        disk: Option<Spanned<LimitSection>>,
        /// The guest's network device.
        network: Option<Spanned<MachineNetworkSection>>,
    }

    /// Limits of a device.
    pub struct LimitSection {
        /// Bytes or bits that pass in a second, such as "50MiB/s" or "20Mbit/s".
        bandwidth: Option<Spanned<Bandwidth>>,
        /// A burst that is allowed once, when the guest boots.
        bandwidth_burst as "bandwidth-burst": Option<Spanned<ByteSize>>,
        /// Requests or packets that pass in a second.
        operations: Option<Spanned<Count<1, { u32::MAX }>>>,
        /// A burst that is allowed once, when the guest boots.
        operations_burst as "operations-burst": Option<Spanned<Count<1, { u32::MAX }>>>,
    }

    /// Memory that a guest gives back to its host.
    pub struct BalloonSection {
        /// How much of the guest's memory the balloon takes; nothing unless given.
        size: Option<Spanned<ByteSize>>,
        /// Whether the balloon deflates before the guest kills a process for lack of memory; true unless given.
        deflate_on_oom as "deflate-on-oom": Option<bool>,
        /// How often the guest reports its memory statistics, such as "5s"; never unless given.
        statistics: Option<Spanned<Seconds>>,
        /// Whether each page that the guest frees goes back to the host; false unless given.
        reporting: Option<bool>,
    }

    /// What a guest reads at 169.254.169.254 (Firecracker's MMDS, version 2).
    pub struct MetadataSection {
        /// A file that holds a JSON object, at most 51200 bytes.
        file: Spanned<LocalPath>,
        /// Whether the answers are plain text, as on EC2, whatever the guest accepts; false unless given.
        imds: Option<bool>,
    }

    /// The network device of a guest.
    pub struct MachineNetworkSection {
        /// Limits of what the guest sends; those of its policy's `rate` unless given.
        up: Option<Spanned<LimitSection>>,
        /// Limits of what the guest gets; those of its policy's `rate` unless given.
        down: Option<Spanned<LimitSection>>,
        /// Largest packet, in bytes, that the device tells the guest to send; the TAP's own is 1500.
        mtu: Option<Spanned<Count<576, 1500>>>,
    }
}

/// The machine of a guest.
#[derive(Clone, Debug)]
pub enum MachineChoice {
    /// One of `[machine.NAME]`.
    Named(Label),
    /// Written out in the guest.
    Inline(Box<MachineSection>),
}

impl FromToml for MachineChoice {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        match value.get_ref() {
            DeValue::String(_) => Label::from_toml(value, problems).map(Self::Named),
            DeValue::Table(_) => {
                MachineSection::from_toml(value, problems).map(|section| Self::Inline(Box::new(section)))
            }
            _ => Err(unexpected(value, "the name of a machine, or the machine itself", problems)),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [Label::schema(generator), MachineSection::schema(generator)] })
    }
}

/// A CPU template: one of Firecracker's own, or a file.
#[derive(Clone, Debug)]
pub enum TemplateChoice {
    Static(StaticTemplate),
    Custom(LocalPath),
}

const TEMPLATES: [(&str, StaticTemplate); 5] = [
    ("C3", StaticTemplate::C3),
    ("T2", StaticTemplate::T2),
    ("T2A", StaticTemplate::T2A),
    ("T2CL", StaticTemplate::T2CL),
    ("T2S", StaticTemplate::T2S),
];

impl FromToml for TemplateChoice {
    fn from_toml(value: &Value<'_>, problems: &mut Problems) -> Read<Self> {
        let text = String::from_toml(value, problems)?;
        if let Some((_, template)) = TEMPLATES.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Static(*template));
        }
        let problem = |message: String| Problem::new(value.span(), message);
        if text == "V1N1" {
            let problem = problem("\"V1N1\" is for ARM processors, but guests are x86-64".into());
            return Err(problems.report(problem.hint("remove it, or name a template of x86-64")));
        }
        // A name that was mistyped is no file.
        if !text.contains(['/', '.']) {
            let names = TEMPLATES.map(|(name, _)| name);
            let problem = problem(format!("{text:?} is not a CPU template of Firecracker, nor a JSON file"));
            return Err(problems.report(problem.hint(suggest("templates", &text, names))));
        }
        LocalPath::from_toml(value, problems).map(Self::Custom)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "enum": TEMPLATES.map(|(name, _)| name) },
            { "type": "string", "pattern": "[/.]" },
        ] })
    }
}
