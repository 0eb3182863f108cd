//! Packages: index and package bytes become verified contents.
