//! SRTP and SRTCP (RFC 3711, RFC 7714), in both directions.
//!
//! A [`Sealer`] is the only holder of its key. RTP: each index of a stream is sealed once, or again with the
//! very same bytes (RFC 7714 §9.1 forbids anything else); the streams' sequence numbers see to it. RTCP: one
//! index counts all packets of all sources.

pub mod keys;

use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use str0m::crypto::dtls::SrtpProfile;

use self::keys::MasterKey;

/// More than any profile adds to an RTP packet.
pub const RTP_TAG_BYTES_MAX: usize = 16;
/// Of AES-CM with HMAC-SHA1-80.
const HMAC_TAG_BYTES: usize = 10;
const GCM_TAG_BYTES: usize = 16;
/// The part of an RTCP packet that stays in the clear.
const RTCP_HEADER_BYTES: usize = 8;
/// The E flag: the packet is encrypted.
const ENCRYPTED: u32 = 1 << 31;

/// Sources of RTCP that one peer may have: several times the m-lines that it may offer.
const SOURCES_MAX: usize = 256;

/// RFC 3711 §4.3.1: what a derived key is for. Those of RTCP follow those of RTP.
const LABEL_RTP: u8 = 0;
const LABEL_RTCP: u8 = 3;

/// Keys of one direction for either RTP or RTCP.
struct Session {
    cipher: Cipher,
    salt: [u8; 14],
}

enum Cipher {
    Gcm(LessSafeKey),
    /// Rare and large.
    Counter(Box<Counter>),
}

struct Counter {
    key: EncryptingKey,
    auth: hmac::Key,
}

/// Seals what we send to one peer.
pub struct Sealer {
    rtp: Session,
    rtcp: Session,
    /// Of the next RTCP packet; its 31 bits last for ever at our rates, and end sending where they do not.
    rtcp_index: u32,
}

impl Sealer {
    /// # Errors
    /// The keys do not fit the profile.
    pub fn new(profile: SrtpProfile, master: &MasterKey) -> Result<Self, Unspecified> {
        Ok(Self {
            rtp: Session::derive(profile, master, LABEL_RTP)?,
            rtcp: Session::derive(profile, master, LABEL_RTCP)?,
            rtcp_index: 0,
        })
    }

    /// Seals the RTP packet that begins at `start` and ends the buffer: encrypts what follows its header and
    /// appends the tag. `index` is the extended sequence number (RFC 3711 §3.3.1).
    ///
    /// # Errors
    /// The library refuses, which it does for absurd lengths only; the packet must not be sent.
    #[inline]
    pub fn seal_rtp(
        &self,
        out: &mut Vec<u8>,
        start: usize,
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), Unspecified> {
        let rollover = (index >> 16) as u32;
        match &self.rtp.cipher {
            Cipher::Gcm(key) => {
                let nonce = self.rtp.gcm_nonce(ssrc, rollover, index as u16);
                let (header, payload) = out[start..].split_at_mut(header_len);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload)?;
                out.extend_from_slice(tag.as_ref());
            }
            Cipher::Counter(counter) => {
                let Counter { key, auth } = &**counter;
                let iv = self.rtp.counter_iv(ssrc, index);
                key.less_safe_encrypt(&mut out[start + header_len..], iv)?;
                let mut mac = hmac::Context::with_key(auth);
                mac.update(&out[start..]);
                mac.update(&rollover.to_be_bytes());
                out.extend_from_slice(&mac.sign().as_ref()[..HMAC_TAG_BYTES]);
            }
        }
        Ok(())
    }

    /// Seals the RTCP compound that begins at `start` and ends the buffer.
    ///
    /// # Errors
    /// A compound without a whole header, or the index has run out.
    pub fn seal_rtcp(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), Unspecified> {
        let ssrc = rtcp_ssrc(&out[start..]).ok_or(Unspecified)?;
        let index = self.rtcp_index;
        if index >= ENCRYPTED {
            return Err(Unspecified);
        }
        self.rtcp_index += 1;
        let trailer = (ENCRYPTED | index).to_be_bytes();
        match &self.rtcp.cipher {
            Cipher::Gcm(key) => {
                let nonce = self.rtcp.gcm_rtcp_nonce(ssrc, index);
                let (header, payload) = out[start..].split_at_mut(RTCP_HEADER_BYTES);
                let aad = rtcp_aad(header, trailer);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), payload)?;
                out.extend_from_slice(tag.as_ref());
                out.extend_from_slice(&trailer);
            }
            Cipher::Counter(counter) => {
                let Counter { key, auth } = &**counter;
                let iv = self.rtcp.counter_iv(ssrc, u64::from(index));
                key.less_safe_encrypt(&mut out[start + RTCP_HEADER_BYTES..], iv)?;
                out.extend_from_slice(&trailer);
                let tag = hmac::sign(auth, &out[start..]);
                out.extend_from_slice(&tag.as_ref()[..HMAC_TAG_BYTES]);
            }
        }
        Ok(())
    }
}

/// Opens RTP that one peer has sealed. Who calls it sees to it that none is taken twice.
pub struct RtpOpener {
    rtp: Session,
}

impl RtpOpener {
    /// # Errors
    /// The keys do not fit the profile.
    pub fn new(profile: SrtpProfile, master: &MasterKey) -> Result<Self, Unspecified> {
        Ok(Self { rtp: Session::derive(profile, master, LABEL_RTP)? })
    }

    /// The payload of a packet; `index` is its extended sequence number. `None` for one that was forged or
    /// cut short.
    #[inline]
    pub fn open(&self, sealed: &[u8], header_len: usize, ssrc: u32, index: u64) -> Option<Arc<[u8]>> {
        let rollover = (index >> 16) as u32;
        match &self.rtp.cipher {
            Cipher::Gcm(key) => {
                let (header, cipher) = sealed.split_at_checked(header_len)?;
                let (cipher, tag) = cipher.split_at_checked(cipher.len().checked_sub(GCM_TAG_BYTES)?)?;
                let mut payload: Arc<[u8]> = std::iter::repeat_n(0, cipher.len()).collect();
                let nonce = self.rtp.gcm_nonce(ssrc, rollover, index as u16);
                let out = Arc::get_mut(&mut payload)?;
                key.open_separate_gather(nonce, Aad::from(header), cipher, tag, out).ok()?;
                Some(payload)
            }
            Cipher::Counter(counter) => {
                let Counter { key, auth } = &**counter;
                let (body, tag) = sealed.split_at_checked(sealed.len().checked_sub(HMAC_TAG_BYTES)?)?;
                let mut mac = hmac::Context::with_key(auth);
                mac.update(body);
                mac.update(&rollover.to_be_bytes());
                let expected = mac.sign();
                let genuine = &expected.as_ref()[..HMAC_TAG_BYTES];
                aws_lc_rs::constant_time::verify_slices_are_equal(genuine, tag).ok()?;
                let mut payload: Arc<[u8]> = Arc::from(body.get(header_len..)?);
                let iv = self.rtp.counter_iv(ssrc, index);
                key.less_safe_encrypt(Arc::get_mut(&mut payload)?, iv).ok()?;
                Some(payload)
            }
        }
    }
}

/// Opens RTCP that one peer has sealed, for all of its sources.
pub struct RtcpOpener {
    rtcp: Session,
    /// Each source counts for itself (RFC 3711 §3.2.3): a browser reports on each m-line as another one.
    /// Bounded by [`SOURCES_MAX`]; full: what is new is not heard.
    replay: Vec<(u32, ReplayWindow)>,
}

impl RtcpOpener {
    /// # Errors
    /// The keys do not fit the profile.
    pub fn new(profile: SrtpProfile, master: &MasterKey) -> Result<Self, Unspecified> {
        Ok(Self { rtcp: Session::derive(profile, master, LABEL_RTCP)?, replay: Vec::new() })
    }

    /// Opens one SRTCP packet into `plain`, replacing what is in it. `None` for one that was forged, cut
    /// short, or seen before.
    pub fn open_rtcp<'a>(&mut self, sealed: &[u8], plain: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let ssrc = rtcp_ssrc(sealed)?;
        let index = match &self.rtcp.cipher {
            Cipher::Gcm(key) => {
                let (body, trailer) = sealed.split_last_chunk::<4>()?;
                let index = encrypted_index(*trailer)?;
                let (header, cipher) = body.split_at_checked(RTCP_HEADER_BYTES)?;
                let (cipher, tag) = cipher.split_at_checked(cipher.len().checked_sub(GCM_TAG_BYTES)?)?;
                let nonce = self.rtcp.gcm_rtcp_nonce(ssrc, index);
                plain.clear();
                plain.extend_from_slice(header);
                plain.resize(sealed.len() - 4 - GCM_TAG_BYTES, 0);
                let aad = Aad::from(rtcp_aad(header, *trailer));
                key.open_separate_gather(nonce, aad, cipher, tag, &mut plain[RTCP_HEADER_BYTES..]).ok()?;
                index
            }
            Cipher::Counter(counter) => {
                let Counter { key, auth } = &**counter;
                let (body, tag) = sealed.split_at_checked(sealed.len().checked_sub(HMAC_TAG_BYTES)?)?;
                let expected = hmac::sign(auth, body);
                let genuine = &expected.as_ref()[..HMAC_TAG_BYTES];
                aws_lc_rs::constant_time::verify_slices_are_equal(genuine, tag).ok()?;
                let (packet, trailer) = body.split_last_chunk::<4>()?;
                let index = encrypted_index(*trailer)?;
                plain.clear();
                plain.extend_from_slice(packet);
                let iv = self.rtcp.counter_iv(ssrc, u64::from(index));
                key.less_safe_encrypt(plain.get_mut(RTCP_HEADER_BYTES..)?, iv).ok()?;
                index
            }
        };
        self.accept(ssrc, index).then_some(&plain[..])
    }

    /// Whether a packet is new. Only what is genuine may be asked for, as each source takes memory.
    fn accept(&mut self, ssrc: u32, index: u32) -> bool {
        if let Some((_, window)) = self.replay.iter_mut().find(|(of, _)| *of == ssrc) {
            return window.accept(index);
        }
        if self.replay.len() >= SOURCES_MAX {
            return false;
        }
        let mut window = ReplayWindow::default();
        window.accept(index);
        self.replay.push((ssrc, window));
        true
    }
}

/// The first source of a compound.
fn rtcp_ssrc(compound: &[u8]) -> Option<u32> {
    let bytes: [u8; 4] = compound.get(4..RTCP_HEADER_BYTES)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes))
}

/// `None` for a packet that claims to be in the clear.
fn encrypted_index(trailer: [u8; 4]) -> Option<u32> {
    let word = u32::from_be_bytes(trailer);
    (word & ENCRYPTED != 0).then_some(word & !ENCRYPTED)
}

/// RFC 7714 §9.2: the header and the index with its flag.
fn rtcp_aad(header: &[u8], trailer: [u8; 4]) -> [u8; RTCP_HEADER_BYTES + 4] {
    let mut aad = [0; RTCP_HEADER_BYTES + 4];
    aad[..RTCP_HEADER_BYTES].copy_from_slice(&header[..RTCP_HEADER_BYTES]);
    aad[RTCP_HEADER_BYTES..].copy_from_slice(&trailer);
    aad
}

impl Session {
    fn derive(profile: SrtpProfile, master: &MasterKey, label: u8) -> Result<Self, Unspecified> {
        let mut salt = [0; 14];
        let salt_len = master.salt.len().min(14);
        derive_into(master, label + 2, &mut salt[..salt_len])?;
        let mut key = [0; 32];
        let key = &mut key[..master.key.len().min(32)];
        derive_into(master, label, key)?;
        let cipher = match profile {
            SrtpProfile::AEAD_AES_128_GCM => {
                Cipher::Gcm(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key)?))
            }
            SrtpProfile::AEAD_AES_256_GCM => {
                Cipher::Gcm(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key)?))
            }
            SrtpProfile::AES128_CM_SHA1_80 => {
                let mut auth = [0; 20];
                derive_into(master, label + 1, &mut auth)?;
                Cipher::Counter(Box::new(Counter {
                    key: EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key)?)?,
                    auth: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth),
                }))
            }
            _ => return Err(Unspecified),
        };
        Ok(Self { cipher, salt })
    }

    /// RFC 7714 §8.1.
    #[inline]
    fn gcm_nonce(&self, ssrc: u32, rollover: u32, seq_no: u16) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[6..10].copy_from_slice(&rollover.to_be_bytes());
        nonce[10..].copy_from_slice(&seq_no.to_be_bytes());
        self.salted(nonce)
    }

    /// RFC 7714 §9.1.
    fn gcm_rtcp_nonce(&self, ssrc: u32, index: u32) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[8..].copy_from_slice(&index.to_be_bytes());
        self.salted(nonce)
    }

    #[inline]
    fn salted(&self, mut nonce: [u8; NONCE_LEN]) -> Nonce {
        for (byte, salt) in nonce.iter_mut().zip(&self.salt) {
            *byte ^= salt;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// RFC 3711 §4.1.1.
    fn counter_iv(&self, ssrc: u32, index: u64) -> EncryptionContext {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        for (byte, ssrc) in iv[4..8].iter_mut().zip(ssrc.to_be_bytes()) {
            *byte ^= ssrc;
        }
        for (byte, index) in iv[6..14].iter_mut().zip(index.to_be_bytes()) {
            *byte ^= index;
        }
        EncryptionContext::Iv128(FixedLength::from(iv))
    }
}

/// Key derivation of RFC 3711 §4.3.3 with a rate of zero: AES in counter mode over label and salt.
fn derive_into(master: &MasterKey, label: u8, out: &mut [u8]) -> Result<(), Unspecified> {
    let algorithm = if master.key.len() == 32 { &AES_256 } else { &AES_128 };
    let key = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, &master.key)?)?;
    let mut iv = [0; 16];
    let salt_len = master.salt.len().min(14);
    iv[..salt_len].copy_from_slice(&master.salt[..salt_len]);
    iv[7] ^= label;
    out.fill(0);
    key.less_safe_encrypt(out, EncryptionContext::Iv128(FixedLength::from(iv)))?;
    Ok(())
}

/// RFC 3711 §3.3.2: indices are taken once, within the last 64.
#[derive(Debug, Default)]
struct ReplayWindow {
    /// One above the highest.
    next: u32,
    /// Bit 0 is the highest.
    seen: u64,
}

impl ReplayWindow {
    fn accept(&mut self, index: u32) -> bool {
        if index >= self.next {
            let ahead = index - self.next + 1;
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.next = index + 1;
            return true;
        }
        let back = self.next - 1 - index;
        let bit = 1u64.checked_shl(back).unwrap_or(0);
        let is_new = bit != 0 && self.seen & bit == 0;
        self.seen |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests;
