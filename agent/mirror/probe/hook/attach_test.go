package hook

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// nothingLeft fails if a port still carries a program, a filter or a qdisc of ours.
func (l *lab) nothingLeft(port uint32) {
	l.t.Helper()
	c := newClsact(l.links)
	for _, s := range sides {
		if n := attachedTCX(l.t, port, s); n > 0 {
			l.t.Errorf("%s: %d tcx programs are left", s, n)
		}
		if there, err := c.filters(port, s, 0); err == nil && len(there) > 0 {
			l.t.Errorf("%s: filters are left: %v", s, there)
		}
	}
	if l.hasClsact(port) {
		l.t.Error("the clsact qdisc is left")
	}
}

func attachedTCX(t testing.TB, port uint32, s side) int {
	t.Helper()
	found, err := queryTCX(port, s)
	if err != nil {
		return 0
	}
	return len(found.Programs)
}

func (l *lab) hasClsact(port uint32) bool {
	l.t.Helper()
	has := false
	l.must("qdiscs", l.links.Dump(l.t.Context(), unix.RTM_GETQDISC, tcHeader(port, 0, 0, 0), func(m netlink.Message) error {
		q, err := parseQdisc(m)
		has = has || q.port == port && q.kind == "clsact"
		return err
	}))
	return has
}

func TestHooksSeeBothDirectionsAndLeaveNothing(t *testing.T) {
	ways(t, func(t *testing.T, w Way) {
		l := newLab(t)
		r0 := l.veth("r0", "p0")
		p := programs(t)
		g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, Way: w})
		l.send(l.packetSocket(l.index("p0")), 5) // comes in by r0
		l.send(l.packetSocket(r0), 3)            // leaves by r0
		eventually(t, "counts", func() bool { c, _ := p.count(r0); return c.Received.Packets >= 5 && c.Sent.Packets >= 3 }, func() any { c, _ := p.count(r0); return c })
		if got := g.Capabilities(); len(got) == 0 || got[0].Name != "hooks/r0" || got[0].State != mirror.Full || got[0].How != string(w) {
			t.Errorf("capabilities %+v", got)
		}
		if err := g.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		l.nothingLeft(r0)
	})
}

func TestWhatIsNotOursStays(t *testing.T) {
	ways(t, func(t *testing.T, w Way) {
		l := newLab(t)
		r0 := l.veth("r0", "p0")
		theirs := &clsact{conn: l.links, mark: mark{pid: 1, start: 1}, made: map[uint32]bool{}}
		l.must("their qdisc", theirs.qdisc(r0, ingress))
		l.addU32(r0, ingress, 10)
		p := programs(t)
		g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, Way: w})
		if err := g.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		there, err := theirs.filters(r0, ingress, 0)
		if err != nil || len(there) == 0 || slices.ContainsFunc(there, func(f filter) bool { return f.kind != "u32" }) {
			t.Errorf("filters %v, %v: want their u32 alone", there, err)
		}
		if !l.hasClsact(r0) {
			t.Error("their qdisc is gone")
		}
	})
}

func TestAQdiscOfOursStaysWhileOthersUseIt(t *testing.T) {
	l := newLab(t)
	r0 := l.veth("r0", "p0")
	p := programs(t)
	g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, Way: Clsact})
	l.addU32(r0, egress, 10)
	if err := g.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if there, _ := newClsact(l.links).filters(r0, egress, 0); len(there) == 0 || !l.hasClsact(r0) {
		t.Errorf("filters %v: want their u32", there)
	}
}

// addU32 adds a filter that lets everything pass (struct tc_u32_sel with one key
// that matches all, linux/pkt_cls.h).
func (l *lab) addU32(port uint32, s side, priority uint32) {
	l.t.Helper()
	const classID, selector = 1, 5 // TCA_U32_CLASSID, TCA_U32_SEL
	sel := make([]byte, 32)
	sel[0], sel[2] = 1, 1 // terminal, one key
	body := netlink.AppendString(tcHeader(port, 0, parents[s], priority<<16|everyProtocol), unix.TCA_KIND, "u32")
	options := netlink.AppendUint32(netlink.AppendAttr(nil, selector, sel), classID, 1)
	body = netlink.AppendNested(body, unix.TCA_OPTIONS, options)
	l.must("u32 filter", l.try(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body))
}

func TestPortsAreHookedWhenTheyAppearAndKeepTheirHookUnderAnotherName(t *testing.T) {
	ways(t, func(t *testing.T, w Way) {
		l := newLab(t)
		p := programs(t)
		changes := make(chan string, 100)
		g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, Way: w, Changed: func(name string, _ uint32, up bool) {
			changes <- map[bool]string{true: "+", false: "-"}[up] + name
		}})
		if got := g.Capabilities(); len(got) == 0 || got[0].State != mirror.None || got[0].Why == "" {
			t.Errorf("capabilities without the port: %+v", got)
		}
		l.run(g)
		r0 := l.veth("r0", "p0")
		l.must("rename", func() error { <-changes; return l.rename(r0, "x9") }())
		if got := <-changes; got != "+x9" {
			t.Errorf("change %q, want +x9", got)
		}
		l.must("another r0", l.tryVeth("r0", "p1"))
		if got := <-changes; got != "+r0" {
			t.Errorf("change %q, want +r0", got)
		}
		eventually(t, "two hooked ports", func() bool {
			full := 0
			for _, c := range g.Capabilities() {
				if c.State == mirror.Full && (c.Name == "hooks/r0" || c.Name == "hooks/x9") {
					full++
				}
			}
			return full == 2
		}, func() any { return g.Capabilities() })
		l.must("delete", l.remove(r0))
		if got := <-changes; got != "-x9" {
			t.Errorf("change %q, want -x9", got)
		}
	})
}

func TestAPortThatLeavesABridgeKeepsItsHook(t *testing.T) {
	l := newLab(t)
	p := programs(t)
	r0 := l.veth("r0", "p0")
	br := l.bridge("br0")
	downs := make(chan string, 10)
	g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, Changed: func(name string, _ uint32, up bool) {
		if !up {
			downs <- name
		}
	}})
	_, stop := l.run(g)
	l.master(r0, br)
	l.master(r0, 0)                                    // RTM_DELLINK of the bridge family
	l.must("rename", l.rename(l.index("p0"), "later")) // a later notification
	eventually(t, "notifications are read", func() bool { return g.events.Pending(func(netlink.Message) error { return nil }) == nil })
	stop()
	if len(downs) > 0 {
		t.Errorf("the port was dropped: %s", <-downs)
	}
}

func TestRefusedProgramsAreACapabilityNotAnError(t *testing.T) {
	g, err := Open(Config{Ports: []string{"r0"}, Refused: errors.New("BPF refused: operation not permitted")})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	got := g.Capabilities()
	if len(got) == 0 || got[0].State != mirror.None || got[0].Why != "BPF refused: operation not permitted" {
		t.Errorf("capabilities %+v", got)
	}
}
