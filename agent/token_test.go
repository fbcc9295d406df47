package agent_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"waxseal/agent"
	"waxseal/measure/eat"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

var tokenForms = map[wire.Format]eat.Form{wire.JWT: eat.JWT, wire.CWT: eat.CWT}

// verifyToken is what a verifier does with an answer that is a token.
func (l *lab) verifyToken(req wire.AttestRequest, ans wire.AttestAnswer) (evidence.Verified, error) {
	ev, err := eat.Open(tokenForms[req.Format], ans.Token, req.Nonce)
	if err != nil {
		return evidence.Verified{}, err
	}
	ev.Certificates.TLS, ev.Received = wire.ChainOf(ans.Peer...), time.Now()
	return evidence.Verify(ev, evidence.Challenge{
		Nonce: req.Nonce, Bank: req.Bank, PCRs: req.PCRs,
		Issued: time.Now().Add(-time.Minute), Deadline: time.Now().Add(time.Minute),
	}, evidence.Trust{Roots: []*x509.Certificate{l.owner.cert}, Serial: serial, Now: time.Now()})
}

func TestTokenIsAnsweredWhenItIsAskedFor(t *testing.T) {
	eachChip(t, func(t *testing.T, c chip) {
		l := newLab(t, c)
		conn := l.enroll(t)
		for _, f := range []wire.Format{wire.JWT, wire.CWT} {
			req := newRequest(t)
			req.Format = f
			ans, err := conn.Attestz().Attest(t.Context(), req)
			if err != nil {
				t.Fatalf("%v: %v", f, err)
			}
			v, err := l.verifyToken(req, ans)
			if err != nil || v.Serial() != serial || len(v.Records()) != 7 {
				t.Errorf("%v: serial %q, %d records, %v", f, v.Serial(), len(v.Records()), err)
			}
			t.Logf("%v of %d bytes", f, len(ans.Token))
		}
		req := newRequest(t)
		ans, err := conn.Attestz().Attest(t.Context(), req)
		if err != nil || ans.Token != nil {
			t.Fatalf("raw: token of %d bytes, %v", len(ans.Token), err)
		}
		if _, err := l.verify(req, ans); err != nil {
			t.Errorf("raw: %v", err)
		}
	})
}

func TestTokenOfAnotherChallengeIsRefused(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	conn := l.enroll(t)
	old := newRequest(t)
	old.Format = wire.JWT
	ans, err := conn.Attestz().Attest(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	fresh := newRequest(t)
	fresh.Format = wire.JWT
	if _, err := l.verifyToken(fresh, ans); !errors.Is(err, eat.ErrNonce) {
		t.Errorf("%v, want: %v", err, eat.ErrNonce)
	}
}

func TestDeviceThatSignsNoTokensSaysSo(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Tokens = nil })
	req := newRequest(t)
	req.Format = wire.CWT
	if _, err := l.enroll(t).Attestz().Attest(t.Context(), req); !errors.Is(err, wire.ErrNoMethod) {
		t.Errorf("%v, want: %v", err, wire.ErrNoMethod)
	}
}

// A log that no token can carry is answered raw, and the device says so.
func TestLogThatIsTooLongForATokenIsAskedForRaw(t *testing.T) {
	c := newSoftChip(t)
	log := firmwareLog(t, c)
	e := eventlog.Event{PCR: 8, Type: eventlog.EVNoAction, Data: bytes.Repeat([]byte{0}, eat.MaxSigned)}
	for _, d := range log.Events[0].Digests {
		d.Sum = make([]byte, len(d.Sum))
		e.Digests = append(e.Digests, d)
	}
	log.Events = append(log.Events, e)
	l := newLab(t, c, func(a *agent.Config) { a.Firmware = log })
	conn := l.enroll(t)
	req := newRequest(t)
	req.Format = wire.CWT
	if _, err := conn.Attestz().Attest(t.Context(), req); !errors.Is(err, wire.ErrNotReady) {
		t.Errorf("token: %v, want: %v", err, wire.ErrNotReady)
	}
	if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); err != nil {
		t.Errorf("raw: %v", err)
	}
}
