//! `journal.encryption_key`: what is a key, and what is said of what is none.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// Random bytes, as hexadecimal, as base64 and as they are.
const HEX: &str = "9f3c0a71d2e84b5566a0c1ef27b8943d10527fe6c38b9a04d5e1f2a3b4c5d6e7";
const OTHER: &str = "00112233445566778899aabbccddeeff102132435465768798a9bacbdcedfe0f";

fn bytes(hex: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()
}

/// What is made of `keys`, or said; files of each kind are there.
fn read(keys: &str, rest: &str) -> Result<(Config, Vec<Problem>), Problems> {
    let dir = tempfile::tempdir().unwrap();
    let files: [(&str, Vec<u8>, u32); 8] = [
        ("raw", bytes(HEX), 0o600),
        ("base64", format!("{}\n", data_encoding::BASE64.encode(&bytes(HEX))).into_bytes(), 0o640),
        ("hex", HEX.to_uppercase().into_bytes(), 0o600),
        ("other", OTHER.as_bytes().to_vec(), 0o600),
        ("open", OTHER.as_bytes().to_vec(), 0o604),
        ("short", bytes(HEX)[..31].to_vec(), 0o600),
        ("text", b"0123456789abcdef0123456789abcdef".to_vec(), 0o600),
        ("same", vec![0xA5; 32], 0o600),
    ];
    for (name, bytes, mode) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
        std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    let env = |name: &str| if name == "KEY" { Some(HEX.to_owned()) } else { env(name) };
    let text = format!("{WHOLE}journal:\n  encryption_key: {keys}\n{rest}");
    parse_str("forebay.yaml", &text, dir.path(), &env)
}

/// The only thing that is said.
fn problem(keys: &str, rest: &str) -> String {
    let problems = match read(keys, rest) {
        Ok((_, warnings)) => warnings,
        Err(Problems(problems)) => problems,
    };
    assert_eq!(problems.len(), 1, "{keys}: {problems:?}");
    let said = problems[0].to_string();
    assert!(!said.contains(HEX) && !said.contains(OTHER) && !said.contains("0123456789abcdef"), "{said}");
    said
}

#[test]
fn a_key_is_32_bytes_however_they_are_written() {
    let ids = |keys: &str| -> Vec<String> {
        let (config, warnings) = read(keys, "").unwrap_or_else(|problems| panic!("{keys}: {problems}"));
        assert!(warnings.is_empty(), "{keys}: {warnings:?}");
        config.journal.encryption.keys.iter().map(|key| key.id().to_string()).collect()
    };
    let [one] = ids("{ file: raw }").try_into().unwrap();
    for same in ["{ file: base64 }", "{ file: hex }", "${KEY}", "[\"${KEY}\"]", &format!("\"{HEX}\"")] {
        assert_eq!(ids(same), [one.as_str()], "{same}");
    }
    let (config, _) = read("[{ file: other }, { file: raw }]", "").unwrap();
    let encryption = &config.journal.encryption;
    assert_eq!((encryption.sealing().unwrap().id(), encryption.keys.len()), (encryption.keys[0].id(), 2));
    assert_eq!(encryption.keys[1].id().to_string(), one);
    let (config, _) = read("[off, { file: raw }]", "").unwrap();
    assert!(config.journal.encryption.sealing().is_none() && config.journal.encryption.keys.len() == 1);
    for off in ["off", "false", "~"] {
        assert_eq!(read(off, "").unwrap().0.journal.encryption, Default::default(), "{off}");
    }
    assert!(!format!("{:?}", read("${KEY}", "").unwrap()).contains(&HEX[..16]));
}

#[test]
fn what_is_no_key_is_said_to_be_none_and_how_to_make_one() {
    for no_key in
        ["{ file: short }", "{ file: text }", "{ file: same }", "swordfish", "${SECRET}", "{ file: missing }", "[]"]
    {
        let said = problem(no_key, "");
        assert!(said.contains("openssl rand -base64 32"), "{no_key}: {said}");
    }
    assert!(problem("[{ file: raw }, \"${KEY}\"]", "").contains("the same key"));
    assert!(problem("[{ file: raw }, off]", "").contains("`off` stands first"));
    assert!(problem("${NOT_SET}", "").contains("`NOT_SET` is not set"));
    let open = problem("{ file: open }", "");
    assert!(open.contains("warning") && open.contains("chmod 600"), "{open}");
}

#[test]
fn a_key_that_is_another_secret_as_well_is_refused() {
    let admin = format!("admin: {{ token: {HEX} }}\n");
    assert!(problem("{ file: raw }", &admin).contains("`admin.token`, too"));
    let said = read("{ file: other }", &admin);
    assert!(said.is_ok(), "{said:?}");
    let whole = WHOLE.replace("${SECRET}", &data_encoding::BASE64.encode(&bytes(HEX)));
    let text = format!("{whole}journal: {{ encryption_key: \"{HEX}\" }}\n");
    let Err(Problems(problems)) = parse(&text) else { panic!("it is taken") };
    assert!(problems[0].to_string().contains("the secret of source `hooks`, too"), "{problems:?}");
}

#[test]
fn another_key_is_a_change_whose_value_nobody_is_told() {
    let changes = |from: &str, to: &str| -> Vec<String> {
        let (from, to) = (read(from, "").unwrap().0, read(to, "").unwrap().0);
        from.diff(&to).iter().map(ToString::to_string).collect()
    };
    assert_eq!(changes("off", "{ file: raw }"), ["~ journal: encryption_key off -> ***"]);
    assert_eq!(changes("{ file: other }", "[{ file: raw }, { file: other }]").len(), 1, "bytes as they are count, too");
    assert_eq!(changes("{ file: raw }", "{ file: raw }"), [""; 0]);
}
