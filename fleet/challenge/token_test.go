package challenge_test

import (
	"context"
	"reflect"
	"testing"

	"waxseal/fleet/appraise"
	"waxseal/fleet/challenge"
	"waxseal/measure/wire"
)

var tokens = []wire.Format{wire.JWT, wire.CWT}

func TestTokenIsJudgedLikeTheRawAnswer(t *testing.T) {
	c := asked(t, device(t))
	raw := run(t, c)
	for _, f := range tokens {
		c.Format = f
		r := run(t, c)
		if r.Outcome != challenge.Judged || r.Verdict.Result != appraise.Affirming || len(r.Token) == 0 {
			t.Fatalf("%v: %s, token of %d bytes, %+v", f, r.Outcome, len(r.Token), r.Verdict)
		}
		if r.Evidence.Card != raw.Evidence.Card || !reflect.DeepEqual(r.Evidence.Certificates, raw.Evidence.Certificates) ||
			!reflect.DeepEqual(r.Verdict.Components, raw.Verdict.Components) {
			t.Errorf("%v: evidence or verdict is another than that of the raw answer", f)
		}
	}
}

func TestTokenOfAChangedRouterIsAFailedVerdict(t *testing.T) {
	d := device(t)
	c := asked(t, d)
	if err := d.Measure("mirror/tc/eth0", nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range tokens {
		c.Format = f
		if r := run(t, c); r.Outcome != challenge.Judged || r.Verdict.Result == appraise.Affirming {
			t.Errorf("%v: %s, %+v", f, r.Outcome, r.Verdict)
		}
	}
}

func TestFalseTokenIsRefused(t *testing.T) {
	d, other := device(t), device(t)
	for _, f := range tokens {
		c := asked(t, d)
		c.Format = f
		old := run(t, c).Token
		foreign := asked(t, other)
		foreign.Format = f
		stranger := run(t, foreign).Token
		for name, lie := range map[string]func(*wire.AttestAnswer){
			"an earlier token":       func(a *wire.AttestAnswer) { a.Token = old },
			"a token of a stranger":  func(a *wire.AttestAnswer) { a.Token = stranger },
			"the other format":       func(a *wire.AttestAnswer) { a.Format = wire.JWT + wire.CWT - f },
			"raw":                    func(a *wire.AttestAnswer) { a.Format = wire.Raw },
			"nothing":                func(a *wire.AttestAnswer) { a.Token = nil },
			"a token cut short":      func(a *wire.AttestAnswer) { a.Token = a.Token[:len(a.Token)-1] },
			"a bit flipped in front": func(a *wire.AttestAnswer) { a.Token[len(a.Token)/9] ^= 1 },
			"a bit flipped behind":   func(a *wire.AttestAnswer) { a.Token[len(a.Token)-9] ^= 1 },
		} {
			d.Attesting = func(_ context.Context, _ wire.AttestRequest, a *wire.AttestAnswer) error { lie(a); return nil }
			if r := run(t, c); r.Outcome != challenge.Refused {
				t.Errorf("%v, %s: %s, %+v", f, name, r.Outcome, r.Verdict.Reasons)
			}
		}
		d.Attesting = nil
	}
}

func TestBatchedTokenIsNotAskedFor(t *testing.T) {
	c := asked(t, device(t))
	c.Batched, c.Format = true, wire.JWT
	if _, err := challenge.Challenge(t.Context(), c); err == nil {
		t.Error("asked for")
	}
}
