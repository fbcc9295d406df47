package watchtest

import (
	"errors"
	"fmt"
	"strings"

	"waxseal/agent/mirror"
)

// script sets the router up by commands, one a line. $COLLECTOR, $COLLECTOR6,
// $CLIENT, $SERVER and $MAC stand for the lab's addresses.
func script(lines string) Start {
	return func(l *Lab) (func(), error) {
		return func() {}, lacking(l.Router.Lines(l.fill(lines)))
	}
}

// lacking marks the errors by which ip, tc and nft say that the kernel has no
// such device, classifier, action or expression.
func lacking(err error) error {
	if err == nil {
		return nil
	}
	for _, sign := range []string{"classifier not found", "action module", "kind is unknown", "Unknown device type", "Operation not supported", "Could not process rule: No such file"} {
		if strings.Contains(err.Error(), sign) {
			return fmt.Errorf("%w: %w", ErrLacking, err)
		}
	}
	return err
}

func (l *Lab) fill(text string) string {
	return strings.NewReplacer(
		"$COLLECTOR6", l.CollectorAddress6.String(), "$COLLECTOR", l.CollectorAddress.String(),
		"$CLIENT", l.ClientAddress.String(), "$SERVER", l.ServerAddress.String(),
		"$MAC", l.CollectorMAC).Replace(text)
}

// where sets up what the kernel may lack.
func where(start Start) Start {
	return func(l *Lab) (func(), error) {
		stop, err := start(l)
		if errors.Is(err, ErrLacking) {
			return func() {}, nil
		}
		return stop, err
	}
}

// both joins set-ups: one after the other.
func both(starts ...Start) Start {
	return func(l *Lab) (func(), error) {
		var stops []func()
		stop := func() {
			for _, s := range stops {
				s()
			}
		}
		for _, start := range starts {
			s, err := start(l)
			if err != nil {
				stop()
				return nil, err
			}
			stops = append(stops, s)
		}
		return stop, nil
	}
}

// copies is what must be said of a copy of r0's packets that leaves by r2 as
// it is.
func copies(cause string) Want {
	return Want{Kinds: []mirror.Kind{mirror.Duplicate, mirror.Rule, mirror.Early, mirror.Misroute, mirror.Hub}, In: R0, Copy: R2, Cause: cause, Severity: mirror.Alarm}
}

// leaving is the same for what leaves by r1, whatever port it came in.
func leaving(cause string) Want {
	w := copies(cause)
	w.In = ""
	return w
}

// wraps is the same for a copy inside another packet.
func wraps(cause string) Want {
	w := copies(cause)
	w.Kinds = append(w.Kinds, mirror.Inside)
	return w
}

// vxlanDevice makes vx0, a tunnel to the collector.
const vxlanDevice = "ip link add vx0 up type vxlan id 71 remote $COLLECTOR dstport 4789\n"

var attacksByTC = []Attack{
	{Name: "tc mirred mirror at ingress", Want: copies("mirred"), Start: script(`
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev r2`)},
	{Name: "tc mirred mirror at egress", Want: leaving("mirred"), Start: script(`
		tc qdisc add dev r1 clsact
		tc filter add dev r1 egress protocol all u32 match u32 0 0 action mirred egress mirror dev r2`)},
	{Name: "tc mirred mirror by flower of one host's TCP", Want: copies("mirred"), Start: script(`
		tc qdisc add dev r0 ingress
		tc filter add dev r0 parent ffff: protocol ip flower src_ip $CLIENT ip_proto tcp action mirred egress mirror dev r2`)},
	{Name: "tc mirred mirror by matchall", Want: copies("mirred"), Start: script(`
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress matchall action mirred egress mirror dev r2`)},
	{Name: "tc mirred mirror of one host's TCP", Want: copies("mirred"), Start: script(`
		tc qdisc add dev r0 ingress
		tc filter add dev r0 parent ffff: protocol ip u32 match ip src $CLIENT match ip protocol 6 0xff action mirred egress mirror dev r2`)},
	{Name: "tc mirred mirror of IPv6 alone", Want: copies("mirred"), Start: script(`
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol ipv6 u32 match u32 0 0 action mirred egress mirror dev r2`)},
	{Name: "tc mirred mirror from a classful qdisc", Want: leaving("mirred"), Start: script(`
		tc qdisc add dev r1 root handle 1: htb
		tc filter add dev r1 parent 1: protocol all u32 match u32 0 0 action mirred egress mirror dev r2`)},
	{Name: "tc mirred mirror from a shared block", Want: copies("mirred"), Start: script(`
		tc qdisc add dev r0 ingress_block 71 clsact
		tc filter add block 71 protocol all u32 match u32 0 0 action mirred egress mirror dev r2`)},
	{Name: "tc mirred mirror with other TTL and MAC addresses", Want: copies("mirred"), Start: script(`
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol ip u32 match u32 0 0 action mirred egress mirror dev r2
		tc qdisc add dev r2 clsact
		tc filter add dev r2 egress protocol ip u32 match u32 0 0 action pedit ex munge ip ttl set 9 munge ip dsfield set 0x28 munge eth dst set $MAC pipe csum ip`)},
	{Name: "tc mirred redirect", Want: Want{Kinds: []mirror.Kind{mirror.Misroute, mirror.Rule}, In: R0, Copy: R2, Cause: "mirred", Severity: mirror.Alarm}, Start: script(`
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol ip u32 match ip protocol 17 0xff action mirred egress redirect dev r2`)},
	{Name: "tc mirred mirror into VXLAN", Want: wraps("mirred"), Start: script(vxlanDevice + `
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev vx0`)},
	{Name: "tc mirred mirror into VXLAN over IPv6", Want: wraps("mirred"), Start: script(`
		ip link add vx0 up type vxlan id 71 remote $COLLECTOR6 dstport 4789 udp6zerocsumtx
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev vx0`)},
	{Name: "tc mirred in two stages over ifb", Want: copies("mirred"), Start: script(`
		ip link add wxifb up type ifb
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev wxifb
		tc qdisc add dev wxifb clsact
		tc filter add dev wxifb egress protocol all u32 match u32 0 0 action mirred egress mirror dev r2`)},
	{Name: "tc mirred out by the port it came in", Want: Want{Kinds: copies("").Kinds, In: R0, Copy: R0, Cause: "mirred", Severity: mirror.Alarm}, Start: script(`
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev r0`)},
	{Name: "tc mirred into a macvlan on the collector's port", Want: copies("mirred"), Start: script(`
		ip link add mv0 link r2 up type macvlan mode private
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev mv0`)},
	{Name: "tc mirred through a bridge", Want: copies("mirred"), Start: script(`
		ip link add wxbr up type bridge
		ip link add va up type veth peer name vb
		ip link set vb up master wxbr
		ip addr flush dev r2
		ip link set r2 master wxbr
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev va`)},
	{Name: "tc mirred of opening TCP packets only", Want: copies("mirred"), Start: script(`
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol ip u32 match ip protocol 6 0xff match u8 0x02 0x12 at 33 action mirred egress mirror dev r2`)},
	{Name: "tc mirred of one packet in ten", Want: copies("mirred"), Start: script(`
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action gact pipe random determ pass 10 action mirred egress mirror dev r2`)},
	{Name: "tc mirred towards a container that tunnels it away", Want: wraps("mirred"), Start: both(
		container, script(`
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev con0`))},
}

// container joins a container by con0. Whatever comes to it, it sends over
// VXLAN to the collector, through the router.
func container(l *Lab) (func(), error) {
	n, err := l.Wire("con0", "con")
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		l.Router.Lines("ip addr add 10.71.9.1/24 dev con0"),
		n.Lines(`ip addr add 10.71.9.2/24 dev eth0
			ip route add default via 10.71.9.1
			`+l.fill(vxlanDevice)+`
			tc qdisc add dev eth0 clsact
				tc filter add dev eth0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev vx0`))
	return func() {}, err
}
