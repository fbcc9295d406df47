package hook

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// told is a device as the kernel would tell it.
func told(index uint32, hardware uint16, attributes ...[]byte) netlink.Message {
	body := linkHeader(index)
	binary.NativeEndian.PutUint16(body[2:], hardware)
	for _, a := range attributes {
		body = append(body, a...)
	}
	return netlink.Message{Type: unix.RTM_NEWLINK, Body: body}
}

func text(kind uint16, s string) []byte { return netlink.AppendString(nil, kind, s) }

func ofKind(s string) []byte {
	return netlink.AppendNested(nil, unix.IFLA_LINKINFO, text(unix.IFLA_INFO_KIND, s))
}

func TestPhysicalPortsAreToldFromOthers(t *testing.T) {
	bus := text(unix.IFLA_PARENT_DEV_NAME, "0000:00:02.0")
	for name, c := range map[string]struct {
		message netlink.Message
		want    bool
	}{
		"a network card":                 {told(2, unix.ARPHRD_ETHER, text(unix.IFLA_IFNAME, "eth0"), bus), true},
		"one of a kernel before 5.14":    {told(2, unix.ARPHRD_ETHER, text(unix.IFLA_IFNAME, "eth0")), true},
		"a port of a switch chip":        {told(3, unix.ARPHRD_ETHER, ofKind("dsa"), bus), true},
		"a modem without link layer":     {told(3, unix.ARPHRD_NONE, bus), true},
		"loopback":                       {told(1, unix.ARPHRD_LOOPBACK), false},
		"a bridge":                       {told(4, unix.ARPHRD_ETHER, ofKind("bridge")), false},
		"a VLAN":                         {told(4, unix.ARPHRD_ETHER, ofKind("vlan")), false},
		"a bond":                         {told(4, unix.ARPHRD_ETHER, ofKind("bond")), false},
		"one end of a veth pair":         {told(4, unix.ARPHRD_ETHER, ofKind("veth")), false},
		"a tunnel":                       {told(4, unix.ARPHRD_IPGRE, ofKind("gre")), false},
		"a tunnel that nobody has asked": {told(4, unix.ARPHRD_TUNNEL), false},
	} {
		d, err := parseDevice(c.message)
		if err != nil || d.physical() != c.want {
			t.Errorf("%s: physical %v, %v: want %v", name, d.physical(), err, c.want)
		}
	}
}

func TestTheDeviceBelowASwitchChipIsNoPort(t *testing.T) {
	g := &Guard{ports: map[uint32]*port{}, conduits: map[uint32]bool{}}
	conduit, err := parseDevice(told(2, unix.ARPHRD_ETHER, text(unix.IFLA_IFNAME, "eth0"), text(unix.IFLA_PARENT_DEV_NAME, "x")))
	if err != nil || !g.wants(conduit) {
		t.Fatalf("device %+v, %v: want a port", conduit, err)
	}
	lan, err := parseDevice(told(3, unix.ARPHRD_ETHER, text(unix.IFLA_IFNAME, "lan1"), netlink.AppendUint32(nil, unix.IFLA_LINK, 2), ofKind("dsa")))
	if err != nil {
		t.Fatal(err)
	}
	g.noteConduit(lan)
	if g.wants(conduit) || !g.wants(lan) {
		t.Errorf("conduit %v, port of the chip %v: its frames would be seen twice", g.wants(conduit), g.wants(lan))
	}
}

func TestCountersOfASwitchChipAreNotComparedAndSaySo(t *testing.T) {
	stats := netlink.AppendAttr(nil, unix.IFLA_STATS64, make([]byte, 25*8))
	for name, c := range map[string]struct {
		message netlink.Message
		want    bool
	}{
		"a network card":       {told(2, unix.ARPHRD_ETHER, stats), true},
		"a port of a chip":     {told(2, unix.ARPHRD_ETHER, stats, ofKind("dsa")), false},
		"one without counters": {told(2, unix.ARPHRD_ETHER), false},
	} {
		d, err := parseDevice(c.message)
		p := &port{name: "lan1", uncount: d.comparable()}
		g := &Guard{config: Config{Count: func(uint32) (Count, error) { return Count{}, nil }}}
		if got := g.countersOf(p); err != nil || (got.State == mirror.Full) != c.want || (got.Why == "") != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestADeviceThatMovesIsToldFromOneThatGoes(t *testing.T) {
	goes, err := parseDevice(told(7, unix.ARPHRD_ETHER, text(unix.IFLA_IFNAME, "r0")))
	if err != nil || goes.moved {
		t.Errorf("%+v, %v", goes, err)
	}
	moves, err := parseDevice(told(7, unix.ARPHRD_ETHER, text(unix.IFLA_IFNAME, "r0"), netlink.AppendUint32(nil, unix.IFLA_NEW_NETNSID, 3)))
	if err != nil || !moves.moved {
		t.Errorf("%+v, %v", moves, err)
	}
}

func TestBrokenDevicesAreErrors(t *testing.T) {
	for name, m := range map[string]netlink.Message{
		"empty":                 {},
		"short header":          {Body: make([]byte, 15)},
		"no index":              told(0, 1),
		"cut attribute":         {Body: append(linkHeader(3), 9, 0, 3)},
		"cut kind":              told(3, 1, netlink.AppendNested(nil, unix.IFLA_LINKINFO, []byte{9, 0, 1, 0})),
		"cut XDP":               told(3, 1, netlink.AppendNested(nil, unix.IFLA_XDP, []byte{1})),
		"attribute of length 0": {Body: append(linkHeader(3), 0, 0, 3, 0)},
	} {
		if d, err := parseDevice(m); !errors.Is(err, netlink.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

func TestTenThousandDevicesAreReadInNoTime(t *testing.T) {
	began := time.Now()
	stats := netlink.AppendAttr(nil, unix.IFLA_STATS64, make([]byte, 25*8))
	found := map[uint32]device{}
	for i := uint32(1); i <= 10000; i++ {
		m := told(i, unix.ARPHRD_ETHER, text(unix.IFLA_IFNAME, fmt.Sprintf("eth0.%d", i)), netlink.AppendUint32(nil, unix.IFLA_LINK, 1), stats, ofKind("vlan"))
		d, err := parseDevice(m)
		if err != nil {
			t.Fatal(err)
		}
		found[d.index] = d
	}
	g := &Guard{config: Config{}, ports: map[uint32]*port{}, conduits: map[uint32]bool{}}
	for _, d := range found {
		if g.wants(d) {
			t.Fatalf("%s is no port", d.name)
		}
	}
	t.Logf("%d devices read in %v", len(found), time.Since(began))
}

// FuzzNetlinkAnswers gives the readers of devices and filters what no kernel
// would send.
func FuzzNetlinkAnswers(f *testing.F) {
	f.Add(told(7, 1, text(unix.IFLA_IFNAME, "r0"), ofKind("veth"), netlink.AppendAttr(nil, unix.IFLA_STATS64, make([]byte, 200))).Body)
	xdp := netlink.AppendUint32(netlink.AppendAttr(nil, unix.IFLA_XDP_ATTACHED, []byte{2}), unix.IFLA_XDP_PROG_ID, 17)
	f.Add(told(7, 1, netlink.AppendNested(nil, unix.IFLA_XDP, xdp)).Body)
	options := netlink.AppendUint32(netlink.AppendString(nil, bpfName, "waxseal/1/2/qdisc"), bpfID, 9)
	filter := netlink.AppendString(tcHeader(7, 1, parents[ingress], 1<<16|everyProtocol), unix.TCA_KIND, "bpf")
	f.Add(netlink.AppendNested(filter, unix.TCA_OPTIONS, options))
	f.Fuzz(func(t *testing.T, body []byte) {
		m := netlink.Message{Body: body}
		if d, err := parseDevice(m); err == nil && (d.index == 0 || int(d.xdp.mode) >= len(modes)) {
			t.Errorf("device %+v", d)
		}
		if got, err := parseFilter(m); err == nil {
			if ours, ok := parseMark(got.name); ok && ours.String() != got.name {
				t.Errorf("mark %q is read as %q", got.name, ours)
			}
			_ = got.String()
		}
		_, _ = parseQdisc(m)
		_ = refersTo(body, 1, 1)
	})
}

func TestMarksTellWhoMadeAFilter(t *testing.T) {
	own := ownMark()
	if m, ok := parseMark(own.on(true)); !ok || !m.qdisc || !m.alive() {
		t.Errorf("our own mark reads as %+v, %v", m, ok)
	}
	gone := mark{pid: own.pid, start: own.start + 1} // the number was used again
	if m, ok := parseMark(gone.String()); !ok || m.alive() {
		t.Errorf("the mark of a process that is gone reads as %+v, %v", m, ok)
	}
	for _, name := range []string{"", "waxseal", "waxseal/", "waxseal/1", "waxseal/x/1", "waxseal/1/x", "waxseal/1/2/other", "waxseal/1/2/qdisc/", "waxseal/+1/2", "cilium/1/2"} {
		if m, ok := parseMark(name); ok {
			t.Errorf("%q is taken for ours: %+v", name, m)
		}
	}
}
