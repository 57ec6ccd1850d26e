//! `build` and `logs`: what needs the engine and no running agent.

use futures::StreamExt;
use runit_config::AgentSettings;

use crate::console::print_raw;
use crate::engine::{Engine, EngineError};
use crate::instance::Instance;

async fn connect(settings: &AgentSettings) -> Result<Engine, EngineError> {
    let directory = &settings.agent.state_dir;
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.clone());
    let instance = Instance::new(&directory, settings.container.name.as_deref());
    Engine::connect(settings.container.clone(), settings.egress.dns.clone(), instance).await
}

/// Builds the image, in place of one that is there. The next workspace is made of it.
///
/// # Errors
/// The engine does not answer, or the build fails.
pub async fn build(settings: &AgentSettings) -> Result<(), EngineError> {
    connect(settings).await?.build_image().await
}

/// Prints what the container wrote: the last `tail` lines, and with `follow` what comes, until it ends.
///
/// # Errors
/// The engine does not answer, or there is no container.
pub async fn logs(settings: &AgentSettings, tail: u32, follow: bool) -> Result<(), EngineError> {
    let engine = connect(settings).await?;
    let mut output = std::pin::pin!(engine.output(tail, follow));
    while let Some(text) = output.next().await {
        print_raw(&text?);
    }
    Ok(())
}
