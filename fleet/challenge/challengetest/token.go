package challengetest

import (
	"waxseal/measure/eat"
	"waxseal/measure/eat/eattest"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/wire"
)

// token puts a raw answer into a token.
func (d *Device) token(req wire.AttestRequest, raw wire.AttestAnswer) (wire.AttestAnswer, error) {
	t, err := eattest.Of(evidence.Evidence{
		Nonce: req.Nonce, Bank: req.Bank, PCRs: raw.PCRs, Quoted: raw.Quoted, Signature: raw.Signature, Log: raw.Log,
		Certificates: evidence.Certificates{OIAK: raw.OIAK}, Received: evidencetest.Noon,
		Card: evidence.Card{
			Role: raw.Card.Role.String(), Serial: raw.Card.Serial, Slot: raw.Card.Slot,
			Manufacturer: raw.Card.Maker, PartNumber: raw.Card.Part, ChassisSerial: raw.Card.ChassisSerial,
		},
	})
	if err != nil {
		return wire.AttestAnswer{}, err
	}
	form := map[wire.Format]eat.Form{wire.JWT: eat.JWT, wire.CWT: eat.CWT}[req.Format]
	b, err := eat.Encode(form, t, eattest.Sign(d.AK))
	return wire.AttestAnswer{Format: req.Format, Token: b}, err
}
