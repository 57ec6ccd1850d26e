//! A server on a raw socket in Jupyter's place: sees every byte of a request's head, and answers with any bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};

/// Takes a connection whose first head was read; what it does with the stream is the test's.
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    /// Calls `behave` for each connection, with the first head on it.
    pub(crate) async fn start<F: Future<Output = ()> + Send>(
        behave: impl Fn(String, TcpStream) -> F + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (behave, taken) = (behave.clone(), Arc::clone(&taken));
                tokio::spawn(async move {
                    if let Some(head) = read_head(&mut stream).await {
                        taken.lock().expect("no panic").push(head.clone());
                        behave(head, stream).await;
                    }
                });
            }
        });
        Self { address, heads }
    }

    /// Heads seen so far, one per connection.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

/// Reads up to and with the empty line, and no byte more.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// The value of a field in a head; fails if it is there twice.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut values = head.lines().filter_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    });
    let value = values.next();
    assert_eq!(values.next(), None, "{name} twice in {head}");
    value
}
