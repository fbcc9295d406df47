package watchtest

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// arrivals counts frames at the collector, where mirrored ones go.
func arrivals(t *testing.T, l *Lab) *atomic.Int64 {
	t.Helper()
	in, err := openTap(l.Collector, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); in.pump(stop, func([]byte) { n.Add(1) }) }()
	t.Cleanup(func() { close(stop); <-done; in.Close() })
	return &n
}

func TestEveryAttackCanBeStartedAndReachesTheCollector(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	for _, a := range Attacks() {
		t.Run(a.Name, func(t *testing.T) {
			t.Parallel()
			lab, err := Open(a.Shape)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := lab.Close(); err != nil {
					t.Error(err)
				}
			})
			stop, err := a.Start(lab)
			if errors.Is(err, ErrLacking) {
				t.Log(err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer stop()
			if a.Want.Copy != R2 {
				return
			}
			count := arrivals(t, lab)
			traffic, err := lab.Traffic(Everyday)
			if err != nil {
				t.Log(err) // a diversion takes the connection away
				return
			}
			defer traffic.Stop()
			for deadline := time.Now().Add(20 * time.Second); count.Load() < 20; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("collector got %d frames, client sent %d and got %d", count.Load(), traffic.Sent.Load(), traffic.Answered.Load())
				}
			}
		})
	}
}

func TestEveryHarmlessSetUpRuns(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	for _, b := range Harmless() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			lab, err := Open(b.Shape)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := lab.Close(); err != nil {
					t.Error(err)
				}
			})
			if err := b.Run(lab); err != nil && !errors.Is(err, ErrLacking) {
				t.Fatal(err)
			}
		})
	}
}
