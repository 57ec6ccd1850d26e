//! The PROXY protocol's header, version 2 (the binary one), which a load balancer sends before anything else.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, section 2.2. Version 1 is not read: its end has to be
//! searched for, and whoever sends it can send this one.

use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The fixed part: signature, version and command, family, length of the rest.
const FIXED: usize = 16;
/// Longest rest that is read: addresses, and a few hundred bytes of other things that balancers add.
const LONGEST: usize = 2_048;

/// No header, or none that can be believed.
#[derive(Debug, thiserror::Error)]
pub enum BadHeader {
    /// The connection ended or broke.
    #[error("the connection ended within the header")]
    Io(#[from] std::io::Error),
    /// Not a header of version 2 for a TCP connection, or a longer one than is read.
    #[error("not a header of the PROXY protocol, version 2, for a TCP connection")]
    Malformed,
}

/// Reads a header, and not a byte more. Answers the address that it names; none for a connection of the balancer's own
/// (`LOCAL`: it looks whether we are alive).
///
/// Has no deadline of its own.
///
/// # Errors
/// [`BadHeader`]; the connection is to be closed then.
pub async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<SocketAddr>, BadHeader> {
    let mut bytes = vec![0; FIXED];
    stream.read_exact(&mut bytes).await?;
    let rest = usize::from(u16::from_be_bytes([bytes[FIXED - 2], bytes[FIXED - 1]]));
    if !bytes.starts_with(ppp::v2::PROTOCOL_PREFIX) || rest > LONGEST {
        return Err(BadHeader::Malformed);
    }
    bytes.resize(FIXED + rest, 0);
    stream.read_exact(&mut bytes[FIXED..]).await?;
    let header = Header::try_from(&bytes[..]).map_err(|_| BadHeader::Malformed)?;
    match (header.command, header.protocol, header.addresses) {
        (Command::Local, ..) => Ok(None),
        (Command::Proxy, Protocol::Stream, Addresses::IPv4(of)) => Ok(Some((of.source_address, of.source_port).into())),
        (Command::Proxy, Protocol::Stream, Addresses::IPv6(of)) => Ok(Some((of.source_address, of.source_port).into())),
        (Command::Proxy, ..) => Err(BadHeader::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn v4() -> Vec<u8> {
        [&[203, 0, 113, 9, 10, 0, 0, 1][..], &40_000_u16.to_be_bytes(), &443_u16.to_be_bytes()].concat()
    }

    async fn parse(bytes: &[u8]) -> (Result<Option<SocketAddr>, BadHeader>, usize) {
        let mut rest = bytes;
        let result = read(&mut rest).await;
        (result, rest.len())
    }

    #[tokio::test]
    async fn the_address_is_read_and_not_a_byte_more() {
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::5".parse::<std::net::Ipv6Addr>().expect("an address").octets());
        let with_more = [v4(), vec![0x04, 0, 3, 1, 2, 3]].concat();
        for (bytes, expected) in [
            (header(0x21, 0x11, &v4()), Some("203.0.113.9:40000")),
            (header(0x21, 0x11, &with_more), Some("203.0.113.9:40000")),
            (header(0x21, 0x21, &v6), Some("[2001:db8::5]:0")),
            (header(0x20, 0x00, &[]), None),
        ] {
            let (result, left) = parse(&[&bytes[..], b"GET /"].concat()).await;
            assert_eq!(result.expect("good"), expected.map(|text| text.parse().expect("an address")));
            assert_eq!(left, 5);
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let mut huge = header(0x21, 0x11, &v4());
        huge[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        let whole = header(0x21, 0x11, &v4());
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.9 10.0.0.1 40000 443\r\n".to_vec(),
            header(0x11, 0x11, &v4()),
            header(0x22, 0x11, &v4()),
            header(0x21, 0x12, &v4()),
            header(0x21, 0x00, &[]),
            header(0x21, 0x31, &[0; 216]),
            header(0x21, 0x21, &v4()),
            header(0x21, 0x11, &v4()[..11]),
            [huge, vec![0; 70_000]].concat(),
        ] {
            let (result, _) = parse(&bytes).await;
            assert!(matches!(result, Err(BadHeader::Malformed)), "{bytes:?}: {result:?}");
        }
        for end in 0..whole.len() {
            assert!(matches!(parse(&whole[..end]).await.0, Err(BadHeader::Io(_))), "{end} bytes");
        }
    }
}
