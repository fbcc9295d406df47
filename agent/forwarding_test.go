package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forwarding is a kernel that forwards: two hosts and a router between them,
// each in a network namespace of its own.
type forwarding struct {
	right    string // namespace of the host that receives
	from, to net.Conn
}

// newForwarding makes the namespaces, for as long as the benchmark runs. It
// returns nil, and says why, where that is not allowed.
func newForwarding(b *testing.B) *forwarding {
	b.Helper()
	host := func(name string) string { return fmt.Sprintf("wx-%d-%s", os.Getpid(), name) }
	left, router, right := host("left"), host("router"), host("right")
	var commands []string
	for _, ns := range []string{left, router, right} {
		commands = append(commands, "netns add "+ns, "-n "+ns+" link set lo up")
		b.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	}
	for i, ns := range []string{left, right} {
		net := fmt.Sprintf("10.77.%d", i)
		commands = append(commands,
			fmt.Sprintf("-n %s link add eth%d type veth peer name eth0 netns %s", router, i, ns),
			fmt.Sprintf("-n %s addr add %s.1/24 dev eth%d", router, net, i), fmt.Sprintf("-n %s link set eth%d up", router, i),
			fmt.Sprintf("-n %s addr add %s.2/24 dev eth0", ns, net), fmt.Sprintf("-n %s link set eth0 up", ns),
			fmt.Sprintf("-n %s route add default via %s.1", ns, net))
	}
	for _, command := range commands {
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			b.Logf("forwarding is not measured: ip %s: %v: %s", command, err, out)
			return nil
		}
	}
	f := &forwarding{right: right}
	err := errors.Join(
		in(router, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }),
		in(right, func() (err error) { f.to, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 9}); return err }),
		in(left, func() (err error) { f.from, err = net.Dial("udp4", "10.77.1.2:9"); return err }),
	)
	if err != nil {
		b.Logf("forwarding is not measured: %v", err)
		return nil
	}
	b.Cleanup(func() { f.from.Close(); f.to.Close() })
	return f
}

// in calls f in a network namespace. The thread goes back to its own: it may
// be the one that has started the TPM, which dies with it (man 2 prctl,
// PR_SET_PDEATHSIG).
func in(namespace string, f func() error) error {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	other, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return err
	}
	defer other.Close()
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // the thread stays locked, so that nothing else runs in there
	}
	runtime.UnlockOSThread()
	return err
}

// offered is the packets per second that are sent through the router.
const offered = 10_000

// forward offers packets until ctx ends and returns the share that the router
// has forwarded.
func (f *forwarding) forward(ctx context.Context) (float64, error) {
	before, err := f.arrived()
	if err != nil {
		return 0, err
	}
	packet, sent := make([]byte, 200), 0
	for begin := time.Now(); ctx.Err() == nil; time.Sleep(time.Millisecond) {
		for due := int(time.Since(begin).Seconds() * offered); sent < due; sent++ {
			_, _ = f.from.Write(packet) // one that is not sent has not arrived
		}
	}
	time.Sleep(100 * time.Millisecond)
	after, err := f.arrived()
	return float64(after-before) / float64(max(1, sent)), err
}

// arrived returns how many packets have come to the right host's interface,
// whether a program there had time to read them or not (man 5 proc_net, dev).
func (f *forwarding) arrived() (packets int, err error) {
	err = in(f.right, func() error {
		table, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(table)) {
			if fields := strings.Fields(line); len(fields) > 2 && fields[0] == "eth0:" {
				packets, err = strconv.Atoi(fields[2])
				return err
			}
		}
		return errors.New("no eth0 in /proc/net/dev")
	})
	return packets, err
}
