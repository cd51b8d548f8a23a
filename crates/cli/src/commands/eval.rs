//! `backslash eval`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use backslash_eval::{ModelFile, Quality, table};
use serde_json::json;

use super::train::describe;
use crate::arguments::Eval;
use crate::console::say;
use crate::failure::Usage;
use crate::output;
use crate::scored::Scored;

pub fn run(arguments: Eval) -> Result<()> {
    let (file, folder) = parts(&arguments.model)?;
    let decoded = ModelFile::open(&file)?;
    let scored = Scored::open(&decoded, &arguments.data.config(), arguments.tokens)?;
    say(&format!("scoring {}", scored.describe()));
    let measure = |model: &ModelFile| -> Result<Quality> {
        Ok(scored.test().quality(&model.config, &model.weights)?)
    };
    let quality = measure(&decoded)?;
    let float = folder.map(|folder| measure(&ModelFile::open(&folder)?)).transpose()?;
    let bytes = std::fs::metadata(&file)?.len();
    if arguments.json {
        return output::print_json(&json!({
            "file": file,
            "file_bytes": bytes,
            "decoded": output::quality_json(&quality),
            "float": float.as_ref().map(output::quality_json),
        }));
    }
    output::print(&format!(
        "{}: {} bytes\ndecoded  {}\n{}",
        file.display(),
        table::grouped(bytes),
        describe(&quality),
        float.map_or_else(
            || "float    no model.safetensors beside the file".to_owned(),
            |float| format!("float    {}", describe(&float)),
        ),
    ))
}

/// The file to decode, and the folder of the float model if there is one.
fn parts(path: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    let has_float = |folder: &Path| folder.join("model.safetensors").exists();
    if path.is_dir() {
        let file = path.join("model.bsl");
        if !file.exists() {
            bail!(Usage(format!(
                "{} has no model.bsl: make one with `backslash compress {} -o {}`",
                path.display(),
                path.display(),
                file.display()
            )));
        }
        return Ok((file, has_float(path).then(|| path.to_owned())));
    }
    // The parent of a bare name is the empty path, which no folder has.
    let parent = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new(".")).to_owned();
    Ok((path.to_owned(), has_float(&folder).then_some(folder)))
}
