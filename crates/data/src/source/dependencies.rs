//! The text that is there without any data: the sources of the project's own pinned dependencies.
//!
//! Whoever builds this project has downloaded them, `Cargo.lock` pins every byte, and program text with its
//! documentation is varied enough to train a small model on. It is found, not shipped: nothing of it is in the
//! repository or in a published file.

use std::collections::HashSet;
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

use super::{Corpus, Document, files, split};
use crate::{Error, Result};

/// Bytes of text in all: about three million tokens of a vocabulary of 1,024, and read, encoded and
/// trained on by a small model within minutes.
const MAX_BYTES: usize = 8_000_000;

/// Bytes of one package: 8 MB shared by the six hundred packages that a build needs, so that the text
/// comes from many hands and no package dominates.
const MAX_PACKAGE_BYTES: usize = 16_000;

/// Folders whose files are mostly data or repetition.
const SKIPPED_FOLDERS: [&str; 3] = ["benches", "target", "tests"];

/// Beginnings of the names of files that list or repeat.
const SKIPPED_FILES: [&str; 5] = ["CHANGELOG", "CHANGES", "CODE_OF_CONDUCT", "LICENSE", "RELEASE"];

impl Corpus {
    /// The source and documentation text (`.rs`, `.md`) of the packages that this project needs on this machine.
    ///
    /// Packages come in the order of `Cargo.lock`, by name and version, and files in the order of their
    /// paths, without tests, benches, change logs, licences and generated files. Of each package the
    /// files that fit 16 kB are taken, and 8 MB in all. About 5 % of the bytes are held out, by whole
    /// files; repeated contents are dropped.
    ///
    /// The same `Cargo.lock` gives the same text on every machine of one platform. A new dependency
    /// changes it, so figures on it compare between runs of one commit only.
    ///
    /// # Errors
    ///
    /// Where cargo or the workspace is not at hand: the binary was moved to a machine that did not build it. The
    /// message says to name data instead.
    pub fn dependencies() -> Result<Self> {
        let built_at = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        of_workspace(built_at.exists().then_some(built_at.as_path()))
    }
}

/// The text of the dependencies of the workspace at `manifest`, or of the current folder's.
fn of_workspace(manifest: Option<&Path>) -> Result<Corpus> {
    let metadata = metadata(manifest)?;
    let mut documents = Vec::new();
    let mut bytes = 0;
    for package in packages(&metadata) {
        for document in package_text(package)? {
            if bytes + document.text.len() <= MAX_BYTES {
                bytes += document.text.len();
                documents.push(document);
            }
        }
    }
    split::split_documents(documents).not_empty().map_err(|_| Error::Dependencies {
        reason: "no package with sources on disk was found".into(),
    })
}

fn metadata(manifest: Option<&Path>) -> Result<Metadata> {
    let run = |network: &[&str]| {
        let mut command = MetadataCommand::new();
        if let Some(manifest) = manifest {
            command.manifest_path(manifest);
        }
        let options = ["--locked", "--filter-platform", "host-tuple"].iter().chain(network);
        command.other_options(options.map(|option| option.to_string()).collect::<Vec<_>>());
        command.exec()
    };
    // Packages that only tests need may not be on disk yet; then cargo has to fetch them to know the graph.
    run(&["--offline"])
        .or_else(|_| run(&[]))
        .map_err(|error| Error::Dependencies { reason: error.to_string().trim().to_owned() })
}

/// The foreign packages that building the workspace's programs needs, by name and version.
fn packages(metadata: &Metadata) -> Vec<&Package> {
    let nodes = metadata.resolve.as_ref().map_or(&[][..], |resolve| &resolve.nodes);
    let mut needed: HashSet<&PackageId> = metadata.workspace_members.iter().collect();
    let mut open: Vec<&PackageId> = metadata.workspace_members.iter().collect();
    while let Some(id) = open.pop() {
        let dependencies = nodes.iter().filter(|node| node.id == *id).flat_map(|node| &node.deps);
        for dependency in dependencies {
            let built =
                dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
            if built && needed.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    let foreign = |package: &&Package| needed.contains(&package.id) && package.source.is_some();
    let mut packages: Vec<&Package> = metadata.packages.iter().filter(foreign).collect();
    packages.sort_by_key(|package| (&package.name, &package.version));
    packages
}

/// The text files of one package, up to [`MAX_PACKAGE_BYTES`].
fn package_text(package: &Package) -> Result<Vec<Document>> {
    let Some(root) =
        package.manifest_path.parent().map(|root| root.as_std_path()).filter(|root| root.is_dir())
    else {
        return Ok(Vec::new());
    };
    let mut documents = Vec::new();
    let mut bytes = 0;
    for path in files::files_below(root)? {
        let below = path.strip_prefix(root).expect("a path below its root");
        let size = path.metadata().map_err(Error::io(&path))?.len() as usize;
        if !is_wanted(below) || bytes + size > MAX_PACKAGE_BYTES {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        if text.is_empty() || text.lines().take(5).any(|line| line.contains("@generated")) {
            continue;
        }
        bytes += text.len();
        let name = format!(
            "{}-{}/{}",
            package.name,
            package.version,
            files::name_below(Path::new(""), below)
        );
        documents.push(Document { name, text });
    }
    Ok(documents)
}

/// Whether a file of a package, named by its path in it, is text to learn from.
fn is_wanted(path: &Path) -> bool {
    let text = files::has_extension(path, "rs") || files::has_extension(path, "md");
    let name =
        path.file_name().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
    text && !SKIPPED_FILES.iter().any(|skipped| name.starts_with(skipped))
        && !path.iter().any(|part| SKIPPED_FOLDERS.iter().any(|skipped| part == *skipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_text_is_plenty_varied_and_without_overlap() {
        let corpus = Corpus::dependencies().unwrap();
        let (train, validation) = (corpus.train_bytes(), corpus.validation_bytes());
        assert!((2_000_000..=MAX_BYTES).contains(&(train + validation)), "{train} + {validation}");
        assert!((15..=20).contains(&(train / validation)), "{train} / {validation}");

        let texts: HashSet<&str> = corpus.train.iter().map(|document| &*document.text).collect();
        assert_eq!(texts.len(), corpus.train.len());
        assert!(corpus.validation.iter().all(|document| !texts.contains(&*document.text)));

        let package = |document: &Document| document.name.split_once('/').unwrap().0.to_owned();
        let mut packages: Vec<String> = corpus.train.iter().map(package).collect();
        packages.dedup();
        assert!(packages.len() > 50);
        assert_eq!(
            packages.iter().collect::<HashSet<_>>().len(),
            packages.len(),
            "in one run each"
        );
        assert!(packages.iter().any(|package| package.starts_with("serde-1.")));
        assert!(!packages.iter().any(|package| package.starts_with("backslash")));
        assert!(
            !packages.iter().any(|package| package.starts_with("proptest-")),
            "only tests need it"
        );
        assert_eq!(Corpus::dependencies().unwrap(), corpus);
    }

    #[test]
    fn without_a_workspace_the_error_says_what_to_do() {
        let message = of_workspace(Some(Path::new("/nowhere/Cargo.toml"))).unwrap_err().to_string();
        assert!(message.contains("pass --data"), "{message}");
    }

    #[test]
    fn lists_and_tests_are_not_wanted() {
        for wanted in ["README.md", "src/lib.rs", "docs/guide.md"] {
            assert!(is_wanted(Path::new(wanted)), "{wanted}");
        }
        for unwanted in
            ["CHANGELOG.md", "License-MIT.md", "tests/a.rs", "src/tests/a.rs", "Cargo.toml"]
        {
            assert!(!is_wanted(Path::new(unwanted)), "{unwanted}");
        }
    }
}
