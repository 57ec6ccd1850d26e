//! The gateway's own pages: a refusal and what to do about it, and the question that a person answers with a button.

use http::StatusCode;
use maud::{DOCTYPE, Markup, html};
use runit_core::{AccessToken, Rejection};

use crate::answer::{Question, Refusal};

/// A refusal for a person.
pub(crate) fn refusal(status: StatusCode, text: &str, refusal: Refusal) -> String {
    page(
        text,
        &html! {
            @if let Some(next) = what_next(refusal) { p { (next) } }
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
                meta name="viewport" content="width=device-width";
                title { (title) }
            }
            body { main { h1 { (title) } (content) } }
        }
    };
    page.into_string()
}

/// What the reader can do, where there is something.
const fn what_next(refusal: Refusal) -> Option<&'static str> {
    Some(match refusal {
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
        Refusal::CapReached { .. } => "Files and kernels stay. The renter's page shows when bytes come free again.",
        Refusal::UpstreamFailed | Refusal::UpstreamTimedOut => {
            "The provider's machine or its connection has a problem. Try again in a moment."
        }
        _ => return None,
    })
}
