//! The notebook's image: looked up, and built where it is missing.
//!
//! The build's context is a folder, or the one that this program carries. How the two are packed is in
//! [`context`]; what the image must be is written at the top of its Dockerfile.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures::StreamExt;
use include_dir::{Dir, include_dir};

use super::progress::Progress;
use crate::console::{Line, say};

static CARRIED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../docker/jupyter");

/// Where the Dockerfile expects the roots that its downloads are checked against.
const CA_BUNDLE: &str = "ca-bundle.crt";
/// Made by docker/setup.sh where the public base image cannot be pulled; taken wherever it is there.
const LOCAL_BASE: &str = "runit-base:bookworm";
/// Lines of a failed build that are told.
const LAST_LINES: usize = 20;
const EXECUTABLE: u32 = 0o755;
const READABLE: u32 = 0o644;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The engine did not say whether the image is there.
    #[error("the docker engine did not tell whether the image is there")]
    Lookup(#[source] DockerError),
    /// The build's context cannot be read.
    #[error("cannot read {}", .0.display())]
    Context(PathBuf, #[source] io::Error),
    /// The build failed.
    #[error("the image {image} could not be built: {reason}\n{last_lines}")]
    Build {
        /// Which image.
        image: String,
        /// What the engine says.
        reason: String,
        /// The end of the build's output.
        last_lines: String,
    },
}

/// Makes sure that the image is there.
pub(super) async fn ensure(docker: &Docker, settings: &runit_config::Container) -> Result<(), ImageError> {
    say(Line::CheckingImage { image: &settings.image });
    if is_there(docker, &settings.image).await? {
        say(Line::ImageExists);
        return Ok(());
    }
    build(docker, settings).await
}

/// Builds the image, in place of one that is there.
pub(super) async fn build(docker: &Docker, settings: &runit_config::Container) -> Result<(), ImageError> {
    say(Line::BuildingImage { image: &settings.image });
    let mut build_args = settings.build_args.clone();
    if !build_args.contains_key("BASE") && is_there(docker, LOCAL_BASE).await? {
        build_args.insert("BASE".to_owned(), LOCAL_BASE.to_owned());
    }
    build_with(docker, settings, build_args).await?;
    say(Line::ImageBuilt);
    Ok(())
}

pub(super) async fn is_there(docker: &Docker, image: &str) -> Result<bool, ImageError> {
    match docker.inspect_image(image).await {
        Ok(_) => Ok(true),
        Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
        Err(error) => Err(ImageError::Lookup(error)),
    }
}

async fn build_with(
    docker: &Docker,
    settings: &runit_config::Container,
    build_args: BTreeMap<String, String>,
) -> Result<(), ImageError> {
    let (folder, ca_bundle) = (settings.build_context.clone(), settings.ca_bundle.clone());
    let packed = tokio::task::spawn_blocking(move || context(folder.as_deref(), ca_bundle.as_deref()));
    let tar = packed.await.map_err(|error| ImageError::Context(PathBuf::new(), io::Error::other(error)))??;

    let options = BuildImageOptionsBuilder::default()
        .t(&settings.image)
        .buildargs(&build_args.into_iter().collect::<HashMap<_, _>>())
        .rm(true)
        .forcerm(true)
        .build();
    let mut output = docker.build_image(options, None, Some(bollard::body_full(tar.into())));
    let mut progress = Progress::start();
    let mut last_lines = VecDeque::new();
    let failed = |reason: String, last_lines: &VecDeque<String>| ImageError::Build {
        image: settings.image.clone(),
        reason,
        last_lines: last_lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n"),
    };
    while let Some(step) = output.next().await {
        let step = step.map_err(|error| failed(error.to_string(), &last_lines))?;
        for line in step.stream.unwrap_or_default().lines().filter(|line| !line.trim().is_empty()) {
            progress.line(line);
            if last_lines.len() == LAST_LINES {
                last_lines.pop_front();
            }
            last_lines.push_back(line.to_owned());
        }
        if let Some(message) = step.error_detail.and_then(|detail| detail.message) {
            return Err(failed(message, &last_lines));
        }
    }
    Ok(())
}

/// The build's context as a tar: `folder`, or what this program carries, and the CA bundle if one is given.
fn context(folder: Option<&Path>, ca_bundle: Option<&Path>) -> Result<Vec<u8>, ImageError> {
    let mut tar = tar::Builder::new(Vec::new());
    match folder {
        Some(folder) => {
            tar.append_dir_all(".", folder).map_err(|error| ImageError::Context(folder.to_owned(), error))?;
        }
        None => {
            for file in CARRIED.files() {
                let path = file.path();
                let mode =
                    if path.extension().is_some_and(|extension| extension == "sh") { EXECUTABLE } else { READABLE };
                append(&mut tar, path, mode, file.contents())?;
            }
        }
    }
    if let Some(path) = ca_bundle {
        let pem = std::fs::read(path).map_err(|error| ImageError::Context(path.to_owned(), error))?;
        append(&mut tar, Path::new(CA_BUNDLE), READABLE, &pem)?;
    }
    tar.into_inner().map_err(|error| ImageError::Context(PathBuf::from("build context"), error))
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &Path, mode: u32, contents: &[u8]) -> Result<(), ImageError> {
    let mut header = tar::Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, path, contents).map_err(|error| ImageError::Context(path.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn unpacked(tar: &[u8]) -> BTreeMap<String, (u32, String)> {
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().expect("a tar").map(|entry| {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mode = entry.header().mode().expect("a mode") & 0o777;
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            (path, (mode, text))
        });
        entries.collect()
    }

    #[test]
    fn the_carried_context_has_a_dockerfile_and_an_executable_entrypoint() {
        let files = unpacked(&context(None, None).expect("a context"));
        assert!(files["Dockerfile"].1.contains("FROM"));
        assert_eq!(files["entrypoint.sh"].0, 0o755);
        assert!(!files.contains_key(CA_BUNDLE));
    }

    #[test]
    fn a_folder_and_a_ca_bundle_are_packed_together() {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join("Dockerfile"), "FROM x").expect("written");
        let bundle = folder.path().join("roots.pem");
        std::fs::write(&bundle, "PEM").expect("written");
        let files = unpacked(&context(Some(folder.path()), Some(&bundle)).expect("a context"));
        assert_eq!(files["Dockerfile"].1, "FROM x");
        assert_eq!(files[CA_BUNDLE].1, "PEM");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = context(Some(Path::new("/nonexistent/context")), None).expect_err("nothing there");
        assert_eq!(error.to_string(), "cannot read /nonexistent/context");
    }
}
