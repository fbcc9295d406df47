package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/watch/watchtest"
)

// asProgram makes the test's own executable be waxseald.
const asProgram = "WAXSEALD_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args, os.Getpid(), slog.New(slog.NewTextHandler(os.Stderr, nil)), os.Stdout))
	}
	os.Exit(m.Run())
}

// patience is how long something may take on a busy machine before it counts
// as not having happened.
const patience = 20 * time.Second

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces and to load BPF programs")
	}
}

func openLab(t *testing.T, shape watchtest.Shape) *watchtest.Lab {
	t.Helper()
	lab, err := watchtest.Open(shape)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// hunter is a running "waxseald watch" in the lab's router.
type hunter struct {
	t            *testing.T
	lab          *watchtest.Lab
	cmd          *exec.Cmd
	stderr       strings.Builder
	capabilities []mirror.Capability
	out          io.Closer
	read         chan struct{} // closed at the end of its output

	mu        sync.Mutex
	incidents []sighting
	bad       []string // lines that are no incident
}

// sighting is an incident and when its line came.
type sighting struct {
	mirror.Incident
	at time.Time
}

// startHunter starts the tool and returns when every hook is in place.
func startHunter(t *testing.T, lab *watchtest.Lab, args ...string) *hunter {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &hunter{t: t, lab: lab, cmd: exec.Command(self, append([]string{"watch"}, args...)...), read: make(chan struct{})}
	h.cmd.Env = append(os.Environ(), asProgram+"=1")
	h.cmd.Stderr = &h.stderr
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.out = out
	if err := lab.Router.Start(h.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.cmd.Process.Kill(); <-h.read; h.cmd.Wait() })
	ready := make(chan error, 1)
	go h.follow(out, ready)
	select {
	case err := <-ready:
		if err != nil {
			h.cmd.Wait()
			t.Fatalf("watch did not begin: %v: %s", err, h.stderr.String())
		}
	case <-time.After(patience):
		t.Fatal("watch did not begin")
	}
	return h
}

func (h *hunter) follow(out io.Reader, ready chan<- error) {
	defer close(h.read)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	var first struct{ Capabilities []mirror.Capability }
	if !lines.Scan() {
		ready <- errors.New("no output")
		return
	}
	if err := json.Unmarshal(lines.Bytes(), &first); err != nil || len(first.Capabilities) == 0 {
		ready <- fmt.Errorf("first line %q", lines.Text())
		return
	}
	h.capabilities = first.Capabilities
	ready <- nil
	for lines.Scan() {
		s := sighting{at: time.Now()}
		err := json.Unmarshal(lines.Bytes(), &s.Incident)
		h.mu.Lock()
		if err != nil || s.Kind == "" || s.Severity == "" {
			h.bad = append(h.bad, lines.Text())
		}
		h.incidents = append(h.incidents, s)
		h.mu.Unlock()
	}
}

// find returns the first incident that fits, or nil.
func (h *hunter) find(fits func(mirror.Incident) bool) *sighting {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.incidents {
		if fits(s.Incident) {
			return &s
		}
	}
	return nil
}

// await waits for an incident that fits.
func (h *hunter) await(fits func(mirror.Incident) bool) *sighting {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if s := h.find(fits); s != nil {
			return s
		}
	}
	return nil
}

// stop ends the tool as an operator does. It must end well.
func (h *hunter) stop() {
	h.t.Helper()
	h.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-h.read:
	case <-time.After(patience):
		h.t.Error("SIGTERM did not end the watch")
		h.cmd.Process.Kill()
		<-h.read
	}
	if err := h.cmd.Wait(); err != nil || h.stderr.Len() > 0 {
		h.t.Errorf("watch ended with %v and said %q", err, h.stderr.String())
	}
	for _, line := range h.bad {
		h.t.Errorf("a line that is no incident: %s", line)
	}
}

// ours tells whether an incident is about this lab: other tests make labs of
// their own at the same time.
func (h *hunter) ours(in mirror.Incident) bool { return in.Netns == "" || h.lab.Has(in.Netns) }

// told is everything that was reported, for people.
func (h *hunter) told() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, c := range h.capabilities {
		fmt.Fprintf(&b, "\n  %s", c.Row())
	}
	for _, s := range h.incidents {
		if s.Kind != mirror.Listener && h.ours(s.Incident) {
			fmt.Fprintf(&b, "\n  %s  %v in %q copy %q", s.Row(), s.Kind, s.In, s.Copy)
		}
	}
	return b.String()
}

var severities = []mirror.Severity{mirror.Info, mirror.Notice, mirror.Alarm}

func atLeast(got, want mirror.Severity) bool {
	return slices.Index(severities, got) >= slices.Index(severities, want)
}

// fits tells whether an incident is what the attack wants reported.
func fits(w watchtest.Want) func(mirror.Incident) bool {
	cause := regexp.MustCompile(w.Cause)
	return func(in mirror.Incident) bool {
		words := append([]string{in.Cause}, in.Evidence...)
		return slices.Contains(w.Kinds, in.Kind) && atLeast(in.Severity, w.Severity) &&
			(w.In == "" || in.In == w.In) && (w.Copy == "" || in.Copy == w.Copy) &&
			slices.ContainsFunc(words, cause.MatchString) && (!w.Process || in.Process.PID == os.Getpid())
	}
}
