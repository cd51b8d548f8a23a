//! The body of the page of methods.

use maud::{Markup, html};

use super::page::{document, figure, table};
use super::{Report, Sample, curves_table, methods_table};
use crate::plot::Figure;

/// The whole document.
pub(super) fn page(
    report: &Report,
    rate_distortion: Option<&Figure>,
    training: &[Option<Figure>],
) -> String {
    let body = html! {
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
    };
    document(&report.title, &body)
}

fn generated(sample: &Sample) -> Markup {
    html! { pre { b { (sample.prompt) } (sample.text) } }
}

fn settings(settings: &[(String, String)]) -> Markup {
    html! {
        dl { @for (name, value) in settings { div { dt { (name) } dd { (value) } } } }
    }
}
