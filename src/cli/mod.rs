//! Speak: text, JSON, progress and exit status.
