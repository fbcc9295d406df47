package appraise_test

import (
	"os"
	"testing"
	"time"

	"waxseal/fleet/appraise"
	"waxseal/measure/reference"
)

// Stored verdicts are read for years: testdata/verdict.json is changed only by
// adding keys.
func TestVerdictSchemaIsStable(t *testing.T) {
	v := appraise.Verdict{
		Format: appraise.Format, Result: appraise.Contraindicated, Assurance: appraise.AssuranceSelf,
		Serial: "WX-0001", Product: "qemu-amd64", Version: "1.0", Bank: "sha384",
		Received: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), Reasons: []string{"changed config/frr/frr.conf?c=frr1"},
		Components: []appraise.Component{
			{
				Name: "config/frr/frr.conf?c=frr1", Result: appraise.Contraindicated, State: appraise.Changed, FirstDiverging: true, Note: "1 more lines differ",
				Evidence: []appraise.Row{{PCR: 14, Source: appraise.SourceAgent, Expected: reference.Hex{1, 2}, Actual: reference.Hex{3, 4}}},
				Diff:     []appraise.Line{{Number: 3, Op: "-", Text: "neighbor 192.0.2.1"}, {Number: 3, Op: "+", Text: "neighbor 192.0.2.2"}},
			},
			{
				Name: "bootloader/uki/waxseal/file", Result: appraise.Contraindicated, State: appraise.Follows, Follows: "kernel/uki/waxseal",
				Evidence: []appraise.Row{{PCR: 4, Source: appraise.SourceFirmware, Good: true, Expected: reference.Hex{5}, Actual: reference.Hex{5}}},
			},
		},
	}
	got, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/verdict.json"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
