//! Desire: a fleet and its artifacts become the state that a host should have, as data.

pub mod address_list;
pub mod console;
pub mod desired;
pub mod doctor;
pub mod firewall;
pub mod host_rules;
pub mod jail;
pub mod layout;
pub mod limits;
pub mod logs;
pub mod machine_file;
pub mod manifest;
pub mod names;
pub mod network;
pub mod observed;
pub mod policy;
pub mod pool;
pub mod proxy;
pub mod publish;
pub mod quarantine;
pub mod resolver;
pub mod snapshot;
pub mod state;
pub mod versions;
pub mod vmm;
pub mod wanted;
