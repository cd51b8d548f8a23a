use super::*;
use crate::plot::{Point, TraceStep};

/// The example of `examples/report.rs` in small, with `name` wherever a user's text can stand.
fn report(name: &str) -> Report {
    let point = |bytes: u64| Point {
        bytes,
        bits_per_weight: bytes as f64 / 125_000.0,
        bits_per_byte: 2.0 + 30_000.0 / bytes as f64,
        interval: None,
    };
    let step = |step: u64| TraceStep { step, loss_nats: 2.0, estimated_bits_per_weight: Some(3.0) };
    Report {
        title: name.to_owned(),
        summary: name.to_owned(),
        settings: vec![(name.to_owned(), name.to_owned())],
        rows: vec![MethodRow {
            method: name.to_owned(),
            file_bytes: 300_000,
            bits_per_weight: 2.4,
            bits_per_byte_float: 2.05,
            bits_per_byte_decoded: 2.1,
        }],
        curves: vec![Curve {
            name: name.to_owned(),
            points: [200_000, 300_000, 500_000].map(point).to_vec(),
        }],
        float_bits_per_byte: vec![FloatReference { name: name.to_owned(), bits_per_byte: 2.05 }],
        traces: vec![TrainingTrace {
            name: name.to_owned(),
            steps: (0..9).map(step).collect(),
            ..TrainingTrace::default()
        }],
        samples: vec![Sample { prompt: name.to_owned(), text: name.to_owned() }],
    }
}

#[test]
fn every_part_is_on_the_page() {
    let page = report("plain").to_html().unwrap();
    for heading in ["Methods", "Size and quality", "Training", "Generated text", "Settings"] {
        assert!(page.contains(&format!("<h2>{heading}</h2>")), "{heading}");
    }
    assert_eq!(page.matches("<svg class=\"chart wide\"").count(), 3);
    assert_eq!(page.matches("<svg class=\"chart narrow\"").count(), 3);
    assert_eq!(page.matches("role=\"img\" aria-label=\"Line chart").count(), 6);
    assert!(page.contains("<td class=\"number\">2.1000</td>"));
    assert!(page.len() < 100_000, "{} bytes", page.len());
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = report("plain").to_html().unwrap();
    let without_namespace = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for outside in ["http:", "https:", "src=", "href=", "url(", "@import", "import(", "fetch("] {
        assert!(!without_namespace.contains(outside), "{outside}");
    }
}

#[test]
fn text_of_users_and_models_is_escaped_everywhere() {
    let hostile = "<script>alert(1)</script>&\"'</pre></style>\u{0}\u{1b}";
    let page = report(hostile).to_html().unwrap();
    assert_eq!(page.matches("<script>").count(), 1, "that of the page");
    assert!(!page.contains("alert(1)<") && !page.contains("&\"'"));
    assert_eq!(page.matches("</style>").count(), 1);
    assert_eq!(page.matches("</pre>").count(), 1);
    assert!(!page.contains(['\u{0}', '\u{1b}']));
    let (opened, closed) = (page.matches("<svg").count(), page.matches("</svg>").count());
    assert_eq!(opened, closed);
    assert!(page.matches("&lt;script&gt;").count() > 10);
}

#[test]
fn every_colour_in_a_drawing_is_one_the_page_defines() {
    let mut report = report("plain");
    report.curves = (0..8)
        .map(|index| Curve { name: format!("{index}"), ..report.curves[0].clone() })
        .collect();
    let page = report.to_html().unwrap();
    let body = page.split_once("</style>").unwrap().1;
    assert!(!body.contains("\"#"), "a fixed colour is left");
    for used in body.split("var(").skip(1) {
        let name = used.split_once(')').unwrap().0;
        assert!(page.contains(&format!("{name}: #")), "{name} is not defined");
    }
}

#[test]
fn an_empty_report_is_a_heading() {
    let page = Report { title: "empty".into(), ..Report::default() }.to_html().unwrap();
    assert!(page.contains("<h1>empty</h1>"));
    assert!(!page.contains("<h2>") && !page.contains("<svg"));
}

#[test]
fn figures_that_are_not_finite_are_shown_as_such() {
    let mut report = report("plain");
    report.rows[0].bits_per_byte_decoded = f64::NAN;
    report.rows[0].bits_per_byte_float = f64::INFINITY;
    for point in &mut report.curves[0].points {
        point.bits_per_byte = f64::NAN;
    }
    let page = report.to_html().unwrap();
    assert!(
        page.contains("<td class=\"number\">n/a</td>")
            && page.contains("<td class=\"number\">∞</td>")
    );
    assert!(!page.contains("Size and quality") && !page.contains("NaN"));
}

#[test]
fn the_terminal_shows_the_same_figures() {
    let text = methods_table(&report("plain").rows).to_string();
    assert_eq!(
        text,
        "\
method  file bytes  bits per weight  bits per byte, float  bits per byte, decoded
------  ----------  ---------------  --------------------  ----------------------
plain      300,000            2.400                2.0500                  2.1000
"
    );
}

#[test]
fn a_report_can_be_written_as_json() {
    let json = serde_json::to_value(report("plain")).unwrap();
    assert_eq!(json["curves"][0]["points"][1]["bytes"], 300_000);
    assert_eq!(json["rows"][0]["bits_per_byte_decoded"], 2.1);
}
