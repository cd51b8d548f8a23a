//! Which files and runs belong in one chart, and which files are one curve.

use super::{ResultFile, RunRecord, RunsReport, Test};
use crate::plot::{AccuracyPoint, Curve, Point};
use crate::prune::Reached;
use crate::table::{fixed, grouped};

/// Settings that move along a curve: the price of bits, and the size that sets it.
const KNOBS: [&str; 2] = ["rate.lambda", "rate.budget"];
/// Greatest relative difference between two numbers of bytes per token that are the same but for rounding.
const SAME_TEXT: f64 = 1e-9;

/// What figures must have in common to be compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    parameters: u64,
    test: Test,
}

impl PartialEq for Setup {
    fn eq(&self, other: &Self) -> bool {
        let same_test = match (self.test, other.test) {
            (Test::Text { bytes_per_token: one }, Test::Text { bytes_per_token: other }) => {
                (one / other - 1.0).abs() < SAME_TEXT
            }
            (one, other) => one == other,
        };
        self.parameters == other.parameters && same_test
    }
}

impl Setup {
    /// In a few words, for a heading.
    pub(super) fn describe(&self) -> String {
        let test = match self.test {
            Test::Nothing => "nothing evaluated".to_owned(),
            Test::Text { bytes_per_token } => {
                format!("text of {} bytes per token", fixed(bytes_per_token, 4))
            }
            Test::Examples => "classifiers".to_owned(),
        };
        format!("{} weights, {test}", grouped(self.parameters))
    }

    /// Whether the models find classes.
    pub(super) fn is_of_classifiers(&self) -> bool {
        self.test == Test::Examples
    }
}

/// Files and runs that can be compared.
pub(super) struct Group<'a> {
    pub setup: Setup,
    pub curves: Vec<Settings<'a>>,
    pub runs: Vec<&'a RunRecord>,
    files: Vec<&'a ResultFile>,
}

/// The files of one curve.
pub(super) struct Settings<'a> {
    /// Name for the chart, with the settings that other curves do not have.
    pub name: String,
    /// Name for the table: the number of the curve and how its files were made.
    pub short_name: String,
    /// By size.
    pub places: Vec<Place<'a>>,
}

/// The files of one place on a curve, one per seed.
pub(super) struct Place<'a> {
    /// Where on the curve they are.
    pub setting: String,
    pub files: Vec<&'a ResultFile>,
}

impl Place<'_> {
    /// The mean of its files; of classifiers without a quality that it shows.
    pub(super) fn point(&self) -> Point {
        let point = |file: &&ResultFile| Point {
            bytes: file.bytes,
            bits_per_weight: file.bits_per_weight(),
            bits_per_byte: match file.quality {
                Reached::BitsPerByte(bits) => bits,
                Reached::Accuracy(_) => f64::NAN,
            },
            interval: None,
        };
        let points: Vec<Point> = self.files.iter().map(point).collect();
        Point::mean(&points).expect("a place has a file")
    }

    /// The mean of its files by accuracy.
    pub(super) fn accuracy(&self) -> AccuracyPoint {
        let files = self.files.iter().map(|file| (file.bits_per_weight(), file.quality.figure()));
        AccuracyPoint::mean(&files.collect::<Vec<_>>()).expect("a place has a file")
    }

    /// The mean of a figure over the files; `None` where one of them has none.
    pub(super) fn mean(&self, figure: impl Fn(&ResultFile) -> Option<f64>) -> Option<f64> {
        let figures: Option<Vec<f64>> = self.files.iter().map(|file| figure(file)).collect();
        Some(figures?.iter().sum::<f64>() / self.files.len() as f64)
    }
}

impl<'a> Group<'a> {
    /// The curves as the chart takes them.
    pub(super) fn plotted(&self) -> Vec<Curve> {
        let curve = |curve: &Settings<'_>| Curve {
            name: curve.name.clone(),
            points: curve.places.iter().map(Place::point).collect(),
        };
        self.curves.iter().map(curve).collect()
    }

    /// The curves of classifiers as their chart takes them.
    pub(super) fn plotted_accuracies(&self) -> Vec<(String, Vec<AccuracyPoint>)> {
        let curve = |curve: &Settings<'_>| {
            (curve.name.clone(), curve.places.iter().map(Place::accuracy).collect())
        };
        self.curves.iter().map(curve).collect()
    }

    /// Bits per byte or accuracy of a run's own file, where that was evaluated.
    pub(super) fn decoded(&self, run: &RunRecord) -> Option<f64> {
        let own = |file: &&&ResultFile| file.run == run.name && file.export == "own";
        self.files.iter().find(own).map(|file| file.quality.figure())
    }

    fn new(setup: Setup) -> Self {
        Self { setup, curves: Vec::new(), runs: Vec::new(), files: Vec::new() }
    }
}

/// All groups, in the order in which their first file or run was given.
pub(super) fn groups(report: &RunsReport) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for file in &report.files {
        let setup = Setup { parameters: file.parameters, test: file.test() };
        let group = of(&mut groups, setup);
        if !group.files.contains(&file) {
            group.files.push(file);
        }
    }
    for run in &report.runs {
        let setup = Setup { parameters: run.parameters, test: run.test };
        of(&mut groups, setup).runs.push(run);
    }
    for group in &mut groups {
        group.curves = curves(&group.files);
    }
    groups
}

fn of<'a, 'b>(groups: &'b mut Vec<Group<'a>>, setup: Setup) -> &'b mut Group<'a> {
    let position = groups.iter().position(|group| group.setup == setup);
    let position = position.unwrap_or_else(|| {
        groups.push(Group::new(setup));
        groups.len() - 1
    });
    &mut groups[position]
}

/// Files of one export and of the same settings, but for the knobs, are a curve; a file whose size was asked for has its place
/// by that size, so that its knobs are settings like others. Two runs of one seed are no seeds of one place, whatever they
/// differ in: the second is on a curve of its own.
fn curves<'a>(files: &[&'a ResultFile]) -> Vec<Settings<'a>> {
    let mut curves: Vec<(Vec<&str>, &str, Vec<Place<'a>>)> = Vec::new();
    for file in files {
        let is_knob = |setting: &&str| {
            let key = setting.split('=').next().unwrap_or(setting).trim();
            file.target.is_none() && KNOBS.contains(&key)
        };
        let settings = file.settings.iter().map(String::as_str);
        let (knobs, key): (Vec<&str>, Vec<&str>) = settings.partition(is_knob);
        let size = file.target.map(|bits| format!("{bits} bits"));
        let setting: Vec<String> = knobs.into_iter().map(str::to_owned).chain(size).collect();
        let setting = setting.join(", ");
        let is_taken = |places: &[Place<'_>]| {
            let mut others = places.iter().filter(|place| place.setting == setting);
            others.any(|place| {
                place.files.iter().any(|other| other.seed == file.seed && other.run != file.run)
            })
        };
        let curve = curves
            .iter()
            .position(|curve| curve.0 == key && curve.1 == file.export && !is_taken(&curve.2));
        let curve = curve.unwrap_or_else(|| {
            curves.push((key, &file.export, Vec::new()));
            curves.len() - 1
        });
        let places = &mut curves[curve].2;
        match places.iter_mut().find(|place| place.setting == setting) {
            Some(place) => place.files.push(file),
            None => places.push(Place { setting, files: vec![file] }),
        }
    }
    let all: Vec<Vec<&str>> = curves.iter().map(|curve| curve.0.clone()).collect();
    let is_common = |setting: &&str| all.iter().all(|settings| settings.contains(setting));
    let named = (1..).zip(curves).map(|(number, (key, export, mut places))| {
        places.sort_by_key(|place| place.point().bytes);
        if all.len() == 1 {
            return Settings { name: export.to_owned(), short_name: export.to_owned(), places };
        }
        let own: Vec<String> = key
            .into_iter()
            .filter(|setting| !is_common(setting))
            .map(|setting| setting.replace('"', ""))
            .collect();
        let short_name = format!("{number} {export}");
        let name = match own.is_empty() {
            true => short_name.clone(),
            false => format!("{short_name}: {}", own.join(", ")),
        };
        Settings { name, short_name, places }
    });
    named.collect()
}
