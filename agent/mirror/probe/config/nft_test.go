package config

import (
	"strings"
	"testing"

	"waxseal/agent/mirror"
)

func TestAnNFTDupIsNamedWithItsProcessAndItsEndToo(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("nft 'add table ip t; add chain ip t c { type filter hook prerouting priority -300; }; add rule ip t c iifname r0 ip daddr 10.77.9.9 dup to 10.77.2.9'")
	o := s.begins("nft dup")
	if o.Kind != mirror.Rule || o.In != "r0" || o.Target != "10.77.2.9" || o.Copy != "r2" || o.Process.Comm != "nft" || o.Process.PID == 0 {
		t.Errorf("observation %+v", o)
	}
	l.do("nft delete table ip t")
	s.ends(o)
}

func TestNFTCopiesAreFoundInEveryFamilyAndHook(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	for name, c := range map[string]struct {
		script, cause, in, leaves string
	}{
		"netdev ingress dup": {"add table netdev a; add chain netdev a c { type filter hook ingress device r0 priority 0; }; add rule netdev a c dup to r2", "nft dup", "r0", "r2"},
		"netdev egress dup":  {"add table netdev b; add chain netdev b c { type filter hook egress device r1 priority 0; }; add rule netdev b c dup to r2", "nft dup", "r1", "r2"},
		"netdev fwd":         {"add table netdev d; add chain netdev d c { type filter hook ingress device r0 priority 1; }; add rule netdev d c fwd to r1", "nft fwd", "r0", "r1"},
		"called chain":       {"add table netdev e; add chain netdev e sub; add chain netdev e c { type filter hook ingress device r1 priority 2; }; add rule netdev e c jump sub; add rule netdev e sub dup to r0", "nft dup", "r1", "r0"},
		"ip6 dup":            {"add table ip6 f; add chain ip6 f c { type filter hook forward priority 0; }; add rule ip6 f c dup to fd77:2::9", "nft dup", "", "r2"},
		"ip dup by device":   {"add table ip g; add chain ip g c { type filter hook forward priority 0; }; add rule ip g c dup to 192.0.2.1 device r1", "nft dup", "", "r1"},
		"inet log":           {"add table inet h; add chain inet h c { type filter hook forward priority 0; }; add rule inet h c iifname r0 log group 5", "nft log", "r0", ""},
		"by a map":           {"add table ip j; add chain ip j c { type filter hook forward priority 0; }; add rule ip j c dup to ip saddr map { 10.77.0.9 : 10.77.2.9 }", "nft dup", "", ""},
	} {
		l.do("nft '%s'", c.script)
		table := " " + strings.Fields(c.script)[3][:1] + " chain"
		o := s.wait(name, func(o mirror.Observation) bool { return o.Cause == c.cause && strings.Contains(o.Detail, table) })
		if o.In != c.in || o.Copy != c.leaves || o.Harmless {
			t.Errorf("%s: in %q, copy by %q: want %q, %q: %+v", name, o.In, o.Copy, c.in, c.leaves, o)
		}
	}
}

func TestNFTAddressTranslationIsKnownAsHarmless(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.do("nft 'add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; add rule ip t c oifname r2 masquerade; add chain ip t d { type nat hook prerouting priority -100; }; add rule ip t d tcp dport 80 dnat to 10.77.1.9; add rule ip t c counter log prefix \"x\" accept'")
	s.begins("nft masq")
	s.begins("nft dnat")
	s.nothing()
}

func TestATEEOfIPTablesNFTIsFound(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.needs("iptables-nft with TEE", "iptables-nft -t mangle -A PREROUTING -i r0 -j TEE --gateway 10.77.2.9")
	o := s.begins("iptables TEE")
	if o.Detector != "nftables" || o.In != "r0" || o.Target != "10.77.2.9" || o.Copy != "r2" || !strings.HasPrefix(o.Process.Comm, "iptables") && !strings.HasPrefix(o.Process.Comm, "xtables") {
		t.Errorf("observation %+v", o)
	}
	l.do("iptables-nft -t mangle -F")
	s.ends(o)
}

func TestATEEOfIPTablesLegacyIsFound(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	l.needs("iptables-legacy with TEE", "iptables-legacy -t mangle -N sub; iptables-legacy -t mangle -A PREROUTING -j sub; iptables-legacy -t mangle -A sub -i r0 -d 10.77.9.9 -j TEE --gateway 10.77.2.9")
	o := s.begins("iptables TEE")
	if o.Detector != "iptables" || o.In != "r0" || o.Target != "10.77.2.9" || o.Copy != "r2" || !strings.Contains(o.Detail, "chain sub") {
		t.Errorf("observation %+v", o)
	}
	l.needs("ip6tables-legacy with TEE", "ip6tables-legacy -t mangle -A POSTROUTING -o r1 -j TEE --gateway fd77:2::9")
	six := s.wait("ip6", func(o mirror.Observation) bool { return o.Target == "fd77:2::9" })
	if six.Copy != "r2" || !strings.Contains(six.Detail, "chain POSTROUTING") {
		t.Errorf("observation %+v", six)
	}
	l.do("iptables-legacy -t mangle -I PREROUTING -j ACCEPT; iptables-legacy -t mangle -F sub; ip6tables-legacy -t mangle -F")
	s.ends(o)
	s.ends(six)
}

func TestAnIPTablesTableThatNobodyUsesIsNotMade(t *testing.T) {
	l := newLab(t)
	s := l.watch()
	s.settle(l)
	if names := l.do("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names"); names != "" {
		t.Errorf("the watch made tables: %q", names)
	}
}
