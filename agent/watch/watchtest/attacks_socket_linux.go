package watchtest

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

// sniffs is what must be said of a packet socket that listens to r0.
func sniffs(cause string) Want {
	return Want{Kinds: []mirror.Kind{mirror.Socket}, Cause: cause, Severity: mirror.Notice, Process: true}
}

// carries is what must be said of copies of r0's packets that a process sends
// away inside others by r2.
func carries() Want {
	return Want{Kinds: []mirror.Kind{mirror.Inside, mirror.Duplicate}, In: R0, Copy: R2, Severity: mirror.Alarm}
}

var (
	collectorMAC = [6]byte{0x02, 0x71, 0, 0, 0x02, 0x02}
	routerMAC    = [6]byte{0x02, 0x71, 0, 0, 0x02, 0x01}
	otherMAC     = [6]byte{0x02, 0x71, 0, 0, 0x77, 0x77}
)

var attacksBySocket = []Attack{
	{Name: "packet socket that sends over UDP", Want: carries(), Start: sniffer(rawFrame, overUDP(5555), 0)},
	{Name: "packet socket that sends over UDP over IPv6", Want: carries(), Start: sniffer(rawFrame, overUDP6(5555), 0)},
	{Name: "packet socket that sends over GRE", Want: carries(), Start: sniffer(inGRE, overIP(protoGRE), 0)},
	{Name: "packet socket that sends over GRE with key and sequence", Want: carries(), Start: sniffer(inGREWithKey, overIP(protoGRE), 0)},
	{Name: "packet socket that sends over GRE over IPv6", Want: carries(), Start: sniffer(inGRE, overIP6(protoGRE), 0)},
	{Name: "packet socket that sends over ERSPAN", Want: carries(), Start: sniffer(inERSPAN, overIP(protoGRE), 0)},
	{Name: "packet socket that sends over VXLAN", Want: carries(), Start: sniffer(inVXLAN, overUDP(4789), 0)},
	{Name: "packet socket that sends over TZSP", Want: carries(), Start: sniffer(inTZSP, overUDP(37008), 0)},
	{Name: "packet socket that sends IPv4 in IPv4", Want: carries(), Start: sniffer(packetOf4, overIP(protoIPIP), 0)},
	{Name: "packet socket that sends IPv6 in IPv4", Want: carries(), Start: sniffer(packetOf6, overIP(protoIPv6), 0)},
	{Name: "packet socket that sends IPv4 in IPv6", Want: carries(), Start: sniffer(packetOf4, overIP6(protoIPIP), 0)},
	{Name: "packet socket that sends at an odd offset", Want: carries(), Start: sniffer(atOddOffset, overUDP(5556), 0)},
	{Name: "packet socket that sends behind 301 bytes", Want: carries(), Start: sniffer(farInside, overUDP(5557), 0)},
	{Name: "packet socket that sends over TCP", Want: carries(), Start: sniffer(rawFrame, overTCP, 0)},
	{Name: "packet socket that sends the first 64 bytes", Want: carries(), Start: sniffer(truncated(64, rawFrame), overUDP(5558), 0)},
	{Name: "packet socket that sends the first 128 bytes over ERSPAN", Want: carries(), Start: sniffer(truncated(128, inERSPAN), overIP(protoGRE), 0)},
	{Name: "packet socket that sends one packet in ten", Want: carries(), Start: sniffer(each(10, rawFrame), overUDP(5559), 0)},
	{Name: "packet socket that sends a second later", Want: carries(), Start: sniffer(rawFrame, overUDP(5560), time.Second)},
	{Name: "packet socket that sends again with another MAC address", Want: carries(), Start: sniffer(to(otherMAC, routerMAC, rawFrame), overPort(false), 0)},
	{Name: "packet socket that sends again with a hop less", Want: carries(), Start: sniffer(to(collectorMAC, routerMAC, rawFrame), overPort(false), 0)},
	{Name: "packet socket that sends round the queue", Want: Want{Kinds: []mirror.Kind{mirror.Bypass, mirror.Duplicate}, Severity: mirror.Alarm, Cause: R2}, Start: sniffer(rawFrame, overPort(true), 0)},
	{Name: "packet socket without a filter", Want: sniffs("packet|sniff"), Start: listener("")},
	{Name: "packet socket on r0 alone", Want: sniffs("packet|sniff"), Start: listener(R0)},
	{Name: "packet socket with a ring (TPACKET_V3)", Want: sniffs("ring|TPACKET|packet"), Start: ring},
	{Name: "promiscuous mode", Want: Want{Kinds: []mirror.Kind{mirror.Device}, Cause: "promisc", Severity: mirror.Notice}, Start: script("ip link set r0 promisc on")},
	{Name: "promiscuous mode by a packet socket", Want: sniffs("promisc|packet|sniff"), Start: promiscuous},
	{Name: "container that captures", Want: Want{Kinds: []mirror.Kind{mirror.Rule}, Cause: "mirred", Severity: mirror.Alarm}, Start: both(captor, script(`
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev con0`))},
	{Name: "tun device and a program behind it", Want: Want{Kinds: []mirror.Kind{mirror.Inside, mirror.Rule}, In: R0, Cause: "mirred", Severity: mirror.Alarm}, Start: tunnel},
}

// packetOf6 is the frame's IPv6 packet.
func packetOf6(frame []byte) []byte {
	if p := packetOf(frame); len(p) > 0 && p[0]>>4 == 6 {
		return p
	}
	return nil
}

// listener keeps a packet socket open and throws away what comes.
func listener(device string) Start {
	return func(l *Lab) (func(), error) {
		in, err := openTap(l.Router, device)
		return drain(in), err
	}
}

func drain(in *tap) func() {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); in.pump(stop, func([]byte) {}) }()
	return func() { close(stop); <-done; in.Close() }
}

func ring(l *Lab) (func(), error) {
	in, err := openTap(l.Router, R0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		unix.SetsockoptInt(in.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3),
		unix.SetsockoptTpacketReq3(in.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq3{
			Block_size: 1 << 16, Block_nr: 4, Frame_size: 1 << 11, Frame_nr: 4 << 5, Retire_blk_tov: 10,
		}))
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("ring: %w", err)
	}
	return func() { in.Close() }, nil
}

func promiscuous(l *Lab) (func(), error) {
	in, err := openTap(l.Router, R0)
	if err != nil {
		return nil, err
	}
	index, err := l.Router.Index(R0)
	if err == nil {
		err = unix.SetsockoptPacketMreq(in.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC})
	}
	return drain(in), err
}

// captor joins a container by con0 that captures what comes to it.
func captor(l *Lab) (func(), error) {
	n, err := l.Wire("con0", "con")
	if err != nil {
		return nil, err
	}
	in, err := openTap(n, "eth0")
	return drain(in), err
}

// tunnel mirrors r0 into a tap device, behind which a program sends what it
// reads to the collector over UDP.
func tunnel(l *Lab) (func(), error) {
	var fd int
	err := l.Router.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("%w: %w", ErrLacking, err)
		}
		req, err := unix.NewIfreq("wxtap")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	})
	if err != nil {
		return nil, fmt.Errorf("tap device: %w", err)
	}
	_, err = script(`ip link set wxtap up
		tc qdisc add dev r0 clsact
		tc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev wxtap`)(l)
	var out io.WriteCloser
	if err == nil {
		out, err = overUDP(5561)(l)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		forward(fd, out, stop)
	}()
	return func() { close(stop); <-done; unix.Close(fd); out.Close() }, nil
}

// forward writes what can be read from fd to out.
func forward(fd int, out io.Writer, stop <-chan struct{}) {
	buffer := make([]byte, 1<<16)
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		select {
		case <-stop:
			return
		default:
		}
		if n, _ := unix.Poll(ready, 50); n < 1 {
			continue
		}
		if n, err := unix.Read(fd, buffer); err == nil {
			out.Write(buffer[:n])
		}
	}
}
