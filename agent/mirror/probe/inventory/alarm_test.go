package inventory

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
)

// alarmed starts a watch that looks by itself so rarely that only an event of a
// system call can make it look.
func alarmed(t *testing.T) *watcher {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for BPF programs")
	}
	w := start(t, Config{Interval: time.Hour})
	for _, c := range w.inv.Capabilities() {
		if c.Name == "syscalls" && c.State != mirror.Full {
			t.Skipf("needs raw tracepoints: %s", c.Why)
		}
	}
	return w
}

func TestASystemCallMakesTheWatchLookAtOnce(t *testing.T) {
	w := alarmed(t)
	p := newStranger(t)
	began := time.Now()
	p.do(order{Do: "packet", Type: unix.SOCK_RAW, Protocol: unix.ETH_P_ALL})
	o := w.await("the socket", ofStranger(p, false))
	t.Logf("told after %v", time.Since(began))
	if o.Netns != "" || o.Harmless {
		t.Errorf("told %+v", o)
	}
}

func TestAProgramThatNobodyHoldsIsToldWithWhoLoadedIt(t *testing.T) {
	w := alarmed(t)
	p := newStranger(t)
	p.do(order{Do: "listen", Type: unix.SOCK_DGRAM})
	p.do(order{Do: "load", Port: "wxs_load"})
	o := w.await("the program", func(o mirror.Observation) bool {
		return o.Kind == mirror.Program && strings.Contains(o.Detail, "wxs_load") && !o.Gone
	})
	if o.Process.PID != 0 && o.Process.PID != p.pid { // unknown where others load at the same time
		t.Errorf("loaded by %+v, want %d", o.Process, p.pid)
	}
	t.Logf("%s: %+v", o.Detail, o.Process)
}

func TestAWriteIntoAnotherProcessIsToldOnce(t *testing.T) {
	w := alarmed(t)
	p, victim := newStranger(t), newStranger(t)
	p.do(order{Do: "write", Socket: victim.pid})
	p.do(order{Do: "write", Socket: victim.pid})
	p.do(order{Do: "write", Socket: p.pid})
	subject := fmt.Sprintf("debug/%d/%d", p.pid, victim.pid)
	o := w.await("the write", func(o mirror.Observation) bool { return o.Kind == mirror.Debug && o.Subject == subject })
	if o.Process.PID != p.pid || !strings.Contains(o.Target, fmt.Sprint(victim.pid)) {
		t.Errorf("told %+v", o)
	}
	p.do(order{Do: "packet", Type: unix.SOCK_RAW, Protocol: unix.ETH_P_ALL})
	w.await("a later socket", ofStranger(p, false))
	count := 0
	for _, o := range w.all {
		if o.Kind == mirror.Debug && o.Process.PID == p.pid {
			count++
		}
	}
	if count != 1 {
		t.Errorf("told %d writes, want one", count)
	}
}
