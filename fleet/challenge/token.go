package challenge

import (
	"errors"
	"time"

	"waxseal/measure/eat"
	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

var forms = map[wire.Format]eat.Form{wire.JWT: eat.JWT, wire.CWT: eat.CWT}

var errBatchedToken = errors.New("a batched answer is never a token: ask for one or the other")

// answered returns what came as evidence. Where it came does not matter from
// then on: what a token held is verified as if it had come raw.
func answered(ans wire.AttestAnswer, ch evidence.Challenge, received time.Time) (evidence.Evidence, error) {
	if ans.Format == wire.Raw {
		return evidenceOf(ans, ch, received), nil
	}
	ev, err := eat.Open(forms[ans.Format], ans.Token, ch.Nonce)
	if err != nil {
		return ev, err
	}
	ev.Certificates.TLS = wire.ChainOf(ans.Peer...)
	ev.Received = received.UTC().Truncate(time.Millisecond)
	return ev, nil
}
