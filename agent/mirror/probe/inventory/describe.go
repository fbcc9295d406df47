package inventory

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/inventory/filter"
	"waxseal/agent/mirror/probe/inventory/socket"
)

// describePacket says what a packet socket takes. port is the device that it is
// bound to, nil if it is bound to none.
func describePacket(p socket.Packet, port *socket.Device) mirror.Observation {
	o := mirror.Observation{
		Kind: mirror.Socket, Detector: "packet_diag", Subject: fmt.Sprintf("packet/inode/%d", p.Inode), Cause: "packet socket",
	}
	if p.Partial {
		o.Detector = "/proc/net/packet"
	}
	if port != nil {
		o.In = port.Name
	}
	if p.RX != nil {
		o.Cause = fmt.Sprintf("packet socket with ring (TPACKET_V%d)", p.Version+1)
	}
	taken, harmless := takes(p, port)
	o.Harmless = harmless
	o.Detail = join(protocolName(p.Protocol)+", "+typeName(p.Type), ring("receive", p.RX), ring("send", p.TX), fanout(p.Fanout), promisc(p.Promisc), taken)
	return o
}

// takes says which packets reach a packet socket, and whether none of them can
// be traffic in transit. In doubt they can.
func takes(p socket.Packet, port *socket.Device) (string, bool) {
	switch {
	case p.Protocol == 0:
		return "takes nothing: it only sends", true
	case !filter.Carries(p.Protocol):
		return "takes no IP: only its own Ethernet type", true
	case p.Partial:
		return "its filter is not known", false
	case len(p.Filter) == 0:
		return "no classic filter", false
	}
	words := ""
	for _, layout := range layouts(p, port) {
		v := filter.Judge(p.Filter, p.Protocol, layout)
		words = fmt.Sprintf("filter of %d instructions takes %s", len(p.Filter), v.Takes)
		if !v.Harmless {
			return words, false
		}
	}
	return words, true
}

// layouts are the forms in which packets can reach a socket. One that is bound
// to no device gets those of all.
func layouts(p socket.Packet, port *socket.Device) []filter.Layout {
	switch {
	case p.Type == unix.SOCK_DGRAM, port != nil && !port.Framed():
		return []filter.Layout{filter.Network}
	case port != nil:
		return []filter.Layout{filter.Ethernet}
	}
	return []filter.Layout{filter.Ethernet, filter.Network}
}

func protocolName(protocol uint16) string {
	switch protocol {
	case unix.ETH_P_ALL:
		return "all protocols"
	case 0:
		return "no protocol"
	case unix.ETH_P_IP:
		return "IPv4"
	case unix.ETH_P_IPV6:
		return "IPv6"
	}
	return fmt.Sprintf("Ethernet type 0x%04x", protocol)
}

func typeName(kind uint8) string {
	switch int(kind) {
	case unix.SOCK_RAW:
		return "raw"
	case unix.SOCK_DGRAM:
		return "datagram"
	case unix.SOCK_PACKET:
		return "old packet type"
	}
	return fmt.Sprintf("type %d", kind)
}

func ring(way string, r *socket.Ring) string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%s ring of %d blocks of %d bytes", way, r.Blocks, r.BlockSize)
}

func fanout(f *socket.Fanout) string {
	if f == nil {
		return ""
	}
	return fmt.Sprintf("fan-out group %d, mode %d", f.Group, f.Mode&0xff)
}

func promisc(devices []int) string {
	if len(devices) == 0 {
		return ""
	}
	return fmt.Sprintf("holds %d devices in promiscuous mode", len(devices))
}

func describeXDP(x socket.XDP, port *socket.Device) mirror.Observation {
	o := mirror.Observation{
		Kind: mirror.Socket, Detector: "xdp_diag", Subject: fmt.Sprintf("xdp/inode/%d", x.Inode), Cause: "AF_XDP socket",
	}
	if port == nil {
		o.Detail, o.Harmless = "takes nothing: it is bound to no device", true
		return o
	}
	o.In, o.Detail = port.Name, fmt.Sprintf("queue %d", x.Queue)
	return o
}

// describeQueue says what a listener of NFLOG or NFQUEUE gets: only what rules
// send to its number, and of that what it has asked for.
func describeQueue(q socket.Queue) mirror.Observation {
	o := mirror.Observation{Kind: mirror.Socket, Detector: "nfnetlink", Cause: "NFQUEUE listener", Subject: fmt.Sprintf("nfqueue/%d", q.Number)}
	if q.Logs {
		o.Cause, o.Subject = "NFLOG listener", fmt.Sprintf("nflog/%d", q.Number)
	}
	if q.Copies < 2 {
		o.Harmless, o.Detail = true, "takes no packets: it has asked for what is known about them"
		return o
	}
	o.Detail = fmt.Sprintf("takes %d bytes of each packet that rules send to it", q.Range)
	return o
}

const tcpListener = "tcp listener"

func describeEndpoint(e socket.Endpoint) mirror.Observation {
	o := mirror.Observation{Kind: mirror.Listener, Detector: "/proc/net/" + e.Protocol, Cause: e.Protocol + " listener"}
	o.Subject = e.Protocol + "/" + e.Local.String()
	if e.Protocol == "raw" {
		o.Cause = "raw socket"
		o.Subject = fmt.Sprintf("raw/%s/%d", e.Local.Addr(), e.Local.Port())
		o.Detail = fmt.Sprintf("takes the router's own packets of IP protocol %d", e.Local.Port())
	}
	if strings.HasPrefix(o.Detector, "/proc/net/sctp") {
		o.Detector = "/proc/net/sctp/eps"
	}
	return o
}
