package watchtest

import (
	"fmt"
	"os/exec"

	"waxseal/agent/mirror"
)

// nft loads a rule set, with the same stand-ins as script.
func nft(rules string) Start {
	return func(l *Lab) (func(), error) {
		return func() {}, lacking(l.Router.Feed(l.fill(rules), "nft", "-f", "-"))
	}
}

// iptables runs one of the iptables programs.
func iptables(program, rule string) Start {
	return func(l *Lab) (func(), error) {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%s: %w", program, ErrLacking)
		}
		return script(program + " " + rule)(l)
	}
}

var attacksByRules = []Attack{
	{Name: "nft ip dup", Want: copies("nft.* dup"), Start: nft(`table ip wx { chain c {
		type filter hook prerouting priority -300;
		iifname "r0" dup to $COLLECTOR device "r2"; }
}`)},
	{Name: "nft ip6 dup", Want: copies("nft.* dup"), Start: nft(`table ip6 wx { chain c {
		type filter hook prerouting priority -300;
		iifname "r0" dup to $COLLECTOR6 device "r2"; }
}`)},
	{Name: "nft ip dup in the forward chain, in a table with a harmless name", Want: copies("nft.* dup"), Start: nft(`table ip filter { chain FORWARD {
		type filter hook forward priority 0;
		ip saddr $CLIENT counter dup to $COLLECTOR; }
}`)},
	{Name: "nft ip dup to a host behind the server's port", Want: Want{Kinds: copies("").Kinds, In: R0, Copy: R1, Cause: "nft.* dup", Severity: mirror.Alarm}, Start: nft(`table ip wx { chain c {
		type filter hook prerouting priority -300;
		iifname "r0" dup to 10.71.1.2 device "r1"; }
}`)},
	{Name: "nft netdev dup at ingress", Want: copies("nft.* dup"), Start: nft(`table netdev wx { chain c {
		type filter hook ingress device "r0" priority 0;
		dup to "r2"; }
}`)},
	{Name: "nft netdev dup at egress", Want: leaving("nft.* dup"), Start: nft(`table netdev wx { chain c {
		type filter hook egress device "r1" priority 0;
		dup to "r2"; }
}`)},
	{Name: "nft netdev fwd", Want: Want{Kinds: []mirror.Kind{mirror.Misroute, mirror.Rule, mirror.Bypass}, In: R0, Copy: R2, Cause: "nft.* fwd", Severity: mirror.Alarm}, Start: nft(`table netdev wx { chain c {
		type filter hook ingress device "r0" priority 0;
		meta l4proto udp fwd to "r2"; }
}`)},
	{Name: "nft dup by a map of verdicts", Want: copies("nft.* dup"), Start: nft(`table ip wx {
		chain copy { dup to $COLLECTOR device "r2"; }
		chain c {
			type filter hook prerouting priority -300;
			ip protocol vmap { tcp : jump copy, udp : jump copy }; }
}`)},
	{Name: "iptables-nft TEE", Want: copies("TEE"), Start: iptables("iptables-nft", "-t mangle -A PREROUTING -i r0 -j TEE --gateway $COLLECTOR")},
	{Name: "ip6tables-nft TEE", Want: copies("TEE"), Start: iptables("ip6tables-nft", "-t mangle -A PREROUTING -i r0 -j TEE --gateway $COLLECTOR6")},
	{Name: "iptables-legacy TEE", Want: copies("TEE"), Start: iptables("iptables-legacy", "-t mangle -A PREROUTING -i r0 -j TEE --gateway $COLLECTOR")},
	{Name: "ip6tables-legacy TEE", Want: copies("TEE"), Start: iptables("ip6tables-legacy", "-t mangle -A PREROUTING -i r0 -j TEE --gateway $COLLECTOR6")},
	{Name: "policy route to the collector", Want: Want{Kinds: []mirror.Kind{mirror.Rule, mirror.Misroute}, Cause: "rule|polic|table", Severity: mirror.Notice}, Start: script(`
		ip route add default via $COLLECTOR table 71
		ip rule add iif r0 to $SERVER table 71`)},
}
