//! Pingora with nothing in it: passes every request on to one upstream and looks at none of them.
//!
//! `bare-pingora HTTP HTTPS UPSTREAM CHAIN KEY`

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::{HttpPeer, ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;

/// The gateway's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> pingora::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(&self.upstream, false, String::new());
        peer.options.idle_timeout = Some(Duration::from_secs(60));
        Ok(Box::new(peer))
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [http, https, upstream, chain, key] = &arguments[..] else {
        anyhow::bail!("bare-pingora HTTP HTTPS UPSTREAM CHAIN KEY");
    };
    let threads = std::thread::available_parallelism()?.get();
    let mut server = Server::new_with_opt_and_conf(None, ServerConf { threads, ..ServerConf::default() });
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Bare { upstream: upstream.clone() });
    proxy.add_tcp(http);
    let tls = TlsSettings::intermediate(chain, key).ok().context("the certificate cannot be read")?;
    proxy.add_tls_with_settings(https, None, tls);
    server.add_service(proxy);
    server.run_forever()
}
