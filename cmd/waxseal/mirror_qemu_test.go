package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"waxseal/images/vm"
)

// What is typed at the router's console: a session that its owner has
// authorised, an intruder's, and one way to silence whoever tells of it.
const (
	spanSession = "modprobe -a cls_matchall act_mirred; tc qdisc add dev eth1 clsact; " +
		"tc filter add dev eth1 ingress pref 101 matchall action mirred egress mirror dev eth3; echo the session is on"
	erspanSession = "modprobe -a ip_gre; ip link add er1 up type erspan seq key 7 local 10.66.3.1 remote 10.66.3.2 erspan_ver 1 erspan 7; " +
		"tc filter add dev eth1 ingress pref 90 matchall action mirred egress mirror dev er1; echo the copies are on"
	killAgent = `for p in /proc/[0-9]*; do case "$(cat $p/cmdline)" in waxseald*serve*) kill -9 ${p#/proc/};; esac; done`
)

// mirrorReference is the approval of the authorised session.
const mirrorReference = "NOC-4711"

// authoriseSession names an approver, who allows the session.
func (l site) authoriseSession(t *testing.T) {
	t.Helper()
	l.cli(t, exitOK, "mirror", "approver", "noc", "--owner", l.path("owner"))
	l.cli(t, exitOK, "mirror", "authorise", "--owner", l.path("owner"), "--ref", mirrorReference,
		"--from", "eth1", "--to", "eth3", "--by", "tc mirred", "--max-rate", "5000", "--until", "72h", "-o", l.path("mirrors.json"))
}

// startTraffic lets a client send through the router.
func startTraffic(t *testing.T, v *vm.VM) *vm.Neighbours {
	t.Helper()
	n, err := vm.NewNeighbours(v)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx, 200) }()
	t.Cleanup(func() { cancel(); <-ended })
	return n
}

// A mirror in the running router is told by every attestation from then on,
// under the TPM's signature: one that is authorised as such, another as what
// it is, and killing the agent takes nothing back.
func testMirrorWhileRunning(t *testing.T, l site) {
	v := l.boot(t, vm.Config{Dir: l.clean, Direct: true, Ports: 3})
	n := startTraffic(t, v)
	until(t, v, "the router forwards", func() bool { return n.Traffic().Delivered > 100 })
	if got := l.attest(t, v, exitOK); got.Result != "affirming" || n.Traffic().Copied > 0 {
		t.Errorf("before any mirror the verdict is %s (%v), %v", got.Result, got.Reasons, n.Traffic())
	}

	l.typed(t, v, spanSession, "the session is on")
	until(t, v, "the collector gets copies", func() bool { return n.Traffic().Copied > 100 })
	got := l.tells(t, v, exitOK, mirrorReference)
	if got.Result != "affirming" {
		t.Errorf("an authorised mirror made the verdict %s (%v)", got.Result, got.Reasons)
	}

	before := n.Traffic().Copied
	l.typed(t, v, erspanSession, "the copies are on")
	l.await(t, v, "level=WARN msg=finding")
	if err := v.Type(killAgent); err != nil {
		t.Fatal(err)
	}
	l.await(t, v, "agent ended")
	until(t, v, "the agent is back", func() bool { return strings.Count(v.Output(), "agent serves") > 1 })
	for _, want := range []string{"eth1", "er1"} {
		if got := l.tells(t, v, exitFailed, want); got.Result != "contraindicated" || len(got.findings()) == 0 {
			t.Errorf("after the agent was killed the verdict is %s with findings %q", got.Result, got.findings())
		}
	}
	if n.Traffic().Copied == before {
		t.Error("the intruder's session copied nothing: the test shows nothing")
	}
}

func (l site) typed(t *testing.T, v *vm.VM, line, answer string) {
	t.Helper()
	if err := v.Type(line); err != nil {
		t.Fatal(err)
	}
	l.await(t, v, "\n"+answer)
}

// tells asks the router until a component's note holds text.
func (l site) tells(t *testing.T, v *vm.VM, code int, text string) verdict {
	t.Helper()
	args := []string{"attest", v.Address, "--owner", l.path("owner"), "--serial", labSerial, "-o", "json", "--reference", l.reference}
	for deadline := time.Now().Add(2 * time.Minute); ; {
		var stdout, stderr bytes.Buffer
		got := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
		var answer verdict
		if err := json.Unmarshal(stdout.Bytes(), &answer); err == nil && got == code && answer.notes(text) {
			return answer
		}
		if time.Now().After(deadline) {
			t.Fatalf("no verdict with exit code %d names %q; the last has %d:\n%s%s\n%s", code, text, got, &stdout, &stderr, v.Output())
		}
	}
}

// notes tells whether the note of a component holds text.
func (v verdict) notes(text string) bool {
	for _, c := range v.Components {
		if strings.Contains(c.Note, text) {
			return true
		}
	}
	return false
}

// findings are the notes of what the running agent has found.
func (v verdict) findings() []string {
	var notes []string
	for _, c := range v.Components {
		if slices.Contains([]string{"finding", "past"}, c.State) {
			notes = append(notes, c.Name+": "+c.Note)
		}
	}
	return notes
}

func until(t *testing.T, v *vm.VM, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come: %s; the console:\n%s", what, v.Output())
		}
	}
}
