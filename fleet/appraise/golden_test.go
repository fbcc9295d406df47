package appraise_test

import (
	"crypto/elliptic"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"waxseal/fleet/appraise"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/reference"
)

var update = flag.Bool("update", false, "write the verdicts into testdata")

// TestVerdicts judges each boot in testdata. A case has four parts:
//
//	-- reference --  what a good boot looks like; one line for each item:
//	                 "PCR name content [contains name ...]", and for the firmware
//	                 "firmware PCR name content predicted|recorded [contains name ...]"
//	-- log --        what was measured: "PCR name content", "firmware PCR content",
//	                 "cap name", "separators", "aggregate"
//	-- want --       the verdict
//	-- FILE --       a text; a content that starts with @ is the file of that name
func TestVerdicts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c := readCase(t, archive)
			got := show(appraise.Appraise(c.verify(t), c.ref, appraise.DefaultPolicy))
			if *update {
				c.put(archive, "want", got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := c.files["want"]; got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

type testCase struct {
	files  map[string]string
	ref    reference.Values
	router *evidencetest.Router
}

func readCase(t *testing.T, archive *txtar.Archive) *testCase {
	t.Helper()
	c := &testCase{files: map[string]string{}}
	for _, f := range archive.Files {
		c.files[f.Name] = string(f.Data)
	}
	c.ref = reference.Values{
		Format: reference.Format, Product: "qemu-amd64", Version: "1", Profile: "waxseal-1",
		Assurance: "self", Handoff: "phase/handoff/switch_root",
	}
	var err error
	if c.router, err = evidencetest.New("WX-0001", elliptic.P256()); err != nil {
		t.Fatal(err)
	}
	for _, line := range lines(c.files["reference"]) {
		c.refer(t, strings.Fields(line))
	}
	for _, line := range lines(c.files["log"]) {
		if err := c.measure(strings.Fields(line)); err != nil {
			t.Fatalf("log: %s: %v", line, err)
		}
	}
	return c
}

func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

func (c *testCase) put(archive *txtar.Archive, name, data string) {
	for i, f := range archive.Files {
		if f.Name == name {
			archive.Files[i].Data = []byte(data)
			return
		}
	}
	archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(data)})
}

// content returns what a word of a case stands for.
func (c *testCase) content(word string) []byte {
	if name, ok := strings.CutPrefix(word, "@"); ok {
		if strings.HasSuffix(name, ".json") { // which ends without a line break
			return []byte(strings.TrimSuffix(c.files[name], "\n"))
		}
		return []byte(c.files[name])
	}
	return []byte(word)
}

func (c *testCase) refer(t *testing.T, words []string) {
	t.Helper()
	switch words[0] {
	case "assurance":
		c.ref.Assurance = words[1]
	case "separators":
		for pcr := range 8 {
			c.ref.Firmware = append(c.ref.Firmware, firmwareEvent(pcr, "firmware/separators", []byte{0, 0, 0, 0}, reference.Predicted))
		}
	case "firmware":
		e := firmwareEvent(number(t, words[1]), words[2], c.content(words[3]), words[4])
		if len(words) > 5 {
			e.Contains = words[6:]
		}
		c.ref.Firmware = append(c.ref.Firmware, e)
	default:
		c.ref.Items = append(c.ref.Items, c.item(t, words))
	}
}

func (c *testCase) item(t *testing.T, words []string) reference.Item {
	t.Helper()
	content := c.content(words[2])
	sum := sha256.Sum256(content)
	it := reference.Item{PCR: measure.PCR(number(t, words[0])), Name: words[1], SHA256: []reference.Hex{sum[:]}}
	if strings.HasPrefix(words[2], "@") {
		it.Text = string(content)
	}
	if len(words) > 3 {
		it.Contains = words[4:]
	}
	return it
}

func firmwareEvent(pcr int, name string, content []byte, source string) reference.FirmwareEvent {
	return reference.FirmwareEvent{
		PCR: measure.PCR(pcr), Type: eventlog.EVIPL, Name: name, Source: source,
		Digests: map[string]reference.Hex{"sha256": measure.Hash(measure.SHA256, content).Sum},
	}
}

func number(t *testing.T, word string) int {
	t.Helper()
	n, err := strconv.Atoi(word)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// measure lets the router measure one line of the log.
func (c *testCase) measure(words []string) error {
	switch words[0] {
	case "start":
		return c.router.Start()
	case "separators":
		return c.router.Separators()
	case "cap":
		return c.router.Cap(words[1])
	case "aggregate":
		var all []byte
		for pcr := range measure.PCR(10) {
			all = append(all, c.router.PCR(measure.SHA256, pcr)...)
		}
		return c.router.Measure("aggregate/boot?c=sha256", append(all, strings.Join(words[1:], "")...))
	case "firmware":
		pcr, err := strconv.Atoi(words[1])
		if err != nil {
			return err
		}
		return c.router.Firmware(measure.PCR(pcr), eventlog.EVIPL, c.content(words[2]), []byte("untrusted words"))
	}
	content := c.content(words[2])
	if strings.HasPrefix(words[2], "@") {
		c.router.Keep(content)
	}
	return c.router.Measure(words[1], content)
}

func (c *testCase) verify(t *testing.T) evidence.Verified {
	t.Helper()
	ch, err := evidencetest.Challenge(measure.SHA256, appraise.DefaultPolicy.PCRs...)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := c.router.Answer(ch)
	if err != nil {
		t.Fatal(err)
	}
	v, err := evidence.Verify(ev, ch, c.router.Trust())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// show writes a verdict as a case has it: what is good is only counted.
func show(v appraise.Verdict) string {
	var b strings.Builder
	good := 0
	fmt.Fprintf(&b, "%s %s\n", v.Result, v.Assurance)
	for _, c := range v.Components {
		if c.State == appraise.Good {
			good++
			continue
		}
		fmt.Fprintf(&b, "%-13s %s", c.State, c.Name)
		if c.Follows != "" {
			fmt.Fprintf(&b, " from %s", c.Follows)
		}
		if c.FirstDiverging {
			b.WriteString(" (first)")
		}
		if c.Note != "" {
			fmt.Fprintf(&b, " (%s)", c.Note)
		}
		b.WriteByte('\n')
		for _, l := range c.Diff {
			fmt.Fprintf(&b, "    %s%d %s\n", l.Op, l.Number, l.Text)
		}
	}
	fmt.Fprintf(&b, "%d good\n", good)
	for _, r := range v.Reasons {
		fmt.Fprintf(&b, "because %s\n", r)
	}
	for _, w := range v.Warnings {
		if !strings.HasPrefix(w, string(appraise.NotCovered)) { // of which there is a line above
			fmt.Fprintf(&b, "beside %s\n", w)
		}
	}
	return b.String()
}
