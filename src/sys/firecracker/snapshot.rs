//! Full snapshots: a microVM's memory and the rest of its state in two files
//! (`docs/snapshotting/snapshot-support.md` in Firecracker's sources).

use serde_json::{Value, json};

use super::{Api, ApiError};
use crate::sys::tool::{Tool, ToolError};

/// What a load is told beside its two files; paths are as Firecracker sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load<'a> {
    pub state: &'a str,
    pub memory: &'a str,
    /// An interface by its `iface_id` that gets another TAP than the one it had. From version 1.12 on.
    pub tap: Option<(&'a str, &'a str)>,
    /// Whether the guest's clock goes on from now instead of from when it was frozen: guests with kvm-clock, from
    /// version 1.16 and a host's Linux 5.16 on.
    pub clock_realtime: bool,
}

/// Which pages of a guest's memory are written: `snapshot_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotType {
    Full,
    /// Without `track_dirty_pages`: those that mincore(2) tells of, which does not know pages in swap; the others are holes. From
    /// version 1.13 on.
    Diff,
}

impl Api {
    /// Writes the memory and the state of a microVM that is paused, which stays so. Files that are there are written over; of
    /// [`SnapshotType::Diff`], the memory's must be empty.
    /// It takes as long as the disk does: raise the time limit first ([`Api::with_timeout`]). Where it fails, what was
    /// written is worth nothing.
    pub fn create_snapshot(&self, state: &str, memory: &str, kind: SnapshotType) -> Result<(), ApiError> {
        self.put("/snapshot/create", &create_request(state, memory, kind))
    }

    /// Loads a snapshot into a Firecracker that has no microVM yet, and lets its vCPUs run. The memory file is mapped, not
    /// read: it must stay as it is for as long as the microVM lives. Where it fails, Firecracker ends.
    pub fn load_snapshot(&self, load: &Load<'_>) -> Result<(), ApiError> {
        self.put("/snapshot/load", &load_request(load))
    }
}

fn create_request(state: &str, memory: &str, kind: SnapshotType) -> Value {
    let kind = match kind {
        SnapshotType::Full => "Full",
        SnapshotType::Diff => "Diff",
    };
    json!({ "snapshot_type": kind, "snapshot_path": state, "mem_file_path": memory })
}

fn load_request(load: &Load<'_>) -> Value {
    let mut body = json!({
        "snapshot_path": load.state,
        "mem_backend": { "backend_type": "File", "backend_path": load.memory },
        "resume_vm": true,
    });
    // Versions that do not know a field refuse the whole request.
    if let Some((interface, tap)) = load.tap {
        body["network_overrides"] = json!([{ "iface_id": interface, "host_dev_name": tap }]);
    }
    if load.clock_realtime {
        body["clock_realtime"] = json!(true);
    }
    body
}

/// Version of the snapshots that a Firecracker binary makes and loads, such as `10.0.0`; it has nothing to do with the
/// version of the program.
pub fn format_version(program: &std::path::Path) -> Result<String, ToolError> {
    let text = Tool::new(program).arg("--snapshot-version").text()?;
    Ok(parse_format_version(&text))
}

/// Reads `v10.0.0`, which a line of the log follows.
fn parse_format_version(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().trim_start_matches('v').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_names_only_what_it_must() {
        let load = Load { state: "/state", memory: "/memory", tap: None, clock_realtime: false };
        assert_eq!(
            load_request(&load).to_string(),
            r#"{"snapshot_path":"/state","mem_backend":{"backend_type":"File","backend_path":"/memory"},"resume_vm":true}"#
        );
        let load = load_request(&Load { tap: Some(("eth0", "sis-bob")), clock_realtime: true, ..load });
        assert_eq!(
            load["network_overrides"].to_string(),
            r#"[{"iface_id":"eth0","host_dev_name":"sis-bob"}]"#
        );
        assert_eq!(load["clock_realtime"], true);
    }

    #[test]
    fn the_version_of_snapshots_is_read() {
        let text = "v10.0.0\n\n2026-11-25T17:57:38.528852007 [anonymous-instance:main] Firecracker exiting successfully. exit_code=0\n";
        assert_eq!(parse_format_version(text), "10.0.0");
    }
}
