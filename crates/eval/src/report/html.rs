//! The page's markup. Everything goes through `maud`, which escapes all text; the drawings alone
//! are inserted as they are, and their text was escaped when they were drawn.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Report, Sample, curves_table, methods_table};
use crate::plot::Figure;
use crate::table::{Align, Table};

const STYLE: &str = concat!(include_str!("../plot/palette.css"), include_str!("style.css"));

/// No scripts, no network, no embedded files; only the style sheet of the page itself.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The whole document.
pub(super) fn page(
    report: &Report,
    rate_distortion: Option<&Figure>,
    training: &[Option<Figure>],
) -> String {
    let page = document(report, rate_distortion, training).into_string();
    page.chars().map(without_control).collect()
}

/// A document must not hold most control characters, and a model may well write them.
fn without_control(character: char) -> char {
    match character {
        '\n' | '\r' | '\t' => character,
        character if character.is_control() => char::REPLACEMENT_CHARACTER,
        character => character,
    }
}

fn document(
    report: &Report,
    rate_distortion: Option<&Figure>,
    training: &[Option<Figure>],
) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(CONTENT_POLICY);
                title { (report.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { (report.title) }
                    @if !report.summary.is_empty() { p class="summary" { (report.summary) } }
                    @if !report.rows.is_empty() {
                        section { h2 { "Methods" } (table(&methods_table(&report.rows))) }
                    }
                    @if let Some(chart) = rate_distortion {
                        section {
                            h2 { "Size and quality" }
                            (figure(chart))
                            details { summary { "Figures of this chart" } (table(&curves_table(&report.curves))) }
                        }
                    }
                    @if training.iter().any(Option::is_some) {
                        section { h2 { "Training" } @for chart in training.iter().flatten() { (figure(chart)) } }
                    }
                    @if !report.samples.is_empty() {
                        section { h2 { "Generated text" } @for sample in &report.samples { (generated(sample)) } }
                    }
                    @if !report.settings.is_empty() {
                        section { h2 { "Settings" } (settings(&report.settings)) }
                    }
                }
            }
        }
    }
}

fn figure(figure: &Figure) -> Markup {
    html! {
        figure {
            figcaption {
                ul class="legend" {
                    @for entry in &figure.legend { li { (PreEscaped(&entry.swatch_svg)) (entry.label) } }
                }
            }
            (PreEscaped(&figure.wide_svg))
            (PreEscaped(&figure.narrow_svg))
            @for note in &figure.notes { p class="note" { (note) } }
        }
    }
}

fn table<const N: usize>(table: &Table<N>) -> Markup {
    let class = table.columns().each_ref().map(|column| match column.align {
        Align::Left => "text",
        Align::Right => "number",
    });
    html! {
        div class="scroll" tabindex="0" {
            table {
                thead {
                    tr {
                        @for (column, class) in table.columns().iter().zip(class) {
                            th scope="col" class=(class) { (column.title) }
                        }
                    }
                }
                tbody {
                    @for row in table.rows() {
                        tr { @for (cell, class) in row.iter().zip(class) { td class=(class) { (cell) } } }
                    }
                }
            }
        }
    }
}

fn generated(sample: &Sample) -> Markup {
    html! { pre { b { (sample.prompt) } (sample.text) } }
}

fn settings(settings: &[(String, String)]) -> Markup {
    html! {
        dl { @for (name, value) in settings { div { dt { (name) } dd { (value) } } } }
    }
}
