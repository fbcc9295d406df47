package hook

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"waxseal/agent/mirror"
)

// BenchmarkRound is the guard's work for three ports, every 50 ms.
func BenchmarkRound(b *testing.B) {
	for _, w := range []Way{TCX, Clsact} {
		b.Run(string(w), func(b *testing.B) {
			l := newLab(b)
			var ports []string
			for i := range 3 {
				ports = append(ports, fmt.Sprintf("r%d", i))
				l.veth(ports[i], fmt.Sprintf("p%d", i))
			}
			p := programs(b)
			g := l.open(Config{Ports: ports, Ingress: p.in, Egress: p.out, Way: w, Count: p.count})
			if c := g.Capabilities()[0]; c.State != mirror.Full {
				b.Skipf("needs hooks: %+v", c)
			}
			for b.Loop() {
				g.round(b.Context())
			}
			if len(g.told) > 0 {
				b.Errorf("observations %+v", g.told)
			}
		})
	}
}

// TestHowSoonTamperingIsFound reports it; it sets no bound.
// WAXSEAL_TIMES says how often.
func TestHowSoonTamperingIsFound(t *testing.T) {
	needTCX(t)
	times := 2
	if n, err := strconv.Atoi(os.Getenv("WAXSEAL_TIMES")); err == nil {
		times = n
	}
	for name, act := range map[string]func(guarded) (kind mirror.Kind, undo func()){
		"detach": func(g guarded) (mirror.Kind, func()) {
			_ = g.theirLink(ingress).Detach()
			return mirror.Tamper, func() {}
		},
		"a program in front": func(g guarded) (mirror.Kind, func()) {
			theirs, err := link.AttachTCX(link.TCXOptions{Interface: int(g.port), Program: stranger(g.t, ebpf.SchedCLS, -1), Attach: ebpf.AttachTCXEgress, Anchor: link.Head()})
			g.must("attach", err)
			return mirror.Tamper, func() { theirs.Close() }
		},
		"XDP by a link": func(g guarded) (mirror.Kind, func()) {
			x, err := link.AttachXDP(link.XDPOptions{Program: stranger(g.t, ebpf.XDP, 2), Interface: int(g.port), Flags: link.XDPGenericMode})
			g.must("XDP", err)
			return mirror.Tamper, func() { x.Close() }
		},
		"bypass of the qdisc": func(g guarded) (mirror.Kind, func()) {
			g.send(g.bypassSocket(g.port), 30)
			return mirror.Bypass, func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var took []time.Duration
			g := guardedPort(t, TCX)
			for i := range times {
				time.Sleep(retryEvery + time.Duration(i)*g.guard.interval/time.Duration(times)) // at every phase of a round
				g.sink.clear()
				began := time.Now()
				kind, undo := act(g)
				took = append(took, g.find(t, kind, "").Time.Sub(began))
				undo()
			}
			slices.Sort(took)
			t.Logf("%s: median %v, worst %v of %d", name, took[times/2].Round(time.Millisecond), took[times-1].Round(time.Millisecond), times)
		})
	}
}
