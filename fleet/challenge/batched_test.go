package challenge_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"waxseal/fleet/appraise"
	"waxseal/fleet/challenge"
	"waxseal/measure/wire"
)

func TestBatchedAnswerIsJudged(t *testing.T) {
	d := device(t)
	c := asked(t, d)
	c.Batched = true
	r := run(t, c)
	if r.Outcome != challenge.Judged || r.Verdict.Result != appraise.Affirming || r.Evidence.Batch == nil || r.Evidence.Batch.Size != 5 {
		t.Fatalf("%s, %+v", r.Outcome, r.Verdict)
	}
	if n := len(d.Requests()); n != 0 {
		t.Errorf("%d single challenges were sent too", n)
	}
}

func TestLogAtHandIsNotFetchedAgain(t *testing.T) {
	d := device(t)
	c := asked(t, d)
	c.Batched = true
	var known bool
	d.Batching = func(_ context.Context, req wire.BatchRequest, ans *wire.BatchAnswer) error {
		known = ans.LogKnown
		return nil
	}
	c.KnownLog = run(t, c).Evidence.Log
	if known {
		t.Error("a log that nobody had counts as known")
	}
	r := run(t, c)
	if r.Verdict.Result != appraise.Affirming || !known || len(r.Evidence.Log) == 0 {
		t.Errorf("log known %v, %d bytes in the evidence: %+v", known, len(r.Evidence.Log), r.Verdict)
	}
}

func TestFalseBatchedAnswerIsRefused(t *testing.T) {
	d := device(t)
	c := asked(t, d)
	c.Batched = true
	c.KnownLog = run(t, c).Evidence.Log
	var before wire.BatchAnswer
	d.Batching = func(_ context.Context, _ wire.BatchRequest, ans *wire.BatchAnswer) error { before = *ans; return nil }
	run(t, c)
	for name, lie := range map[string]func(wire.BatchRequest, *wire.BatchAnswer){
		"an earlier answer":          func(_ wire.BatchRequest, a *wire.BatchAnswer) { *a = before },
		"another place":              func(_ wire.BatchRequest, a *wire.BatchAnswer) { a.Proof.Index = 3 },
		"a batch of one":             func(_ wire.BatchRequest, a *wire.BatchAnswer) { a.Proof.Index, a.Proof.Size, a.Proof.Path = 0, 1, nil },
		"a path to elsewhere":        func(_ wire.BatchRequest, a *wire.BatchAnswer) { a.Proof.Path[0] ^= 1 },
		"a path that is too long":    func(_ wire.BatchRequest, a *wire.BatchAnswer) { a.Proof.Path = make([]byte, 96+32) },
		"a batch of 5,000":           func(_ wire.BatchRequest, a *wire.BatchAnswer) { a.Proof.Size = 5000 },
		"a known log that is longer": func(_ wire.BatchRequest, a *wire.BatchAnswer) { a.Log, a.LogKnown = c.KnownLog, true },
		"no log":                     func(_ wire.BatchRequest, a *wire.BatchAnswer) { a.Log, a.LogKnown = nil, false },
	} {
		d.Batching = func(_ context.Context, req wire.BatchRequest, ans *wire.BatchAnswer) error { lie(req, ans); return nil }
		if r := run(t, c); r.Outcome != challenge.Refused {
			t.Errorf("%s: %s, %+v", name, r.Outcome, r.Verdict.Reasons)
		}
	}
	// A router that says that nothing is new, and has measured something.
	d.Batching = func(_ context.Context, _ wire.BatchRequest, ans *wire.BatchAnswer) error {
		ans.Log, ans.LogKnown = nil, true
		return nil
	}
	if err := d.Measure("mirror/tc/eth0", nil); err != nil {
		t.Fatal(err)
	}
	if r := run(t, c); r.Outcome != challenge.Refused {
		t.Errorf("a log that is no longer the one: %s, %+v", r.Outcome, r.Verdict.Reasons)
	}
}

// Where a batched challenge cannot be answered, no other is put.
func TestBatchedFallsBackToNothing(t *testing.T) {
	d := device(t)
	c := asked(t, d)
	c.Batched = true
	for _, cause := range []error{wire.ErrNoMethod, wire.ErrBusy, errors.New("internal")} {
		d.Batching = func(context.Context, wire.BatchRequest, *wire.BatchAnswer) error { return cause }
		r := run(t, c)
		if r.Outcome == challenge.Judged || r.Outcome == challenge.Genuine || len(r.Verdict.Reasons) == 0 || !strings.Contains(r.Verdict.Reasons[0], "Challenge.Attest") {
			t.Errorf("%v: %s, %q", cause, r.Outcome, r.Verdict.Reasons)
		}
	}
	if n := len(d.Requests()); n != 0 {
		t.Errorf("%d single challenges were sent instead", n)
	}
}

func TestKnownLogIsNamedByItsDigest(t *testing.T) {
	d := device(t)
	c := asked(t, d)
	c.Batched, c.KnownLog = true, []byte("an older log")
	var named []byte
	d.Batching = func(_ context.Context, req wire.BatchRequest, _ *wire.BatchAnswer) error {
		named = req.KnownLog
		return nil
	}
	if r := run(t, c); r.Verdict.Result != appraise.Affirming {
		t.Errorf("with an older log at hand: %+v", r.Verdict)
	}
	if sum := sha256.Sum256(c.KnownLog); string(named) != string(sum[:]) {
		t.Errorf("named %x: want %x", named, sum)
	}
}
