package challenge_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"waxseal/fleet/appraise"
	"waxseal/fleet/challenge"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/wire"
)

// What went wrong in other verifiers, done to this one.

// affirmed returns a router and the configuration of challenges to it, after
// one that it passed.
func affirmed(t *testing.T) (c challenge.Config, lie func(func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error)) {
	t.Helper()
	d := device(t)
	c = asked(t, d)
	r := run(t, c)
	if r.Verdict.Result != appraise.Affirming {
		t.Fatalf("an honest answer: %+v", r.Verdict)
	}
	c.Previous = &r.Counters
	return c, func(f func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error) { d.Attesting = f }
}

// Keylime before 6.5.1: an answer that made the verifier fail in an unforeseen
// way ended the watch over that router without a word, and its last good state
// stood for ever. Here each such answer is a result of its own, and no good one.
func TestCVE2022_3500_FailureNeverLeavesTheLastGoodVerdict(t *testing.T) {
	for name, lie := range map[string]func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error{
		"panic of the router": func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error { return errors.New("panic: nil") },
		"answer of nothing": func(_ context.Context, _ wire.AttestRequest, a *wire.AttestAnswer) error {
			*a = wire.AttestAnswer{}
			return nil
		},
		"quote of noise": func(_ context.Context, _ wire.AttestRequest, a *wire.AttestAnswer) error {
			a.Quoted = noise(200)
			return nil
		},
		"signature of noise": func(_ context.Context, _ wire.AttestRequest, a *wire.AttestAnswer) error {
			a.Signature = noise(104)
			return nil
		},
		"log of noise": func(_ context.Context, _ wire.AttestRequest, a *wire.AttestAnswer) error {
			a.Log = noise(5000)
			return nil
		},
		"certificate of noise": func(_ context.Context, _ wire.AttestRequest, a *wire.AttestAnswer) error {
			a.OIAK = wire.Chain{"noise"}
			return nil
		},
		"PCRs of no bytes": func(_ context.Context, _ wire.AttestRequest, a *wire.AttestAnswer) error {
			for pcr := range a.PCRs {
				a.PCRs[pcr] = nil
			}
			return nil
		},
		"hangs": func(ctx context.Context, _ wire.AttestRequest, _ *wire.AttestAnswer) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, tell := affirmed(t)
			c.Timeout = time.Second
			tell(lie)
			r := run(t, c)
			if r.Outcome == challenge.Judged || r.Outcome == challenge.Genuine || r.Outcome == "" {
				t.Errorf("outcome %q", r.Outcome)
			}
			if r.Verdict.Result != appraise.None && r.Verdict.Result != appraise.Contraindicated || len(r.Verdict.Reasons) == 0 {
				t.Errorf("verdict %+v: want none or contraindicated, with a reason", r.Verdict)
			}
			if r.Counters != (evidence.Counters{}) {
				t.Errorf("counters %+v of an answer that is not genuine", r.Counters)
			}
		})
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// Keylime before 7.2.5: a quote whose signature did not verify was written
// into the verifier's log, and the router stayed trusted.
func TestCVE2023_3674_BadSignatureIsAVerdictAndNoLogLine(t *testing.T) {
	stranger := newKey(t)
	for name, spoil := range map[string]func(*wire.AttestAnswer){
		"of another key":   func(a *wire.AttestAnswer) { a.Signature, _ = evidencetest.Sign(stranger, a.Quoted) },
		"one bit":          func(a *wire.AttestAnswer) { a.Signature[len(a.Signature)-1] ^= 1 },
		"none":             func(a *wire.AttestAnswer) { a.Signature = nil },
		"of another quote": func(a *wire.AttestAnswer) { a.Quoted[len(a.Quoted)-1] ^= 1 },
	} {
		c, tell := affirmed(t)
		tell(func(_ context.Context, _ wire.AttestRequest, a *wire.AttestAnswer) error { spoil(a); return nil })
		if r := run(t, c); r.Outcome != challenge.Refused || r.Verdict.Result != appraise.Contraindicated {
			t.Errorf("%s: %s, %+v", name, r.Outcome, r.Verdict)
		}
	}
}

// Keylime before 7.5.0: who failed the registrar's challenge was told the
// answer that had been expected, and could give it at the second try. Here a
// try that fails spends its nonce, and the next question is another.
func TestCVE2023_38201_RefusedAnswerHelpsNoSecondTry(t *testing.T) {
	c, tell := affirmed(t)
	var err error
	if c.Nonces, err = challenge.NewNonces(nil); err != nil {
		t.Fatal(err)
	}
	var genuine []wire.AttestAnswer
	var asked [][]byte
	tell(func(_ context.Context, req wire.AttestRequest, a *wire.AttestAnswer) error {
		genuine, asked = append(genuine, *a), append(asked, req.Nonce)
		switch len(genuine) {
		case 1: // fails, and learns what it can
			a.Signature = bytes.Clone(a.Signature)
			a.Signature[len(a.Signature)-1] ^= 1
		case 2: // gives the right answer to the first question
			*a = genuine[0]
		}
		return nil
	})
	for i, want := range []error{evidence.ErrSignature, evidence.ErrNonce} {
		r := run(t, c)
		if r.Outcome != challenge.Refused || !strings.Contains(r.Verdict.Reasons[0], want.Error()) {
			t.Errorf("try %d: %s %q, want: %v", i+1, r.Outcome, r.Verdict.Reasons, want)
		}
		if hex := fmt.Sprintf("%x", r.Challenge.Nonce); len(hex) != 2*challenge.NonceSize || strings.Contains(strings.Join(r.Verdict.Reasons, " "), hex[:16]) {
			t.Errorf("try %d: nonce %s, reasons %q", i+1, hex, r.Verdict.Reasons)
		}
		if err := c.Nonces.Consume(asked[i], c.Serial+"@"+c.Address, evidencetest.Noon); !errors.Is(err, challenge.ErrNonceUnknown) {
			t.Errorf("try %d: its nonce is open still: %v", i+1, err)
		}
	}
	if bytes.Equal(asked[0], asked[1]) {
		t.Error("the second try was asked the same")
	}
}

// Keylime 7.14: the verifier's nonce was a constant, so that a router could
// take quotes in stock before it was broken into.
func TestCVE2026_6420_QuotesTakenInStockAreRefused(t *testing.T) {
	c, tell := affirmed(t)
	var stock *wire.AttestAnswer
	tell(func(_ context.Context, _ wire.AttestRequest, a *wire.AttestAnswer) error {
		if stock == nil {
			kept := *a
			stock = &kept
		}
		*a = *stock
		return nil
	})
	if r := run(t, c); r.Verdict.Result != appraise.Affirming {
		t.Fatalf("the answer that is kept: %+v", r.Verdict)
	}
	for range 3 {
		r := run(t, c)
		if r.Outcome != challenge.Refused || !strings.Contains(r.Verdict.Reasons[0], evidence.ErrNonce.Error()) {
			t.Errorf("from stock: %s %q, want: %v", r.Outcome, r.Verdict.Reasons, evidence.ErrNonce)
		}
	}
}

// constant is a random source that always says the same.
type constant string

func (c constant) Read(b []byte) (int, error) {
	return io.ReadFull(strings.NewReader(strings.Repeat(string(c), len(b))), b)
}

// The same, one layer below: a verifier that draws constant nonces puts no
// question at all.
func TestCVE2026_6420_ConstantNonceIsNeverAsked(t *testing.T) {
	for _, source := range []constant{"\x00", "\xff", "0123456789abcdef"} {
		nonces, err := challenge.NewNonces(source)
		if err != nil {
			t.Fatal(err)
		}
		d := device(t)
		c := asked(t, d)
		c.Nonces = nonces
		if r, err := challenge.Challenge(t.Context(), c); !errors.Is(err, challenge.ErrRandom) {
			t.Errorf("source %q: %s, %v, want: %v", source, r.Outcome, err, challenge.ErrRandom)
		}
		if n := len(d.Requests()); n != 0 {
			t.Errorf("source %q: %d questions were put", source, n)
		}
	}
}
