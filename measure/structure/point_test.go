package structure_test

import (
	"crypto/elliptic"
	"math/big"
	"testing"

	"waxseal/measure/structure"
)

func TestOnlyPointsOfTheCurveAreKeys(t *testing.T) {
	g := elliptic.P384().Params()
	x, y := g.Gx.Bytes(), g.Gy.Bytes()
	key, err := structure.Point(elliptic.P384(), x, y)
	if err != nil || key.Curve != elliptic.P384() {
		t.Fatalf("the generator: %v", err)
	}
	for name, p := range map[string][2][]byte{
		"beside the curve":      {x, new(big.Int).Add(g.Gy, big.NewInt(1)).Bytes()},
		"zero":                  {nil, nil},
		"longer than the field": {append([]byte{0}, x...), y},
	} {
		if _, err := structure.Point(elliptic.P384(), p[0], p[1]); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
