//! The gateway's own pages: a refusal and what to do about it, and the question that a person answers with a button.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use runit_core::{AccessToken, Rejection};
use sha2::{Digest, Sha256};
use url::Url;

use crate::answer::{Question, Refusal};

/// In the page, since the host of a rental serves nothing else of ours.
const STYLE: &str = include_str!("page.css");

/// What a policy has to let through for it (CSP 3, section 2.3.1).
pub(crate) static STYLE_SOURCE: LazyLock<String> =
    LazyLock::new(|| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(STYLE))));

/// A refusal for a person, and the way to where another session is had: `control` is the control plane's origin.
pub(crate) fn refusal(status: StatusCode, text: &str, refusal: Refusal, control: &Url) -> String {
    page(
        text,
        &html! {
            @if let Some(next) = what_next(refusal) { p { (next) } }
            p { a href={ (control) "renter/" } { "To the renter's page" } }
            p { small { "RUNIT gateway, status " (status.as_u16()) "." } }
        },
    )
}

/// A question; the button sends the token back to where it came from.
pub(crate) fn question(question: Question, token: &AccessToken) -> String {
    let (title, text, button) = match question {
        Question::Open => (
            "Open this notebook?",
            "Another site, or a preview of a link, has led your browser here. The notebook is yours with the next click, and \
             nobody else can open it then. If you did not ask for a notebook, close this page: what you type into a notebook \
             of somebody else's, he can read.",
            "Open the notebook",
        ),
        Question::Move => (
            Refusal::Rejected(Rejection::AddressMismatch).row().2,
            "This notebook was opened in this browser from another network address. You can go on from the one that you have \
             now: files and kernels stay, and whatever is connected from the other address is cut off.",
            "Go on from here",
        ),
    };
    page(
        title,
        &html! {
            p { (text) }
            form method="post" action={ "/access/" (token.expose()) } { button { (button) } }
        },
    )
}

fn page(title: &str, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { h1 { (title) } (content) } }
        }
    };
    page.into_string()
}

/// What the reader can do, where there is something.
fn what_next(refusal: Refusal) -> Option<Cow<'static, str>> {
    let text = match refusal {
        Refusal::HeadTooLarge => {
            "Your browser sends more cookies than fit into a request. A page that you opened may have set them: delete the \
             cookies of this site in your browser, then open your notebook on the renter's page again."
        }
        Refusal::Rejected(Rejection::NoCredential) => "Open the link that you were given for this notebook.",
        Refusal::Rejected(Rejection::InvalidToken) | Refusal::RentalOver => {
            "It was released, you were away for too long, or the link is another one's. Ask for a new one on the renter's page."
        }
        Refusal::Rejected(Rejection::AlreadyInUse) => {
            "It was opened in another browser already, or by somebody else who has the link. If that was you, go on there. If \
             not, release the notebook on the renter's page."
        }
        Refusal::Rejected(Rejection::AddressMismatch) => {
            "The notebook is bound to the network address that it was opened from. If yours has changed, open the notebook's \
             link again in the browser that has it, or use the renter's page that you got it on: either can go on from here. \
             Otherwise it is released a minute after it was last used."
        }
        Refusal::CapReached { retry_after } => {
            let after = waiting(retry_after);
            return Some(
                format!("Files and kernels stay. The next bytes come free {after}; the renter's page shows it, too.")
                    .into(),
            );
        }
        Refusal::TooManyRequests { retry_after }
        | Refusal::TooManyGuesses { retry_after }
        | Refusal::TooManyReconnects { retry_after } => {
            return Some(format!("Try again {}.", waiting(retry_after)).into());
        }
        Refusal::UpstreamFailed | Refusal::UpstreamTimedOut => {
            "The provider's machine or its connection has a problem. Try again in a moment."
        }
        Refusal::NodeFull
        | Refusal::TooManyConnections
        | Refusal::LedgerUnavailable
        | Refusal::AuthorityUnavailable => "Try again in a moment.",
        _ => return None,
    };
    Some(text.into())
}

/// When so many seconds are over.
fn waiting(seconds: u64) -> String {
    match seconds.div_ceil(60) {
        0 | 1 => "in a minute".to_owned(),
        minutes @ 2..=90 => format!("in {minutes} minutes"),
        minutes => format!("in about {} hours", minutes.saturating_add(30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reached_cap_says_when_bytes_come_free() {
        let page = |retry_after| {
            let control = Url::parse("https://rent.example").expect("valid");
            refusal(StatusCode::TOO_MANY_REQUESTS, "Full", Refusal::CapReached { retry_after }, &control)
        };
        for (seconds, text) in
            [(5, "free in a minute;"), (61, "free in 2 minutes;"), (86_700, "free in about 24 hours;")]
        {
            assert!(page(seconds).contains(text), "{text}");
        }
        assert!(page(1).contains(r#"<a href="https://rent.example/renter/">"#));
    }
}
