package agent_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"waxseal/measure/wire"
)

// A challenger who goes in the middle of a quote leaves nothing in the TPM,
// and the next one gets his answer.
func TestChallengeCancelledInMidQuoteLeavesTheTPMClean(t *testing.T) {
	chip := newSlowChip(t)
	l := newLab(t, chip)
	conn := l.enroll(t)
	kinds := map[string]func(context.Context) error{
		"single": func(ctx context.Context) error {
			_, err := conn.Attestz().Attest(ctx, newRequest(t))
			return err
		},
		"batched": func(ctx context.Context) error {
			_, err := conn.Challenge().Attest(ctx, newBatchRequest(t))
			return err
		},
	}
	for name, challenge := range kinds {
		quotes := chip.quotes()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for chip.quotes() == quotes {
				time.Sleep(time.Millisecond)
			}
			cancel() // the command is with the TPM
		}()
		if err := challenge(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v: want it cancelled", name, err)
		}
		if err := challenge(t.Context()); err != nil {
			t.Errorf("%s, the next one: %v", name, err)
		}
	}
	req := newRequest(t)
	ans, err := conn.Attestz().Attest(t.Context(), req)
	if err == nil {
		_, err = l.verify(req, ans)
	}
	if err != nil {
		t.Error(err)
	}
	if n := chip.Loaded(t); n != 0 {
		t.Errorf("%d transient objects and sessions are left in the TPM", n)
	}
	record(t, l.recorder, "mirror/tc/eth0") // nothing holds the recorder
}

// Challengers of one batch, of whom most go in mid-quote.
func TestBatchIsAnsweredWhoeverLeaves(t *testing.T) {
	chip := newSlowChip(t)
	l := newLab(t, chip)
	conn, v := l.enroll(t), l.verifier()
	type answer struct {
		req wire.BatchRequest
		ans wire.BatchAnswer
		err error
	}
	impatient, cancel := context.WithCancel(t.Context())
	answers := make(chan answer, 16)
	quotes := chip.quotes()
	for i := range cap(answers) {
		ctx := t.Context()
		if i%4 != 0 {
			ctx = impatient
		}
		req := newBatchRequest(t)
		go func() {
			ans, err := conn.Challenge().Attest(ctx, req)
			answers <- answer{req, ans, err}
		}()
	}
	for chip.quotes() < quotes+2 { // the second quote is for those who waited for the first
		time.Sleep(time.Millisecond)
	}
	cancel()
	good := 0
	for range cap(answers) {
		a := <-answers
		if a.err == nil {
			a.err = l.verifyBatched(v, a.req, a.ans)
			good++
		}
		if a.err != nil && !errors.Is(a.err, context.Canceled) {
			t.Error(a.err)
		}
	}
	if good < 4 {
		t.Errorf("%d were answered: want the 4 who stayed", good)
	}
	if n := chip.Loaded(t); n != 0 {
		t.Errorf("%d transient objects and sessions are left in the TPM", n)
	}
}
