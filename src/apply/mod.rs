//! Apply: steps are carried out; nothing is decided here.
