//! What all pages share: the document around a body, figures and tables. Everything goes through `maud`, which escapes all
//! text; the drawings alone are inserted as they are, and their text was escaped when they were drawn.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::plot::Figure;
use crate::table::{Align, Table};

const STYLE: &str = concat!(include_str!("../plot/palette.css"), include_str!("style.css"));

/// Sorts a table by the column whose heading is clicked. The page is whole without it.
const SCRIPT: &str = include_str!("sort.js");

/// No network, no embedded files; only the style sheet of the page itself, and the one script whose SHA-256 this is.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-oJJzBq2mSH2n+/1OFcIGJlHN014irSVql0hSgN34maI='";

/// The whole document around a body.
pub(super) fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(CONTENT_POLICY);
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main { h1 { (title) } (body) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string().chars().map(without_control).collect()
}

/// A document must not hold most control characters, and a model may well write them.
fn without_control(character: char) -> char {
    match character {
        '\n' | '\r' | '\t' => character,
        character if character.is_control() => char::REPLACEMENT_CHARACTER,
        character => character,
    }
}

pub(super) fn figure(figure: &Figure) -> Markup {
    html! {
        figure {
            @if !figure.legend.is_empty() {
                figcaption {
                    ul class="legend" {
                        @for entry in &figure.legend { li { (PreEscaped(&entry.swatch_svg)) (entry.label) } }
                    }
                }
            }
            (PreEscaped(&figure.wide_svg))
            (PreEscaped(&figure.narrow_svg))
            @for note in &figure.notes { p class="note" { (note) } }
        }
    }
}

/// A table without the columns that have a dash in every row.
pub(super) fn table<const N: usize>(table: &Table<N>) -> Markup {
    let rows = table.rows();
    let has_figures = |index: &usize| rows.is_empty() || rows.iter().any(|row| row[*index] != "–");
    let shown: Vec<usize> = (0..N).filter(has_figures).collect();
    let class = |index: usize| match table.columns()[index].align {
        Align::Left => "text",
        Align::Right => "number",
    };
    html! {
        div class="scroll" tabindex="0" {
            table class="sortable" {
                thead {
                    tr {
                        @for &index in &shown {
                            th scope="col" class=(class(index)) { (table.columns()[index].title) }
                        }
                    }
                }
                tbody {
                    @for row in rows {
                        tr { @for &index in &shown { td class=(class(index)) { (row[index]) } } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::table::Column;

    #[test]
    fn columns_without_a_figure_are_left_out() {
        let columns = ["curve", "minutes", "bytes"].map(Column::number);
        let mut some = Table::new(columns);
        let empty = table(&some).into_string();
        assert!(["curve", "minutes", "bytes"].iter().all(|title| empty.contains(title)), "{empty}");
        some.push(["one", "–", "12"].map(str::to_owned));
        some.push(["other", "–", "–"].map(str::to_owned));
        let page = table(&some).into_string();
        assert!(
            page.contains("curve") && page.contains("bytes") && !page.contains("minutes"),
            "{page}"
        );
        assert_eq!(page.matches("<td").count(), 4);
    }

    /// A browser runs no script with another hash.
    #[test]
    fn the_policy_allows_the_script_and_no_other() {
        let hash = STANDARD.encode(Sha256::digest(SCRIPT.as_bytes()));
        assert!(CONTENT_POLICY.ends_with(&format!("script-src 'sha256-{hash}'")), "{hash}");
        let page = document("a", &html! {});
        assert_eq!(page.matches("<script>").count(), 1);
        assert!(page.contains(&format!("<script>{SCRIPT}</script>")));
    }
}
