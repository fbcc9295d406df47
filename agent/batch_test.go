package agent_test

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"sync"
	"testing"
	"time"

	"waxseal/agent"
	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

func newBatchRequest(t testing.TB) wire.BatchRequest {
	t.Helper()
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	return wire.BatchRequest{Nonce: nonce, Bank: measure.SHA384, PCRs: asked}
}

// verifyBatched holds an answer against its request as a verifier does.
func (l *lab) verifyBatched(v *evidence.Verifier, req wire.BatchRequest, ans wire.BatchAnswer) error {
	_, err := v.Verify(evidence.Evidence{
		Nonce: req.Nonce, Batch: &ans.Proof, Bank: req.Bank, PCRs: ans.PCRs, Quoted: ans.Quoted, Signature: ans.Signature, Log: ans.Log,
		Certificates: evidence.Certificates{OIAK: ans.OIAK, TLS: wire.ChainOf(ans.Peer...)},
		Card:         evidence.Card{Serial: ans.Card.Serial},
		Received:     time.Now(),
	}, evidence.Challenge{
		Nonce: req.Nonce, Batched: true, Bank: req.Bank, PCRs: req.PCRs,
		Issued: time.Now().Add(-time.Minute), Deadline: time.Now().Add(time.Minute),
	}, evidence.Trust{Serial: serial, Now: time.Now()})
	return err
}

func (l *lab) verifier() *evidence.Verifier {
	return evidence.NewVerifier(evidence.Trust{Roots: []*x509.Certificate{l.owner.cert}})
}

func TestBatchedAnswersAreGenuine(t *testing.T) {
	eachChip(t, func(t *testing.T, c chip) {
		l := newLab(t, c)
		v := l.verifier()
		conns := []wire.Conn{l.enroll(t)}
		for range 7 {
			conns = append(conns, l.dial(t, l.owner.client(t)))
		}
		var challengers sync.WaitGroup
		for i := range 200 {
			challengers.Go(func() {
				req := newBatchRequest(t)
				ans, err := conns[i%len(conns)].Challenge().Attest(t.Context(), req)
				if err == nil {
					err = l.verifyBatched(v, req, ans)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		// A single challenge is answered beside them, by a quote of its own.
		req := newRequest(t)
		ans, err := conns[0].Attestz().Attest(t.Context(), req)
		if err == nil {
			_, err = l.verify(req, ans)
		}
		if err != nil {
			t.Error(err)
		}
		challengers.Wait()
		if soft, ok := c.(*softChip); ok && soft.quotes.Load() > 50 {
			t.Errorf("200 challengers took %d quotes", soft.quotes.Load())
		}
	})
}

func TestKnownLogIsGoodUntilItGrows(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	conn, v := l.enroll(t), l.verifier()
	req := newBatchRequest(t)
	first, err := conn.Challenge().Attest(t.Context(), req)
	if err != nil || first.LogKnown {
		t.Fatalf("log known %v, %v", first.LogKnown, err)
	}
	sum := sha256.Sum256(first.Log)
	req = newBatchRequest(t)
	req.KnownLog = sum[:]
	again, err := conn.Challenge().Attest(t.Context(), req)
	if err != nil || !again.LogKnown {
		t.Fatalf("log known %v, %v: want known", again.LogKnown, err)
	}
	again.Log = first.Log
	if err := l.verifyBatched(v, req, again); err != nil {
		t.Error(err)
	}
	record(t, l.recorder, "mirror/tc/eth0")
	grown, err := conn.Challenge().Attest(t.Context(), req)
	if err != nil || grown.LogKnown || len(grown.Log) <= len(first.Log) {
		t.Errorf("after an event: log known %v, %d bytes, %v", grown.LogKnown, len(grown.Log), err)
	}
	grown.Log = first.Log // as if the device had said that nothing is new
	if err := l.verifyBatched(v, req, grown); !errors.Is(err, evidence.ErrReplay) && !errors.Is(err, evidence.ErrWithheld) {
		t.Errorf("the older log under the newer quote: %v", err)
	}
}

func TestBatchedRateIsItsOwn(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Limits.AttestRate, c.Limits.BatchRate, c.Limits.QuoteEvery = 1, 2, 1 })
	conn := l.enroll(t)
	single, batched := 0, 0
	for range 20 {
		if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); err == nil {
			single++
		} else if !errors.Is(err, wire.ErrBusy) {
			t.Fatal(err)
		}
	}
	for range 20 {
		if _, err := conn.Challenge().Attest(t.Context(), newBatchRequest(t)); err == nil {
			batched++
		} else if !errors.Is(err, wire.ErrBusy) {
			t.Fatal(err)
		}
	}
	if single < 4 || single == 20 || batched < 8 || batched == 20 {
		t.Errorf("%d single and %d batched of 20 each: want bursts of about 4 and 8", single, batched)
	}
}
