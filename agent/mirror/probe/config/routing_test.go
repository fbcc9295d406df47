package config

import (
	"strings"
	"testing"

	"waxseal/agent/mirror"
)

func TestAPolicyRuleIsToldWithItsProcessAndItsEndToo(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("ip rule add pref 77 from 10.77.9.0/24 iif r0 lookup 700")
	o := s.begins("policy routing rule")
	if o.In != "r0" || !strings.Contains(o.Detail, "pref 77 from 10.77.9.0/24 iif r0 lookup 700") || o.Process.PID == 0 {
		t.Errorf("observation %+v", o)
	}
	l.do("ip rule del pref 77")
	s.ends(o)
}

func TestTheRulesOfEveryNamespaceAreNotTold(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	s.settle(l)
	s.noRule()
}

func TestRoutesThatLeadAwayAreTold(t *testing.T) {
	l := newLab(t)
	l.do("ip link add vx7 type vxlan id 7 remote 10.77.2.9 dstport 4789; ip link set vx7 up")
	s := l.watch()
	l.do("ip route add 198.51.100.0/24 via 10.77.1.9")
	l.do("ip route add 203.0.113.0/24 dev vx7")
	tunnel := s.begins("route into a tunnel")
	if tunnel.Target != "vx7" || tunnel.Copy != "r2" || tunnel.Process.PID == 0 {
		t.Errorf("observation %+v", tunnel)
	}
	l.do("ip route add table 700 default via 10.77.1.9")
	policy := s.begins("route of a policy table")
	if policy.Copy != "r1" || !strings.Contains(policy.Detail, "table 700") {
		t.Errorf("observation %+v", policy)
	}
	l.do("ip route del 203.0.113.0/24 dev vx7; ip route del table 700 default")
	s.ends(tunnel)
	s.ends(policy)
	for _, o := range s.all() {
		if strings.Contains(o.Detail, "198.51.100.0") {
			t.Errorf("a plain route is told: %+v", o)
		}
	}
}

func TestARouteWithEncapsulationIsTold(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.needs("a light-weight tunnel", "ip route add 203.0.113.0/24 encap ip id 7 dst 10.77.2.9 dev r2 || ip -6 route add 2001:db8::/64 encap seg6 mode encap segs fd77:2::9 dev r2 || ip -6 route add 2001:db8::/64 encap ioam6 trace prealloc type 0x800000 ns 1 size 12 dev r2")
	s.wait("the route", func(o mirror.Observation) bool {
		return strings.HasPrefix(o.Cause, "route that encapsulates: ") && o.Copy == "r2"
	})
}

func TestSeveralWaysToOnePlaceAreNotToldAsCopies(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("ip route add 203.0.113.0/24 nexthop via 10.77.1.9 nexthop via 10.77.2.9")
	s.settle(l)
	s.noRule()
}

func TestAVXLANThatFloodsToSeveralIsTold(t *testing.T) {
	l := newLab(t)
	l.do("ip link add vx7 type vxlan id 7 dstport 4789; ip link set vx7 up; bridge fdb append 00:00:00:00:00:00 dev vx7 dst 10.77.1.9")
	s := l.watch()
	l.do("bridge fdb append 00:00:00:00:00:00 dev vx7 dst 10.77.2.9")
	o := s.begins("vxlan floods to several remotes")
	if o.In != "vx7" || o.Copy != "r1" || !strings.Contains(o.Target, "10.77.2.9") {
		t.Errorf("observation %+v", o)
	}
	l.do("bridge fdb del 00:00:00:00:00:00 dev vx7 dst 10.77.2.9")
	s.ends(o)
}

func TestNeighboursThatCopyOrStandInAreTold(t *testing.T) {
	l := newLab(t)
	l.do("ip link add br0 type bridge; ip link set r0 master br0; ip link set br0 up")
	s := l.watch()
	l.do("ip neigh add 10.77.1.9 lladdr 03:00:5e:00:00:09 dev r1")
	group := s.begins("neighbour with a group address: every port gets a copy")
	if group.Copy != "r1" || group.Target != "10.77.1.9" {
		t.Errorf("observation %+v", group)
	}
	l.do("ip neigh add proxy 10.77.1.77 dev r0; bridge fdb add 02:00:00:00:00:07 dev r0 master static")
	proxy := s.begins("neighbour proxy: takes the route to another")
	pinned := s.begins("static layer 2 route")
	l.do("ip neigh del 10.77.1.9 dev r1; ip neigh del proxy 10.77.1.77 dev r0; bridge fdb del 02:00:00:00:00:07 dev r0 master")
	s.ends(group)
	s.ends(proxy)
	s.ends(pinned)
}

func TestAnIPsecTunnelIsTold(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.needs("xfrm", "ip xfrm policy add src 10.77.0.0/24 dst 10.77.9.0/24 dir out tmpl src 10.77.2.1 dst 10.77.2.9 proto esp mode tunnel")
	o := s.begins("route into an IPsec tunnel")
	if o.Target != "10.77.2.9" || o.Copy != "r2" || !strings.Contains(o.Detail, "from 10.77.0.0/24 to 10.77.9.0/24") {
		t.Errorf("observation %+v", o)
	}
	l.do("ip xfrm policy flush")
	s.ends(o)
}
