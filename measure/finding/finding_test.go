package finding

import (
	"errors"
	"strings"
	"testing"
	"time"

	"waxseal/measure"
)

func sample() Finding {
	return Finding{
		Kind: "duplicate", Severity: "alarm", State: "open", Cause: "tc mirred mirror r0 → r2", Ports: []string{"r0", "r2"},
		Inner: "192.0.2.1 → 198.51.100.7", Process: "tc (pid 4711)", Rate: 12.5, Count: 3, Detector: "rtnetlink",
		First: time.Date(2026, 11, 27, 1, 2, 3, 0, time.UTC), Last: time.Date(2026, 11, 27, 1, 2, 4, 0, time.UTC),
		Evidence: []string{"3 duplicates in 60 ms"},
	}
}

func TestFindingIsReadAsItWasWritten(t *testing.T) {
	b, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if err != nil || got.Cause != sample().Cause || got.Ports[1] != "r2" || !got.First.Equal(sample().First) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOtherContentsAreRefused(t *testing.T) {
	good, _ := sample().Encode()
	for name, bad := range map[string]string{
		"nothing": "", "list": "[]", "unknown key": strings.Replace(string(good), `"kind"`, `"extra":1,"kind"`, 1),
		"key twice": strings.Replace(string(good), `"kind"`, `"kind":"x","kind"`, 1), "space": " " + string(good),
		"missing key": strings.Replace(string(good), `"detector":"rtnetlink",`, "", 1),
		"too large":   strings.Repeat(" ", MaxSize+1),
	} {
		if _, err := Parse([]byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want %v", name, err, ErrMalformed)
		}
	}
}

func TestNamesOfStrangersAreNamesOfRecords(t *testing.T) {
	for _, id := range []string{"", "a/b", "x\ny", "\u202eevil", strings.Repeat("x", 300), "duplicate-6928a1-1"} {
		name := Name("mirror", "duplicate", id, Alarm)
		if err := measure.CheckName(name); err != nil {
			t.Errorf("%q: %v", id, err)
		}
		if subject, step, ok := Split(name); !ok || step != Alarm || subject+"/alarm" != name {
			t.Errorf("%q: split into %q, %q, %v", name, subject, step, ok)
		}
	}
}

func TestOnlyOurNamesAreTakenApart(t *testing.T) {
	for _, name := range []string{"mirror/tc/eth0", "mirror/a/b/c", "config/a/b/alarm", "mirror/a b/c/alarm", "mirror/a/b/alarm/x", Overflow, Capabilities + "1"} {
		if _, _, ok := Split(name); ok {
			t.Errorf("%q was taken for a finding", name)
		}
	}
}

func TestLongTextsAreCutAtACharacter(t *testing.T) {
	f := sample()
	f.Cause = strings.Repeat("ä", maxText)
	for range 100 {
		f.Evidence = append(f.Evidence, strings.Repeat("\xff", 300))
	}
	b, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(b); err != nil || len(got.Cause) > maxText || len(got.Evidence) != maxEvidence {
		t.Errorf("%v: cause of %d bytes, %d lines", err, len(got.Cause), len(got.Evidence))
	}
}

func TestCoverageNeverHidesWhatIsMissing(t *testing.T) {
	var c Coverage
	for range 3 * maxParts {
		c.Parts = append(c.Parts, Part{Name: "hooks/r0", State: "full", How: strings.Repeat("ä", 500)})
	}
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseCoverage(b)
	if err != nil || len(got.Missing()) != 1 {
		t.Errorf("%v: missing %v, want one that stands for the rest", err, got.Missing())
	}
	if _, err := ParseCoverage([]byte(`{"capabilities":null}`)); !errors.Is(err, ErrMalformed) {
		t.Errorf("no list: %v", err)
	}
}

func TestInventoryIsTheSameInAnyOrderAndSaysWhatHasNoRoom(t *testing.T) {
	one, err := Things{{Kind: "module", Cause: "b"}, {Kind: "listener", Cause: "a", Process: "sshd"}, {Kind: "module", Cause: "b"}}.Encode()
	other, err2 := Things{{Kind: "listener", Cause: "a", Process: "sshd"}, {Kind: "module", Cause: "b"}}.Encode()
	if err != nil || err2 != nil || string(one) != string(other) {
		t.Errorf("%s and %s: %v, %v", one, other, err, err2)
	}
	var many Things
	for i := range 5000 {
		many = append(many, Thing{Kind: "module", Cause: strings.Repeat("x", i%50) + string(rune('a'+i%26)), Target: strings.Repeat("y", i%40), Process: string(rune('A' + i%26))})
	}
	b, err := many.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseThings(b)
	if err != nil || len(b) > MaxSize || got[len(got)-1].Kind != kindMore || got.Count()["module"] != len(got)-1 {
		t.Errorf("%v: %d things in %d bytes, the last is %+v", err, len(got), len(b), got[len(got)-1])
	}
}

func FuzzParse(f *testing.F) {
	good, _ := sample().Encode()
	f.Add(good)
	list, _ := Coverage{[]Part{{"hooks/r0", "none", "tcx", "BPF refused"}}}.Encode()
	f.Add(list)
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := Parse(data); err == nil {
			if again, err := got.Encode(); err != nil || string(again) != string(data) {
				t.Errorf("two texts for one finding: %q and %q, %v", data, again, err)
			}
		}
		_, _ = ParseCoverage(data)
		if list, err := ParseThings(data); err == nil {
			if again, err := list.Encode(); err != nil || string(again) != string(data) {
				t.Errorf("two texts for one inventory: %q and %q, %v", data, again, err)
			}
		}
	})
}
