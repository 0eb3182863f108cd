//! Tests through the public interface, and against the real programs.

mod apk;
mod image;
mod sys;
