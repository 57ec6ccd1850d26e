//! What a load balancer sends before anything else, or somebody who says that he is one.

use std::net::{IpAddr, SocketAddr};

use runit_listener::proxy_protocol::read;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;
/// Of what is behind the fixed part, so much is read at most.
const LONGEST: usize = 2_048;

/// The address in a header, by its places in the bytes (section 2.2 of the protocol's text); `None` where there is none.
fn address_in(bytes: &[u8]) -> Option<SocketAddr> {
    let rest = &bytes[FIXED..];
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    match bytes[13] {
        0x11 => Some((IpAddr::from(<[u8; 4]>::try_from(rest.get(..4)?).ok()?), port(8)?).into()),
        0x21 => Some((IpAddr::from(<[u8; 16]>::try_from(rest.get(..16)?).ok()?), port(32)?).into()),
        _ => None,
    }
}

async fn expect_no_more_than_a_header(bytes: &[u8]) {
    let mut left = bytes;
    let result = read(&mut left).await;
    let taken = bytes.len() - left.len();
    assert!(bytes.ends_with(left), "what is left is what was behind");
    let length = bytes.get(14..FIXED).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
    let whole = FIXED + length.unwrap_or_default();
    assert!(taken <= whole.min(FIXED + LONGEST), "{taken} bytes of a header of {whole} were taken");
    if let Ok(address) = result {
        assert_eq!(taken, whole);
        assert!(bytes.starts_with(SIGNATURE));
        let expected = match bytes[12] {
            0x20 => None,
            0x21 => Some(address_in(&bytes[..whole]).expect("an address of TCP")),
            other => panic!("{other:#x} is no command of version 2"),
        };
        assert_eq!(address, expected);
    }
}

#[test]
fn no_byte_behind_a_proxys_header_is_taken_and_the_address_is_the_one_in_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    bolero::check!().with_type::<(u8, u8, i8, Vec<u8>, Vec<u8>)>().for_each(
        |(command, family, longer, rest, behind)| {
            let command = [0x21, 0x20, 0x21, *command][usize::from(*command) % 4];
            let family = [0x11, 0x21, 0x11, *family][usize::from(*family) % 4];
            let length = u16::try_from(rest.len()).expect("few");
            let length = if *longer % 4 == 0 { length.wrapping_add_signed((*longer).into()) } else { length };
            let header = [SIGNATURE, &[command, family], &length.to_be_bytes(), rest, behind].concat();
            runtime.block_on(expect_no_more_than_a_header(&header));
            runtime.block_on(expect_no_more_than_a_header(rest));
        },
    );
}
