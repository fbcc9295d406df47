package config

import (
	"strings"
	"testing"

	"waxseal/agent/mirror"
)

// What a kernel may lack. A distribution's has it as modules.

func TestFiltersAndActionsThatAKernelMayLackAreFound(t *testing.T) {
	for name, c := range map[string]struct{ add, cause, leaves string }{
		"matchall":     {"dev r0 ingress matchall action mirred egress mirror dev r2", "tc mirred mirror", "r2"},
		"basic":        {"dev r0 ingress protocol all basic action mirred ingress mirror dev r1", "tc mirred mirror", "r1"},
		"flower":       {"dev r0 egress protocol ip flower dst_ip 10.77.0.9 action mirred egress redirect dev r1", "tc mirred redirect", "r1"},
		"fw":           {"dev r0 ingress protocol ip handle 7 fw action mirred egress mirror dev r1", "tc mirred mirror", "r1"},
		"last of 3":    {"dev r0 ingress matchall action pass pipe action skbedit mark 1 pipe action mirred egress mirror dev r2", "tc mirred mirror", "r2"},
		"sample":       {"dev r0 ingress matchall action sample rate 10 group 4", "tc sample", ""},
		"a way around": {"dev r0 ingress protocol ip flower action tunnel_key set src_ip 10.77.2.1 dst_ip 10.77.2.9 id 5 action mirred egress mirror dev r2", "tc mirred mirror", "r2"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			s := l.watch()
			l.needs(name, "tc qdisc add dev r0 clsact && tc filter add %s", c.add)
			o := s.begins(c.cause)
			if o.In != "r0" || o.Copy != c.leaves || o.Process.PID == 0 {
				t.Errorf("observation %+v", o)
			}
			l.do("tc qdisc del dev r0 clsact")
			s.ends(o)
		})
	}
}

func TestDevicesThatAKernelMayLackAreTold(t *testing.T) {
	for name, c := range map[string]struct{ add, cause, target, leaves string }{
		"gre":       {"type gre local 10.77.2.1 remote 10.77.2.9", "new tunnel gre", "10.77.2.9", "r2"},
		"gretap":    {"type gretap local 10.77.2.1 remote 10.77.2.9", "new tunnel gretap", "10.77.2.9", "r2"},
		"erspan":    {"type erspan seq key 3 local 10.77.2.1 remote 10.77.2.9 erspan_ver 1 erspan 7", "new tunnel erspan", "10.77.2.9", "r2"},
		"ip6gre":    {"type ip6gre local fd77:2::1 remote fd77:2::9", "new tunnel ip6gre", "fd77:2::9", "r2"},
		"ipip":      {"type ipip local 10.77.2.1 remote 10.77.2.9", "new tunnel ipip", "10.77.2.9", "r2"},
		"sit":       {"type sit local 10.77.2.1 remote 10.77.2.9", "new tunnel sit", "10.77.2.9", "r2"},
		"geneve":    {"type geneve id 7 remote 10.77.2.9", "new tunnel geneve", "10.77.2.9", "r2"},
		"bond":      {"type bond mode broadcast", "bond copies every frame to all its ports", "", ""},
		"wireguard": {"type wireguard", "new tunnel wireguard", "", ""},
		"nlmon":     {"type nlmon", "netlink monitor nlmon", "", ""},
		"vlan":      {"link r1 type vlan id 7", "new vlan", "", "r1"},
		"macvlan":   {"link r1 type macvlan mode bridge", "new macvlan", "", "r1"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			s := l.watch()
			l.needs(name, "ip link add wxd7 %s", c.add)
			o := s.begins(c.cause)
			if o.In != "wxd7" || o.Target != c.target || o.Copy != c.leaves {
				t.Errorf("observation %+v", o)
			}
			l.do("ip link del wxd7")
			s.ends(o)
			for _, o := range s.all() {
				if o.Kind == mirror.Device && o.In != "wxd7" && !o.Harmless {
					t.Errorf("the kernel's own device is told: %+v", o)
				}
			}
		})
	}
}

func TestAWireGuardPeerIsToldWhenItComesAndGoes(t *testing.T) {
	l := newLab(t)
	l.needs("wireguard", "ip link add wg7 type wireguard")
	s := l.watch()
	key := strings.TrimSpace(l.do("wg genkey | wg pubkey"))
	l.do("wg set wg7 peer %s endpoint 10.77.2.9:51820 allowed-ips 10.77.9.0/24", key)
	o := s.begins("new WireGuard peer")
	if o.In != "wg7" || o.Target != "10.77.2.9" || o.Copy != "r2" || !strings.Contains(o.Detail, key) {
		t.Errorf("observation %+v", o)
	}
	l.do("wg set wg7 peer %s remove", key)
	s.ends(o)
}

func TestAQueueOfNFTIsFound(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.needs("nft queue", "nft 'add table inet q; add chain inet q c { type filter hook forward priority 0; }; add rule inet q c iifname r0 queue num 3'")
	if o := s.begins("nft queue"); o.In != "r0" || o.Process.Comm != "nft" {
		t.Errorf("observation %+v", o)
	}
}

func TestAVLANOrMacvlanMayMakeItsPortPromiscuous(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.needs("macvlan", "ip link add link r1 mv7 type macvlan mode bridge && ip link set mv7 up")
	s.settle(l)
	for _, o := range s.all() {
		if o.Cause == "promiscuous mode" && !o.Harmless {
			t.Errorf("emitted %+v", o)
		}
	}
}
