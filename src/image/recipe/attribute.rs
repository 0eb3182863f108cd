//! Values of extended attributes, as `setfattr` writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Name spaces that an image can hold; `system.` belongs to the kernel.
const NAME_SPACES: [&str; 3] = ["user.", "trusted.", "security."];
/// Longest name (Linux `XATTR_NAME_MAX`), and largest value that ext4 keeps beside an inode.
const MAX_NAME: usize = 255;
const MAX_VALUE: usize = 3072;

/// Looks whether this is a name of an attribute. The error is a sentence part.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let in_space = NAME_SPACES.iter().any(|space| name.len() > space.len() && name.starts_with(space));
    if in_space && name.len() <= MAX_NAME && !name.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(format!("must begin with {}", NAME_SPACES.join(", ")))
    }
}

/// The value that a text stands for: hexadecimal behind `0x`, base64 behind `0s`, else the text itself. The error is a
/// sentence part.
pub(super) fn parse(text: &str) -> Result<Vec<u8>, String> {
    let value = if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        hex::decode(digits).map_err(|error| format!("is not a hexadecimal value: {error}"))?
    } else if let Some(digits) = text.strip_prefix("0s").or_else(|| text.strip_prefix("0S")) {
        STANDARD.decode(digits).map_err(|error| format!("is not a base64 value: {error}"))?
    } else {
        text.as_bytes().to_owned()
    };
    if value.len() <= MAX_VALUE { Ok(value) } else { Err(format!("has more than {MAX_VALUE} bytes")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_setfattr_takes_them() {
        assert_eq!(parse("plain").unwrap(), b"plain");
        assert_eq!(parse("0x00ff").unwrap(), [0, 255]);
        assert_eq!(parse("0sAP8=").unwrap(), [0, 255]);
        for wrong in ["0x0", "0xzz", "0s="] {
            assert!(parse(wrong).is_err(), "{wrong:?} was accepted");
        }
        assert!(check_name("user.x").is_ok());
        for wrong in ["user.", "x", "system.posix_acl_access", "user.a\nb"] {
            assert!(check_name(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
