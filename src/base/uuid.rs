//! UUIDs that follow from other bytes (RFC 9562, version 8).

use uuid::Uuid;

/// A UUID that is these bytes, but for the bits that say of which version and variant it is.
pub fn uuid_from(bytes: [u8; 16]) -> [u8; 16] {
    Uuid::new_v8(bytes).into_bytes()
}

/// As `8-4-4-4-12` hexadecimal digits.
pub fn uuid_text(uuid: [u8; 16]) -> String {
    Uuid::from_bytes(uuid).hyphenated().to_string()
}
