package config

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkRead reads each list of a router with six devices, 100 tc filters,
// 1,000 nftables rules, 300 of iptables-legacy and 1,000 routes: what is done
// once a second, ten times a second for iptables.
func BenchmarkRead(b *testing.B) {
	l := newLab(b)
	l.do("tc qdisc add dev r0 clsact; nft 'add table ip t; add chain ip t c { type filter hook forward priority 0; }'")
	var script strings.Builder
	for i := range 100 {
		fmt.Fprintf(&script, "filter add dev r0 ingress pref %d protocol ip u32 match ip dst 10.9.9.%d flowid 1:1\n", i+1, i)
	}
	l.feed("tc -batch -", script.String())
	script.Reset()
	for i := range 1000 {
		fmt.Fprintf(&script, "add rule ip t c ip daddr 10.8.%d.%d counter accept\n", i/250, i%250)
	}
	l.feed("nft -f -", script.String())
	script.Reset()
	for i := range 1000 {
		fmt.Fprintf(&script, "route add 198.18.%d.%d/32 via 10.77.1.9\n", i/250, i%250)
	}
	l.feed("ip -batch -", script.String())
	script.Reset()
	script.WriteString("*filter\n")
	for i := range 300 {
		fmt.Fprintf(&script, "-A FORWARD -d 10.7.%d.%d -j ACCEPT\n", i/250, i%250)
	}
	l.feed("iptables-legacy-restore", script.String()+"COMMIT\n")
	s := l.open(Config{Alone: true}).all()[0]
	for _, a := range s.areas {
		b.Run(a.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := a.read(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
