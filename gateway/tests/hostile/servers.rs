//! Other people's servers behind the gateway, each telling what it read.

use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;

use crate::recorder::{Recorder, Seen};
use crate::support::eventually;
use crate::support::process::free_addresses;
use crate::wire::Framing;

/// A request as a server read it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub method: String,
    pub target: String,
    /// None where a proxy between has framed it anew.
    pub framing: Option<&'static str>,
    pub body: Vec<u8>,
}

/// A server that is stopped when it is dropped.
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    telling: Telling,
    _child: Option<Running>,
}

enum Telling {
    Lines(Arc<Mutex<Vec<Told>>>),
    /// What is behind it tells what it passed on.
    Behind(Recorder),
}

struct Running {
    child: Child,
    _stdin: Option<ChildStdin>,
    _directory: Option<tempfile::TempDir>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub async fn recorder() -> Self {
        let recorder = Recorder::start().await;
        Self { name: "recorder", address: recorder.address, telling: Telling::Behind(recorder), _child: None }
    }

    pub fn tornado() -> Self {
        let python = root().join("target/test-venv/bin/python");
        assert!(python.exists(), "no {}: run docker/setup.sh test", python.display());
        Self::script("tornado", Command::new(python).arg(here("on_tornado.py")))
    }

    pub fn node() -> Self {
        Self::script("node", Command::new("node").arg(here("on_node.js")))
    }

    fn script(name: &'static str, command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{name}: {error}: run docker/setup.sh test"));
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let running = Running { child, _stdin: stdin, _directory: None };
        let port = lines.next().and_then(Result::ok).and_then(|line| line.parse().ok()).expect("its port");
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let telling = Telling::Lines(Arc::clone(&told));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                told.lock().expect("no panic").push(read_line(&line));
            }
        });
        Self { name, address: SocketAddr::from(([127, 0, 0, 1], port)), telling, _child: Some(running) }
    }

    /// nginx passes on to a recorder, which tells what nginx made of it.
    pub async fn nginx() -> Self {
        let recorder = Recorder::start().await;
        let directory = tempfile::tempdir().expect("a directory");
        let [address] = free_addresses();
        let (path, behind) = (directory.path().display(), recorder.address);
        let configuration = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; client_body_temp_path {path}/in; proxy_temp_path {path}/out;\n\
             server {{ listen {address}; location / {{ proxy_pass http://{behind}; proxy_http_version 1.1; }} }} }}\n"
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, configuration).expect("written");
        let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
        let child = Command::new(program).arg("-c").arg(file).arg("-e").arg(directory.path().join("log")).spawn();
        let child = child.unwrap_or_else(|error| panic!("nginx: {error}: run docker/setup.sh test"));
        let running = Running { child, _stdin: None, _directory: Some(directory) };
        eventually("nginx listens", || std::net::TcpStream::connect(address).map(drop)).await;
        Self { name: "nginx", address, telling: Telling::Behind(recorder), _child: Some(running) }
    }

    pub async fn hyper() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        let telling = Telling::Lines(Arc::clone(&told));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let told = Arc::clone(&told);
                let service = hyper::service::service_fn(move |request| tell(request, Arc::clone(&told)));
                // A broken connection is one of the things that are tried.
                tokio::spawn(async move {
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(socket), service)
                            .await,
                    );
                });
            }
        });
        Self { name: "hyper", address, telling, _child: None }
    }

    /// What was read so far.
    pub fn told(&self) -> Vec<Told> {
        match &self.telling {
            Telling::Lines(told) => told.lock().expect("no panic").clone(),
            Telling::Behind(recorder) => recorder.seen().iter().filter_map(|seen| of(seen, self.name)).collect(),
        }
    }
}

fn of(seen: &Seen, name: &str) -> Option<Told> {
    let Seen::Request(request) = seen else { return None };
    let (method, target) = request.method_and_target();
    let framing = match request.framing {
        Framing::Chunked => "chunked",
        Framing::Length => "length",
        Framing::None | Framing::Close => "none",
    };
    let framing = (name != "nginx").then_some(framing);
    Some(Told { method: method.to_owned(), target: target.to_owned(), framing, body: request.body.clone() })
}

fn read_line(line: &str) -> Told {
    let parts: Vec<&str> = line.split('\t').collect();
    let [method, target, framing, body] = parts[..] else { panic!("{line}") };
    let framing = ["none", "length", "chunked"].into_iter().find(|known| *known == framing);
    let digits = |at: usize| body.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    let body = (0..body.len()).step_by(2).filter_map(digits).collect();
    Told { method: method.to_owned(), target: target.to_owned(), framing, body }
}

async fn tell(request: Request<Incoming>, told: Arc<Mutex<Vec<Told>>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let headers = request.headers();
    let framing = match (headers.contains_key(header::TRANSFER_ENCODING), headers.contains_key(header::CONTENT_LENGTH))
    {
        (true, _) => "chunked",
        (false, true) => "length",
        (false, false) => "none",
    };
    let (method, target) = (request.method().to_string(), request.uri().to_string());
    if let Ok(body) = request.into_body().collect().await {
        let body = body.to_bytes().to_vec();
        told.lock().expect("no panic").push(Told { method, target, framing: Some(framing), body });
    }
    Ok(Response::new(Full::from("ok")))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/servers").join(file)
}
