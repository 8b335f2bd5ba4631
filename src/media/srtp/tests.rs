//! Against the vectors of the RFCs, and each direction against the other.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    digits.chunks(2).map(pair).collect()
}

/// RFC 3711 appendix B.3.
#[test]
fn keys_are_derived_as_the_rfc_does() {
    let master =
        MasterKey { key: hex("E1F97A0D3E018BE0D64FA32C06DE4139"), salt: hex("0EC675AD498AFEEBB6960B3AABE6") };
    let derived = |label, len: usize| {
        let mut out = vec![0; len];
        derive_into(&master, label, &mut out).expect("a key");
        out
    };
    assert_eq!(derived(0, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(derived(2, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(derived(1, 20), hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
}

fn with_keys(key: &[u8], salt: &[u8], algorithm: &'static aws_lc_rs::aead::Algorithm) -> Session {
    let mut padded = [0; 14];
    padded[..12].copy_from_slice(salt);
    let key = UnboundKey::new(algorithm, key).expect("a key");
    Session { cipher: Cipher::Gcm(LessSafeKey::new(key)), salt: padded }
}

/// RFC 7714 §16.1.1 (AEAD_AES_128_GCM) and §16.2.1 (AEAD_AES_256_GCM).
#[test]
fn rtp_is_sealed_as_the_rfc_does() {
    let packet = hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 \
        696e2070 61727465 73207472 6573");
    let salt = hex("517569642070726f2071756f");
    let key: Vec<u8> = (0..32).collect();
    let cases = [
        (
            with_keys(&key[..16], &salt, &AES_128_GCM),
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a \
             51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        ),
        (
            with_keys(&key, &salt, &AES_256_GCM),
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 \
             76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        ),
    ];
    for (session, expected) in cases {
        let rtcp = with_keys(&key[..16], &salt, &AES_128_GCM);
        let sealer = Sealer { rtp: session, rtcp, rtcp_index: 0 };
        // Something before it must not matter.
        let mut out = [&[9; 5][..], &packet].concat();
        sealer.seal_rtp(&mut out, 5, 12, 0x5501_a0b2, 0xf17b).expect("sealed");
        assert_eq!(out[5..], hex(expected));
    }
}

const PROFILES: [(SrtpProfile, usize, usize); 3] = [
    (SrtpProfile::AES128_CM_SHA1_80, 16, 14),
    (SrtpProfile::AEAD_AES_128_GCM, 16, 12),
    (SrtpProfile::AEAD_AES_256_GCM, 32, 12),
];

#[test]
fn rtcp_that_was_sealed_is_opened_once_and_only_by_the_right_key() {
    for (profile, key_len, salt_len) in PROFILES {
        let master = |byte| MasterKey { key: vec![byte; key_len], salt: vec![byte; salt_len] };
        let mut sealer = Sealer::new(profile, &master(1)).expect("keys");
        let mut opener = RtcpOpener::new(profile, &master(1)).expect("keys");
        let mut stranger = RtcpOpener::new(profile, &master(2)).expect("keys");
        let compound = hex("80c90001 00000007 80c90001 00000008");
        let mut plain = Vec::new();
        let mut sealed = Vec::new();
        for _ in 0..3 {
            let mut out = compound.clone();
            sealer.seal_rtcp(&mut out, 0).expect("sealed");
            sealed.push(out);
        }
        assert_ne!(sealed[0], sealed[1], "each has an index of its own");
        for at in [2, 0, 1] {
            assert_eq!(stranger.open_rtcp(&sealed[at], &mut plain), None);
            assert_eq!(opener.open_rtcp(&sealed[at], &mut plain), Some(&compound[..]), "{profile:?}");
            assert_eq!(opener.open_rtcp(&sealed[at], &mut plain), None, "replayed");
        }
        for len in 0..sealed[0].len() {
            assert_eq!(opener.open_rtcp(&sealed[0][..len], &mut plain), None);
        }
        let mut forged = sealed[0].clone();
        forged[9] ^= 1;
        assert_eq!(RtcpOpener::new(profile, &master(1)).expect("keys").open_rtcp(&forged, &mut plain), None);
    }
}

#[test]
fn each_source_counts_for_itself() {
    let (profile, key_len, salt_len) = PROFILES[2];
    let master = || MasterKey { key: vec![1; key_len], salt: vec![1; salt_len] };
    let mut opener = RtcpOpener::new(profile, &master()).expect("keys");
    let mut plain = Vec::new();
    let mut opens = |ssrc: u32, index: u32| {
        let mut sealer = Sealer::new(profile, &master()).expect("keys");
        sealer.rtcp_index = index;
        let mut compound = [hex("80c90001"), ssrc.to_be_bytes().to_vec()].concat();
        sealer.seal_rtcp(&mut compound, 0).expect("sealed");
        opener.open_rtcp(&compound, &mut plain).is_some()
    };
    // One that reports often must not make those who seldom do look like replays.
    assert!((0..200).all(|index| opens(1, index)));
    assert!((0..3).all(|index| opens(2, index)));
    assert!(!opens(1, 199) && !opens(2, 1));
    assert!((3..=SOURCES_MAX as u32).all(|ssrc| opens(ssrc, 0)));
    assert!(!opens(1_000, 0), "one too many");
    assert!(opens(1, 200), "those who are known are heard");
}

#[test]
fn indices_are_taken_once_within_the_window() {
    let mut window = ReplayWindow::default();
    assert!(window.accept(0) && !window.accept(0));
    assert!(window.accept(100) && window.accept(99) && !window.accept(99));
    assert!(window.accept(37), "63 back");
    assert!(!window.accept(36), "too old to know");
    assert!(window.accept(1_000_000) && !window.accept(100));
}

#[test]
fn no_rtcp_is_sealed_once_its_index_has_run_out() {
    let (profile, key_len, salt_len) = PROFILES[1];
    let master = MasterKey { key: vec![1; key_len], salt: vec![1; salt_len] };
    let mut sealer = Sealer::new(profile, &master).expect("keys");
    sealer.rtcp_index = ENCRYPTED - 1;
    let compound = hex("80c90001 00000007");
    assert!(sealer.seal_rtcp(&mut compound.clone(), 0).is_ok());
    assert!(sealer.seal_rtcp(&mut compound.clone(), 0).is_err());
}
