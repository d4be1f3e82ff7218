//! Embeds the presets: every `config/providers/NAME.yaml` as a pair of its name and its text.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=config/providers");
    let mut names: Vec<String> = fs::read_dir("config/providers")
        .map(|entries| entries.flatten().filter_map(|entry| preset_name(&entry.path())).collect())
        .unwrap_or_default();
    names.sort();
    let mut code = String::from("&[\n");
    for name in names {
        let path = format!("/config/providers/{name}.yaml");
        writeln!(code, "    ({name:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))),")
            .expect("writing to a String does not fail");
    }
    code.push_str("]\n");
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("presets.rs"), code).expect("OUT_DIR can be written");
}

fn preset_name(path: &Path) -> Option<String> {
    let is_yaml = path.extension().is_some_and(|extension| extension == "yaml");
    path.file_stem().filter(|_| is_yaml)?.to_str().map(str::to_owned)
}
