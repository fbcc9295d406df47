package watchtest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// window is how long harmless traffic flows in a benign set-up.
const window = 1500 * time.Millisecond

// Harmless are set-ups and traffic that are no attack.
func Harmless() []Benign {
	return []Benign{
		{Name: "everyday traffic", Run: carry(Everyday)},
		{Name: "four TCP streams at full speed", Run: iperf("-P", "4")},
		{Name: "four TCP streams at full speed backwards over IPv6", Run: iperf("-P", "4", "-R", "-6")},
		{Name: "loss and retransmission", Run: ready(nft(`table inet wx { chain c {
			type filter hook forward priority 0;
			numgen random mod 100 < 5 drop; }
}`), iperf("-P", "2"))},
		{Name: "masquerading", Run: ready(nft(`table ip wx { chain c {
			type nat hook postrouting priority 100;
			oifname "r1" masquerade; }
}`), carry(Load{UDP: 300, TCP: 50, ICMP: 20, Open: 20, Only: 4}))},
		{Name: "port forwarding back to the same side", Run: ready(nft(`table ip wx {
		chain in { type nat hook prerouting priority -100; ip daddr 10.71.0.1 udp dport 7171 dnat to 10.71.1.2; }
		chain out { type nat hook postrouting priority 100; masquerade; }
}`), carry(Everyday))},
		{Name: "fragments", Run: carry(Load{UDP: 100, Size: 5000})},
		{Name: "fragments and connection tracking", Run: ready(nft(`table inet wx { chain c {
			type filter hook forward priority 0;
			ct state new accept; }
}`), carry(Load{UDP: 100, Size: 5000}))},
		{Name: "fragmentation on the way", Run: ready(script("ip link set r1 mtu 1280"), carry(Load{UDP: 100, Size: 1400, TCP: 20, Open: 5, Only: 4}))},
		{Name: "many packets", Run: many},
		{Name: "identical packets", Run: identical},
		{Name: "everyday traffic over VXLAN", Run: overVXLAN},
		{Name: "transit tunnels of customers", Run: transit},
		{Name: "ICMP redirects", Run: redirects},
		{Name: "multicast routing", Run: multicastRouting},
		{Name: "broadcast and multicast on one link", Run: groups},
		{Name: "hellos of routing protocols on all ports", Run: hellos},
		{Name: "equal paths", Run: equalPaths},
		{Name: "policy routing", Run: ready(script(`
			ip route add 10.71.1.0/24 dev r1 table 71
			ip rule add from $CLIENT table 71`), carry(Everyday))},
		{Name: "traffic with the router itself", Run: ownTraffic},
		{Name: "traceroute and unreachable ports", Run: traceroute},
		{Name: "namespaces come and go", Run: comeAndGo},
		{Name: "ports flap", Run: flap},
		{Name: "a port is renamed", Run: renamed},
		{Name: "shaping", Run: ready(script(`
			tc qdisc add dev r1 root handle 1: htb default 1
			tc class add dev r1 parent 1: classid 1:1 htb rate 200mbit`), carry(Everyday))},
		{Name: "DHCP client", Run: dhcp},
		{Name: "bridge two ways", Shape: Bridged, Run: carry(Everyday)},
		{Name: "bridge with three ports", Shape: Hubbed, Run: carry(Everyday)},
		{Name: "bridge at full speed", Shape: Hubbed, Run: iperf("-P", "2")},
		{Name: "bridge and unknown unicast", Shape: Hubbed, Run: unknownUnicast},
		{Name: "bridge and groups", Shape: Hubbed, Run: groups},
		{Name: "hosts move between ports of a bridge", Shape: Hubbed, Run: moves},
	}
}

// carry lets load flow for a while. It must arrive: a lab without traffic would
// prove nothing.
func carry(load Load) func(*Lab) error {
	return func(l *Lab) error {
		traffic, err := l.Traffic(load)
		if err != nil {
			return err
		}
		defer traffic.Stop()
		time.Sleep(window)
		for deadline := time.Now().Add(20 * time.Second); traffic.Answered.Load() < 20; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("sent %d, answered %d", traffic.Sent.Load(), traffic.Answered.Load())
			}
		}
		return nil
	}
}

// ready sets something up before the traffic.
func ready(set Start, run func(*Lab) error) func(*Lab) error {
	return func(l *Lab) error {
		stop, err := set(l)
		if err != nil {
			return err
		}
		defer stop()
		return run(l)
	}
}

func iperf(args ...string) func(*Lab) error {
	return func(l *Lab) error {
		server := exec.Command("iperf3", "-s", "-1")
		if err := l.Server.Start(server); err != nil {
			return fmt.Errorf("iperf3: %w", err)
		}
		defer func() { server.Process.Kill(); server.Wait() }()
		to := l.ServerAddress.String()
		for _, a := range args {
			if a == "-6" {
				to = l.ServerAddress6.String()
			}
		}
		var err error
		for range 50 { // until the server listens
			if err = l.Client.Run("iperf3", append([]string{"-t", "2", "-c", to}, args...)...); err == nil {
				return nil
			}
			time.Sleep(100 * time.Millisecond)
		}
		return err
	}
}

// packets is how many the case of many packets sends.
func packets() int {
	if n, err := strconv.Atoi(os.Getenv("WATCHTEST_PACKETS")); err == nil {
		return n
	}
	return 50_000
}

func many(l *Lab) error { return Flood(l, packets()) }

// Flood sends n different datagrams of all sizes from the client to the server,
// as fast as the client can.
func Flood(l *Lab, n int) error {
	out, err := openPort(l.Client, "eth0", false)
	if err != nil {
		return err
	}
	defer out.Close()
	payload := make([]byte, 1400)
	for i := range n {
		from := netip.AddrPortFrom(l.ClientAddress, uint16(1024+i%60000))
		to := netip.AddrPortFrom(l.ServerAddress, uint16(1+i/7%60000))
		payload[0], payload[1], payload[2] = byte(i), byte(i>>8), byte(i>>16)
		if _, err := out.Write(datagram(portMAC(0), clientMAC, from, to, uint16(i), payload[:18+i%1000])); err != nil {
			time.Sleep(time.Millisecond) // the queue is full
		}
	}
	return nil
}

// identical sends the same packet again and again, as some devices do.
func identical(l *Lab) error {
	out, err := openPort(l.Client, "eth0", false)
	if err != nil {
		return err
	}
	defer out.Close()
	frame := datagram(portMAC(0), clientMAC, netip.AddrPortFrom(l.ClientAddress, 7), netip.AddrPortFrom(l.ServerAddress, 7), 0, []byte("the same again and again"))
	ctx, stop := context.WithTimeout(context.Background(), window)
	defer stop()
	paced(ctx, 2000, func(uint64) { out.Write(frame) })
	return nil
}

var clientMAC = [6]byte{0x02, 0x71, 0, 0, 0, 0x02}

// portMAC is the router's address on port n.
func portMAC(n byte) [6]byte { return [6]byte{0x02, 0x71, 0, 0, n, 0x01} }

// flap takes the server's port away and brings it back, while traffic flows.
func flap(l *Lab) error {
	traffic, err := l.Traffic(Load{UDP: 300, ICMP: 20})
	if err != nil {
		return err
	}
	defer traffic.Stop()
	for range 4 {
		if err := l.Router.Lines("ip link set r1 down\nip link set r1 up"); err != nil {
			return err
		}
		if err := l.Router.Lines("ip addr replace fd71:0:0:1::1/64 dev r1 nodad"); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}

// renamed gives the server's port another name and its own back.
func renamed(l *Lab) error {
	traffic, err := l.Traffic(Everyday)
	if err != nil {
		return err
	}
	defer traffic.Stop()
	return l.Router.Do(func() error {
		for _, names := range [][2]string{{R1, "wan0"}, {"wan0", R1}} {
			time.Sleep(window / 3)
			if err := run(exec.Command("ip", "link", "set", names[0], "name", names[1])); err != nil {
				return err
			}
		}
		time.Sleep(window / 3)
		return nil
	})
}

// comeAndGo makes and removes containers with a link to the router.
func comeAndGo(l *Lab) error {
	traffic, err := l.Traffic(Load{UDP: 100})
	if err != nil {
		return err
	}
	defer traffic.Stop()
	for i := range 4 {
		n, err := l.Wire(fmt.Sprintf("con%d", i), fmt.Sprintf("con%d", i))
		if err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
		l.more = l.more[:len(l.more)-1]
		if err := n.remove(); err != nil {
			return err
		}
	}
	return nil
}

// ownTraffic is what a router sends and receives for itself: TCP both ways,
// log messages, questions to a name server.
func ownTraffic(l *Lab) error {
	var listener *net.TCPListener
	err := l.Router.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", &net.TCPAddr{Port: 7173})
		return
	})
	if err != nil {
		return err
	}
	defer listener.Close()
	traffic := &Traffic{}
	ctx, stop := context.WithTimeout(context.Background(), window)
	defer stop()
	traffic.goes(func() { traffic.serve(ctx, listener) })
	syslog, err := dial(l, &net.UDPAddr{IP: l.CollectorAddress.AsSlice(), Port: 514})
	if err != nil {
		return err
	}
	defer syslog.Close()
	conn, err := l.connect(netip.AddrPortFrom(netip.MustParseAddr("10.71.0.1"), 7173))
	if err != nil {
		return err
	}
	go traffic.count(conn)
	paced(ctx, 300, func(n uint64) {
		conn.Write(make([]byte, 3000))
		fmt.Fprintf(syslog, "<30>router: %d connections from E%c%c", n, 0x45, 0)
	})
	conn.Close()
	listener.Close()
	traffic.wait.Wait()
	return nil
}
