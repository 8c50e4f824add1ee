//! Known answers: RFC 1321, RFC 2202, RFC 4231, RFC 6234, RFC 8032, RFC 8452, and the tags of RFC 5769 and of RFC 8489,
//! appendix B.1 as its erratum 6268 corrects it.

use sluice_crypto::{
    Aead, HmacKey, HmacSha256Key, Signer, Verifier, base64_decode, base64_encode, derive, equal, hex, hex_encode,
    long_term_key_md5, long_term_key_sha256, md5, rest_password, sha256, userhash,
};

/// The password of RFC 5769, 2.1 to 2.3: a short-term key is the password itself (RFC 8489, 9.1.1).
const SHORT_TERM: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

#[test]
fn hashes() {
    assert_eq!(hex_encode(&md5(&[])), "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(hex_encode(&md5(&[b"message ", b"digest"])), "f96b697d7cb7938d525a2f31aaf161d0");
    assert_eq!(
        hex_encode(&sha256(&[b"a", b"", b"bc"])),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn hmac_sha1_of_rfc_2202() {
    let sign = |key: &[u8], text: &[u8]| hex_encode(&HmacKey::sha1(key).sign(&[text]));
    assert_eq!(sign(&[0x0b; 20], b"Hi There"), "b617318655057264e28bc0b6fb378c8ef146be00");
    assert_eq!(sign(b"Jefe", b"what do ya want for nothing?"), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    // A key longer than a block is hashed first.
    assert_eq!(
        sign(&[0xaa; 80], b"Test Using Larger Than Block-Size Key - Hash Key First"),
        "aa4ae5e15272d00e95705637ce8a3b55ed402112"
    );
}

#[test]
fn hmac_sha256_of_rfc_4231() {
    let tag = HmacSha256Key::new(b"Jefe").sign(&[b"what do ya want ", b"for nothing?"]);
    assert_eq!(hex_encode(&tag), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

#[test]
fn a_kept_key_signs_again_and_again() {
    let key = HmacKey::sha1(b"key");
    let tag = key.sign(&[b"one"]);
    assert_ne!(key.sign(&[b"two"]), tag);
    assert_eq!(key.clone().sign(&[b"o", b"ne"]), tag);
    assert!(key.verify(&[b"on", b"e"], &tag));
}

#[test]
fn tags_are_compared_whole() {
    let key = HmacKey::sha1(b"key");
    let tag = key.sign(&[b"text"]);
    for at in 0..tag.len() {
        let mut wrong = tag;
        wrong[at] ^= 1;
        assert!(!key.verify(&[b"text"], &wrong), "{at}");
        assert!(!key.verify(&[b"text"], &tag[..at]), "{at}");
    }
    assert!(!key.verify(&[b"text"], &[tag.as_slice(), &[0]].concat()));
}

#[test]
fn sha256_tags_may_be_truncated_as_the_rfc_allows() {
    let key = HmacSha256Key::new(b"key");
    let tag = key.sign(&[b"text"]);
    for len in 0..=tag.len() {
        assert_eq!(key.verify(&[b"text"], &tag[..len]), len >= 16 && len % 4 == 0, "{len}");
    }
    assert!(!key.verify(&[b"text"], &[tag.as_slice(), &[0; 4]].concat()));
    let mut wrong = tag;
    wrong[15] ^= 1;
    assert!(!key.verify(&[b"text"], &wrong[..16]));
}

#[test]
fn rfc_5769_a_request_of_an_ice_agent() {
    let covered = bytes(
        "00010050 2112a442 b7e7a701bc34d686fa87dfae
        80220010 5354554e207465737420636c69656e74 00240004 6e0001ff 80290008 932ff9b151263b36
        00060009 6576746a3a68367659 202020",
    );
    check(SHORT_TERM, &covered, "9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2");
}

#[test]
fn rfc_5769_responses() {
    let v4 = bytes(
        "01010034 2112a442 b7e7a701bc34d686fa87dfae
        8022000b 7465737420766563746f72 20 00200008 0001a147 e112a643",
    );
    check(SHORT_TERM, &v4, "2b91f599fd9e90c38c7489f92af9ba53f06be7d7");
    let v6 = bytes(
        "01010040 2112a442 b7e7a701bc34d686fa87dfae
        8022000b 7465737420766563746f72 20 00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9",
    );
    check(SHORT_TERM, &v6, "a382954e4be67bf11784c97c8292c275bfe3ed41");
}

#[test]
fn rfc_5769_long_term_credentials() {
    let covered = bytes(
        "00010060 2112a442 78ad3433c6ad72c029da412e
        00060012 e3839ee38388e383aae38383e382afe382b9 0000
        0015001c 662f2f3439396b39353464364f4c33346f4c39465354767936347341 0014000b 6578616d706c652e6f7267 00",
    );
    let key = long_term_key_md5("マトリックス", "example.org", "TheMatrIX");
    check(key.expose(), &covered, "f67024656dd64a3e02b8e0712e85c9a28ca89666");
}

#[test]
fn rfc_8489_userhash_and_sha256() {
    let hash = userhash("マトリックス", "example.org");
    assert_eq!(hex_encode(&hash), "4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704");
    let covered = bytes(
        "00010090 2112a442 78ad3433c6ad72c029da412e
        001e0020 4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704
        00150029 6f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c39465354767936347341 000000
        0014000b 6578616d706c652e6f7267 00 001d0004 00020000",
    );
    let key = HmacSha256Key::new(long_term_key_sha256("マトリックス", "example.org", "TheMatrIX").expose());
    let tag = bytes("b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65");
    assert_eq!(key.sign(&[&covered]).as_slice(), tag);
    assert!(key.verify(&[&covered[..4], &covered[4..]], &tag));
}

#[test]
fn a_time_limited_password_is_what_other_servers_compute() {
    // `printf %s 1433895918:ice | openssl dgst -binary -sha1 -hmac north | base64`
    assert_eq!(rest_password("north", "1433895918:ice"), "kknNLOh4HgIYoG0+LZox/gj4ZUo=");
}

#[test]
fn texts() {
    assert_eq!(base64_encode(b""), "");
    assert_eq!(base64_encode(b"fo"), "Zm8=");
    assert_eq!(base64_encode(b"foobar"), "Zm9vYmFy");
    assert_eq!(base64_decode("Zm8=").unwrap(), b"fo");
    assert!(base64_decode("Zm8").is_none() && base64_decode("Zm9=").is_none());
    assert_eq!(hex_encode(&[0x00, 0x9f, 0xff]), "009fff");
    let mut digits = *b"......";
    hex(&[0xab, 0x01], &mut digits);
    assert_eq!(&digits, b"ab01..");
}

#[test]
fn equality() {
    assert!(equal(b"", b"") && equal(b"abc", b"abc"));
    assert!(!equal(b"abc", b"abd") && !equal(b"abc", b"ab") && !equal(b"", b"a"));
}

#[test]
fn keys_do_not_print() {
    let shown = format!("{:?} {:?}", HmacKey::sha1(b"hunter2"), HmacSha256Key::new(b"hunter2"));
    assert_eq!(shown, "<secret> <secret>");
}

#[test]
fn sealing_is_that_of_rfc_8452() {
    // C.2, the case of eight bytes without associated data.
    let key: [u8; 32] = bytes(&format!("01{}", "00".repeat(31))).try_into().unwrap();
    let nonce: [u8; 12] = bytes("030000000000000000000000").try_into().unwrap();
    let sealed = Aead::new(&key).seal(nonce, b"", &bytes("0100000000000000")).unwrap();
    assert_eq!(hex_encode(&sealed), "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28");
}

#[test]
fn signatures_are_those_of_rfc_8032() {
    // 7.1, test 1.
    let seed = bytes("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let signer = Signer::new(&seed.try_into().unwrap());
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(hex_encode(signer.verifier().bytes()), public);
    let signature = signer.sign(b"");
    assert!(
        hex_encode(&signature)
            .starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a3")
    );
    let verifier = Verifier::new(bytes(public).try_into().unwrap());
    assert!(verifier.verify(b"", &signature));
    assert!(!verifier.verify(b"x", &signature) && !verifier.verify(b"", &signature[1..]));
}

#[test]
fn a_derived_key_is_one_hmac_block() {
    // Python: hmac.new(b"\x01" * 32, b"purpose", "sha256").hexdigest()
    let expected = "3631a11a8a625fd802390e104a6d390b4daaff9a23e9d71bb94540b463f0ab6e";
    assert_eq!(hex_encode(&**derive(&[1; 32], b"purpose").expose()), expected);
}

fn check(key: &[u8], covered: &[u8], tag: &str) {
    let key = HmacKey::sha1(key);
    assert_eq!(hex_encode(&key.sign(&[covered])), tag);
    assert!(key.verify(&[&covered[..4], &covered[4..]], &bytes(tag)));
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
