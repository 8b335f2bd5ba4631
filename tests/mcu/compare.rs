//! `antiphon bench compare` as one runs it: a small room in both modes, on a server of its own.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::turn;

fn number(row: &Value, pointer: &str) -> f64 {
    row.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer} in {row:#}"))
}

#[test]
fn a_small_room_is_measured_in_both_modes() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_antiphon"))
        .args([
            "bench",
            "compare",
            "--people",
            "2",
            "--seconds",
            "2",
            "--clip-seconds",
            "4",
            "--no-chromium",
            "--out",
        ])
        .arg(folder.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let text = fs::read_to_string(folder.path().join("compare.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["schema"], 2);
    let rows = report["rows"].as_array().unwrap();
    let modes: Vec<_> = rows.iter().map(|row| row["mode"].as_str()).collect();
    assert_eq!(modes, [Some("sfu"), Some("mcu")], "{words}");
    for (row, tiles) in rows.iter().zip([1.0, 2.0]) {
        let of = |pointer: &str| number(row, &format!("/figures{pointer}"));
        assert!((of("/tiles/seen") - tiles).abs() < 0.1, "{row:#}");
        let [p50, p95] = ["/latency_ms/p50", "/latency_ms/p95"].map(of);
        assert!(p50 > 0.0 && p50 <= p95 && p95 < 1_500.0, "{row:#}");
        assert!(of("/frames/seen") > 10.0 && of("/frames/seen") <= of("/frames/sent") + 5.0, "{row:#}");
        assert!(of("/server/node_cores") > 0.0 && of("/server/node_rss_bytes") > 1e6, "{row:#}");
        assert!(of("/ingress_bps") > 5e5 && of("/egress_bps") > 3e5, "{row:#}");
        assert!(row.pointer("/figures/browser/not_measured").is_some(), "{row:#}");
    }
    let [forwarded, mixed] = rows.as_slice() else { unreachable!("two rows") };
    assert!(number(forwarded, "/figures/quality/ms_ssim") > 0.9, "{forwarded:#}");
    assert!((number(forwarded, "/figures/server/mixers")).abs() < 0.1, "{forwarded:#}");
    assert!((number(mixed, "/figures/server/mixers") - 1.0).abs() < 0.1, "{mixed:#}");
    assert!(number(mixed, "/figures/server/mixer_cores") > 0.0, "{mixed:#}");
    // A busy machine may have skipped the few pictures that would have been judged.
    if number(mixed, "/figures/quality_samples") > 0.0 {
        assert!(number(mixed, "/figures/quality/ms_ssim") > 0.8, "{mixed:#}");
    }
    // A mix is made anew, so it cannot be sooner than what is only passed on.
    assert!(number(mixed, "/figures/latency_ms/p50") > number(forwarded, "/figures/latency_ms/p50"));
    let page = fs::read_to_string(folder.path().join("compare.html")).unwrap();
    assert!(page.contains("2 forwarded") && page.contains("2 mixed") && page.contains("<svg"));
    assert!(!page.contains("src=") && !page.contains("href="));
}
