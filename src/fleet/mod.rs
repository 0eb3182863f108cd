//! Declare: the text of `fleet.toml` becomes a validated [`Fleet`].

pub mod model;
pub mod value;

pub use model::*;
pub use value::*;
