//! What the engine cannot do for us, and what its own errors mean.

use bollard::errors::Error as DockerError;

use super::ImageError;

/// What the engine cannot do for us.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine answers.
    #[error("no docker engine answers: is it installed, running, and may this user reach it (group docker)?")]
    Unreachable(#[source] DockerError),
    /// A limit that DESIGN promises would not be enforced.
    #[error("the docker engine cannot enforce {}: enable it in the kernel (cgroups), then start the agent again", .0.join(", "))]
    Unlimited(Vec<&'static str>),
    /// The engine refused a call.
    #[error("the docker engine refused to {0}")]
    Refused(&'static str, #[source] DockerError),
    /// Somebody else's container has our name.
    #[error(
        "the container name {0} is taken by a container that this agent did not make: remove it, or set [container] name"
    )]
    NameTaken(String),
    /// Somebody else's network has our name.
    #[error(
        "the network name {0} is taken by a network that this agent did not make: remove it, or set [container] name"
    )]
    NetworkTaken(String),
    /// There is none.
    #[error("there is no container of this agent's")]
    NoContainer,
    /// The engine has no driver for GPUs.
    #[error(
        "the docker engine cannot give the container a GPU: install nvidia-container-toolkit and restart the engine, or set \
         [container] gpus = []"
    )]
    NoGpu(#[source] DockerError),
    /// The container runs, but its port is not published on loopback.
    #[error("the container's port is not published on loopback")]
    NotPublished,
    /// The container ended while it should have started.
    #[error("jupyter ended at once; its last output:\n{0}")]
    Ended(String),
    /// The image cannot be built.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl EngineError {
    /// The error and its sources, in one line.
    pub fn chain(&self) -> String {
        crate::hands::chain(self)
    }
}

pub(super) fn refused(what: &'static str) -> impl FnOnce(DockerError) -> EngineError {
    move |error| EngineError::Refused(what, error)
}

/// `could not select device driver "nvidia" with capabilities: [[gpu]]`, and what its hook says.
pub(super) fn no_gpu(error: &DockerError) -> bool {
    let signs = ["could not select device driver", "nvidia-container-cli"];
    let said = error.to_string();
    signs.iter().any(|sign| said.contains(sign))
}

pub(super) fn is_missing(error: &DockerError) -> bool {
    matches!(error, DockerError::DockerResponseServerError { status_code: 404, .. })
}

/// Gone already, or going (409: "removal is already in progress"), is as good as removed.
pub(super) fn unless_gone(result: Result<(), DockerError>) -> Result<(), DockerError> {
    match result {
        Err(DockerError::DockerResponseServerError { status_code: 409, message })
            if message.contains("in progress") =>
        {
            Ok(())
        }
        // 304: it is stopped already.
        Err(DockerError::DockerResponseServerError { status_code: 304, .. }) => Ok(()),
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}
