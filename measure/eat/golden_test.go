package eat_test

import (
	"encoding/hex"
	"os"
	"testing"

	"waxseal/measure"
	"waxseal/measure/eat"
)

// Tokens that were written once stay readable, to the byte.
func TestTokensOfOldAreRead(t *testing.T) {
	for form, file := range map[eat.Form]string{eat.JWT: "testdata/router.jwt", eat.CWT: "testdata/router.cwt"} {
		b := must(os.ReadFile(file))(t)
		s := must(eat.Parse(form, b))(t)
		if _, err := eat.Open(form, b, s.Nonce); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if s.Card.Serial != "WX-0001" || s.Bank != measure.SHA384 || len(s.PCRs) != 2 || s.Issued != 1782907201 {
			t.Errorf("%s: nonce %s, %+v", file, hex.EncodeToString(s.Nonce), s.Card)
		}
	}
}
