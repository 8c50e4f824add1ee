//! By which name and password a probe asks.

use std::path::{Path, PathBuf};

use sluice_base::{Pii, Secret};
use sluice_config::{Sources as _, System};
use sluice_net::os;

use crate::cli::Failure;

/// Where the password is looked for when nothing else is given.
const PASSWORD_VARIABLE: &str = "SLUICE_PROBE_PASSWORD";

/// How long credentials live that are computed from a secret: far longer than a probe takes.
const CREDENTIAL_SECONDS: u64 = 24 * 3600;

/// By which name and password a relay is asked.
#[derive(clap::Args, Debug)]
pub(crate) struct CredentialArgs {
    /// The user's name; with --secret-file what stands behind the expiry, and it may be missing.
    #[arg(long, short, value_name = "USER", value_parser = personal)]
    user: Option<Pii<String>>,
    /// The password. Every user of this machine can see it in the list of processes: a file or
    /// $SLUICE_PROBE_PASSWORD is better.
    #[arg(long, short = 'w', value_name = "PASSWORD", value_parser = secret, group = "proof")]
    password: Option<Secret<String>>,
    /// A file with the password.
    #[arg(long, value_name = "FILE", group = "proof")]
    password_file: Option<PathBuf>,
    /// A file with the secret of time-limited credentials, from which name and password are computed.
    #[arg(long, value_name = "FILE", group = "proof")]
    secret_file: Option<PathBuf>,
}

/// A name and its password.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) user: Pii<String>,
    pub(super) password: Secret<String>,
}

impl Credentials {
    /// Those that the arguments tell of.
    pub(super) fn of(args: &CredentialArgs) -> Result<Self, Failure> {
        if let Some(file) = &args.secret_file {
            return Ok(time_limited(args.user.as_ref(), &read(file)?, os::now().unix_seconds));
        }
        let user = args.user.clone().ok_or("whom to ask as? Give the user's name by -u, or --secret-file")?;
        let password = match (&args.password, &args.password_file) {
            (Some(password), _) => password.clone(),
            (None, Some(file)) => read(file)?,
            (None, None) => from_environment()?,
        };
        Ok(Credentials { user, password })
    }
}

/// Credentials of the REST scheme, as a web application computes them.
fn time_limited(user: Option<&Pii<String>>, secret: &Secret<String>, unix_seconds: u64) -> Credentials {
    let expiry = unix_seconds + CREDENTIAL_SECONDS;
    let user = user.map_or_else(|| expiry.to_string(), |user| format!("{expiry}:{}", user.expose()));
    let password = Secret::new(sluice_crypto::rest_password(secret.expose(), &user));
    Credentials { user: Pii::new(user), password }
}

fn read(file: &Path) -> Result<Secret<String>, Failure> {
    let shown = file.display();
    let read = System.secret_file(file).map_err(|error| format!("{shown} {error}"))?;
    let text = String::from_utf8(read.bytes).map_err(|_| format!("{shown} is not UTF-8 text"))?;
    // An editor ends the last line; the secret does not have that.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(format!("{shown} does not have one line with a password or secret"));
    }
    Ok(Secret::new(text.to_owned()))
}

fn from_environment() -> Result<Secret<String>, Failure> {
    let password = std::env::var(PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty());
    password.map(Secret::new).ok_or_else(|| {
        format!("no password: give --password-file, ${PASSWORD_VARIABLE}, -w, or --secret-file for time-limited ones")
    })
}

fn personal(text: &str) -> Result<Pii<String>, String> {
    Ok(Pii::new(text.to_owned()))
}

fn secret(text: &str) -> Result<Secret<String>, String> {
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_makes_a_name_with_an_expiry_and_its_password() {
        let secret = Secret::new("s".to_owned());
        let alice = time_limited(Some(&Pii::new("alice".to_owned())), &secret, 1_000);
        assert_eq!(alice.user.expose(), "87400:alice");
        assert_eq!(alice.password.expose(), &sluice_crypto::rest_password("s", "87400:alice"));
        assert_eq!(time_limited(None, &secret, 1_000).user.expose(), "87400");
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = read(Path::new("/nonexistent/password")).unwrap_err();
        assert!(error.contains("/nonexistent/password"), "{error}");
    }
}
