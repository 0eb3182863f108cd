//! `kernel diff`, `kernel why`, `kernel compact`.

use schemars::JsonSchema;
use serde::Serialize;

/// An option that differs; `n` is one that is off or not there at all.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KernelChangeJson {
    pub option: String,
    pub from: String,
    pub to: String,
}

/// Why a kernel option is set.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KernelWhyJson {
    /// Without `CONFIG_`.
    pub option: String,
    /// As `.config` has it, `n` if it is off.
    pub value: String,
    /// Its title in Kconfig; `null` for one that cannot be set directly.
    pub prompt: Option<String>,
    /// Files and lines that declare it.
    pub declared: Vec<String>,
    /// Who sets it; the last one wins.
    pub asked: Vec<KernelSettingJson>,
    /// Conditions as Kconfig has them, one for each place that declares the option.
    pub needs: Vec<String>,
    /// What is missing for these conditions to hold.
    pub missing: Vec<String>,
    /// Options that it selects.
    pub selects: Vec<String>,
    /// Options that are on and select it.
    pub selected_by: Vec<String>,
    /// All options that could select it.
    pub selectors: Vec<String>,
    pub defaults: Vec<String>,
    /// Recipes and machines that need it.
    pub needed_by: Vec<String>,
}

/// A base, a fragment or fleet.toml that sets an option.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KernelSettingJson {
    pub by: String,
    pub value: String,
    /// The comment above it; empty if there is none.
    pub reason: String,
}

/// A vmlinux that was made smaller.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CompactedJson {
    /// Bytes before.
    pub from: usize,
    /// Bytes after.
    pub to: usize,
}
