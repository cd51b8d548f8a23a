use super::*;
use crate::plot::{TraceEvaluation, TraceStep};
use crate::prune::PruneCurve;

fn file(
    settings: &[&str],
    seed: u64,
    target: Option<f64>,
    bytes: u64,
    bits_per_byte: f64,
) -> ResultFile {
    ResultFile {
        run: format!("seed{seed}"),
        seed,
        settings: settings.iter().map(ToString::to_string).collect(),
        steps: 900,
        export: if target.is_some() { "rtn" } else { "own" }.to_owned(),
        target,
        bytes,
        parameters: 1_000_000,
        nats: 1.7 * bits_per_byte,
        quality: Reached::BitsPerByte(bits_per_byte),
        float_nats: 3.5,
        float_accuracy: None,
        shape: Some(1.5),
        seconds: None,
    }
}

fn run(name: &str) -> RunRecord {
    let weights: Vec<f32> = (0..4000).map(|i| (i % 41 + i % 37 - 38) as f32 * 0.01).collect();
    let step = |step: u64| TraceStep { step, loss_nats: 3.0, estimated_bits_per_weight: Some(2.0) };
    let evaluation = TraceEvaluation {
        step: 9,
        quality: Some(Reached::BitsPerByte(2.25)),
        shape: Some(1.25),
        coded_bits_per_weight: Some(2.1),
    };
    RunRecord {
        name: name.to_owned(),
        parameters: 1_000_000,
        steps: 900,
        seconds: Some(90.0),
        test: Test::Text { bytes_per_token: 1.7 / std::f64::consts::LN_2 },
        trace: TrainingTrace {
            name: name.to_owned(),
            steps: (0..9).map(step).collect(),
            evaluations: vec![evaluation],
        },
        split: SizeSplit { payload: 200_000, tables: 1_234, ..SizeSplit::default() },
        tensors: vec![TensorBudget {
            name: name.to_owned(),
            shape: vec![100, 40],
            coder: "mix".to_owned(),
            bytes: 1_000,
            bits_per_weight: 2.0,
            entropy_bits: None,
        }],
        all_matrices: WeightHistogram::of("all matrices", &weights),
        matrices: WeightHistogram::of(name, &weights).into_iter().collect(),
    }
}

fn report() -> RunsReport {
    let muon = "optimizer.method=\"muon\"";
    let mut files = Vec::new();
    for seed in [1, 2, 3] {
        let worse = 0.01 * seed as f64;
        for (lambda, bytes, bits) in [("0.1", 300_000, 2.2), ("0.3", 200_000, 2.3)] {
            let settings = [muon, "rate.method=\"bits\"", &format!("rate.lambda={lambda}")];
            files.push(file(&settings, seed, None, bytes + seed, bits + worse));
        }
        files.push(file(&[muon], seed, Some(2.0), 250_000 + seed, 2.4 + worse));
    }
    RunsReport {
        title: "Runs".to_owned(),
        files,
        runs: vec![run("seed1"), run("other")],
        pruned: Vec::new(),
    }
}

#[test]
fn files_of_one_export_are_a_curve_along_the_price_with_a_band_over_seeds() {
    let report = report();
    let groups = groups::groups(&report);
    assert_eq!(groups.len(), 1);
    let names: Vec<&str> = groups[0].curves.iter().map(|curve| curve.name.as_str()).collect();
    assert_eq!(names, ["1 own: rate.method=bits", "2 rtn"]);
    let plotted = groups[0].plotted();
    let [small, large] = plotted[0].points[..] else { panic!("two prices") };
    assert_eq!((small.bytes, large.bytes), (200_002, 300_002));
    let (least, greatest) = small.interval.unwrap().bits_per_byte;
    // A deviation of 0.01 over three seeds, times 4.3027 / √3.
    for (found, expected) in [(small.bits_per_byte, 2.32), (least, 2.295158), (greatest, 2.344842)]
    {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    assert_eq!(groups[0].curves[1].places[0].setting, "2 bits");
}

#[test]
fn other_models_and_other_texts_have_charts_of_their_own() {
    let mut report = report();
    let larger = ResultFile { parameters: 2_000_000, ..report.files[0].clone() };
    let other_text = ResultFile { nats: 4.0, ..report.files[0].clone() };
    report.files.extend([larger, other_text]);
    let page = report.to_html().unwrap();
    for heading in [
        "<h2>1,000,000 weights, text of 2.4526 bytes per token</h2>",
        "<h2>2,000,000 weights, text of 2.4526 bytes per token</h2>",
        "<h2>1,000,000 weights, text of 2.6112 bytes per token</h2>",
    ] {
        assert_eq!(page.matches(heading).count(), 1, "{heading}");
    }
    assert!(page.contains("stand in parts of their own"));
    let names: Vec<String> = report.to_svgs().unwrap().into_iter().map(|svg| svg.0).collect();
    assert!(names.contains(&"3-size-and-quality".to_owned()), "{names:?}");
}

#[test]
fn a_result_that_was_given_twice_counts_once() {
    let mut report = report();
    let again = report.files.clone();
    report.files.extend(again);
    assert_eq!(groups::groups(&report)[0].curves[0].places[0].files.len(), 3);
}

#[test]
fn two_runs_of_one_seed_are_not_averaged() {
    let mut report = report();
    let other = ResultFile { run: "another".to_owned(), bytes: 9, ..report.files[0].clone() };
    report.files.push(other);
    let groups = groups::groups(&report);
    let files = |curve: usize| groups[0].curves[curve].places.iter().map(|place| place.files.len());
    assert_eq!(groups[0].curves.len(), 3);
    assert_eq!(files(0).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(files(2).collect::<Vec<_>>(), [1]);
    assert_eq!(groups[0].curves[2].places[0].files[0].bytes, 9);
}

#[test]
fn every_part_of_a_run_is_on_the_page() {
    let page = report().to_html().unwrap();
    for heading in [
        "Size and quality",
        "Runs",
        "Where the bytes go",
        "Training",
        "Bytes of each tensor",
        "Distribution of the float weights",
    ] {
        assert!(page.contains(&format!("<h3>{heading}</h3>")), "{heading}");
    }
    // The decoded figure of a run is that of its own file in the results.
    assert!(page.contains("<td class=\"number\">2.2100</td>"), "decoded");
    assert_eq!(page.matches("<td class=\"number\">201,234</td>").count(), 4);
    assert!(page.contains("<td class=\"number\">1.5</td>"), "minutes");
    assert!(page.contains("seed1, 100×40: 1,000 bytes"));
    assert_eq!(page.matches("<svg class=\"chart wide\"").count(), 4 + 2 * 2);
    assert!(!page.contains("NaN"));
}

/// Seeds of a classifier at one setting.
fn classified(settings: &[&str], bytes: u64, accuracies: &[f64]) -> Vec<ResultFile> {
    let of = |(seed, accuracy): (u64, &f64)| ResultFile {
        quality: Reached::Accuracy(*accuracy),
        float_accuracy: Some(0.5),
        nats: 0.4,
        ..file(settings, seed, None, bytes, 1.0)
    };
    (1..).zip(accuracies).map(of).collect()
}

#[test]
fn classifiers_have_a_chart_of_their_own() {
    let mut report = report();
    report.files.extend(classified(&["rate.lambda=0.1"], 250_000, &[0.79, 0.80, 0.81]));
    report.files.extend(classified(&["rate.lambda=0.3"], 125_000, &[0.75]));
    report.runs.push(RunRecord { test: Test::Examples, ..run("classifier") });
    let page = report.to_html().unwrap();
    assert_eq!(page.matches("<h2>1,000,000 weights, classifiers</h2>").count(), 1);
    // A mean of 80 % over three seeds, ± 1 % · 4.3027 / √3.
    for cell in ["80.00", "77.52 to 82.48", "75.00", "50.00"] {
        assert!(page.contains(&format!("<td class=\"number\">{cell}</td>")), "{cell}");
    }
    assert!(page.contains("% correct, decoded") && !page.contains("NaN"));
    assert!(page.contains("own: 2.000 bits per weight, 80.00 % correct"), "its mark");
    let csv = report.to_csv();
    let of = |name: &str| &csv.iter().find(|numbers| numbers.name == name).unwrap().text;
    assert_eq!((of("files").lines().count(), of("curves").lines().count()), (14, 4));
    let last = of("accuracies").lines().last().unwrap();
    assert!(last.contains(",3,250000,2,2,2,0.8"), "{last}");
    let names: Vec<String> = report.to_svgs().unwrap().into_iter().map(|svg| svg.0).collect();
    assert!(names.contains(&"2-size-and-quality".to_owned()), "{names:?}");
}

#[test]
fn pruned_models_have_a_part_of_their_own() {
    let curve = |last| PruneCurve::of_figures("a", &[(0.0, 2.0), (0.5, 2.1), (0.9, last)]);
    let kinds = vec![
        PruneCurves { name: "plain".into(), curves: vec![curve(3.0), curve(3.1), curve(3.2)] },
        PruneCurves { name: "rate".into(), curves: vec![curve(2.15)] },
    ];
    let note = "Matrices of layers.".to_owned();
    let pruned = vec![PrunedModels { note, kinds }];
    let report = RunsReport { title: "Pruned".into(), pruned, ..RunsReport::default() };
    let page = report.to_html().unwrap();
    assert_eq!(page.matches("<h2>Pruning</h2>").count(), 1);
    for text in ["plain: loses 10 % at", "rate: loses less than 10 %", "Matrices of layers."] {
        assert!(page.contains(text), "{text}");
    }
    // 3.1 ± 0.1 · 4.3027 / √3.
    assert!(page.contains("<td class=\"number\">2.8516 to 3.3484</td>"), "its interval");
    let csv = report.to_csv();
    assert_eq!(csv.iter().map(|numbers| numbers.name).collect::<Vec<_>>(), ["pruned"]);
    assert_eq!(csv[0].text.lines().count(), 1 + 4 * 3);
    assert!(csv[0].text.ends_with("rate,a,0.9,0.9,1000,2,2.15,\n"), "{}", csv[0].text);
    assert_eq!(report.to_svgs().unwrap()[0].0, "pruning");
}

#[test]
fn a_page_that_grows_too_large_draws_fewer_runs_and_in_the_end_is_refused() {
    let mut report = report();
    let detailed = |name: &str| {
        let mut run = run(name);
        run.tensors[0].name = "block.".repeat(100);
        run.tensors = vec![run.tensors[0].clone(); 100];
        run
    };
    report.runs = ["a", "b", "c", "d", "e", "f", "g", "h"].map(detailed).to_vec();
    let page = report.to_html().unwrap();
    assert!(page.len() <= html::MOST_BYTES, "{}", page.len());
    let says = |drawn: u32| {
        page.contains(&format!("Tensors and weights of the first {drawn} of 8 runs are shown."))
    };
    assert!(says(4) || says(2) || says(1), "some runs are drawn, not all");

    let setting = |at: usize| vec![format!("rate.lambda=0.{at:03000}")];
    let large = |at: usize| ResultFile { settings: setting(at), ..report.files[0].clone() };
    report.files = (0..1000).map(large).collect();
    let error = report.to_html().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("of at most 3000000"), "{error}");
}

#[test]
fn names_of_files_and_runs_are_escaped() {
    let hostile = "</table><script>alert(1)</script>\"";
    let mut report = report();
    report.title = hostile.to_owned();
    report.runs.push(run(hostile));
    report.files.push(file(&[hostile], 9, None, 1000, 3.0));
    let page = report.to_html().unwrap();
    assert_eq!(page.matches("<script>").count(), 1, "that of the page");
    for (name, svg) in report.to_svgs().unwrap() {
        assert!(!svg.contains("<script>") && !name.contains(['/', '<']), "{name}");
    }
}

#[test]
fn numbers_have_a_line_for_every_row_and_cells_that_are_quoted() {
    let mut report = report();
    report.runs.truncate(1);
    let all = report.to_csv();
    let of = |name: &str| &all.iter().find(|numbers| numbers.name == name).unwrap().text;
    let lines = |name: &str| of(name).lines().count() - 1;
    assert_eq!((lines("files"), lines("curves"), lines("runs")), (9, 3, 1));
    assert_eq!((lines("densities"), lines("histograms"), lines("training")), (6, 122, 9));
    let curves = of("curves");
    assert!(curves.starts_with("group,curve,setting,files,mean_bytes,"), "{curves}");
    assert!(curves.contains("\"1,000,000 weights, text of"), "{curves}");
    assert!(of("files").contains("\"optimizer.method=\"\"muon\"\"\""));
    let alone = RunsReport { runs: Vec::new(), ..report };
    let names: Vec<&str> = alone.to_csv().iter().map(|numbers| numbers.name).collect();
    assert_eq!(names, ["files", "curves"]);
}

#[test]
fn nothing_is_a_heading() {
    let page = RunsReport { title: "empty".into(), ..RunsReport::default() }.to_html().unwrap();
    assert!(page.contains("<h1>empty</h1>") && !page.contains("<svg"));
}
