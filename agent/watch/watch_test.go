package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waxseal/agent/mirror"
)

// scripted is a source that emits what it is given.
type scripted struct {
	emits  []mirror.Observation
	fails  error // from Run, at once
	closed *int
}

func (s scripted) Capabilities() []mirror.Capability {
	return []mirror.Capability{{Name: "scripted", State: mirror.Full}}
}

func (s scripted) Run(ctx context.Context, emit func(mirror.Observation)) error {
	for _, o := range s.emits {
		emit(o)
	}
	if s.fails != nil {
		return s.fails
	}
	<-ctx.Done()
	return nil
}

func (s scripted) Close() error { *s.closed++; return nil }

// echo is a judge that makes an incident of every observation.
type echo struct{ ticks int }

func (e *echo) Observe(o mirror.Observation) []mirror.Incident {
	return []mirror.Incident{{Kind: o.Kind, Subject: o.Subject, Cause: o.Cause, Count: o.Count}}
}
func (e *echo) Tick(time.Time) []mirror.Incident { e.ticks++; return nil }

func opening(name string, s Source, err error) Opening {
	return Opening{Name: name, Open: func() (Source, error) { return s, err }}
}

// runFor runs the watch for a while of the bubble's clock.
func runFor(t *testing.T, w *Watch, d time.Duration, report func(mirror.Incident)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	w.Run(ctx, report)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestASourceThatCannotBeOpenedIsACapabilityAndTheRestGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := 0
		w, err := Open(Config{Judge: &echo{}, Sources: []Opening{
			opening("hooks", nil, errors.New("BPF is refused")),
			opening("scripted", scripted{emits: []mirror.Observation{{Kind: mirror.Rule, Subject: "tc/r0"}}, closed: &closed}, nil),
		}})
		if err != nil {
			t.Fatal(err)
		}
		want := []mirror.Capability{{Name: "hooks", State: mirror.None, Why: "BPF is refused"}, {Name: "scripted", State: mirror.Full}}
		if got := w.Capabilities(); !slices.Equal(got, want) {
			t.Errorf("capabilities %v", got)
		}
		var got []string
		runFor(t, w, time.Second, func(in mirror.Incident) { got = append(got, in.Subject) })
		if !slices.Equal(got, []string{"tc/r0"}) || closed != 1 {
			t.Errorf("reported %v, closed %d times", got, closed)
		}
		if s := w.State(); s.Observed != 1 || s.Rounds < 9 || s.Lost != 0 {
			t.Errorf("state %+v", s)
		}
	})
}

func TestNothingToWatchIsAnErrorThatNamesEveryCause(t *testing.T) {
	cause := errors.New("operation not permitted")
	_, err := Open(Config{Judge: &echo{}, Sources: []Opening{opening("hooks", nil, cause), opening("config", nil, cause)}})
	if !errors.Is(err, ErrBlind) || !errors.Is(err, cause) {
		t.Error(err)
	}
}

func TestASourceThatEndsByItselfIsAFinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := 0
		w, err := Open(Config{Judge: &echo{}, Sources: []Opening{opening("hooks", scripted{fails: errors.New("ring is gone"), closed: &closed}, nil)}})
		if err != nil {
			t.Fatal(err)
		}
		var got []mirror.Incident
		runFor(t, w, time.Second, func(in mirror.Incident) { got = append(got, in) })
		if len(got) != 1 || got[0].Kind != mirror.Tamper || got[0].Subject != "watch/hooks" {
			t.Errorf("reported %+v", got)
		}
		if c := w.Capabilities(); len(c) != 1 || c[0].State != mirror.None || c[0].Why != "ring is gone" {
			t.Errorf("capabilities %+v", c)
		}
	})
}

func TestWhatThereIsNoRoomForIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const more = 71
		flood := scripted{closed: new(int)}
		for i := range queueLength + more {
			flood.emits = append(flood.emits, mirror.Observation{Kind: mirror.Flood, Subject: fmt.Sprint(i)})
		}
		w, err := Open(Config{Judge: &echo{}, Sources: []Opening{opening("flood", flood, nil)}})
		if err != nil {
			t.Fatal(err)
		}
		var lost, told uint64
		var blocked sync.Once
		runFor(t, w, 10*time.Second, func(in mirror.Incident) {
			blocked.Do(func() { time.Sleep(time.Second) }) // a reader that stalls
			if told++; in.Kind == mirror.Overrun {
				lost += in.Count
			}
		})
		if s := w.State(); lost == 0 || s.Lost != lost || s.Observed+lost != queueLength+more {
			t.Errorf("lost %d, state %+v", lost, s)
		}
	})
}

func TestAWatchThatWasStoppedSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := Open(Config{Judge: &echo{}, Sources: []Opening{opening("one", scripted{closed: new(int), emits: []mirror.Observation{{Kind: mirror.Rule}}}, nil)}})
		if err != nil {
			t.Fatal(err)
		}
		var kinds []mirror.Kind
		runFor(t, w, 10*time.Second, func(in mirror.Incident) {
			if kinds = append(kinds, in.Kind); in.Kind == mirror.Rule {
				time.Sleep(frozenAfter + time.Second)
			}
		})
		if !slices.Equal(kinds, []mirror.Kind{mirror.Rule, mirror.Frozen}) {
			t.Errorf("reported %v", kinds)
		}
	})
}
