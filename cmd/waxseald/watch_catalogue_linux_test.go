package main

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/watch/watchtest"
)

// latencies are those from an attack's start to the line that names it.
type latencies struct {
	mu   sync.Mutex
	list []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, d)
}

func (l *latencies) show(t *testing.T) {
	if len(l.list) == 0 {
		return
	}
	slices.Sort(l.list)
	t.Logf("from start to finding, %d attacks: median %v, worst %v", len(l.list),
		l.list[len(l.list)/2].Round(time.Millisecond), l.list[len(l.list)-1].Round(time.Millisecond))
}

func portsOf(more []string) string {
	return strings.Join(append([]string{watchtest.R0, watchtest.R1, watchtest.R2}, more...), ",")
}

// TestWatchFindsEveryAttack starts each attack while the watch runs, and then
// starts the watch while the attack runs.
func TestWatchFindsEveryAttack(t *testing.T) {
	needsRoot(t)
	var took latencies
	t.Cleanup(func() { took.show(t) })
	for _, a := range watchtest.Attacks() {
		t.Run(a.Name, func(t *testing.T) {
			t.Parallel()
			lab := openLab(t, a.Shape)
			traffic, err := lab.Traffic(watchtest.Everyday)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(traffic.Stop)
			h := startHunter(t, lab, "--ports", portsOf(a.Ports))
			begin := time.Now()
			stop, err := a.Start(lab)
			if errors.Is(err, watchtest.ErrLacking) {
				t.Log(err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(stop)
			s := h.await(fits(a.Want))
			if s == nil {
				t.Fatalf("not found: want %+v, reported:%s", a.Want, h.told())
			}
			took.add(s.at.Sub(begin))
			t.Logf("%v: %s", s.at.Sub(begin).Round(time.Millisecond), s.Row())
			h.stop()
			if a.OnWatch {
				return
			}
			h = startHunter(t, lab, "--ports", portsOf(a.Ports))
			if h.await(fits(a.Want)) == nil {
				t.Errorf("not found when it was there first: want %+v, reported:%s", a.Want, h.told())
			}
			h.stop()
		})
	}
}

// TestWatchRaisesNoAlarmOverHarmlessTraffic is the other half: who cries wolf
// is switched off.
func TestWatchRaisesNoAlarmOverHarmlessTraffic(t *testing.T) {
	needsRoot(t)
	for _, b := range watchtest.Harmless() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			lab := openLab(t, b.Shape)
			before, err := lab.Hooks()
			if err != nil {
				t.Fatal(err)
			}
			h := startHunter(t, lab, "--ports", portsOf(b.Ports))
			if err := b.Run(lab); errors.Is(err, watchtest.ErrLacking) {
				t.Log(err)
			} else if err != nil {
				t.Error(err)
			}
			time.Sleep(300 * time.Millisecond) // for what comes late
			h.stop()
			if h.find(func(in mirror.Incident) bool { return in.Severity == mirror.Alarm && h.ours(in) }) != nil {
				t.Errorf("alarm:%s", h.told())
			}
			h.cleared(before)
		})
	}
}

// cleared fails if anything is left on the router's ports that was not there before.
func (h *hunter) cleared(before string) {
	h.t.Helper()
	after, err := h.lab.Hooks()
	if err != nil {
		h.t.Error(err)
	}
	was := strings.Split(before, "\n")
	for _, line := range strings.Split(after, "\n") {
		if !slices.Contains(was, line) && strings.ContainsAny(line, ":") && !strings.Contains(line, " htb ") {
			h.t.Errorf("left behind: %s", line)
		}
	}
}
