//! The admin API's answers as text for people. The node's answer decides what there is; a missing field is a dash.
//!
//! Providers choose some of the text: nothing of it steers a terminal.

use comfy_table::{CellAlignment, Table, TableStyle};
use serde_json::Value;

/// Which columns a list has.
pub(super) struct Columns(&'static [Column]);

struct Column {
    name: &'static str,
    side: CellAlignment,
    cell: fn(&Value) -> String,
}

pub(super) const SESSIONS: Columns = Columns(&[
    left("SESSION", |one| text(&one["sessionId"])),
    left("STATUS", |one| text(&one["status"])),
    left("PROVIDER", |one| text(&one["providerId"])),
    left("RENTER", |one| text(&one["lock"]["address"])),
    right("LOCKED", |one| seconds(&one["lock"]["seconds"])),
    right("USED", |one| used(&one["usage"])),
    right("CAP", |one| bytes(&one["usage"]["cap"])),
    right("AGE", |one| seconds(&one["ageSeconds"])),
]);

pub(super) const USAGE: Columns = Columns(&[
    left("SESSION", |one| text(&one["sessionId"])),
    left("STATUS", |one| text(&one["status"])),
    left("PROVIDER", |one| text(&one["providerId"])),
    right("IN", |one| bytes(&one["usage"]["usedIn"])),
    right("OUT", |one| bytes(&one["usage"]["usedOut"])),
    right("FORFEITED", |one| bytes(&one["usage"]["forfeited"])),
    right("RESERVED", |one| bytes(&one["usage"]["reserved"])),
    right("REMAINING", |one| bytes(&one["usage"]["remaining"])),
]);

pub(super) const PROVIDERS: Columns = Columns(&[
    left("PROVIDER", |one| text(&one["providerId"])),
    left("HEALTH", |one| text(&one["health"])),
    right("READY", |one| text(&one["sessions"]["ready"])),
    right("LOCKED", |one| text(&one["sessions"]["locked"])),
    right("RECYCLING", |one| text(&one["sessions"]["recycling"])),
    right("REMOVED", |one| text(&one["sessions"]["removed"])),
    right("SILENT", |one| seconds(&one["silentSeconds"])),
]);

pub(super) const KEYS: Columns = Columns(&[
    left("KEY", |one| text(&one["keyId"])),
    left("FOR", |one| text(&one["holder"])),
    left("NAME", |one| text(if one["name"].is_null() { &one["providerId"] } else { &one["name"] })),
    left("ROLE", |one| text(&one["role"])),
    left("CREATED", |one| text(&one["createdAt"])),
    left("REVOKED", |one| text(&one["revokedAt"])),
]);

pub(super) const EVENTS: Columns = Columns(&[
    right("PLACE", |one| text(&one["place"])),
    left("TIME", |one| text(&one["at"])),
    left("KIND", |one| text(&one["kind"])),
    left("SESSION", |one| text(&one["sessionId"])),
    left("PROVIDER", |one| text(&one["providerId"])),
    left("ADDRESS", |one| text(&one["address"])),
    left("OPERATOR", |one| text(&one["operator"])),
    left("KEY", |one| text(&one["keyId"])),
]);

const fn left(name: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { name, side: CellAlignment::Left, cell }
}

const fn right(name: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { name, side: CellAlignment::Right, cell }
}

impl Columns {
    /// The list as a table; under it how many of `total` it shows, where it does not show all.
    pub(super) fn table(&self, list: &Value, total: &Value) -> String {
        let rows = list.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut table = Table::new();
        table.load_style(TableStyle::new()).set_header(self.0.iter().map(|column| column.name));
        for row in rows {
            table.add_row(self.0.iter().map(|column| (column.cell)(row)));
        }
        for (shown, column) in table.column_iter_mut().zip(self.0) {
            shown.set_padding((0, 2));
            shown.set_cell_alignment(column.side);
        }
        let more = total.as_u64().filter(|total| *total != rows.len() as u64);
        let note = more.map(|total| format!("{} of {total}\n", rows.len())).unwrap_or_default();
        format!("{}\n{note}", table.trim_fmt())
    }

    /// The names of the columns, over lines of which nobody knows yet how wide they will be.
    pub(super) fn heads(&self) -> String {
        format!("{}\n", self.0.iter().map(|column| column.name).collect::<Vec<_>>().join("  "))
    }
}

/// One session, field by field, then its events.
pub(super) fn session(shown: &Value) -> String {
    let (lock, usage) = (&shown["lock"], &shown["usage"]);
    let fields = [
        ("session", text(&shown["sessionId"])),
        ("status", text(&shown["status"])),
        ("provider", text(&shown["providerId"])),
        ("provider's key", text(&shown["providerKeyId"])),
        ("url", text(&shown["publicUrl"])),
        ("reachable", text(&shown["reachable"])),
        ("hardware", text(&shown["hardware"])),
        ("pricing", text(&shown["pricing"])),
        ("agent tells", text(&shown["report"])),
        ("registered", text(&shown["registeredAt"])),
        ("agent heard", text(&shown["providerSeenAt"])),
        ("locked from", text(&lock["address"])),
        ("locked at", text(&lock["takenAt"])),
        ("renter seen", text(&lock["renterSeenAt"])),
        ("used", used(usage)),
        ("remaining", format!("{} of {}", bytes(&usage["remaining"]), bytes(&usage["cap"]))),
        ("next free at", text(&usage["nextFreeAt"])),
    ];
    let lines: String = fields.iter().map(|(name, value)| format!("{name:<15} {value}\n")).collect();
    format!("{lines}\n{}", EVENTS.table(&shown["events"], &Value::Null))
}

/// The day in numbers; kinds that did not happen are left out.
pub(super) fn summary(shown: &Value) -> String {
    let sessions = &shown["sessions"];
    let mut lines = format!(
        "sessions: {} ready, {} locked, {} recycling\nevents of the last 24 hours:\n",
        text(&sessions["ready"]),
        text(&sessions["locked"]),
        text(&sessions["recycling"])
    );
    let events = shown["events"].as_object().into_iter().flatten();
    lines.extend(events.filter(|(_, count)| **count != 0).map(|(kind, count)| format!("  {kind:<30} {count}\n")));
    lines
}

/// What all sessions used, those too that the table does not show.
pub(super) fn sums(page: &Value) -> String {
    format!(
        "in all: {} in, {} out, {} forfeited, {} reserved\n",
        bytes(&page["usedIn"]),
        bytes(&page["usedOut"]),
        bytes(&page["forfeited"]),
        bytes(&page["reserved"])
    )
}

/// What became of a session.
pub(super) fn changed(shown: &Value) -> String {
    format!("{} is {}\n", text(&shown["sessionId"]), text(&shown["status"]))
}

/// The key alone on its line, so that it can be cut out.
pub(super) fn made_key(shown: &Value) -> String {
    format!("key {}, shown this once:\n{}\n", text(&shown["keyId"]), text(&shown["key"]))
}

/// One event on one line.
pub(super) fn event_line(event: &Value) -> String {
    let cells: Vec<String> = EVENTS.0.iter().map(|column| (column.cell)(event)).collect();
    format!("{}\n", cells.join("  "))
}

/// A value on one line, without what a terminal obeys: control characters, and those that turn the direction of text.
fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(obeyed, "")
}

fn used(usage: &Value) -> String {
    let sum = ["usedIn", "usedOut", "forfeited"].iter().filter_map(|field| usage[field].as_u64()).sum::<u64>();
    bytes(&sum.into())
}

/// In the largest unit of which there is one.
fn bytes(value: &Value) -> String {
    let Some(bytes) = value.as_u64() else { return text(value) };
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

/// In the largest unit of which there are two.
fn seconds(value: &Value) -> String {
    match value.as_u64() {
        None => text(value),
        Some(seconds @ 0..120) => format!("{seconds} s"),
        Some(seconds @ 120..7_200) => format!("{} min", seconds / 60),
        Some(seconds @ 7_200..172_800) => format!("{} h", seconds / 3_600),
        Some(seconds) => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_short_and_nothing_steers_the_terminal() {
        assert_eq!(bytes(&json!(1023)), "1023 B");
        assert_eq!(bytes(&json!(10_737_418_240_u64)), "10.0 GiB");
        assert_eq!((seconds(&json!(119)), seconds(&json!(7_199))), ("119 s".into(), "119 min".into()));
        assert_eq!((seconds(&json!(7_200)), seconds(&json!(172_800))), ("2 h".into(), "2 d".into()));
        assert_eq!(text(&json!("a\u{1b}[2Jb\u{9b}c\n\u{202e}d")), "a[2Jbcd");
        assert_eq!(text(&Value::Null), "-");
    }

    #[test]
    fn a_list_is_one_line_for_each_and_says_when_it_is_not_whole() {
        let keys = json!([{ "keyId": "k", "holder": "provider", "providerId": "lab" }]);
        let table = KEYS.table(&keys, &json!(3));
        assert_eq!(
            table,
            "KEY  FOR       NAME  ROLE  CREATED  REVOKED\nk    provider  lab   -     -        -\n1 of 3\n"
        );
    }
}
