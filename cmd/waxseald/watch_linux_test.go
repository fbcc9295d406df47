package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/watch/watchtest"
)

func TestWatchRefusesWrongCommandLines(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"", "--ports is missing"},
		{"--ports", "needs an argument"},
		{"--ports r0,,r1", `"" cannot be the name`},
		{"--ports r0,r0", "twice"},
		{"--ports ../x", "cannot be the name"},
		{"--ports a23456789012345x", "cannot be the name"},
		{"--ports r0 --mode fast", "need one of full, lite, duty"},
		{"--ports r0 --sampling 64", "1/N"},
		{"--ports r0 --sampling 1/3", "1/N"},
		{"--ports r0 --sampling 1/0", "1/N"},
		{"--ports r0 --sampling 1/064", "1/N"},
		{"--ports r0 --sampling 1/131072", "1/N"},
		{"--ports r0 --authorised list", "go together"},
		{"--ports r0 --serial WX-1", "--authorised"},
		{"--ports r0 -o xml", "jsonl or table"},
		{"--ports r0 more", "unexpected"},
		{"--nothing", "not defined"},
	} {
		var out, errs bytes.Buffer
		if code := watchPorts(strings.Fields(c.args), &out, &errs); code != 2 || !strings.Contains(errs.String(), c.says) || out.Len() > 0 {
			t.Errorf("watch %s: exit code %d, %q", c.args, code, &errs)
		}
	}
}

func TestSamplingIsOneInAPowerOfTwo(t *testing.T) {
	for text, want := range map[string]uint32{"auto": 0, "1/1": 1, "1/64": 64, "1/65536": 65536} {
		if got, err := parseSampling(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
}

func TestWatchEndsWithoutItsAuthorisations(t *testing.T) {
	needsRoot(t)
	var out, errs bytes.Buffer
	code := watchPorts([]string{"--ports", "r0", "--authorised", "/nonexistent/a", "--approvers", "/nonexistent/b"}, &out, &errs)
	if code != 1 || strings.Count(errs.String(), "\n") != 1 || out.Len() > 0 {
		t.Errorf("exit code %d, %q, %q", code, &errs, &out)
	}
}

func TestAPortThatIsNotThereYetIsNamedAndHookedWhenItAppears(t *testing.T) {
	needsRoot(t)
	lab := openLab(t, watchtest.Routed)
	h := startHunter(t, lab, "--ports", "r0,r1,r2,r9")
	none := func(c mirror.Capability) bool { return c.Name == "hooks/r9" && c.State == mirror.None && c.Why != "" }
	if !slices.ContainsFunc(h.capabilities, none) {
		t.Errorf("capabilities do not say that r9 is not watched:%s", h.told())
	}
	if err := lab.Router.Lines("ip link set r2 down\nip link set r2 name r9\nip link set r9 up"); err != nil {
		t.Fatal(err)
	}
	err := lab.Router.Lines("ip addr replace 10.71.2.1/24 dev r9\ntc qdisc add dev r0 clsact\ntc filter add dev r0 ingress protocol all u32 match u32 0 0 action mirred egress mirror dev r9")
	if err != nil {
		t.Fatal(err)
	}
	traffic, err := lab.Traffic(watchtest.Everyday)
	if err != nil {
		t.Fatal(err)
	}
	defer traffic.Stop()
	seen := h.await(func(in mirror.Incident) bool {
		return in.Kind == mirror.Duplicate && in.In == "r0" && in.Copy == "r9" && in.Severity == mirror.Alarm
	})
	if seen == nil {
		t.Errorf("copies by r9 are not seen:%s", h.told())
	}
	h.stop()
}

func TestAKilledWatchCanBeStartedAgain(t *testing.T) {
	needsRoot(t)
	lab := openLab(t, watchtest.Routed)
	before, err := lab.Hooks()
	if err != nil {
		t.Fatal(err)
	}
	h := startHunter(t, lab, "--ports", "r0,r1,r2")
	h.cmd.Process.Kill()
	<-h.read
	h.cmd.Wait()
	h = startHunter(t, lab, "--ports", "r0,r1,r2")
	for _, port := range []string{"hooks/r0", "hooks/r1", "hooks/r2"} {
		if !slices.ContainsFunc(h.capabilities, func(c mirror.Capability) bool { return c.Name == port && c.State == mirror.Full }) {
			t.Errorf("%s is not watched:%s", port, h.told())
		}
	}
	h.stop()
	if h.find(func(in mirror.Incident) bool { return in.Severity == mirror.Alarm && h.ours(in) }) != nil {
		t.Errorf("alarm:%s", h.told())
	}
	h.cleared(before)
}

func TestAWatchWhoseReaderGoesTakesItsHooksAway(t *testing.T) {
	needsRoot(t)
	lab := openLab(t, watchtest.Routed)
	before, err := lab.Hooks()
	if err != nil {
		t.Fatal(err)
	}
	h := startHunter(t, lab, "--ports", "r0,r1,r2")
	h.out.Close()
	done := make(chan struct{})
	go func() { <-h.read; h.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("the watch goes on for nobody")
	}
	h.cleared(before)
}

func TestAFrozenWatchSaysSo(t *testing.T) {
	needsRoot(t)
	lab := openLab(t, watchtest.Routed)
	h := startHunter(t, lab, "--ports", "r0,r1,r2")
	h.cmd.Process.Signal(unix.SIGSTOP)
	time.Sleep(3500 * time.Millisecond)
	h.cmd.Process.Signal(unix.SIGCONT)
	if h.await(func(in mirror.Incident) bool { return in.Kind == mirror.Frozen }) == nil {
		t.Errorf("nothing said:%s", h.told())
	}
	h.stop()
}

func TestWatchAsATable(t *testing.T) {
	var out bytes.Buffer
	o := &outlet{to: &out, table: true}
	o.capabilities([]mirror.Capability{{Name: "hooks/r0", State: mirror.Full, How: "tcx"}})
	o.incident(mirror.Incident{Kind: mirror.Rule, Severity: mirror.Alarm, Cause: "tc mirred mirror r0 → r2"})
	if text := out.String(); !strings.Contains(text, "hooks/r0") || !strings.Contains(text, "ALARM") || strings.Count(text, "\n") != 2 {
		t.Errorf("%q", text)
	}
}

func TestNothingIsWrittenAfterAnErrorOfTheReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer r.Close()
	o := &outlet{to: w}
	o.incident(mirror.Incident{})
	first := o.failed()
	o.incident(mirror.Incident{})
	if first == nil || o.failed().Error() != first.Error() {
		t.Errorf("%v, then %v", first, o.failed())
	}
}
