package config

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netns"
)

// patience bounds the wait for what must come; it is no measure.
const patience = 15 * time.Second

var labs atomic.Int32

// lab is a router in a namespace of its own: ports r0, r1 and r2, with
// addresses 10.77.0.1/24, 10.77.1.1/24 and 10.77.2.1/24, and fd77:N::1/64.
type lab struct {
	t    testing.TB
	name string
}

func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	l := &lab{t, fmt.Sprintf("wxc%d-%d", os.Getpid(), labs.Add(1))}
	l.host("ip", "netns", "add", l.name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", l.name).Run() })
	var script strings.Builder
	script.WriteString("link set lo up\n")
	for i := range 3 {
		fmt.Fprintf(&script, "link add r%[1]d type veth peer name p%[1]d\naddr add 10.77.%[1]d.1/24 dev r%[1]d\n", i)
		fmt.Fprintf(&script, "addr add fd77:%[1]d::1/64 dev r%[1]d nodad\nlink set r%[1]d up\nlink set p%[1]d up\n", i)
	}
	l.feed("ip -batch -", script.String())
	return l
}

func (l *lab) host(command ...string) string {
	l.t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// do runs a command in the router. Words in single quotes are one.
func (l *lab) do(format string, args ...any) string {
	l.t.Helper()
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	return l.host("ip", "netns", "exec", l.name, "sh", "-c", format)
}

// feed runs a command in the router with text as its input.
func (l *lab) feed(command, text string) {
	l.t.Helper()
	cmd := exec.Command("ip", "netns", "exec", l.name, "sh", "-c", command)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// needs skips the test where the kernel or the machine cannot do it.
func (l *lab) needs(what, format string, args ...any) {
	l.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", l.name, "sh", "-c", fmt.Sprintf(format, args...)).CombinedOutput()
	if err != nil {
		l.t.Skipf("needs %s: %v: %s", what, err, out)
	}
}

// open opens a watch on the router.
func (l *lab) open(c Config) *Watch {
	l.t.Helper()
	found, err := netns.Find(netns.Names, 1<<20)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, n := range found.Namespaces {
		if n.Name != l.name {
			continue
		}
		var w *Watch
		err := n.Do(func() (err error) { w, err = Open(c); return err })
		if err != nil {
			l.t.Fatal(err)
		}
		l.t.Cleanup(func() { w.Close() })
		return w
	}
	l.t.Fatalf("namespace %s is not there", l.name)
	return nil
}

// watch opens a watch on the router alone and runs it.
func (l *lab) watch() *seen {
	l.t.Helper()
	return run(l.t, l.open(Config{Ports: []string{"r0", "r1", "r2"}, Alone: true}))
}

func run(t testing.TB, w *Watch) *seen {
	s := &seen{t: t, watch: w, news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx, s.add) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the watch ended with %v", err)
		}
	})
	return s
}

// seen is what a watch has emitted.
type seen struct {
	t     testing.TB
	watch *Watch
	news  chan struct{}
	mu    sync.Mutex
	list  []mirror.Observation
}

func (s *seen) add(o mirror.Observation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, o)
	select {
	case s.news <- struct{}{}:
	default:
	}
}

func (s *seen) all() []mirror.Observation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]mirror.Observation(nil), s.list...)
}

// wait returns the first observation that fits.
func (s *seen) wait(what string, fits func(mirror.Observation) bool) mirror.Observation {
	s.t.Helper()
	begin := time.Now()
	for deadline := time.After(patience); ; {
		for _, o := range s.all() {
			if fits(o) {
				s.t.Logf("%s after %v: %+v", what, time.Since(begin).Round(100*time.Microsecond), o)
				return o
			}
		}
		select {
		case <-s.news:
		case <-deadline:
			s.t.Fatalf("%s was not seen. Seen:\n%s", what, s.text())
		}
	}
}

func (s *seen) text() string {
	var b strings.Builder
	for _, o := range s.all() {
		fmt.Fprintf(&b, "%+v\n", o)
	}
	return b.String()
}

// begins waits for what came with a cause, gone says that it went.
func (s *seen) begins(cause string) mirror.Observation {
	s.t.Helper()
	return s.wait(cause, func(o mirror.Observation) bool { return o.Cause == cause && !o.Gone && !o.Baseline })
}

func (s *seen) ends(o mirror.Observation) {
	s.t.Helper()
	s.wait(o.Cause+", gone", func(g mirror.Observation) bool { return g.Subject == o.Subject && g.Gone })
}

// nothing checks that nothing but what is harmless was emitted, after what the
// kernel knows now has been read.
func (s *seen) nothing() {
	s.t.Helper()
	for _, o := range s.all() {
		if !o.Harmless && !o.Baseline {
			s.t.Errorf("emitted %+v", o)
		}
	}
}

// noRule checks that no rule was told as one that copies or diverts.
func (s *seen) noRule() {
	s.t.Helper()
	for _, o := range s.all() {
		if o.Kind == mirror.Rule && !o.Harmless {
			s.t.Errorf("emitted %+v", o)
		}
	}
}

// settle waits until a device made now was seen, so that everything before it was.
func (s *seen) settle(l *lab) {
	s.t.Helper()
	name := fmt.Sprintf("wxt%d", labs.Add(1))
	l.do("ip link add %s type vxlan id %d dstport 9999", name, labs.Add(1))
	s.wait("the mark", func(o mirror.Observation) bool { return o.In == name })
	l.do("ip link del %s", name)
	s.wait("the mark, gone", func(o mirror.Observation) bool { return o.In == name && o.Gone })
}
