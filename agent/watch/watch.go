package watch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"waxseal/agent/mirror"
)

// ErrBlind means that no source could be opened: nothing is watched.
var ErrBlind = errors.New("nothing can be watched here")

// Bounds of the loop.
const (
	queueLength = 16384                  // observations that wait to be judged
	tickEvery   = 100 * time.Millisecond // the judge's clock
	frozenAfter = 3 * time.Second        // without a round, the watch was stopped from outside
)

// Opening is a source that has not been opened.
type Opening struct {
	Name string // of the capability that stands for it when it cannot be opened
	Open func() (Source, error)
}

// Judge makes incidents of observations. *mirror.Judge is one.
type Judge interface {
	Observe(mirror.Observation) []mirror.Incident
	Tick(now time.Time) []mirror.Incident
}

// Config says what is watched.
type Config struct {
	Sources []Opening
	Judge   Judge
	Now     func() time.Time // nil: time.Now

	// Changed is called by the goroutine of Run whenever what can be watched has
	// changed, and once when it begins. nil: nobody wants to know.
	Changed func([]mirror.Capability)
}

// Watch is a running detection.
type Watch struct {
	now     func() time.Time
	opened  time.Time // a watch that is stopped before its first round is frozen too
	sources []source
	judge   Judge // of the goroutine in Run
	changed func([]mirror.Capability)
	queue   chan mirror.Observation
	lost    atomic.Uint64 // observations for which the queue had no room

	mu    sync.Mutex
	dead  map[string]string // why a source does not see anything, by its name; under mu
	state State             // under mu
}

// source is one that was opened, or not.
type source struct {
	name string
	Source
}

// Open opens all sources. One that fails is a capability that is not there;
// only if all fail is there nothing to run.
func Open(c Config) (*Watch, error) {
	w := &Watch{now: c.Now, judge: c.Judge, changed: c.Changed, queue: make(chan mirror.Observation, queueLength), dead: map[string]string{}}
	if w.now == nil {
		w.now = time.Now
	}
	var errs []error
	for _, o := range c.Sources {
		s, err := o.Open()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", o.Name, err))
			w.dead[o.Name], s = err.Error(), nil // an interface with a nil pointer in it is not nil
		}
		w.sources = append(w.sources, source{o.Name, s})
	}
	if len(errs) == len(c.Sources) {
		return nil, errors.Join(append([]error{ErrBlind}, errs...)...)
	}
	w.opened = w.now()
	return w, nil
}

// Capabilities says what can be watched on this kernel, and what cannot.
func (w *Watch) Capabilities() []mirror.Capability {
	var list []mirror.Capability
	for _, s := range w.sources {
		if why := w.deadBy(s.name); why != "" {
			list = append(list, mirror.Capability{Name: s.name, State: mirror.None, Why: why})
		} else {
			list = append(list, s.Capabilities()...)
		}
	}
	return list
}

func (w *Watch) deadBy(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead[name]
}

// Close takes away whatever the sources have hooked. Run has returned before.
func (w *Watch) Close() error {
	var errs []error
	for _, s := range w.sources {
		if s.Source != nil {
			if err := s.Close(); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Run reports incidents until ctx is done. report is called by one goroutine;
// while it does not return, observations wait, and are counted where there is
// no room for them.
func (w *Watch) Run(ctx context.Context, report func(mirror.Incident)) {
	var running sync.WaitGroup
	for _, s := range w.sources {
		if s.Source != nil {
			running.Go(func() { w.run(ctx, s) })
		}
	}
	over := make(chan struct{})
	go func() { running.Wait(); <-ctx.Done(); close(over) }()
	w.look(nil)
	w.loop(over, report)
}

// run runs a source. One that ends by itself is a finding.
func (w *Watch) run(ctx context.Context, s source) {
	err := s.Run(ctx, w.emit)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		err = errors.New("ended by itself")
	}
	w.mu.Lock()
	w.dead[s.name] = err.Error()
	w.mu.Unlock()
	w.emit(mirror.Observation{
		Kind: mirror.Tamper, Time: w.now(), Detector: "watch", Subject: "watch/" + s.name, Count: 1,
		Cause: fmt.Sprintf("%s sees nothing any more: %v", s.name, err),
	})
}

// emit queues an observation, or counts it where there is no room.
func (w *Watch) emit(o mirror.Observation) {
	select {
	case w.queue <- o:
	default:
		w.lost.Add(1)
	}
}
