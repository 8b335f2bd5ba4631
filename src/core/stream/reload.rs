//! When a request for a playlist is answered: at once, when what it names is there, or not at all
//! (RFC 8216bis §6.2.5.2, blocking playlist reload).

use super::shelf::Shelf;
use crate::core::refusal::{Code, Refusal};

/// A request is held for so long; then the stream has stopped.
pub const HOLD_MS: u64 = 3 * super::TARGET_S * 1_000;

/// What a request names: `_HLS_msn` and `_HLS_part`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    pub number: Option<u64>,
    pub part: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Now,
    Later,
}

/// # Errors
/// `malformed` for a part without its segment, and for one that is far in the future.
pub fn judge(shelf: &Shelf, wish: Wish) -> Result<Verdict, Refusal> {
    let Some(number) = wish.number else {
        return match wish.part {
            None => Ok(Verdict::Now),
            Some(_) => Err(Refusal::new(Code::Malformed, "`_HLS_part` needs `_HLS_msn`")),
        };
    };
    let (growing, parts) = shelf.edge();
    if number > growing + 2 {
        let words = format!("`_HLS_msn` is too far ahead: the newest segment is {growing}");
        return Err(Refusal::new(Code::Malformed, words));
    }
    let is_there = number < growing || number == growing && wish.part.is_some_and(|part| part < parts as u64);
    Ok(if is_there { Verdict::Now } else { Verdict::Later })
}

#[cfg(test)]
mod tests {
    use super::super::shelf::tests::filled;
    use super::*;

    #[test]
    fn a_request_waits_for_what_it_names() {
        let shelf = filled(5, 2);
        let judge = |number, part| super::judge(&shelf, Wish { number, part });
        assert_eq!(judge(None, None), Ok(Verdict::Now));
        assert_eq!(judge(Some(4), None), Ok(Verdict::Now));
        assert_eq!(judge(Some(5), None), Ok(Verdict::Later), "the segment is not whole");
        assert_eq!(judge(Some(5), Some(1)), Ok(Verdict::Now));
        assert_eq!(judge(Some(5), Some(2)), Ok(Verdict::Later));
        assert_eq!(judge(Some(7), Some(0)), Ok(Verdict::Later));
        assert_eq!(judge(Some(8), Some(0)).unwrap_err().code, Code::Malformed);
        assert_eq!(judge(None, Some(0)).unwrap_err().code, Code::Malformed);
        // A part that a whole segment never had stands for the next segment's first: there is none yet.
        let whole = filled(5, 0);
        assert_eq!(super::judge(&whole, Wish { number: Some(4), part: Some(9) }), Ok(Verdict::Now));
        assert_eq!(super::judge(&whole, Wish { number: Some(5), part: Some(0) }), Ok(Verdict::Later));
    }
}
