package config

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror/probe/netlink"
)

// The kernel is trusted to send what it likes, but not to be the only one whose
// bytes come here: nothing may stop the watch. Each decoder is given anything,
// and what it tells must be complete.

func checkFindings(t *testing.T, found []finding) {
	t.Helper()
	for _, f := range found {
		if f.Subject == "" || f.Cause == "" || f.Kind == "" {
			t.Fatalf("an incomplete finding: %+v", f)
		}
	}
}

func FuzzLink(f *testing.F) {
	f.Add(aLink("vxlan", netlink.AppendAttr(nil, unix.IFLA_VXLAN_GROUP, []byte{192, 0, 2, 9}), 1).Body)
	f.Add(aLink("bridge", netlink.AppendUint32(nil, unix.IFLA_BR_AGEING_TIME, 0), 0x100).Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		l, err := parseLink(netlink.Message{Type: unix.RTM_NEWLINK, Body: body})
		if err != nil {
			return
		}
		s := paper()
		checkFindings(t, s.device(l, map[int32]link{l.index: l, 1: {index: 1, name: "r0"}}))
	})
}

func FuzzFilter(f *testing.F) {
	f.Add(aFilter("u32", netlink.AppendNested(nil, 7, netlink.AppendNested(nil, 1, anAction("mirred", aMirred(2, 2))))).Body)
	f.Add(aFilter("bpf", netlink.AppendUint32(netlink.AppendString(nil, bpfName, "x"), bpfID, 3)).Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		found, err := paper().filter(netlink.Message{Type: unix.RTM_NEWTFILTER, Body: body}, 0, 0)
		if err == nil {
			checkFindings(t, found)
		}
	})
}

func FuzzActions(f *testing.F) {
	f.Add(netlink.AppendNested(make([]byte, 4), 1, netlink.AppendNested(nil, 1, anAction("mirred", aMirred(1, 2)))))
	f.Add(netlink.AppendNested(make([]byte, 4), 1, netlink.AppendNested(nil, 1, anAction("sample", netlink.AppendUint32(nil, sampleRate, 9)))))
	f.Fuzz(func(t *testing.T, body []byte) {
		found, err := paper().actionTable(netlink.Message{Body: body})
		if err == nil {
			checkFindings(t, found)
		}
	})
}

func FuzzNFTRule(f *testing.F) {
	f.Add(aRule(5, anImmediate(1, words(2)), anExpression("dup", netlink.AppendAttr(nil, dupDevice, big(1)))).Body)
	f.Add(aRule(2, anExpression("target", netlink.AppendAttr(netlink.AppendString(nil, targetName, "TEE"), targetInfo, make([]byte, 40)))).Body)
	f.Add(aRule(1, aVerdict(queueVerdict)).Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		m := netlink.Message{Body: body}
		if c, err := parseChain(m); err == nil {
			s := paper()
			s.nft.set(c)
			s.nft.devices(c.chainKey)
		}
		generationOf(m, 0)
		if r, err := parseRule(m); err == nil {
			checkFindings(t, paper().nftFindings(r))
		}
	})
}

// aTable is an iptables table with one TEE and the rule that ends it.
func aTable(l layout) []byte {
	entry := func(name string, info []byte) []byte {
		b := make([]byte, l.size+sizeofTarget)
		binary.NativeEndian.PutUint16(b[l.targetAt:], uint16(l.size))
		copy(b[l.size+xtNameAt:], name)
		b = append(b, info...)
		binary.NativeEndian.PutUint16(b[l.targetAt+2:], uint16(len(b)))
		return b
	}
	return append(entry("TEE", append([]byte{192, 0, 2, 9}, make([]byte, 36)...)), entry("ERROR", make([]byte, 32))...)
}

func TestATableOfIPTablesIsReadExactly(t *testing.T) {
	for _, l := range []layout{layout4, layout6} {
		whole := aTable(l)
		entries, err := parseTable(whole, l, hooks{valid: 1})
		if err != nil || len(entries) != 1 || entries[0].chain != "PREROUTING" || !entries[0].to.IsValid() {
			t.Errorf("%s: %v, %+v", l.family, err, entries)
		}
		for cut := 1; cut < len(whole); cut++ {
			if _, err := parseTable(whole[:cut], l, hooks{}); err == nil && cut != int(binary.NativeEndian.Uint16(whole[l.targetAt+2:])) {
				t.Errorf("%s: a table that is cut at %d is read", l.family, cut)
			}
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add(aTable(layout4), false)
	f.Add(aTable(layout6), true)
	f.Fuzz(func(t *testing.T, b []byte, six bool) {
		l := layout4
		if six {
			l = layout6
		}
		entries, err := parseTable(b, l, hooks{valid: 0x1f})
		if err != nil {
			return
		}
		for _, found := range tableFindings(entries, l, "mangle") {
			if found.Subject == "" || found.Cause == "" {
				t.Fatalf("an incomplete finding: %+v", found)
			}
		}
	})
}

func FuzzRouting(f *testing.F) {
	f.Add(append(words(0x00000000|unix.AF_INET, 0, 0), netlink.AppendUint32(nil, fraPriority, 77)...))
	f.Add(append(words(unix.AF_INET, 0x01000000|unix.RT_TABLE_MAIN, 0), netlink.AppendAttr(nil, unix.RTA_MULTIPATH, words(8, 1, 8, 2))...))
	f.Fuzz(func(t *testing.T, body []byte) {
		m := netlink.Message{Body: body}
		if found, err := ruleFindings(m); err == nil {
			checkFindings(t, found)
		}
		if found, err := paper().routeFindings(m); err == nil {
			checkFindings(t, found)
		}
		if n, err := parseNeighbour(m); err == nil {
			checkFindings(t, paper().forwarding([]neighbour{n, n}))
		}
		if found, err := peerFindings(m, "wg0"); err == nil {
			checkFindings(t, found)
		}
		if found, ok, err := policyFinding(m); err == nil && ok {
			checkFindings(t, []finding{found})
		}
	})
}
