use std::fs::{self, Permissions};
use std::path::PathBuf;

use super::*;

struct Files {
    directory: tempfile::TempDir,
    tls: Tls,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let tls = Tls { certificate: directory.path().join("chain.pem"), key: directory.path().join("key.pem") };
        let files = Self { directory, tls };
        let (chain, key) = issue(2030);
        files.write(&chain, &key);
        files
    }

    fn write(&self, chain: &str, key: &str) {
        fs::write(&self.tls.certificate, chain).expect("written");
        fs::write(&self.tls.key, key).expect("written");
        self.mode(0o600);
    }

    fn mode(&self, mode: u32) {
        fs::set_permissions(&self.tls.key, Permissions::from_mode(mode)).expect("ours");
    }

    fn open(&self) -> Certificate {
        Certificate::open(&self.tls).expect("a good pair")
    }
}

fn issue(year: i32) -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("random");
    let mut parameters = rcgen::CertificateParams::new(["gateway.test".to_owned()]).expect("a name");
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    (parameters.self_signed(&key).expect("signed").pem(), key.serialize_pem())
}

#[test]
fn another_pair_is_used_as_soon_as_it_is_complete() {
    let files = Files::new();
    let certificate = files.open();
    let before = certificate.expires_at();
    assert!(matches!(certificate.look(), Look::Same));
    let (chain, key) = issue(2040);

    fs::write(&files.tls.certificate, &chain).expect("written");
    assert!(matches!(certificate.look(), Look::Same), "half of a change is not worth a word yet");
    assert_eq!(certificate.expires_at(), before);
    fs::write(&files.tls.key, &key).expect("written");

    assert!(matches!(certificate.look(), Look::Replaced));
    assert_eq!(certificate.expires_at().unix_ms(), 2_208_988_800_000, "2040-01-01");
    assert!(matches!(certificate.look(), Look::Same));
}

#[test]
fn a_pair_behind_links_is_replaced_with_its_links() {
    let files = Files::new();
    let live = |name: &str| files.directory.path().join(name);
    let tls = Tls { certificate: live("live.pem"), key: live("live.key") };
    let link = |to: &PathBuf, from: &PathBuf| {
        let fresh = from.with_extension("new");
        std::os::unix::fs::symlink(to, &fresh).expect("linked");
        fs::rename(fresh, from).expect("replaced");
    };
    link(&files.tls.certificate, &tls.certificate);
    link(&files.tls.key, &tls.key);
    let certificate = Certificate::open(&tls).expect("a good pair");
    let others = Files::new();
    link(&others.tls.certificate, &tls.certificate);
    link(&others.tls.key, &tls.key);
    assert!(matches!(certificate.look(), Look::Replaced));
}

#[test]
fn a_broken_pair_is_reported_once_and_the_old_one_stays() {
    let files = Files::new();
    let certificate = files.open();
    let good = Arc::clone(&certificate.current.load().key);
    let (other_chain, _) = issue(2040);
    let (_, other_key) = issue(2040);
    let breaks: [(&str, &dyn Fn()); 5] = [
        ("does not fit", &|| files.write(&other_chain, &other_key)),
        ("chain.pem does not hold", &|| files.write("", &other_key)),
        ("key.pem does not hold", &|| files.write(&other_chain, "garbage")),
        ("mode 644", &|| files.mode(0o644)),
        ("cannot read", &|| fs::remove_file(&files.tls.key).expect("there")),
    ];
    for (what, damage) in breaks {
        let (chain, key) = issue(2035);
        files.write(&chain, &key);
        assert!(matches!(certificate.look(), Look::Replaced), "before {what}");
        let good = Arc::clone(&certificate.current.load().key);
        damage();
        assert!(matches!(certificate.look(), Look::Same), "{what}: perhaps being replaced");
        let look = certificate.look();
        assert!(matches!(&look, Look::Broken(error) if error.to_string().contains(what)), "{what}: {look:?}");
        assert!(matches!(certificate.look(), Look::Same), "{what}: said once");
        assert!(Arc::ptr_eq(&good, &certificate.current.load().key), "{what}");
    }
    assert!(!Arc::ptr_eq(&good, &certificate.current.load().key));
}

#[test]
fn a_start_needs_a_pair_that_fits_and_is_its_owners() {
    let files = Files::new();
    files.mode(0o640);
    files.open();
    for mode in [0o604, 0o602, 0o644, 0o666] {
        files.mode(mode);
        assert!(matches!(Certificate::open(&files.tls), Err(BadPair::Exposed(_, seen)) if seen == mode), "{mode:o}");
    }
    let (_, key) = issue(2030);
    files.write(&fs::read_to_string(&files.tls.certificate).expect("there"), &key);
    assert!(matches!(Certificate::open(&files.tls), Err(BadPair::Mismatch(_))));
}
