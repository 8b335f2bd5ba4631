//! Macaroons in their binary form, version 2: ours for L402, and as much of a node's as tells what it
//! permits.
//!
//! A macaroon is an identifier, caveats that each narrow it, and a signature that chains over both with
//! HMAC-SHA256. Anyone may add a caveat; nobody can take one away. A caveat that is not understood refuses.

use aws_lc_rs::hmac;

/// Bytes of a macaroon that is read at all.
const BYTES_MAX: usize = 4_096;
/// Version 2 of the binary form.
const VERSION: u8 = 2;

const END: u64 = 0;
const LOCATION: u64 = 1;
const IDENTIFIER: u64 = 2;
const VERIFICATION: u64 = 4;
const SIGNATURE: u64 = 6;

#[derive(Clone, PartialEq, Eq)]
pub struct Macaroon {
    pub identifier: Vec<u8>,
    pub caveats: Vec<Vec<u8>>,
    signature: [u8; 32],
}

impl Macaroon {
    pub fn new(root_key: &[u8], identifier: Vec<u8>) -> Self {
        // The key is derived as all implementations do, so that libraries can check ours.
        let key = mac(b"macaroons-key-generator", root_key);
        let signature = mac(&key, &identifier);
        Self { identifier, caveats: Vec::new(), signature }
    }

    pub fn with_caveat(mut self, caveat: &str) -> Self {
        self.signature = mac(&self.signature, caveat.as_bytes());
        self.caveats.push(caveat.as_bytes().to_vec());
        self
    }

    /// Was it made with this key, its caveats added to it and none taken away?
    pub fn is_genuine(&self, root_key: &[u8]) -> bool {
        let made = Self::new(root_key, self.identifier.clone());
        let signature = self.caveats.iter().fold(made.signature, |key, caveat| mac(&key, caveat));
        aws_lc_rs::constant_time::verify_slices_are_equal(&signature, &self.signature).is_ok()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put(&mut bytes, IDENTIFIER, &self.identifier);
        bytes.push(0);
        for caveat in &self.caveats {
            put(&mut bytes, IDENTIFIER, caveat);
            bytes.push(0);
        }
        bytes.push(0);
        put(&mut bytes, SIGNATURE, &self.signature);
        bytes
    }

    /// Third-party caveats are not understood, so a macaroon with one is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > BYTES_MAX {
            return None;
        }
        let (&VERSION, mut rest) = bytes.split_first()? else { return None };
        let identifier = section(&mut rest)?;
        let mut caveats = Vec::new();
        while *rest.first()? != 0 {
            caveats.push(section(&mut rest)?);
        }
        rest = &rest[1..];
        let (kind, signature) = field(&mut rest)?;
        let whole = kind == SIGNATURE && rest.is_empty();
        Some(Self { identifier, caveats, signature: signature.try_into().ok().filter(|_| whole)? })
    }
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// The identifier of one section, which ends in a zero.
fn section(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut identifier = None;
    loop {
        if *rest.first()? == 0 {
            *rest = &rest[1..];
            return identifier;
        }
        match field(rest)? {
            (LOCATION, _) => {}
            (IDENTIFIER, text) if identifier.is_none() => identifier = Some(text.to_vec()),
            (VERIFICATION, _) | (END, _) => return None,
            _ => return None,
        }
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let kind = varint(rest)?;
    let length = usize::try_from(varint(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((kind, text))
}

fn put(bytes: &mut Vec<u8>, kind: u64, text: &[u8]) {
    put_varint(bytes, kind);
    put_varint(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

/// As Protocol Buffers have it: seven bits a byte, the lowest first.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// What a node's macaroon permits: the identifier of the bakery that LND uses, version 3.
#[derive(Clone, PartialEq, prost::Message)]
struct BakeryId {
    #[prost(bytes = "vec", tag = "1")]
    nonce: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    storage_id: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    ops: Vec<BakeryOp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BakeryOp {
    #[prost(string, tag = "1")]
    entity: String,
    #[prost(string, repeated, tag = "2")]
    actions: Vec<String>,
}

/// The permissions of an LND macaroon, each as `entity:action`; nothing where it cannot be read.
pub fn permissions(macaroon: &[u8]) -> Option<Vec<String>> {
    let identifier = Macaroon::from_bytes(macaroon)?.identifier;
    let (3, body) = identifier.split_first()? else { return None };
    let id = <BakeryId as prost::Message>::decode(body).ok()?;
    let all = id.ops.iter().flat_map(|op| {
        let entity = &op.entity;
        op.actions.iter().map(move |action| format!("{entity}:{action}"))
    });
    Some(all.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_survives_its_bytes_and_narrows_only() {
        let made = Macaroon::new(b"root", b"id".to_vec()).with_caveat("room = show");
        let read = Macaroon::from_bytes(&made.to_bytes()).unwrap();
        assert!(read == made && read.is_genuine(b"root") && !read.is_genuine(b"other"));
        let narrowed = read.clone().with_caveat("expires = 5");
        assert!(narrowed.is_genuine(b"root"));
        let widened = Macaroon { caveats: Vec::new(), ..read };
        assert!(!widened.is_genuine(b"root"));
    }

    #[test]
    fn a_signature_is_as_other_libraries_make_it() {
        // The example of libmacaroons' README.
        let key = b"this is our super secret key; only we should know it";
        let made = Macaroon::new(key, b"we used our secret key".to_vec());
        let signature: Vec<u8> = super::super::wallet::from_hex(
            "e3d9e02908526c4c0039ae15114115d97fdd68bf2ba379b342aaf0f617d0552f",
        )
        .unwrap();
        assert_eq!(made.signature.to_vec(), signature);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = permissions(&bytes);
            let mut framed = vec![2];
            framed.extend(bytes);
            let _ = Macaroon::from_bytes(&framed);
        }
    }
}
