package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
)

// killer is an Extender whose process dies at some call.
type killer struct {
	measure.Extender
	calls int
	after bool // die after the call took effect
}

var errKilled = errors.New("killed")

func (k *killer) Extend(ctx context.Context, pcr measure.PCR, digests []measure.Digest) error {
	k.calls--
	if k.calls == 0 && k.after {
		_ = k.Extender.Extend(ctx, pcr, digests)
	}
	if k.calls <= 0 {
		return errKilled
	}
	return k.Extender.Extend(ctx, pcr, digests)
}

func (k *killer) ReadPCR(ctx context.Context, pcr measure.PCR) ([]measure.Digest, error) {
	if k.calls <= 0 {
		return nil, errKilled
	}
	return k.Extender.ReadPCR(ctx, pcr)
}

// An agent that is killed before or after any extend goes on where it was.
func TestRestartReconcilesWithThePCRs(t *testing.T) {
	testEachTPM(t, func(t *testing.T, chip measure.Extender) {
		for at := 1; at <= len(names); at++ {
			for _, after := range []bool{false, true} {
				resume(t, chip, at, after)
			}
		}
	})
}

func resume(t *testing.T, chip measure.Extender, at int, after bool) {
	t.Helper()
	dir := t.TempDir()
	j := open(t, dir)
	k := &killer{Extender: chip, calls: at, after: after}
	r, err := measure.NewRecorder(t.Context(), k, j, profile.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names[:at] {
		if _, err := r.Record(t.Context(), of(t, name)); (err == nil) != (i < at-1) {
			t.Fatalf("killed at %d: event %d: %v", at, i, err)
		}
	}
	j.Close()

	j = open(t, dir)
	start, events, err := j.Load()
	if err != nil || len(events) != at {
		t.Fatalf("killed at %d, after %v: %d events, %v", at, after, len(events), err)
	}
	r, err = measure.Resume(t.Context(), chip, j, start, events)
	if err != nil {
		t.Fatalf("killed at %d, after %v: %v", at, after, err)
	}
	if _, err := r.Record(t.Context(), of(t, "phase/restart/agent")); err != nil {
		t.Fatal(err)
	}
	j.Close()
	start, events, _ = open(t, dir).Load()
	if len(events) != at+1 {
		t.Fatalf("%d events after the restart: want %d", len(events), at+1)
	}
	if _, err := measure.Resume(t.Context(), chip, nil, start, events); err != nil {
		t.Fatalf("killed at %d, after %v: journal and PCRs: %v", at, after, err)
	}
}

func TestChangedJournalDiverges(t *testing.T) {
	chip := tpmtest.Fake()
	dir := recorded(t, chip)
	path := filepath.Join(dir, fileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(b), "\n")
	for name, text := range map[string]string{
		"event renamed": strings.Replace(string(b), "kernel/uki/waxseal", "kernel/uki/waxsea1", 1),
		"event removed": strings.Join(append(append([]string{}, lines[:3]...), lines[4:]...), ""),
		"event doubled": string(b) + lines[3],
		"last removed":  strings.Join(lines[:len(lines)-2], ""),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		j := open(t, dir)
		start, events, err := j.Load()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = measure.Resume(t.Context(), chip, j, start, events)
		j.Close()
		if name == "event doubled" { // looks like an event that was not yet extended: it is extended now
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			chip = tpmtest.Fake()
			os.RemoveAll(dir)
			dir = recorded(t, chip)
			path = filepath.Join(dir, fileName)
			continue
		}
		if !errors.Is(err, measure.ErrDiverged) {
			t.Errorf("%s: %v: want ErrDiverged", name, err)
		}
	}
}

// testEachTPM runs a test with PCRs in memory and with those of swtpm.
func testEachTPM(t *testing.T, test func(t *testing.T, chip measure.Extender)) {
	t.Run("fake", func(t *testing.T) { test(t, tpmtest.Fake()) })
	t.Run("swtpm", func(t *testing.T) { test(t, tpmtest.Swtpm(t)) })
}
