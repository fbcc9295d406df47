package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netns"
)

const mirrorR0 = "tc qdisc add dev r0 clsact; tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev r2"

func TestARuleInAnotherNamespaceIsToldWithItsName(t *testing.T) {
	home, other := newLab(t), newLab(t)
	s := run(t, home.open(Config{}))
	other.do(mirrorR0)
	o := s.wait("the mirror", func(o mirror.Observation) bool { return o.Netns == other.name && o.Cause == "tc mirred mirror" })
	if o.Baseline || o.Copy != "r2" || o.Process.PID == 0 {
		t.Errorf("observation %+v", o)
	}
}

func TestANamespaceThatAppearsIsWatchedAndItsEndEndsItsRules(t *testing.T) {
	home := newLab(t)
	s := run(t, home.open(Config{}))
	late := newLab(t)
	late.do(mirrorR0)
	o := s.wait("the mirror", func(o mirror.Observation) bool { return o.Netns == late.name && o.Cause == "tc mirred mirror" })
	if o.Baseline {
		t.Errorf("what is in a new namespace was not there when the watch began: %+v", o)
	}
	late.host("ip", "netns", "del", late.name)
	s.wait("its end", func(g mirror.Observation) bool { return g.Netns == late.name && g.Subject == o.Subject && g.Gone })
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		found, err := netns.Find(netns.Everything, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		gone := true
		for _, n := range found.Namespaces {
			gone = gone && n.Name != late.name
		}
		if gone {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the watch keeps the namespace alive")
		}
	}
}

func TestANamespaceWithoutANameOrProcessIsWatched(t *testing.T) {
	home, other := newLab(t), newLab(t)
	s := run(t, home.open(Config{}))
	// Nobody stays in it; a bind mount in an odd place is all that leads there.
	place := t.TempDir() + "/n"
	if err := os.WriteFile(place, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/run/netns/"+other.name, place, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(place, unix.MNT_DETACH) })
	other.do(mirrorR0)
	other.host("ip", "netns", "del", other.name)
	s.wait("the mirror", func(o mirror.Observation) bool {
		return o.Netns != "" && o.Cause == "tc mirred mirror" && o.Process.PID != 0
	})
	for range 3 { // it is not taken for gone
		time.Sleep(lookDeepEvery / 2)
	}
	for _, o := range s.all() {
		if o.Gone && o.Cause == "tc mirred mirror" && o.Netns == other.name {
			t.Errorf("it is still there: %+v", o)
		}
	}
}

func TestNamespacesBeyondTheLimitAreInTheCapabilities(t *testing.T) {
	home := newLab(t)
	newLab(t)
	w := home.open(Config{MaxNamespaces: 1})
	for _, c := range w.Capabilities() {
		if c.Name == "namespaces" {
			if c.State != mirror.Partial || c.Why == "" {
				t.Errorf("capability %+v", c)
			}
			return
		}
	}
	t.Error("no capability of namespaces")
}

// Lost announcements are made up for by reading the lists: here none arrives.
func TestWhatIsNotAnnouncedIsFoundByReading(t *testing.T) {
	l := newLab(t)
	w := l.open(Config{Alone: true})
	for _, s := range w.all() {
		s.listeners = nil
	}
	s := run(t, w)
	l.do(mirrorR0 + "; nft 'add table netdev a; add chain netdev a c { type filter hook ingress device r0 priority 0; }; add rule netdev a c dup to r2'")
	o := s.begins("tc mirred mirror")
	if o.Process.PID != 0 {
		t.Errorf("nobody said who: %+v", o.Process)
	}
	s.begins("nft dup")
	l.do("tc filter del dev r0 ingress")
	s.ends(o)
}

func TestNothingIsToldTwice(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do(mirrorR0 + "; nft 'add table netdev a; add chain netdev a c { type filter hook ingress device r0 priority 0; }; add rule netdev a c dup to r2'; ip rule add pref 77 from 10.77.9.0/24 lookup 700")
	s.begins("tc mirred mirror")
	s.begins("nft dup")
	s.begins("policy routing rule")
	time.Sleep(3 * readEvery) // all lists are read again
	told := map[string]mirror.Observation{}
	for _, o := range s.all() {
		// But for who did it, if that came later.
		if before, twice := told[o.Subject]; twice && (before.Process.PID != 0 || o.Process.PID == 0) {
			t.Errorf("told again: %+v", o)
		}
		told[o.Subject] = o
	}
}

// A storm of announcements overruns the queue. What they told is found all the same.
func TestAnOverrunIsMadeUpFor(t *testing.T) {
	l := newLab(t)
	w := l.open(Config{Alone: true})
	for _, s := range w.all() {
		for _, listener := range s.listeners {
			if err := listener.conn.Room(1); err != nil {
				t.Fatal(err)
			}
		}
	}
	var storm strings.Builder
	for i := range 60 {
		fmt.Fprintf(&storm, "link add wxb%d type bridge\n", i)
	}
	l.feed("ip -batch -", storm.String()) // nobody listens yet
	l.do(mirrorR0)
	s := run(t, w)
	s.begins("tc mirred mirror")
	s.begins("announcements of the kernel were lost")
	l.do("tc filter del dev r0 ingress")
	s.wait("its end", func(o mirror.Observation) bool { return o.Cause == "tc mirred mirror" && o.Gone })
}
