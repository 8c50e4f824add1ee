//! Signatures of components: Ed25519 (RFC 8032) over the whole file, beside it in `NAME.wasm.sig`.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use sluice_config::Policy;
use sluice_crypto::Verifier;

use crate::cli::Failure;

/// Bytes of a signature.
const SIGNATURE_BYTES: usize = 64;

/// Holds a component's signature against the keys that may sign.
///
/// # Errors
/// There has to be one and is none, or it is by nobody who may sign: what to do about it.
pub(crate) fn check(policy: &Policy, file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if policy.trusted_keys.is_empty() {
        return Ok(());
    }
    let path = beside(file);
    let signature = read(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let Some(signature) = signature else {
        return match policy.require_signature {
            true => Err(format!(
                "it is not signed, which policy.require_signature asks for: put the {SIGNATURE_BYTES} bytes of an \
                 Ed25519 signature over it into {}",
                path.display()
            )),
            false => Ok(()),
        };
    };
    let is_by = |key: &[u8; 32]| Verifier::new(*key).verify(bytes, &signature);
    match policy.trusted_keys.iter().any(is_by) {
        true => Ok(()),
        false => Err(format!(
            "its signature {} is by none of policy.trusted_keys, or over another file: have it signed again, or trust \
             whoever signed it",
            path.display()
        )),
    }
}

/// Where the signature of a component is.
pub(crate) fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

/// The bytes of a signature's file, one more than a signature has at most; `None`: it is not there.
pub(crate) fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(SIGNATURE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use sluice_crypto::Signer;

    use super::*;

    const COMPONENT: &[u8] = b"a component";

    /// What is said of a component with this signature beside it.
    fn said(name: &str, policy: &Policy, signature: Option<&[u8]>) -> Result<(), Failure> {
        let folder = std::env::temp_dir().join(format!("sluice-signature-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("p.wasm");
        if let Some(signature) = signature {
            std::fs::write(folder.join("p.wasm.sig"), signature).unwrap();
        }
        let said = check(policy, &file, COMPONENT);
        std::fs::remove_dir_all(folder).unwrap();
        said
    }

    fn trusting(signers: &[&Signer], require_signature: bool) -> Policy {
        let trusted_keys = signers.iter().map(|signer| *signer.verifier().bytes()).collect();
        Policy { trusted_keys, require_signature, ..Policy::default() }
    }

    #[test]
    fn who_is_trusted_may_sign_and_nobody_else() {
        let (ours, other) = (Signer::new(&[1; 32]), Signer::new(&[2; 32]));
        let policy = trusting(&[&other, &ours], false);
        said("good", &policy, Some(&ours.sign(COMPONENT))).unwrap();
        let long = [&ours.sign(COMPONENT)[..], b"\n"].concat();
        for (name, bad) in [
            ("foreign", &Signer::new(&[3; 32]).sign(COMPONENT)[..]),
            ("of-another", &ours.sign(b"another component")),
            ("empty", b""),
            ("long", &long),
        ] {
            let error = said(name, &policy, Some(bad)).unwrap_err();
            assert!(error.contains("p.wasm.sig") && error.contains("policy.trusted_keys"), "{name}: {error}");
        }
    }

    #[test]
    fn a_signature_is_asked_for_only_where_it_is_required() {
        let ours = Signer::new(&[1; 32]);
        said("optional", &trusting(&[&ours], false), None).unwrap();
        let error = said("required", &trusting(&[&ours], true), None).unwrap_err();
        assert!(error.contains("p.wasm.sig") && error.contains("policy.require_signature"), "{error}");
        said("unlooked", &Policy::default(), Some(b"anything")).unwrap();
    }

    /// Made by `openssl pkeyutl -sign -rawin` of OpenSSL 3.
    #[test]
    fn a_signature_of_openssl_is_one() {
        let bytes = |digits: &str| sluice_crypto::hex_decode(digits).unwrap();
        let key = bytes("c156a0636d2b5990d200a1c19b61f68de5a1567696632478d61321ad371f1896");
        let signature = bytes(concat!(
            "bd575c257f7a5023f0ce36df80c0a2b4ecd29bce5e2589e05cdc1e0320d470cc",
            "e9afc023fad4a0342118905b4b1c9b6c69ddd4374f05681345b35882ff71bd04"
        ));
        let trusted_keys = vec![key.try_into().unwrap()];
        let policy = Policy { trusted_keys, require_signature: true, ..Policy::default() };
        said("openssl", &policy, Some(&signature)).unwrap();
    }
}
