package syscalls

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T) *Watch {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for BPF programs")
	}
	w, err := Open()
	if err != nil {
		t.Skipf("needs raw tracepoints: %v", err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// next waits for an event of a process.
func next(t *testing.T, w *Watch, is func(Event) bool) Event {
	t.Helper()
	timer := time.AfterFunc(20*time.Second, func() { w.Close() })
	defer timer.Stop()
	for {
		e, err := w.Read()
		if err != nil {
			t.Fatalf("the event did not come: %v", err)
		}
		if is(e) {
			return e
		}
	}
}

func TestAStrangersCallIsTold(t *testing.T) {
	w := open(t)
	cmd := exec.Command("unshare", "--net", "true")
	if err := cmd.Run(); err != nil {
		t.Skipf("needs unshare and network namespaces: %v", err)
	}
	e := next(t, w, func(e Event) bool { return e.Process == cmd.Process.Pid && e.Doing == Spaces })
	if e.Comm != "unshare" {
		t.Errorf("told %+v", e)
	}
}

func TestOurOwnCallsAreNotTold(t *testing.T) {
	w := open(t)
	_ = unix.Setns(-1, 0)
	cmd := exec.Command("unshare", "--net", "true")
	if err := cmd.Run(); err != nil {
		t.Skipf("needs unshare and network namespaces: %v", err)
	}
	next(t, w, func(e Event) bool {
		if e.Process == os.Getpid() {
			t.Errorf("our own call was told: %+v", e)
		}
		return e.Process == cmd.Process.Pid
	})
}

func TestAWriteIntoAnotherProcessIsTold(t *testing.T) {
	w := open(t)
	if err := w.self.Put(uint32(0), uint32(0)); err != nil { // so that this process counts as a stranger
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	value := byte(1)
	local := []unix.Iovec{{Base: &value}}
	local[0].SetLen(1)
	_, _ = unix.ProcessVMWritev(cmd.Process.Pid, local, []unix.RemoteIovec{{Base: 16, Len: 1}}, 0) // fails: nothing is there
	e := next(t, w, func(e Event) bool { return e.Doing == Writes && e.Process == os.Getpid() })
	if e.Target != cmd.Process.Pid {
		t.Errorf("told %+v, want target %d", e, cmd.Process.Pid)
	}
}

func TestCloseWakesTheReader(t *testing.T) {
	w := open(t)
	done := make(chan error)
	go func() {
		for {
			if _, err := w.Read(); err != nil {
				done <- err
				return
			}
		}
	}()
	w.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v, want os.ErrClosed", err)
	}
}

func FuzzEvent(f *testing.F) {
	f.Add(make([]byte, eventSize))
	f.Add(make([]byte, eventSize-1))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := parse(b)
		if ok != (len(b) >= eventSize) {
			t.Errorf("%d bytes parsed: %v", len(b), ok)
		}
		(&Watch{shared: true}).event(c)
	})
}

// BenchmarkGetppid is what a call that no rule names costs, without and with
// the watch.
func BenchmarkGetppid(b *testing.B) {
	run := func(b *testing.B) {
		for b.Loop() {
			_ = unix.Getppid()
		}
	}
	b.Run("without", run)
	w, err := Open()
	if err != nil {
		b.Skipf("needs raw tracepoints: %v", err)
	}
	defer w.Close()
	b.Run("with", run)
}
