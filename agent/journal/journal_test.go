package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
)

var profile = measure.Waxseal1

func open(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func of(t testing.TB, name string) measure.Record {
	t.Helper()
	r, err := profile.Of(name, []byte(name))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var names = []string{"phase/start/1.0", "policy/measure", "kernel/uki/waxseal", "config/uci/network?c=uci1", "mirror/tc/eth0"}

// recorded returns a directory with a journal of names, and the PCRs.
func recorded(t testing.TB, c measure.Extender) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "run")
	j := open(t, dir)
	r, err := measure.NewRecorder(t.Context(), c, j, profile.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, err := r.Record(t.Context(), of(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	j.Close()
	return dir
}

func TestJournalGivesBackWhatItWasGiven(t *testing.T) {
	chip := tpmtest.Fake()
	dir := recorded(t, chip)
	start, events, err := open(t, dir).Load()
	if err != nil || len(start) != 4 || len(events) != len(names) {
		t.Fatalf("%d PCRs, %d events, %v", len(start), len(events), err)
	}
	for i, e := range events {
		if e.Record != of(t, names[i]) || !reflect.DeepEqual(e.Digests, e.Record.Digests(chip.Banks())) {
			t.Errorf("event %d is %+v", i, e)
		}
	}
}

func TestNewJournalIsEmpty(t *testing.T) {
	j := open(t, t.TempDir())
	if start, events, err := j.Load(); start != nil || events != nil || err != nil {
		t.Errorf("%v, %v, %v", start, events, err)
	}
	e := of(t, "policy/measure")
	if err := j.Append(measure.Event{Record: e}); err == nil {
		t.Error("an event before Begin is accepted")
	}
}

func TestJournalBeginsOnce(t *testing.T) {
	j := open(t, recorded(t, tpmtest.Fake()))
	start, _, _ := j.Load()
	if err := j.Begin(start); !errors.Is(err, ErrBegun) {
		t.Errorf("second Begin: %v: want ErrBegun", err)
	}
}

func TestJournalHasOneWriter(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open: %v: want ErrLocked", err)
	}
}

// The process may die after any byte. Only the last line may be torn, and
// what comes next stands on its own line.
func TestJournalCutAtEveryByte(t *testing.T) {
	dir := recorded(t, tpmtest.Fake())
	whole, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		j := open(t, dir)
		start, events, err := j.Load()
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		lines := bytes.Count(whole[:n], []byte("\n"))
		if (start != nil) != (lines > 0) || len(events) != max(0, lines-1) {
			t.Fatalf("cut at %d: start %v, %d events: want %d lines", n, start != nil, len(events), lines)
		}
		if start == nil {
			continue
		}
		rec := of(t, "mirror/tc/eth1")
		if err := j.Append(measure.Event{Record: rec, Digests: rec.Digests(banksOf(start))}); err != nil {
			t.Fatalf("cut at %d: append: %v", n, err)
		}
		j.Close()
		if b, err := os.ReadFile(filepath.Join(dir, fileName)); err != nil || !bytes.HasSuffix(b, []byte("\n")) {
			t.Fatalf("cut at %d: the torn line is still there after the next: %v", n, err)
		}
		if _, again, err := open(t, dir).Load(); err != nil || len(again) != len(events)+1 {
			t.Fatalf("cut at %d: after one more event: %d events, %v", n, len(again), err)
		}
	}
}

func TestCorruptJournalIsRefused(t *testing.T) {
	dir := recorded(t, tpmtest.Fake())
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	for name, text := range map[string]string{
		"empty line":         strings.Replace(good, "\n", "\n\n", 1),
		"torn middle line":   strings.Replace(good, "\"}\n", "\n", 1),
		"two lines in one":   strings.Replace(good, "\"}\n", "\"}", 1),
		"zero bytes":         good + "\x00\x00\n",
		"unknown key":        strings.Replace(good, `{"pcr":13,"name"`, `{"x":1,"pcr":13,"name"`, 1),
		"space":              strings.Replace(good, `{"pcr":13,"name"`, `{"pcr":13, "name"`, 1),
		"PCR of nobody":      strings.Replace(good, `{"pcr":13,"name"`, `{"pcr":11,"name"`, 1),
		"PCR 300":            strings.Replace(good, `{"pcr":13,"name"`, `{"pcr":300,"name"`, 1),
		"upper case digest":  strings.Replace(good, `"sha256":"`, `"sha256":"A`, 1),
		"name with a space":  strings.Replace(good, "policy/measure", "policy/ measure", 1),
		"other format":       strings.Replace(good, "waxseal-journal-1", "waxseal-journal-2", 1),
		"bank twice":         strings.Replace(good, `"sha256","sha384"`, `"sha256","sha256"`, 1),
		"value too short":    strings.Replace(good, `"values":["00`, `"values":["`, 1),
		"second first line":  good + strings.SplitAfter(good, "\n")[0],
		"without first line": strings.Join(strings.SplitAfter(good, "\n")[1:], ""),
	} {
		if text == good {
			t.Fatalf("%s: nothing changed", name)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v: want ErrCorrupt", name, err)
		}
	}
}

func TestJournalIsARegularFile(t *testing.T) {
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, filepath.Join(dir, fileName)); err != nil {
		t.Fatal(err)
	}
	if j, err := Open(dir); err == nil {
		j.Close()
		t.Error("a symlink is followed")
	}
}

func TestEventWithForeignDigestsIsRefused(t *testing.T) {
	j := open(t, recorded(t, tpmtest.Fake()))
	rec := of(t, "policy/measure")
	wrong := of(t, "policy/other").Digests([]measure.Alg{measure.SHA256, measure.SHA384})
	if err := j.Append(measure.Event{Record: rec, Digests: wrong}); err == nil {
		t.Error("an event with the digests of another is accepted")
	}
}

func TestFailedWriteLeavesNoTornLine(t *testing.T) {
	dir := recorded(t, tpmtest.Fake())
	j := open(t, dir)
	real := j.file
	readOnly, err := os.Open(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	rec := of(t, "mirror/tc/eth1")
	e := measure.Event{Record: rec, Digests: rec.Digests([]measure.Alg{measure.SHA256, measure.SHA384})}
	j.file = readOnly
	if err := j.Append(e); err == nil {
		t.Fatal("a write that failed is reported as kept")
	}
	j.file = real
	if err := j.Append(e); err == nil {
		t.Error("a journal that could not be mended goes on")
	}
	if _, _, err := j.Load(); err == nil {
		t.Error("Load does not tell that the journal is broken")
	}
}

func FuzzJournal(f *testing.F) {
	dir := recorded(f, tpmtest.Fake())
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		start, events, size, err := decode(b)
		if err != nil {
			return
		}
		var again []byte
		if start != nil {
			line, err := encodeStart(start)
			if err != nil {
				t.Fatal(err)
			}
			again = line
		}
		for _, e := range events {
			line, err := encodeEvent(e, start)
			if err != nil {
				t.Fatal(err)
			}
			again = append(again, line...)
		}
		if !bytes.Equal(again, b[:size]) {
			t.Fatalf("read as %d events, which are written otherwise", len(events))
		}
	})
}
