package watchtest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
)

// Shape is how the router joins its ports.
type Shape string

// The shapes of the lab.
const (
	Routed  Shape = ""        // each port has its own prefix
	Bridged Shape = "bridged" // r0 and r1 are ports of br0, r2 has its own prefix
	Hubbed  Shape = "hubbed"  // r0, r1 and r2 are ports of br0
)

// The lab's ports of the router: towards client, server and collector.
const (
	R0 = "r0"
	R1 = "r1"
	R2 = "r2"
)

// Lab is a router with something on each of its ports.
type Lab struct {
	Client, Router, Server, Collector *Namespace

	ClientAddress, ServerAddress, CollectorAddress    netip.Addr
	ClientAddress6, ServerAddress6, CollectorAddress6 netip.Addr
	CollectorMAC                                      string

	prefix string
	more   []*Namespace
}

var labs atomic.Int32

// Open makes a lab. Nothing else of this machine is touched.
func Open(shape Shape) (*Lab, error) {
	l := &Lab{
		prefix:           fmt.Sprintf("wxw%dn%d", os.Getpid(), labs.Add(1)),
		ClientAddress:    netip.MustParseAddr("10.71.0.2"),
		ServerAddress:    netip.MustParseAddr("10.71.1.2"),
		CollectorAddress: netip.MustParseAddr("10.71.2.2"),
		ClientAddress6:   netip.MustParseAddr("fd71::2"),
		ServerAddress6:   netip.MustParseAddr("fd71:0:0:1::2"),

		CollectorAddress6: netip.MustParseAddr("fd71:0:0:2::2"),
		CollectorMAC:      "02:71:00:00:02:02",
	}
	if shape != Routed {
		l.ServerAddress = netip.MustParseAddr("10.71.0.3")
		l.ServerAddress6 = netip.MustParseAddr("fd71::3")
	}
	if err := l.build(shape); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: %w", err), l.Close())
	}
	return l, nil
}

// Close removes the lab.
func (l *Lab) Close() error {
	var errs []error
	for _, n := range l.namespaces() {
		if n != nil {
			errs = append(errs, n.remove())
		}
	}
	return errors.Join(errs...)
}

func (l *Lab) namespaces() []*Namespace {
	return append([]*Namespace{l.Client, l.Router, l.Server, l.Collector}, l.more...)
}

// Has tells whether a namespace of that name belongs to the lab.
func (l *Lab) Has(name string) bool { return strings.HasPrefix(name, l.prefix+"-") }

// Namespace makes one more namespace, for example that of a container.
func (l *Lab) Namespace(role string) (*Namespace, error) {
	n, err := makeNamespace(l.prefix + "-" + role)
	if err == nil {
		l.more = append(l.more, n)
	}
	return n, err
}

// Wire joins a device of the router to a new namespace by a veth pair. The far
// end is called eth0.
func (l *Lab) Wire(port, role string) (*Namespace, error) {
	n, err := l.Namespace(role)
	if err != nil {
		return nil, err
	}
	return n, errors.Join(
		l.Router.Run("ip", "link", "add", port, "up", "type", "veth", "peer", "name", "eth0", "netns", n.Name),
		n.Run("ip", "link", "set", "eth0", "up"))
}

func (l *Lab) build(shape Shape) (err error) {
	for _, n := range []struct {
		place **Namespace
		role  string
	}{{&l.Client, "cli"}, {&l.Router, "rtr"}, {&l.Server, "srv"}, {&l.Collector, "col"}} {
		if *n.place, err = makeNamespace(l.prefix + "-" + n.role); err != nil {
			return err
		}
		if err = (*n.place).Set("ipv6.conf.default.accept_dad", "0"); err != nil {
			return err
		}
	}
	for _, s := range []struct{ key, value string }{
		{"ipv4.ip_forward", "1"}, {"ipv6.conf.all.forwarding", "1"},
		{"ipv4.conf.all.rp_filter", "0"}, {"ipv4.conf.default.rp_filter", "0"},
	} {
		if err := l.Router.Set(s.key, s.value); err != nil {
			return err
		}
	}
	if err := l.Router.Feed(l.links(shape), "ip", "-batch", "-"); err != nil {
		return err
	}
	for _, h := range []struct {
		place     *Namespace
		addresses []string
		gateways  []string
	}{
		{l.Client, []string{"10.71.0.2/24", "fd71::2/64"}, []string{"10.71.0.1", "fd71::1"}},
		{l.Server, []string{l.ServerAddress.String() + "/24", l.ServerAddress6.String() + "/64"}, gateways(shape)},
		{l.Collector, []string{"10.71.2.2/24", "fd71:0:0:2::2/64"}, []string{"10.71.2.1", "fd71:0:0:2::1"}},
	} {
		if err := h.place.Feed(host(h.addresses, h.gateways), "ip", "-batch", "-"); err != nil {
			return err
		}
	}
	return nil
}

func gateways(shape Shape) []string {
	if shape == Routed {
		return []string{"10.71.1.1", "fd71:0:0:1::1"}
	}
	return []string{"10.71.0.1", "fd71::1"}
}

// links is the router's set-up as a batch of ip(8).
func (l *Lab) links(shape Shape) string {
	var b strings.Builder
	for i, far := range []*Namespace{l.Client, l.Server, l.Collector} {
		fmt.Fprintf(&b, "link add r%d address 02:71:00:00:0%d:01 type veth peer name eth0 address 02:71:00:00:0%d:02 netns %s\n", i, i, i, far.Name)
		fmt.Fprintf(&b, "link set r%d up\n", i)
	}
	b.WriteString("link set lo up\n")
	first, bridged := R0, []string{}
	switch shape {
	case Bridged:
		first, bridged = "br0", []string{R0, R1}
	case Hubbed:
		first, bridged = "br0", []string{R0, R1, R2}
	}
	if len(bridged) > 0 {
		b.WriteString("link add br0 address 02:71:00:00:09:01 type bridge mcast_snooping 0\nlink set br0 up\n")
	}
	for _, port := range bridged {
		fmt.Fprintf(&b, "link set %s master br0\n", port)
	}
	fmt.Fprintf(&b, "addr add 10.71.0.1/24 dev %s\naddr add fd71::1/64 dev %s nodad\n", first, first)
	if shape == Routed {
		b.WriteString("addr add 10.71.1.1/24 dev r1\naddr add fd71:0:0:1::1/64 dev r1 nodad\n")
	}
	if shape != Hubbed {
		b.WriteString("addr add 10.71.2.1/24 dev r2\naddr add fd71:0:0:2::1/64 dev r2 nodad\n")
	}
	return b.String()
}

func host(addresses, gateways []string) string {
	var b strings.Builder
	b.WriteString("link set lo up\nlink set eth0 up\n")
	for _, a := range addresses {
		nodad := ""
		if strings.Contains(a, ":") {
			nodad = " nodad"
		}
		fmt.Fprintf(&b, "addr add %s dev eth0%s\n", a, nodad)
	}
	for _, g := range gateways {
		fmt.Fprintf(&b, "route add default via %s\n", g)
	}
	return b.String()
}
