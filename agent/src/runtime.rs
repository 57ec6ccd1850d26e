//! Versions of what runs containers that are known to let code out of them. Pure.
//!
//! A version says nothing of what a distribution put into it: some mend an older version in place. So a finding is a
//! reason to look, and refuses only where the provider wants that.

/// A component whose version has known escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escape {
    /// Which component.
    pub component: &'static str,
    /// Its version.
    pub version: String,
    /// What is known.
    pub known: &'static str,
    /// From which version on it is mended.
    pub mended: &'static str,
}

impl std::fmt::Display for Escape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { component, version, known, mended } = self;
        write!(f, "{component} {version} is below {mended} ({known}); your distribution may have mended it in place")
    }
}

/// What is known of a runc.
pub fn runc(version: &str) -> Option<Escape> {
    const KNOWN: &str = "CVE-2024-21626, CVE-2025-31133, CVE-2025-52565, CVE-2025-52881";
    let read = Version::read(version)?;
    let mended = match (read.major, read.minor) {
        (1, 4) => Version::candidate(1, 4, 0, 3),
        (1, 3) => Version::release(1, 3, 3),
        _ => Version::release(1, 2, 8),
    };
    let component = "runc";
    (read < mended).then(|| Escape {
        component,
        version: version.to_owned(),
        known: KNOWN,
        mended: "1.2.8, 1.3.3 or 1.4.0",
    })
}

/// What is known of an NVIDIA container toolkit.
pub fn nvidia_toolkit(version: &str) -> Option<Escape> {
    let vulnerable = Version::read(version)? < Version::release(1, 17, 8);
    vulnerable.then(|| Escape {
        component: "NVIDIA container toolkit",
        version: version.to_owned(),
        known: "CVE-2024-0132, CVE-2025-23266",
        mended: "1.17.8",
    })
}

/// The version in `NVIDIA Container Toolkit CLI version 1.17.8`.
pub fn nvidia_toolkit_version(output: &str) -> Option<&str> {
    output.lines().find_map(|line| line.rsplit_once(" version ")).map(|(_, version)| version.trim())
}

/// Ordered as releases are: a candidate comes before its release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
    patch: u32,
    /// `u32::MAX` for a release.
    candidate: u32,
}

impl Version {
    const fn release(major: u32, minor: u32, patch: u32) -> Self {
        Self::candidate(major, minor, patch, u32::MAX)
    }

    const fn candidate(major: u32, minor: u32, patch: u32, candidate: u32) -> Self {
        Self { major, minor, patch, candidate }
    }

    /// `1.1.5+ds1-1+deb12u1`, `1.4.0-rc.2`, `v1.3`: what stands behind the numbers is the packager's.
    fn read(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('v');
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let mut numbers = numbers.trim_end_matches('.').split('.').map(str::parse);
        let major = numbers.next()?.ok()?;
        let mut next = || numbers.next().transpose().map(|number| number.unwrap_or(0));
        let (minor, patch) = (next().ok()?, next().ok()?);
        let digits: String = match rest.trim_start_matches(['-', '~']).strip_prefix("rc") {
            Some(rest) => rest.trim_start_matches('.').chars().take_while(char::is_ascii_digit).collect(),
            None => String::new(),
        };
        Some(Self::candidate(major, minor, patch, digits.parse().unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_runc_below_the_mended_ones_are_known() {
        for version in ["1.1.5+ds1", "1.1.12", "1.2.7", "1.3.2", "1.4.0-rc.2", "1.4.0~rc1", "v1.0.0", "0.1"] {
            assert!(runc(version).is_some(), "{version}");
        }
        for version in ["1.2.8", "1.2.9-1ubuntu1", "1.3.3", "1.3.10", "1.4.0-rc.3", "1.4.0", "1.5.0", "2.0"] {
            assert_eq!(runc(version), None, "{version}");
        }
        assert_eq!(runc("unknown"), None);
    }

    #[test]
    fn versions_of_the_nvidia_toolkit_below_the_mended_one_are_known() {
        let output = "NVIDIA Container Toolkit CLI version 1.17.4\ncommit: 9b69590c7428470a72f2ae05f826412976af1395\n";
        assert_eq!(nvidia_toolkit_version(output), Some("1.17.4"));
        assert!(nvidia_toolkit("1.17.4").is_some() && nvidia_toolkit("1.16.1").is_some());
        assert!(nvidia_toolkit("1.17.8").is_none() && nvidia_toolkit("1.18.0-rc.1").is_none());
    }

    #[test]
    fn a_finding_says_what_to_look_for() {
        let said = runc("1.1.5").expect("known").to_string();
        assert!(said.contains("CVE-2024-21626") && said.contains("1.3.3") && said.contains("in place"), "{said}");
    }
}
