package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxseal/agent"
	"waxseal/agent/findings"
	"waxseal/agent/mirror"
	"waxseal/measure"
)

// firstLine ends what waits for it as soon as a line was written.
type firstLine struct {
	bytes.Buffer
	cancel context.CancelFunc
}

func (w *firstLine) Write(b []byte) (int, error) {
	defer w.cancel()
	return w.Buffer.Write(b)
}

// watchedBench is a bench whose router has a finding open.
func watchedBench(t *testing.T, in mirror.Incident) bench {
	t.Helper()
	var book *findings.Book
	l := newBenchOf(t, func(c *agent.Config) {
		var err error
		if book, err = findings.New(findings.Config{Recorder: c.Recorder.(findings.Recorder), Profile: measure.Waxseal1}); err != nil {
			t.Fatal(err)
		}
		c.Findings = book
	})
	if err := book.Report(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFindingsAreFollowed(t *testing.T) {
	now := time.Now()
	l := watchedBench(t, mirror.Incident{
		ID: "duplicate-1", Kind: mirror.Duplicate, Severity: mirror.Alarm, State: mirror.Open, Time: now, First: now, Last: now,
		Cause: "tc mirred mirror r0 → r2\x1b[2J", Process: mirror.Process{PID: 7, Comm: "tc\u202e"}, Ports: []string{"r0", "r2"}, Detector: "rtnetlink",
	})
	for flag, want := range map[string][]string{
		"":        {"alarm", "tc mirred mirror r0 → r2", "(pid 7)"},
		"--jsonl": {`"record":"mirror/duplicate/duplicate-1/alarm"`, `"ports":["r0","r2"]`},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		out := &firstLine{cancel: cancel}
		args := []string{"mirror", "follow", l.router.address, "--owner", filepath.Join(l.dir, "owner")}
		if flag != "" {
			args = append(args, flag)
		}
		var stderr bytes.Buffer
		if code := run(ctx, args, strings.NewReader(""), out, &stderr); code != exitOK {
			t.Errorf("%q: exit code %d: %s", flag, code, &stderr)
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%q: %q is not in %q", flag, w, out)
			}
		}
		if strings.ContainsAny(out.String(), "\x1b\u202e") {
			t.Errorf("%q: a router's text steers the terminal: %q", flag, out)
		}
	}
}

func TestAnOpenAlarmFailsTheNextAttestation(t *testing.T) {
	now := time.Now()
	l := watchedBench(t, mirror.Incident{
		ID: "duplicate-1", Kind: mirror.Duplicate, Severity: mirror.Alarm, State: mirror.Open, Time: now, First: now, Last: now,
		Cause: "tc mirred mirror r0 → r2", Detector: "rtnetlink",
	})
	said := l.waxseal(t, exitFailed, "attest", l.router.address, "--owner", filepath.Join(l.dir, "owner"), "--reference", l.reference)
	if !strings.Contains(said, "finding mirror/duplicate/duplicate-1") {
		t.Errorf("the verdict does not name the finding:\n%s", said)
	}
}

func TestFollowingEndsWhereNothingIsWatchedOrNobodyReads(t *testing.T) {
	l := newBench(t)
	args := []string{"mirror", "follow", l.router.address, "--owner", filepath.Join(l.dir, "owner")}
	if code := run(t.Context(), args, strings.NewReader(""), io.Discard, io.Discard); code == exitOK {
		t.Error("a router that watches nothing is followed")
	}
	a := &app{stdout: broken{}, stderr: io.Discard, now: time.Now}
	if err := a.written(io.WriteString(a.stdout, "x")); !errors.As(err, new(outputError)) {
		t.Errorf("output that breaks: %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
