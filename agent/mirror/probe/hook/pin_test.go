package hook

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

// bpffs mounts one for the test.
func bpffs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("wxh", dir, "bpf", 0, ""); err != nil {
		t.Skipf("needs a bpffs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return filepath.Join(dir, "waxseal")
}

func needTCX(t *testing.T) {
	t.Helper()
	if errors.Is(tcxWorks(), ebpf.ErrNotSupported) {
		t.Skip("needs a kernel with TCX (6.6)")
	}
}

func TestPinnedHooksGoOnWithoutUsAndAreTakenOver(t *testing.T) {
	l := newLab(t)
	needTCX(t)
	dir := bpffs(t)
	r0 := l.veth("r0", "p0")
	first, second := programs(t), programs(t)
	g := l.open(Config{Ports: []string{"r0"}, Ingress: first.in, Egress: first.out, PinDir: dir})
	_, stop := l.run(g)
	eventually(t, "a heartbeat", func() bool { b, err := LastBeat(dir); return err == nil && b.Rounds > 1 })
	stop()
	l.must("leave", g.Leave())
	in := l.packetSocket(l.index("p0"))
	l.send(in, 5)
	eventually(t, "the hooks count without us", func() bool { c, _ := first.count(r0); return c.Received.Packets >= 5 })

	time.Sleep(frozenAfter + 100*time.Millisecond)
	g = l.open(Config{Ports: []string{"r0"}, Ingress: second.in, Egress: second.out, PinDir: dir})
	for _, s := range sides {
		if n := attachedTCX(t, r0, s); n != 1 {
			t.Errorf("%s: %d programs, want the one that was taken over", s, n)
		}
	}
	l.send(in, 5)
	eventually(t, "our program counts", func() bool { c, _ := second.count(r0); return c.Received.Packets >= 5 })
	s, stop := l.run(g)
	s.find(t, mirror.Frozen, "nobody guarded")
	stop()
	l.must("close", g.Close())
	l.nothingLeft(r0)
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("pins are left: %v", left)
	}
}

func TestPinsOfPortsThatAreNotWatchedAnyMoreAreRemoved(t *testing.T) {
	l := newLab(t)
	needTCX(t)
	dir := bpffs(t)
	r0, r1 := l.veth("r0", "p0"), l.veth("r1", "p1")
	p := programs(t)
	l.must("leave", l.open(Config{Ports: []string{"r0", "r1"}, Ingress: p.in, Egress: p.out, PinDir: dir}).Leave())
	l.must("delete", l.remove(r1))
	g := l.open(Config{Ports: []string{"r2"}, Ingress: p.in, Egress: p.out, PinDir: dir})
	l.nothingLeft(r0)
	l.must("close", g.Close())
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("pins are left: %v", left)
	}
}

func TestARemovedPinIsFoundAndMadeAgain(t *testing.T) {
	l := newLab(t)
	needTCX(t)
	dir := bpffs(t)
	r0 := l.veth("r0", "p0")
	p := programs(t)
	g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, PinDir: dir})
	s, stop := l.run(g)
	path := g.pins.path(r0, egress)
	l.must("remove", os.Remove(path))
	s.find(t, mirror.Tamper, "pin of the hook")
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the pin is not made again: %v", err)
	}
	stop()
	l.must("close", g.Close())
	l.nothingLeft(r0)
}

func TestWithoutBPFFSThePortsAreHookedAndTheCauseIsTold(t *testing.T) {
	l := newLab(t)
	needTCX(t)
	l.veth("r0", "p0")
	p := programs(t)
	g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, PinDir: filepath.Join(t.TempDir(), "pins")})
	all := g.Capabilities()
	if c := all[len(all)-1]; all[0].State != mirror.Full || c.Name != "pins" || c.State != mirror.None || !strings.Contains(c.Why, "mount") {
		t.Errorf("capabilities %+v", all)
	}
}

// TestMain lets the test's program be the process that is killed.
func TestMain(m *testing.M) {
	if port := os.Getenv("WAXSEAL_HOOK_AND_WAIT"); port != "" {
		hookAndWait(port, Way(os.Getenv("WAXSEAL_HOOK_WAY")))
	}
	os.Exit(m.Run())
}

func hookAndWait(port string, w Way) {
	t := &testing.T{}
	p := programs(t)
	g, err := Open(Config{Ports: []string{port}, Ingress: p.in, Egress: p.out, Way: w})
	if err != nil || g.refused != nil {
		os.Exit(3)
	}
	_, _ = os.Stdout.WriteString("hooked\n")
	_ = g.Run(context.Background(), func(o mirror.Observation) { _, _ = os.Stdout.WriteString(string(o.Kind) + " " + o.Cause + "\n") })
}

// victim is a process that has hooked r0.
func (l *lab) victim(w Way) (*exec.Cmd, *output) {
	l.t.Helper()
	l.t.Setenv("WAXSEAL_HOOK_AND_WAIT", "r0")
	l.t.Setenv("WAXSEAL_HOOK_WAY", string(w))
	said := &output{}
	cmd := l.startWith(said, "/proc/self/exe")
	eventually(l.t, "the process has hooked the port", func() bool { return strings.Contains(said.String(), "hooked") })
	return cmd, said
}

func TestAKilledProcessLeavesNoLinkAndFiltersThatTheNextReplaces(t *testing.T) {
	ways(t, func(t *testing.T, w Way) {
		l := newLab(t)
		r0 := l.veth("r0", "p0")
		cmd, _ := l.victim(w)
		l.must("kill", cmd.Process.Kill())
		_ = cmd.Wait()
		if w == TCX {
			eventually(t, "the links are gone", func() bool { return attachedTCX(t, r0, ingress)+attachedTCX(t, r0, egress) == 0 })
		} else if there, err := newClsact(l.links).filters(r0, ingress, 0); err != nil || len(there) != 1 {
			t.Errorf("filters %v, %v: want the one that was left", there, err)
		}
		p := programs(t)
		g := l.open(Config{Ports: []string{"r0"}, Ingress: p.in, Egress: p.out, Way: w})
		if there, err := newClsact(l.links).filters(r0, ingress, 0); w == Clsact && (err != nil || len(there) != 1) {
			t.Errorf("filters %v, %v: want ours alone", there, err)
		}
		l.must("close", g.Close())
		l.nothingLeft(r0)
	})
}

func TestAProcessThatWasStoppedSaysSo(t *testing.T) {
	l := newLab(t)
	l.veth("r0", "p0")
	cmd, said := l.victim(Auto)
	l.must("stop", cmd.Process.Signal(unix.SIGSTOP))
	time.Sleep(1500 * time.Millisecond)
	l.must("go on", cmd.Process.Signal(unix.SIGCONT))
	eventually(t, "it says so", func() bool { return strings.Contains(said.String(), "frozen the ") }, func() any { return said.String() })
}

func TestSilenceIsMeasured(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(100, 0).Add(time.Duration(ms) * time.Millisecond) }
	for name, c := range map[string]struct {
		last, began, ended time.Time
		want               string
	}{
		"the first round":      {time.Time{}, at(0), at(1), ""},
		"in time":              {at(0), at(50), at(51), ""},
		"late":                 {at(0), at(900), at(901), ""},
		"stopped":              {at(0), at(3050), at(3051), "the guard did not run for 3s"},
		"waiting for a kernel": {at(0), at(50), at(1550), "the kernel kept the guard waiting for 1.5s"},
	} {
		o, ok := silence(c.last, c.began, c.ended, 50*time.Millisecond)
		if o.Cause != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, want %q", name, o.Cause, c.want)
		}
	}
	if o, ok := orphaned(Beat{At: 1e9, PID: 7}, 13e9); !ok || o.Cause != "nobody guarded the hooks for 12s" || o.Detail != "the last guard was process 7" {
		t.Errorf("orphaned: %+v", o)
	}
	for _, b := range []Beat{{}, {At: 20e9}, {At: 12.5e9}} {
		if _, ok := orphaned(b, 13e9); ok {
			t.Errorf("%+v is taken for silence", b)
		}
	}
}
