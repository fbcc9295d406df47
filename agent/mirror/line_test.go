package mirror

import (
	"strings"
	"testing"
)

func TestNamesCannotSteerATerminalNorBeginALine(t *testing.T) {
	const evil = "r0\x1b[2J\n{\"severity\":\"info\"}\u202e\u200b\xff\\n"
	in := Incident{
		ID: "rule-1", Severity: Alarm, Cause: evil, Ports: []string{evil}, In: evil, Copy: evil, Subject: evil,
		Process: Process{1, evil, evil}, Evidence: []string{evil}, Netns: evil, Authorised: evil, Encap: evil, Detector: evil,
	}
	b, err := in.Line()
	if err != nil {
		t.Fatal(err)
	}
	row := in.Row()
	for _, bad := range []string{"\x1b", "\u202e", "\u200b", "\xff"} {
		if strings.Contains(string(b), bad) || strings.Contains(row, bad) {
			t.Errorf("%q comes through", bad)
		}
	}
	if strings.Count(string(b), "\n") != 1 || strings.Contains(row, "\n") {
		t.Errorf("more than one line: %s%s", b, row)
	}
	if !strings.Contains(row, `r0\x1b[2J\n{`) || !strings.Contains(row, `\\n`) {
		t.Errorf("what was there cannot be told from %s", row)
	}
}

func TestALongTextIsCut(t *testing.T) {
	if got := plain(strings.Repeat("\x00", 1<<20)); len(got) > maxText+16 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestFirstLineSaysWhatCanBeWatched(t *testing.T) {
	b, err := CapabilityLine([]Capability{{"hooks/r0", Full, "tcx", ""}})
	if want := `{"capabilities":[{"name":"hooks/r0","state":"full","how":"tcx"}]}` + "\n"; err != nil || string(b) != want {
		t.Errorf("%s, %v: want %s", b, err, want)
	}
	if b, _ := CapabilityLine(nil); string(b) != `{"capabilities":[]}`+"\n" {
		t.Errorf("%s", b)
	}
	if got := (Capability{"conservation", None, "", "no BPF"}).Row(); got != "none     conservation: no BPF" {
		t.Errorf("%q", got)
	}
}
