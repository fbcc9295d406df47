package eat_test

import (
	"bytes"
	"testing"

	"waxseal/measure"
	"waxseal/measure/eat"
)

// FuzzParseJWT and FuzzParseCWT demand that each accepted token is within its
// bounds, has one spelling, and is none with a byte more or less.
func FuzzParseJWT(f *testing.F) { fuzz(f, eat.JWT) }

func FuzzParseCWT(f *testing.F) { fuzz(f, eat.CWT) }

func fuzz(f *testing.F, form eat.Form) {
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := eat.Parse(form, b)
		if err != nil {
			return
		}
		if len(b) > eat.MaxToken || len(s.Nonce) < 16 || len(s.Nonce) > 64 || len(s.PCRs) > measure.NumPCRs || len(s.Chain) == 0 {
			t.Errorf("accepted out of bounds: %+v", s.Token)
		}
		again, err := eat.Encode(form, s.Token, func(data []byte) ([]byte, error) { return make([]byte, 96), nil })
		if err != nil || len(again) != len(b) {
			t.Errorf("%d bytes are written again as %d, %v", len(b), len(again), err)
		}
		for _, other := range [][]byte{append(bytes.Clone(b), 'A'), b[:len(b)-1]} {
			if _, err := eat.Parse(form, other); err == nil {
				t.Error("accepted with a byte more or less")
			}
		}
	})
}
