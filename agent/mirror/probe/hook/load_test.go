package hook

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

// start runs a program in the namespace; it ends with the test.
func (l *lab) start(name string, args ...string) *exec.Cmd {
	l.t.Helper()
	return l.startWith(io.Discard, name, args...)
}

func (l *lab) startWith(out io.Writer, name string, args ...string) *exec.Cmd {
	l.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		l.t.Skipf("needs %s", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout = out
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the child inherits the namespace of the thread, which ends
		if err := unix.Setns(int(l.file.Fd()), unix.CLONE_NEWNET); err != nil {
			started <- err
			return
		}
		started <- cmd.Start()
	}()
	l.must(name, <-started)
	l.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// output is what a program has said so far.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (l *lab) do(name string, args ...string) {
	l.t.Helper()
	if err := l.start(name, args...).Wait(); err != nil {
		l.t.Fatalf("%s %v: %v", name, args, err)
	}
}

// router is a client and a server on both sides of a forwarding lab.
func router(t *testing.T) (l, client, server *lab) {
	t.Helper()
	l = newLab(t)
	l.veth("r0", "p0")
	l.veth("r1", "p1")
	client, server = elsewhere(t), elsewhere(t)
	for i, end := range []*lab{client, server} {
		net := fmt.Sprintf("10.9.%d.", i)
		peer := fmt.Sprintf("p%d", i)
		l.move(l.index(peer), end)
		end.do("ip", "addr", "add", net+"2/24", "dev", peer)
		end.do("ip", "link", "set", peer, "up")
		end.do("ip", "route", "add", "default", "via", net+"1")
		l.do("ip", "addr", "add", net+"1/24", "dev", fmt.Sprintf("r%d", i))
	}
	l.must("forwarding", os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)) // of this thread's namespace
	return l, client, server
}

// TestFullRateIsNoBypass runs for WAXSEAL_LOAD_SECONDS each.
func TestFullRateIsNoBypass(t *testing.T) {
	seconds := "1"
	if s := os.Getenv("WAXSEAL_LOAD_SECONDS"); s != "" {
		seconds = s
	}
	for name, set := range map[string]struct {
		queue []string // of the port that the load leaves by
		load  []string
	}{
		"TCP":             {nil, []string{"-P", "4"}},
		"TCP both ways":   {nil, []string{"--bidir"}},
		"small UDP":       {nil, []string{"-u", "-b", "0", "-l", "64"}},
		"a shaper":        {[]string{"tbf", "rate", "200mbit", "burst", "64k", "limit", "500k"}, []string{"-P", "4"}},
		"a shaper, UDP":   {[]string{"tbf", "rate", "20mbit", "burst", "64k", "limit", "1m"}, []string{"-u", "-b", "100M", "-l", "300"}},
		"a queue of 1000": {[]string{"pfifo", "limit", "1000"}, []string{"-u", "-b", "0", "-l", "64"}},
	} {
		t.Run(name, func(t *testing.T) {
			l, client, server := router(t)
			if set.queue != nil {
				l.do("tc", append([]string{"qdisc", "add", "dev", "r1", "root"}, set.queue...)...)
			}
			p := programs(t)
			g := l.open(Config{Ports: []string{"r0", "r1"}, Ingress: p.in, Egress: p.out, Count: p.count})
			s, _ := l.run(g)
			server.start("iperf3", "-s")
			time.Sleep(300 * time.Millisecond)
			if err := client.start("iperf3", append([]string{"-c", "10.9.1.2", "-t", seconds}, set.load...)...).Wait(); err != nil {
				t.Errorf("iperf3: %v", err)
			}
			time.Sleep(time.Second) // queues are empty again
			c, _ := p.count(l.index("r1"))
			t.Logf("%d packets, %d segments left", c.Sent.Packets, c.Sent.Segments)
			if c.Sent.Segments < 100 { // on a machine that is busy with other tests
				t.Error("the load did not pass")
			}
			for _, o := range s.taken() {
				if o.Kind == mirror.Bypass || o.Kind == mirror.Tamper {
					t.Errorf("%s: %s %s %s, %d packets", o.Kind, o.Subject, o.Cause, o.Detail, o.Count)
				}
			}
		})
	}
}
