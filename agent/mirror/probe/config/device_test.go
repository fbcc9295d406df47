package config

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netns"
)

func indexOf(s, part string) int              { return strings.Index(s, part) }
func containsText(s, part string) bool        { return strings.Contains(s, part) }
func is(o mirror.Observation, in string) bool { return o.In == in && !o.Gone && !o.Baseline }

func TestAPromiscuousPortIsToldAndItsEndToo(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("ip link set r1 promisc on")
	o := s.begins("promiscuous mode")
	if o.In != "r1" || o.Harmless || o.Kind != mirror.Device {
		t.Errorf("observation %+v", o)
	}
	l.do("ip link set r1 promisc off")
	s.ends(o)
}

func TestABridgesPortsMayBePromiscuousButNoMoreThanThat(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("ip link add br0 type bridge; ip link set r0 master br0; ip link set r1 master br0; ip link set br0 up")
	s.settle(l)
	for _, o := range s.all() {
		if strings.Contains(o.Cause, "promisc") && !o.Harmless {
			t.Errorf("a bridge port is told as promiscuous: %+v", o)
		}
	}
	l.do("ip link set r0 promisc on")
	s.wait("r0", func(o mirror.Observation) bool { return is(o, "r0") && o.Cause == "promiscuous mode" && !o.Harmless })
}

func TestATunnelIsToldWithItsFarEndAndItsPort(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("ip link add vx7 type vxlan id 7 remote 10.77.2.9 dstport 4789")
	o := s.begins("new tunnel vxlan")
	if o.In != "vx7" || o.Target != "10.77.2.9" || o.Copy != "r2" {
		t.Errorf("observation %+v", o)
	}
	l.do("tc qdisc add dev r0 clsact; tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev vx7")
	if m := s.begins("tc mirred mirror"); m.Target != "vx7" || m.Copy != "r2" {
		t.Errorf("a copy into the tunnel leaves by %q, want r2: %+v", m.Copy, m)
	}
	l.do("ip link del vx7")
	s.ends(o)
}

func TestABridgeThatDoesNotLearnIsTold(t *testing.T) {
	l := newLab(t)
	l.do("ip link add br0 type bridge; ip link set r0 master br0; ip link set r1 master br0")
	s := l.watch()
	l.do("ip link set br0 type bridge ageing_time 0")
	hub := s.begins("bridge does not learn: hub mode")
	l.do("bridge link set dev r0 learning off")
	deaf := s.begins("bridge port does not learn")
	if hub.In != "br0" || deaf.In != "r0" {
		t.Errorf("bridge %+v, port %+v", hub, deaf)
	}
	l.do("ip link set br0 type bridge ageing_time 30000; bridge link set dev r0 learning on")
	s.ends(hub)
	s.ends(deaf)
}

func TestTapsAreTold(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.needs("tun", "ip tuntap add tap7 mode tap user 7")
	if o := s.begins("new tun or tap device"); o.In != "tap7" || !strings.Contains(o.Detail, "layer 2") {
		t.Errorf("observation %+v", o)
	}
	s.wait("its owner", func(o mirror.Observation) bool { return strings.Contains(o.Detail, "layer 2 of user 7") })
	l.needs("macvtap", "ip link add link r1 mvt7 type macvtap")
	if o := s.begins("new macvtap"); o.In != "mvt7" || o.Copy != "r1" {
		t.Errorf("observation %+v", o)
	}
}

func TestTheHolderOfATapIsNamed(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	var tun *os.File
	// A file of tun belongs to the namespace in which it was opened.
	err := netns.DoBy(s.watch.all()[0].route, func() (err error) {
		if tun, err = os.OpenFile("/dev/net/tun", os.O_RDWR, 0); err != nil {
			return err
		}
		request, err := unix.NewIfreq("tap8")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		return unix.IoctlIfreq(int(tun.Fd()), unix.TUNSETIFF, request)
	})
	if err != nil {
		t.Skipf("needs tun: %v", err)
	}
	defer tun.Close()
	o := s.begins("new tun or tap device")
	if o.In != "tap8" || o.Process.PID != os.Getpid() {
		t.Errorf("observation %+v", o)
	}
	tun.Close()
	s.ends(o)
}

func TestAMacvlanThatCopiesIsARule(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.needs("macvlan", "ip link add link r1 mv7 type macvlan mode source && ip link set link dev mv7 type macvlan macaddr add 02:00:00:00:00:09")
	if o := s.begins("macvlan copies frames by who sends them"); o.Kind != mirror.Rule || o.In != "r1" || o.Copy != "mv7" {
		t.Errorf("observation %+v", o)
	}
}

func TestDevicesOfTheKernelsOwnMakingAreNotTold(t *testing.T) {
	for name, c := range map[string]struct {
		link link
		want bool
	}{
		"gre0 as loaded":   {link{name: "gre0", kind: "gre"}, true},
		"gre0 put to use":  {link{name: "gre0", kind: "gre", flags: 1}, false},
		"gre0 in a bridge": {link{name: "gretap0", kind: "gretap", master: 3}, false},
		"another gre":      {link{name: "gre1", kind: "gre"}, false},
		"ifb0 as loaded":   {link{name: "ifb0", kind: "ifb"}, true},
		"ifb2":             {link{name: "ifb2", kind: "ifb"}, false},
	} {
		if got := c.link.automatic(); got != c.want {
			t.Errorf("%s: automatic %v", name, got)
		}
	}
}
