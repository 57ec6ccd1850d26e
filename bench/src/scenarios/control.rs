//! The control API beside the gateway, in its process: heartbeats of 1,000 providers, and registrations.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Result, ensure};
use futures::future::try_join_all;

use crate::client::Client;
use crate::measure::{Effort, Samples, Tally, Turn, note_units};
use crate::peer::{Demands, House, Kind, Peer, credential};
use crate::runit::{Rented, registration};
use crate::scenarios::sessions::register;

const PROVIDERS: u64 = 1_000;
const CONNECTIONS: usize = 16;

/// Measures both.
///
/// # Errors
/// When a call fails.
pub(crate) async fn run(house: &House, effort: Effort) -> Result<Vec<Samples>> {
    let peer = Peer::start(Kind::Runit, house, Demands::default()).await?;
    let runit = peer.runit.clone().expect("it is RUNIT");
    let sessions = register(&runit, house.upstream, PROVIDERS, false).await?;
    let way = runit.control();
    let heartbeats: Vec<(String, String)> = sessions.iter().map(heartbeat).collect();
    let registrations = vec![(registration(house.upstream), String::new())];
    let mut samples = Vec::new();
    for (name, path, calls) in
        [("heartbeats", "/provider/heartbeat", heartbeats), ("registrations", "/provider/session", registrations)]
    {
        let mut of = Samples::of(name);
        for round in 0..=effort.rounds {
            let (cpu, start) = (peer.cpu(), Instant::now());
            let tally = RefCell::new(Tally::default());
            let connection = async |number: usize| -> Result<()> {
                let mut client = Client::connect(&way, None).await?;
                let mut next = calls.iter().cycle().skip(number * calls.len() / CONNECTIONS);
                while let (true, Some((body, field))) = (start.elapsed() < effort.turn, next.next()) {
                    let request = client.post(path, body, field);
                    let begun = Instant::now();
                    let (head, answer) = client.call(&request).await?;
                    ensure!(head.status() == 200, "{}{}", head.text, String::from_utf8_lossy(&answer));
                    tally.borrow_mut().count(begun, 0);
                }
                Ok(())
            };
            try_join_all((0..CONNECTIONS).map(connection)).await?;
            let took = start.elapsed();
            let cpu = peer.cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before));
            if round > 0 {
                note_units(&mut of, &tally.borrow(), &Turn { took, cpu });
            }
        }
        samples.push(of);
    }
    Ok(samples)
}

fn heartbeat(session: &Rented) -> (String, String) {
    let body = format!("{{\"sessionId\":\"{}\"}}", session.id);
    (body, credential(&session.secret).replace("token ", "Bearer "))
}
