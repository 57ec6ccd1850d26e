//! Images and names with a real Docker engine.

use std::path::Path;

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions};
use runit_agent::engine::{Engine, EngineError, ImageError};
use runit_agent::instance::Instance;
use runit_config::Container;

/// Settings with a name of their own and an image that is `dockerfile`.
fn settings(directory: &Path, dockerfile: &str) -> Container {
    std::fs::write(directory.join("Dockerfile"), dockerfile).expect("written");
    let place = directory.display().to_string().to_lowercase();
    let name = format!("runit-test-image-{}", place.rsplit(['/', '.']).next().unwrap_or("x"));
    Container {
        image: name.clone(),
        name: Some(name),
        build_context: Some(directory.to_owned()),
        ..Container::default()
    }
}

async fn connect(settings: &Container) -> Engine {
    let instance = Instance::new(Path::new("test"), settings.name.as_deref());
    Engine::connect(settings.clone(), Vec::new(), instance).await.expect("connected")
}

async fn docker() -> Docker {
    let docker = Docker::connect_with_defaults().expect("a docker engine");
    docker.negotiate_version().await.expect("a docker engine answers")
}

async fn remove_image(name: &str) {
    docker().await.remove_image(name, None::<RemoveImageOptions>, None).await.expect("removed");
}

#[tokio::test]
async fn a_missing_image_is_built_once_with_its_arguments() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut settings = settings(directory.path(), "FROM scratch\nARG WHO\nLABEL who=$WHO\n");
    settings.build_args.insert("WHO".to_owned(), "me".to_owned());
    let engine = connect(&settings).await;
    engine.ensure_image().await.expect("built");
    let built = docker().await.inspect_image(&settings.image).await.expect("it is there");
    assert_eq!(built.config.and_then(|config| config.labels).expect("labels")["who"], "me");

    std::fs::write(directory.path().join("Dockerfile"), "FROM nonsense").expect("written");
    engine.ensure_image().await.expect("it is there, so nothing is built");
    remove_image(&settings.image).await;
}

#[tokio::test]
async fn a_failed_build_tells_its_last_lines() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = settings(directory.path(), "FROM scratch\nLABEL a=b\nCOPY nothing-like-that /\n");
    let engine = connect(&settings).await;
    let error = engine.ensure_image().await.expect_err("it cannot be built");
    let EngineError::Image(ImageError::Build { reason, last_lines, .. }) = error else { panic!("{error}") };
    assert!(reason.contains("nothing-like-that"), "{reason}");
    assert!(last_lines.contains("LABEL a=b"), "{last_lines}");
}

#[tokio::test]
async fn a_container_that_is_not_ours_keeps_its_name_and_its_life() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = settings(directory.path(), "FROM scratch\nCMD [\"/nothing\"]\nLABEL c=d\n");
    let engine = connect(&settings).await;
    engine.ensure_image().await.expect("built");
    let docker = docker().await;
    let options = CreateContainerOptionsBuilder::default().name(&settings.image).build();
    let body = ContainerCreateBody { image: Some(settings.image.clone()), ..Default::default() };
    docker.create_container(Some(options), body).await.expect("created");

    let error = engine.check().await.expect_err("taken");
    assert!(matches!(&error, EngineError::NameTaken(name) if *name == settings.image), "{error}");
    engine.remove_all(true).await.expect("nothing of ours is there");

    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(&settings.image, Some(options)).await.expect("it was still there");
    remove_image(&settings.image).await;
}
