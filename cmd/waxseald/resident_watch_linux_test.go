package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"waxseal/agent/findings"
	"waxseal/agent/mirror"
	"waxseal/agent/watch"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
	"waxseal/measure/finding"
)

// paper is a journal that keeps nothing.
type paper struct{}

func (paper) Begin([]measure.PCRValue) error { return nil }
func (paper) Append(measure.Event) error     { return nil }

func emptyBook(t *testing.T) (*findings.Book, func() []string) {
	t.Helper()
	r, err := measure.NewRecorder(t.Context(), tpmtest.Fake(), paper{}, measure.Waxseal1.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	b, err := findings.New(findings.Config{Recorder: r, Profile: measure.Waxseal1})
	if err != nil {
		t.Fatal(err)
	}
	return b, func() (names []string) {
		_ = r.Freeze(func(log []measure.Event) error {
			for _, e := range log {
				names = append(names, e.Name)
			}
			return nil
		})
		return names
	}
}

// still is a source that sees nothing.
type still struct{}

func (still) Capabilities() []mirror.Capability { return nil }
func (still) Close() error                      { return nil }
func (still) Run(ctx context.Context, _ func(mirror.Observation)) error {
	<-ctx.Done()
	return nil
}

func TestAQuoteSaysThatTheWatchDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book, names := emptyBook(t)
		w, err := watch.Open(watch.Config{
			Sources: []watch.Opening{{Name: "still", Open: func() (watch.Source, error) { return still{}, nil }}},
			Judge:   mirror.NewJudge(mirror.Config{}),
		})
		if err != nil {
			t.Fatal(err)
		}
		beat := &pulse{born: time.Now()}
		beat.watch.Store(w)
		ctx, stop := context.WithCancel(t.Context())
		go w.Run(ctx, func(mirror.Incident) {})
		time.Sleep(time.Minute)
		beat.check(t.Context(), book, time.Now())
		if got := names(); len(got) != 0 {
			t.Errorf("while it runs: %q", got)
		}
		stop()
		synctest.Wait()
		time.Sleep(time.Minute)
		for range 3 {
			beat.check(t.Context(), book, time.Now())
		}
		if got := names(); len(got) != 1 || !strings.HasPrefix(got[0], finding.Stopped) {
			t.Errorf("after it ended: %q", got)
		}
	})
}

func TestAWatchThatNeverBeganIsToldAfterAWhile(t *testing.T) {
	book, names := emptyBook(t)
	beat := &pulse{born: time.Now()}
	beat.check(t.Context(), book, beat.born.Add(opensWithin/2))
	if got := names(); len(got) != 0 {
		t.Errorf("at once: %q", got)
	}
	beat.check(t.Context(), book, beat.born.Add(2*opensWithin))
	if got := names(); len(got) != 1 {
		t.Errorf("after a while: %q", got)
	}
}
