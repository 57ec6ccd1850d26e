//! Bars of a scenario's main number, as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::measure::{Metric, Samples};
use crate::report::plain;

const WIDTH: u32 = 640;
const ROW: u32 = 34;
const HEAD: u32 = 40;
/// Names stand left of this, bars right of it.
const NAMES: i32 = 190;
const LONGEST_BAR: f64 = 340.0;

/// Draws one bar for each peer; the line at its end spans the middle half of the rounds.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn bars(path: &Path, title: &str, metric: Metric, measured: &[Samples]) -> Result<()> {
    let rows: Vec<(&str, f64, (f64, f64))> = measured
        .iter()
        .filter_map(|samples| Some((samples.of.as_str(), samples.median(metric)?, samples.spread(metric)?)))
        .collect();
    let largest = rows.iter().map(|(_, median, (_, high))| median.max(*high)).fold(f64::MIN_POSITIVE, f64::max);
    let place = |value: f64| NAMES + (value.max(0.0) / largest * LONGEST_BAR) as i32;
    let height = HEAD + ROW * u32::try_from(rows.len())? + 10;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    let text = |size: i32, side: HPos| ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(side, VPos::Center));
    let drawing = || -> Result<(), DrawingAreaErrorKind<_>> {
        area.fill(&WHITE)?;
        area.draw(&Text::new(format!("{title}: {}", metric.name()), (10, 20), text(16, HPos::Left)))?;
        for ((name, median, (low, high)), top) in rows.iter().zip((HEAD as i32..).step_by(ROW as usize)) {
            let middle = top + ROW as i32 / 2;
            let colour = if *name == "RUNIT" { RGBColor(0x1b, 0x6c, 0xa8) } else { RGBColor(0xa8, 0xb4, 0xc0) };
            area.draw(&Text::new((*name).to_owned(), (NAMES - 8, middle), text(13, HPos::Right)))?;
            area.draw(&Rectangle::new([(NAMES, top + 6), (place(*median), top + ROW as i32 - 6)], colour.filled()))?;
            area.draw(&PathElement::new([(place(*low), middle), (place(*high), middle)], BLACK))?;
            let end = place(median.max(*high)) + 8;
            area.draw(&Text::new(plain(*median), (end, middle), text(13, HPos::Left)))?;
        }
        area.present()
    };
    drawing().map_err(|error| anyhow!("{}: {error}", path.display()))
}
