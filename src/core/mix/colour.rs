//! A colour as people write it on the web: `#rrggbb`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a room's mix has behind its tiles unless its owner says otherwise.
const NIGHT: u32 = 0x11_14_1a;

/// An opaque colour; in JSON `#rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(test, ts(type = "string"))]
#[schema(value_type = String, pattern = "^#[0-9A-Fa-f]{6}$", example = "#11141a")]
#[serde(try_from = "String", into = "String")]
pub struct Colour(u32);

/// No colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a colour is written as #rrggbb, such as #11141a")]
pub struct ColourError;

impl Colour {
    /// 0xRRGGBB.
    pub fn rgb(self) -> u32 {
        self.0
    }
}

impl Default for Colour {
    fn default() -> Self {
        Self(NIGHT)
    }
}

impl TryFrom<String> for Colour {
    type Error = ColourError;

    fn try_from(text: String) -> Result<Self, ColourError> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6).ok_or(ColourError)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(ColourError);
        }
        u32::from_str_radix(digits, 16).map(Self).map_err(|_| ColourError)
    }
}

impl From<Colour> for String {
    fn from(colour: Colour) -> Self {
        colour.to_string()
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:06x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_is_six_hexadecimal_digits() {
        let read = |text: &str| serde_json::from_str::<Colour>(&format!("{text:?}"));
        assert_eq!(read("#0aFF3c").unwrap().rgb(), 0x0a_ff_3c);
        assert_eq!(serde_json::to_string(&read("#0aFF3c").unwrap()).unwrap(), "\"#0aff3c\"");
        for wrong in ["", "#", "#fff", "0aff3c", "#0aff3c0", "#+aff3c", "#0aff3g", "red", "#\u{e9}aff3"] {
            let error = read(wrong).unwrap_err();
            assert!(error.to_string().contains("#rrggbb"), "{wrong}: {error}");
        }
    }
}
