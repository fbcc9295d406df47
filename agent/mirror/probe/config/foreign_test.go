package config

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// paper is a namespace that is only written down: devices 1 (r0), 2 (r2) and 3 (ifb0).
func paper() *space {
	s := &space{nft: &nftables{chains: map[chainKey]chain{}, callers: map[chainKey]map[chainKey]bool{}}}
	s.links.set(link{index: 1, name: "r0"})
	s.links.set(link{index: 2, name: "r2"})
	s.links.set(link{index: 3, name: "ifb0", kind: "ifb"})
	return s
}

func words(numbers ...uint32) (b []byte) {
	for _, n := range numbers {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	return b
}

// anAction is one action of a kind with options.
func anAction(kind string, options []byte) []byte {
	b := netlink.AppendString(nil, actKind, kind)
	return netlink.AppendNested(b, actOptions, options)
}

// aMirred is struct tc_mirred, with what comes after it.
func aMirred(does, device uint32, more ...byte) []byte {
	return append(netlink.AppendAttr(nil, actParms, words(7, 0, 3, 1, 1, does, device)), more...)
}

// aFilter is RTM_NEWTFILTER of device 1, clsact ingress, preference 49152.
func aFilter(kind string, options []byte) netlink.Message {
	b := words(0, 1, 0x800, hookIngress, 49152<<16|0x0300)
	b = netlink.AppendString(b, unix.TCA_KIND, kind)
	return netlink.Message{Type: unix.RTM_NEWTFILTER, Body: netlink.AppendNested(b, unix.TCA_OPTIONS, options)}
}

func TestEveryKindOfFilterShowsItsActions(t *testing.T) {
	list := netlink.AppendNested(nil, 1, anAction("gact", nil))
	list = netlink.AppendNested(list, 2, anAction("mirred", aMirred(2, 2)))
	kinds := map[string]uint16{"one that is not known": 77}
	for kind, at := range actionsAt {
		kinds[kind] = at
	}
	for kind, at := range kinds {
		list := list
		if at == 77 {
			list = netlink.AppendNested(nil, 1, anAction("mirred", aMirred(2, 2)))
		}
		found, err := paper().filter(aFilter(kind, netlink.AppendNested(netlink.AppendUint32(nil, 99, 1), at, list)), 0, 0)
		if err != nil || len(found) == 0 {
			t.Errorf("%s: %v, %+v", kind, err, found)
			continue
		}
		f := found[0]
		if f.Cause != "tc mirred mirror" || f.In != "r0" || f.Target != "r2" || f.device != 2 || f.Harmless {
			t.Errorf("%s: %+v", kind, f)
		}
		// Taken away: the same filter without the action shows nothing.
		found, err = paper().filter(aFilter(kind, netlink.AppendUint32(nil, 99, 1)), 0, 0)
		if err != nil || len(found) != 0 && kind != "bpf" {
			t.Errorf("%s without actions: %v, %+v", kind, err, found)
		}
	}
}

func TestActionsSayWhatTheyDo(t *testing.T) {
	tee := append(make([]byte, 2), []byte("TEE")...)
	tee = append(tee, make([]byte, 40)...)
	for name, c := range map[string]struct {
		action   []byte
		cause    string
		target   string
		harmless bool
	}{
		"egress redirect":       {anAction("mirred", aMirred(1, 2)), "tc mirred redirect", "r2", false},
		"egress mirror":         {anAction("mirred", aMirred(2, 2)), "tc mirred mirror", "r2", false},
		"ingress redirect":      {anAction("mirred", aMirred(3, 2)), "tc mirred redirect", "r2", false},
		"ingress mirror":        {anAction("mirred", aMirred(4, 2)), "tc mirred mirror", "r2", false},
		"a later form":          {anAction("mirred", aMirred(5, 2)), "tc mirred of an unknown form", "r2", false},
		"mirror to a block":     {anAction("mirred", aMirred(2, 0, netlink.AppendUint32(nil, mirredBlock, 9)...)), "tc mirred mirror", "", false},
		"redirect to an ifb":    {anAction("mirred", aMirred(1, 3)), "tc mirred redirect", "ifb0", true},
		"mirror to an ifb":      {anAction("mirred", aMirred(2, 3)), "tc mirred mirror", "ifb0", false},
		"an unknown device":     {anAction("mirred", aMirred(2, 99)), "tc mirred mirror", "device 99", false},
		"sample":                {anAction("sample", netlink.AppendUint32(nil, sampleGroup, 4)), "tc sample", "", false},
		"a BPF program":         {anAction("bpf", netlink.AppendUint32(nil, actBPFID, 44)), "tc bpf action", "", false},
		"a target of iptables":  {anAction("xt", netlink.AppendAttr(nil, iptTarget, tee)), "tc iptables TEE", "", false},
		"address translation":   {anAction("nat", nil), "tc nat", "", true},
		"nothing that copies":   {anAction("skbedit", nil), "", "", false},
		"a mirred that is cut":  {anAction("mirred", netlink.AppendAttr(nil, actParms, words(7, 0, 3, 1, 1, 2))), "", "", false},
		"a target that is cut":  {anAction("xt", netlink.AppendAttr(nil, iptTarget, tee[:20])), "", "", false},
		"no options whatsoever": {netlink.AppendString(nil, actKind, "mirred"), "", "", false},
	} {
		f, err := paper().action(c.action)
		if err != nil || f.Cause != c.cause || f.Target != c.target || f.Harmless != c.harmless {
			t.Errorf("%s: %v, %+v; want %q to %q", name, err, f, c.cause, c.target)
		}
	}
}

func TestAStrangersFilterMayNotHideBehindOurName(t *testing.T) {
	s := paper()
	s.config.Ours = func(program uint32) bool { return program == 7 }
	for id, want := range map[uint32]int{7: 0, 8: 1, 0: 1} {
		options := netlink.AppendUint32(netlink.AppendString(nil, bpfName, "waxseal/1/2"), bpfID, id)
		found, err := s.filter(aFilter("bpf", options), 0, 0)
		if err != nil || len(found) != want {
			t.Errorf("program %d: %v, %+v; want %d findings", id, err, found, want)
		}
	}
	s.config.Program = func(uint32) (string, bool) { return "counts packets", false }
	found, _ := s.filter(aFilter("bpf", netlink.AppendUint32(nil, bpfID, 9)), 0, 0)
	if len(found) != 1 || !found[0].Harmless {
		t.Errorf("a program that takes no copies: %+v", found)
	}
}

// aLink is RTM_NEWLINK of device 9, "x9", of a kind with data.
func aLink(kind string, data []byte, flags uint32) netlink.Message {
	b := netlink.AppendString(words(0, 9, flags, 0), unix.IFLA_IFNAME, "x9")
	info := netlink.AppendString(nil, unix.IFLA_INFO_KIND, kind)
	return netlink.Message{Type: unix.RTM_NEWLINK, Body: netlink.AppendNested(b, unix.IFLA_LINKINFO, netlink.AppendNested(info, unix.IFLA_INFO_DATA, data))}
}

func TestEveryKindOfDeviceThatCarriesAwayIsKnown(t *testing.T) {
	four, six := []byte{192, 0, 2, 9}, append(make([]byte, 15), 9)
	for kind, c := range map[string]struct {
		data     []byte
		cause    string
		target   string
		harmless bool
	}{
		"gre":       {netlink.AppendAttr(nil, 7, four), "new tunnel gre", "192.0.2.9", false},
		"gretap":    {netlink.AppendAttr(nil, 7, four), "new tunnel gretap", "192.0.2.9", false},
		"erspan":    {netlink.AppendAttr(nil, 7, four), "new tunnel erspan", "192.0.2.9", false},
		"ip6gretap": {netlink.AppendAttr(nil, 7, six), "new tunnel ip6gretap", "::9", false},
		"ipip":      {netlink.AppendAttr(nil, 3, four), "new tunnel ipip", "192.0.2.9", false},
		"sit":       {netlink.AppendAttr(nil, 3, four), "new tunnel sit", "192.0.2.9", false},
		"ip6tnl":    {netlink.AppendAttr(nil, 3, six), "new tunnel ip6tnl", "::9", false},
		"vti":       {netlink.AppendAttr(nil, 5, four), "new tunnel vti", "192.0.2.9", false},
		"geneve":    {netlink.AppendAttr(nil, unix.IFLA_GENEVE_REMOTE6, six), "new tunnel geneve", "::9", false},
		"vxlan":     {netlink.AppendAttr(nil, unix.IFLA_VXLAN_GROUP, four), "new tunnel vxlan", "192.0.2.9", false},
		"wireguard": {nil, "new tunnel wireguard", "", false},
		"xfrm":      {nil, "new tunnel xfrm", "", false},
		"nlmon":     {nil, "netlink monitor nlmon", "", true},
		"ifb":       {nil, "new ifb", "", true},
		"hsr":       {nil, "hsr copies every frame to two ports", "", false},
		"bond":      {netlink.AppendAttr(nil, unix.IFLA_BOND_MODE, []byte{bondBroadcast}), "bond copies every frame to all its ports", "", false},
		"bridge":    {netlink.AppendUint32(nil, unix.IFLA_BR_AGEING_TIME, 0), "bridge does not learn: hub mode", "", false},
	} {
		l, err := parseLink(aLink(kind, c.data, 0))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		found := paper().device(l, nil)
		if len(found) != 1 || found[0].Cause != c.cause || found[0].Target != c.target || found[0].Harmless != c.harmless {
			t.Errorf("%s: %+v; want %q to %q", kind, found, c.cause, c.target)
		}
	}
	for kind, data := range map[string][]byte{
		"bond":   netlink.AppendAttr(nil, unix.IFLA_BOND_MODE, []byte{4}), // 802.3ad
		"bridge": netlink.AppendUint32(nil, unix.IFLA_BR_AGEING_TIME, 30000),
		"veth":   nil,
	} {
		l, err := parseLink(aLink(kind, data, 0))
		if found := paper().device(l, nil); err != nil || len(found) != 0 {
			t.Errorf("a plain %s: %v, %+v", kind, err, found)
		}
	}
}

func TestAProgramOnXDPIsToldUnlessItIsOurs(t *testing.T) {
	b := netlink.AppendString(words(0, 9, 0, 0), unix.IFLA_IFNAME, "x9")
	xdp := netlink.AppendUint32(netlink.AppendAttr(nil, unix.IFLA_XDP_ATTACHED, []byte{2}), unix.IFLA_XDP_PROG_ID, 31)
	l, err := parseLink(netlink.Message{Body: netlink.AppendNested(b, unix.IFLA_XDP, xdp)})
	if err != nil {
		t.Fatal(err)
	}
	s := paper()
	if found := s.device(l, nil); len(found) != 1 || found[0].Cause != "XDP program" || found[0].Kind != mirror.Device {
		t.Errorf("findings %+v", found)
	}
	s.config.Ours = func(program uint32) bool { return program == 31 }
	if found := s.device(l, nil); len(found) != 0 {
		t.Errorf("findings %+v", found)
	}
}

// anExpression of a rule of nftables.
func anExpression(name string, data []byte) []byte {
	return netlink.AppendNested(nil, unix.NFTA_LIST_ELEM, netlink.AppendNested(netlink.AppendString(nil, unix.NFTA_EXPR_NAME, name), unix.NFTA_EXPR_DATA, data))
}

func big(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// aRule is NFT_MSG_NEWRULE of table t, chain c, handle 5.
func aRule(family byte, expressions ...[]byte) netlink.Message {
	b := netlink.AppendString([]byte{family, 0, 0, 0}, unix.NFTA_RULE_TABLE, "t")
	b = netlink.AppendString(b, unix.NFTA_RULE_CHAIN, "c")
	b = netlink.AppendAttr(b, unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, 5))
	var list []byte
	for _, e := range expressions {
		list = append(list, e...)
	}
	return netlink.Message{Type: nftType(unix.NFT_MSG_NEWRULE), Body: netlink.AppendNested(b, unix.NFTA_RULE_EXPRESSIONS, list)}
}

// anImmediate puts data into a register.
func anImmediate(register uint32, data []byte) []byte {
	return anExpression("immediate", netlink.AppendNested(netlink.AppendAttr(nil, unix.NFTA_IMMEDIATE_DREG, big(register)), unix.NFTA_IMMEDIATE_DATA, netlink.AppendAttr(nil, unix.NFTA_DATA_VALUE, data)))
}

func aVerdict(code int32) []byte {
	verdict := netlink.AppendNested(nil, unix.NFTA_DATA_VERDICT, netlink.AppendAttr(nil, unix.NFTA_VERDICT_CODE, big(uint32(code))))
	return anExpression("immediate", netlink.AppendNested(netlink.AppendAttr(nil, unix.NFTA_IMMEDIATE_DREG, big(0)), unix.NFTA_IMMEDIATE_DATA, verdict))
}

func TestRulesOfNFTSayWhereTheyCopyTo(t *testing.T) {
	toDevice := netlink.AppendAttr(nil, dupDevice, big(1))
	for name, c := range map[string]struct {
		rule   netlink.Message
		cause  string
		target string
	}{
		"dup to a device":             {aRule(5, anImmediate(1, words(2)), anExpression("dup", toDevice)), "nft dup", "r2"},
		"by its small register":       {aRule(5, anImmediate(8, words(2)), anExpression("dup", toDevice)), "nft dup", "r2"},
		"a register that is replaced": {aRule(5, anImmediate(1, words(2)), anExpression("payload", netlink.AppendAttr(nil, 1, big(1))), anExpression("dup", toDevice)), "nft dup", ""},
		"fwd":                         {aRule(5, anImmediate(1, words(2)), anExpression("fwd", netlink.AppendAttr(nil, fwdDevice, big(1)))), "nft fwd", "r2"},
		"dup to an address":           {aRule(2, anImmediate(1, []byte{192, 0, 2, 9}), anExpression("dup", netlink.AppendAttr(nil, dupAddress, big(1)))), "nft dup", "192.0.2.9"},
		"queue":                       {aRule(1, anExpression("queue", netlink.AppendAttr(nil, unix.NFTA_QUEUE_NUM, []byte{0, 3}))), "nft queue", ""},
		"queue as a verdict":          {aRule(1, aVerdict(3<<16|queueVerdict)), "nft queue", ""},
		"log to a group":              {aRule(1, anExpression("log", netlink.AppendAttr(nil, unix.NFTA_LOG_GROUP, []byte{0, 5}))), "nft log", ""},
		"log to the kernel's log":     {aRule(1, anExpression("log", nil)), "", ""},
		"accept":                      {aRule(1, aVerdict(1)), "", ""},
	} {
		r, err := parseRule(c.rule)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		found := paper().nftFindings(r)
		if c.cause == "" && len(found) == 0 {
			continue
		}
		if len(found) != 1 || found[0].Cause != c.cause || found[0].Target != c.target {
			t.Errorf("%s: %+v; want %q to %q", name, found, c.cause, c.target)
		}
	}
}

func TestAWireGuardPeerIsToldWithItsPlace(t *testing.T) {
	key := make([]byte, 32)
	place := append([]byte{0, 0, 0x1f, 0x90, 192, 0, 2, 9}, make([]byte, 8)...)
	binary.NativeEndian.PutUint16(place, unix.AF_INET)
	peer := netlink.AppendAttr(netlink.AppendAttr(nil, unix.WGPEER_A_PUBLIC_KEY, key), unix.WGPEER_A_ENDPOINT, place)
	m := netlink.Message{Body: netlink.AppendNested([]byte{0, 1, 0, 0}, unix.WGDEVICE_A_PEERS, netlink.AppendNested(nil, 0, peer))}
	found, err := peerFindings(m, "wg0")
	if err != nil || len(found) != 1 || found[0].Target != "192.0.2.9" || found[0].In != "wg0" {
		t.Fatalf("%v, %+v", err, found)
	}
}
