package main

import (
	"testing"

	"waxseal/agent/mirror"
	"waxseal/agent/watch/watchtest"
)

// mirrored tells of copies of r0's packets at r2 that were seen in packets, not
// in rules.
func mirrored(in mirror.Incident) bool {
	return in.Kind == mirror.Duplicate && in.Copy == watchtest.R2 && in.Severity == mirror.Alarm
}

const mirrorOfR0 = "tc qdisc add dev r0 clsact\ntc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev r2"

func TestEveryModeAndSamplingSeesCopies(t *testing.T) {
	needsRoot(t)
	for _, args := range [][]string{
		{"--mode", "lite"}, {"--mode", "duty"}, {"--sampling", "1/1"}, {"--sampling", "1/64"}, {"--sampling", "1/256"},
	} {
		t.Run(args[1], func(t *testing.T) {
			t.Parallel()
			lab := openLab(t, watchtest.Routed)
			h := startHunter(t, lab, append([]string{"--ports", "r0,r1,r2"}, args...)...)
			if err := lab.Router.Lines(mirrorOfR0); err != nil {
				t.Fatal(err)
			}
			traffic, err := lab.Traffic(watchtest.Load{UDP: 2500, TCP: 50})
			if err != nil {
				t.Fatal(err)
			}
			defer traffic.Stop()
			if h.await(mirrored) == nil {
				t.Errorf("not found:%s", h.told())
			}
			h.stop()
		})
	}
}

// TestAFloodDoesNotBlindTheWatch sends as many different packets as the client
// can, and then looks for a mirror of little traffic beside them.
func TestAFloodDoesNotBlindTheWatch(t *testing.T) {
	needsRoot(t)
	lab := openLab(t, watchtest.Routed)
	h := startHunter(t, lab, "--ports", "r0,r1,r2")
	flood := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				flood <- nil
				return
			default:
				if err := watchtest.Flood(lab, 10_000); err != nil {
					flood <- err
					return
				}
			}
		}
	}()
	err := lab.Router.Lines(`tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol ip u32 match ip protocol 6 0xff action mirred egress mirror dev r2`)
	if err != nil {
		t.Fatal(err)
	}
	traffic, err := lab.Traffic(watchtest.Load{TCP: 500, Open: 50, Only: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer traffic.Stop()
	if h.await(mirrored) == nil {
		t.Errorf("not found:%s", h.told())
	}
	close(stop)
	if err := <-flood; err != nil {
		t.Error(err)
	}
	h.stop()
}
