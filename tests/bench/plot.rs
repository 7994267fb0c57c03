//! A curve each, as SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Draws lines over a logarithmic axis.
pub(crate) fn lines(file: &Path, title: &str, x: &str, y: &str, lines: &[(String, Vec<(f64, f64)>)]) -> Result<()> {
    draw(file, title, x, y, lines).map_err(|error| anyhow!("{}: {error}", file.display()))
}

fn draw(
    file: &Path,
    title: &str,
    x: &str,
    y: &str,
    lines: &[(String, Vec<(f64, f64)>)],
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let least = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let most = points().map(|point| point.0).fold(1.0, f64::max);
    let high = points().map(|point| point.1).fold(0.0, f64::max);
    let root = SVGBackend::new(file, (720, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((least * 0.8..most * 1.25).log_scale(), 0.0..high * 1.15)?;
    chart.configure_mesh().x_desc(x).y_desc(y).draw()?;
    for (index, (name, points)) in lines.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let series = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3);
        chart
            .draw_series(series)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}
