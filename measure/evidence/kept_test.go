package evidence_test

import (
	"bytes"
	"crypto/elliptic"
	"slices"
	"testing"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
)

// What a verifier keeps stays as it was verified, whatever becomes of the
// buffers that the evidence came in.
func TestKeptLogDoesNotChangeWithTheEvidence(t *testing.T) {
	b := ask(t, booted(t, elliptic.P256()), measure.SHA256)
	log := b.evidence.Log
	want := proven(must(b.verify())(t))
	verifier := evidence.NewVerifier(b.trust)
	for visit := range 5 {
		b.evidence.Log = bytes.Clone(log)
		if got := proven(must(verifier.Verify(b.evidence, b.challenge, b.trust))(t)); !slices.Equal(got, want) {
			t.Errorf("visit %d: proven is %q, want %q", visit, got, want)
		}
		clear(b.evidence.Log)
		if _, err := verifier.Verify(b.evidence, b.challenge, b.trust); err == nil {
			t.Errorf("visit %d: zeros in the buffer of a good log are accepted", visit)
		}
	}
}

// Two logs may explain the same values and differ where no digest covers them.
// What was kept of one is never told of the other.
func TestKeptLogSpeaksForNoOther(t *testing.T) {
	b := ask(t, booted(t, elliptic.P256()), measure.SHA256)
	log := b.evidence.Log
	other := bytes.Replace(log, []byte("device path"), []byte("another way"), 1)
	verifier := evidence.NewVerifier(b.trust)
	for visit := range 6 {
		want := "device path"
		if b.evidence.Log = log; visit >= 3 {
			b.evidence.Log, want = other, "another way"
		}
		v := must(verifier.Verify(b.evidence, b.challenge, b.trust))(t)
		if !slices.ContainsFunc(v.Events(), func(e eventlog.Event) bool { return string(e.Data) == want }) {
			t.Errorf("visit %d: no event says %q", visit, want)
		}
	}
}
