package hook

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestPortsMayComeGoAndChangeTheirNamesAtAnyMoment lets ports appear, be
// renamed, move and go while they are being hooked.
func TestPortsMayComeGoAndChangeTheirNamesAtAnyMoment(t *testing.T) {
	ways(t, func(t *testing.T, w Way) {
		l := newLab(t)
		away := elsewhere(t)
		p := programs(t)
		names := []string{"r0", "r1", "r2", "r3"}
		g := l.open(Config{Ports: names, Ingress: p.in, Egress: p.out, Way: w, Count: p.count})
		before := descriptors(t)
		s, stop := l.run(g)
		seed := rand.New(rand.NewPCG(4, 4))
		for i := range 150 {
			name := names[seed.IntN(len(names))]
			if l.tryVeth(name, fmt.Sprintf("p%d", i)) != nil {
				continue // it is there already
			}
			index := l.index(name)
			time.Sleep(time.Duration(seed.IntN(3)) * time.Millisecond)
			switch seed.IntN(4) {
			case 0:
				_ = l.rename(index, fmt.Sprintf("x%d", i))
			case 1:
				_ = l.try(unix.RTM_NEWLINK, 0, netlink.AppendUint32(linkHeader(index), unix.IFLA_NET_NS_FD, uint32(away.file.Fd())))
			}
			_ = l.remove(index)
		}
		for _, name := range names {
			_ = l.tryVeth(name, "q"+name)
		}
		eventually(t, "all four are hooked", func() bool {
			full := 0
			for _, c := range g.Capabilities() {
				if slices.Contains(names, trimHooks(c.Name)) && c.State == mirror.Full {
					full++
				}
			}
			return full == len(names)
		}, func() any { return g.Capabilities() })
		for _, o := range s.wrong() {
			if o.Kind != mirror.Tamper || o.Subject != "netns/"+o.In {
				t.Errorf("%s %s: %s", o.Kind, o.Subject, o.Cause)
			}
		}
		stop()
		ports := l.hooked(g)
		l.must("close", g.Close())
		for _, port := range ports {
			l.nothingLeft(port)
		}
		if now := descriptors(t); now > before {
			t.Errorf("%d descriptors, %d before", now, before)
		}
	})
}

func trimHooks(name string) string {
	var port string
	if n, _ := fmt.Sscanf(name, "hooks/%s", &port); n == 0 {
		return ""
	}
	return port
}

func (l *lab) hooked(g *Guard) (all []uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for index := range g.ports {
		all = append(all, index)
	}
	return all
}

// TestManyDevicesDoNotKeepTheGuardFromItsRounds lets many devices come and go.
func TestManyDevicesDoNotKeepTheGuardFromItsRounds(t *testing.T) {
	l := newLab(t)
	r0 := l.veth("r0", "p0")
	p := programs(t)
	g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, Count: p.count})
	s, _ := l.run(g)
	l.must("room", g.events.Room(1)) // notifications are lost
	const pairs = 500
	began := time.Now()
	for i := range pairs {
		l.must("veth", l.tryVeth(fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)))
	}
	t.Logf("%d devices made in %v", 2*pairs, time.Since(began))
	began = time.Now()
	g.mu.Lock()
	h := g.ports[r0].seats[egress].hold
	g.mu.Unlock()
	if tcxHeld, ok := h.(*tcxHold); ok {
		l.must("detach", tcxHeld.link.Detach())
		o := s.find(t, mirror.Tamper, "detached")
		t.Logf("among %d devices a detached link is found after %v", 2*pairs, o.Time.Sub(began))
	}
	began = time.Now()
	there, err := devices(t.Context(), l.links)
	t.Logf("%d devices are listed in %v", len(there), time.Since(began))
	if err != nil || len(there) < 2*pairs {
		t.Errorf("%d devices, %v", len(there), err)
	}
	l.must("another port", l.rename(l.index("a7"), "r0x"))
	for _, o := range s.wrong() {
		if o.Kind != mirror.Tamper {
			t.Errorf("%s %s: %s", o.Kind, o.Subject, o.Cause)
		}
	}
}

// TestAPortThatCameWhileNotificationsWereLostIsHooked takes the notification away.
func TestAPortThatCameWhileNotificationsWereLostIsHooked(t *testing.T) {
	l := newLab(t)
	p := programs(t)
	g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out})
	l.must("room", g.events.Room(1))
	for i := range 20 {
		l.must("veth", l.tryVeth(fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)))
	}
	l.veth("r0", "p0")
	l.run(g)
	eventually(t, "it is hooked", func() bool { return g.Capabilities()[0].State == mirror.Full }, func() any { return g.Capabilities() })
}

func TestAnIngressQdiscOfOthersLeavesEgressUnhooked(t *testing.T) {
	l := newLab(t)
	r0 := l.veth("r0", "p0")
	body := netlink.AppendString(tcHeader(r0, clsactHandle, clsactParent, 0), unix.TCA_KIND, "ingress")
	l.must("ingress qdisc", l.try(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body))
	p := programs(t)
	g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, Way: Clsact})
	if c := g.Capabilities()[0]; c.State != mirror.Partial || c.Why == "" {
		t.Errorf("capability %+v, want partial with a cause", c)
	}
	l.must("close", g.Close())
	if there, _ := newClsact(l.links).filters(r0, ingress, 0); len(there) > 0 {
		t.Errorf("filters are left: %v", there)
	}
}
