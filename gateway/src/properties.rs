//! What must hold for any input of renters, providers and proxies: properties, and fuzz targets by the same names.
//!
//! `cargo test` runs each for a moment, `.ci/fuzz` for longer; `cargo bolero test <name>` with a fuzzing engine behind it.
//! Inputs are spelled from fragments that matter, so that most of them get past the first check. What was once found
//! wrong is a row of a table beside the code that was wrong.

mod fields;
mod proxies;
mod requests;
mod targets;
mod upstreams;

/// Text out of `fragments` and single bytes: what a fuzzer's bytes mean here.
fn spelled(bytes: &[u8], fragments: &[&str]) -> Vec<u8> {
    let mut text = Vec::new();
    for &byte in bytes {
        match fragments.get(usize::from(byte)) {
            Some(fragment) => text.extend_from_slice(fragment.as_bytes()),
            None if byte < 0xc0 => text.extend_from_slice(fragments[usize::from(byte) % fragments.len()].as_bytes()),
            None => text.push(byte.wrapping_mul(37)),
        }
    }
    text
}

/// Decoded once, as RFC 3986, section 2.1 has it; written apart from what it is compared with.
fn decoded_once(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|&c| char::from(c).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high * 16 + low);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}
