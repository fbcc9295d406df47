package agent_test

import (
	"context"
	"errors"
	"testing"

	"waxseal/measure"
	"waxseal/measure/wire"
)

// failingChip is a TPM that fails at a quote, in some way.
type failingChip struct {
	*softChip
	fail func() error
}

func (c failingChip) Quote(context.Context, []byte, measure.Alg, []measure.PCR) ([]byte, []byte, error) {
	return nil, nil, c.fail()
}

func TestFailureInsideStaysInside(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("read /dev/tpm0: input/output error") },
		"panic": func() error { panic("/dev/tpm0 is gone") },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, failingChip{newSoftChip(t), fail})
			conn := l.enroll(t)
			for range 3 {
				_, err := conn.Attestz().Attest(t.Context(), newRequest(t))
				if !contains(err, "internal error") || contains(err, "/dev/tpm0") {
					t.Errorf("Attest: %v: want an error without the inner text", err)
				}
			}
			record(t, l.recorder, "mirror/tc/eth0") // is not locked for ever
		})
	}
}

func TestStoppedRecorderIsUnattested(t *testing.T) {
	c := newSoftChip(t)
	l := newLab(t, c)
	conn := l.enroll(t)
	rec, err := measure.Waxseal1.Of("mirror/tc/eth0", nil)
	if err != nil {
		t.Fatal(err)
	}
	foreign := measure.Record{PCR: rec.PCR, Name: "mirror/foreign"}
	if err := c.Extend(t.Context(), rec.PCR, foreign.Digests(c.Banks())); err != nil { // somebody else extends our PCR
		t.Fatal(err)
	}
	c.FailExtend(errors.New("TPM_RC_FAILURE"), false)
	if _, err := l.recorder.Record(t.Context(), rec); !errors.Is(err, measure.ErrDiverged) {
		t.Fatalf("Record: %v: want ErrDiverged", err)
	}
	if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); !errors.Is(err, wire.ErrNotReady) || !contains(err, "UNATTESTED(recorder has stopped") {
		t.Errorf("Attest: %v: want UNATTESTED", err)
	}
	if s, err := conn.Contents().Status(t.Context()); err != nil || s.Attested || s.Reason == "" {
		t.Errorf("status %+v, %v: want unattested with a reason", s, err)
	}
}
