package peers

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/golang-jwt/jwt/v5"
	"github.com/veraison/go-cose"

	"waxseal/measure"
	own "waxseal/measure/cbor"
	"waxseal/measure/eat"
	"waxseal/measure/eat/eattest"
	"waxseal/measure/evidence/evidencetest"
)

// token is a token of a router in software, and what is needed to verify it.
type token struct {
	bytes []byte
	key   *ecdsa.PrivateKey
	nonce []byte
}

func newToken(t testing.TB, form eat.Form) token {
	t.Helper()
	r := must(evidencetest.New("WX-0001", elliptic.P384()))(t)
	ok(t, r.Start())
	ch := must(evidencetest.Challenge(measure.SHA384, 12, 15))(t)
	k := must(eattest.Of(must(r.Answer(ch))(t)))(t)
	return token{must(eat.Encode(form, k, eattest.Sign(r.AK)))(t), r.AK, ch.Nonce}
}

// opens tells whether our own decoder accepts b, signed by the token's key.
func (k token) opens(form eat.Form, b []byte) bool {
	s, err := eat.Parse(form, b)
	return err == nil && s.Verify(&k.key.PublicKey) == nil
}

func (k token) jwt(b []byte) (jwt.MapClaims, error) {
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(string(b), claims, func(*jwt.Token) (any, error) { return &k.key.PublicKey, nil },
		jwt.WithValidMethods([]string{"ES384"}), jwt.WithStrictDecoding())
	return claims, err
}

func (k token) cwt(b []byte) (map[int64]any, error) {
	var m cose.Sign1Message
	if err := m.UnmarshalCBOR(b); err != nil {
		return nil, err
	}
	v, err := cose.NewVerifier(cose.AlgorithmES384, &k.key.PublicKey)
	if err != nil {
		return nil, err
	}
	if err := m.Verify(nil, v); err != nil {
		return nil, err
	}
	claims := map[int64]any{}
	return claims, strict.Unmarshal(m.Payload, &claims)
}

// strict is the other decoder, told to refuse what RFC 8949, section 4.2.1
// does not have, as far as it can.
var strict = must2(cbor.DecOptions{
	DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: 16,
}.DecMode())

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestGolangJWTAcceptsOurJWT(t *testing.T) {
	k := newToken(t, eat.JWT)
	claims, err := k.jwt(k.bytes)
	if err != nil {
		t.Fatal(err)
	}
	if claims["eat_nonce"] != base64.RawURLEncoding.EncodeToString(k.nonce) || claims["eat_profile"] != eat.Profile {
		t.Errorf("claims %v", claims)
	}
	if _, err := claims.GetIssuedAt(); err != nil {
		t.Error(err)
	}
}

func TestGoCOSEAcceptsOurCWT(t *testing.T) {
	k := newToken(t, eat.CWT)
	claims, err := k.cwt(k.bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(claims[10].([]byte), k.nonce) || claims[265] != eat.Profile || len(claims[256].([]byte)) != 33 {
		t.Errorf("claims %v", claims)
	}
}

// Whatever ours accepts of 6,000 mutants, the others accept too. They accept
// a little more: spellings that ours has not.
func TestOursAcceptsNoMutantThatOthersRefuse(t *testing.T) {
	for _, form := range []eat.Form{eat.JWT, eat.CWT} {
		k := newToken(t, form)
		theirs := func(b []byte) error {
			if form == eat.JWT {
				_, err := k.jwt(b)
				return err
			}
			_, err := k.cwt(b)
			return err
		}
		random := rand.New(rand.NewPCG(9, 7))
		ours, others := 0, 0
		for range 3_000 {
			b := mutant(random, k.bytes)
			accepted, err := k.opens(form, b), theirs(b)
			if accepted {
				ours++
			}
			if err == nil {
				others++
			}
			if accepted && err != nil {
				t.Errorf("%v: ours accepts %x: %v", form, b, err)
			}
			if accepted && !bytes.Equal(b, k.bytes) {
				t.Errorf("%v: ours accepts another token: %x", form, b)
			}
		}
		t.Logf("%v: of 3,000 mutants ours accepts %d, the other %d", form, ours, others)
	}
}

// mutant changes some bytes: flips, cuts, doubles, or nothing at all.
func mutant(random *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range random.IntN(3) {
		i := random.IntN(len(b))
		switch random.IntN(4) {
		case 0:
			b[i] ^= 1 << random.IntN(8)
		case 1:
			b = append(b[:i], b[i+1:]...)
		case 2:
			b = append(b[:i], append([]byte{byte(random.Uint32())}, b[i:]...)...)
		case 3:
			b[i] = byte(random.Uint32())
		}
	}
	return b
}

// Our CBOR reader says of every input what fxamacker/cbor says: good, if that
// one can decode it and encodes the same bytes again in core deterministic
// form. What is CBOR but no part of a token is left out, and so are tags to
// which that one gives a meaning, such as times and big numbers.
func TestCBORAgreesWithFxamacker(t *testing.T) {
	canonical := must2(cbor.CoreDetEncOptions().EncMode())
	random := rand.New(rand.NewPCG(1, 2))
	seeds := [][]byte{newToken(t, eat.CWT).bytes, {0xa2, 1, 2, 3, 4}, {0x83, 0x41, 7, 0x61, 'a', 0x39, 1, 0}, {0xd2, 0x81, 0x19, 1, 0}, {0xa1, 0x61, 'a', 0x80}}
	counts := map[bool]int{}
	for i := range 200_000 {
		b := mutant(random, seeds[i%len(seeds)])
		err := own.Check(b)
		if errors.Is(err, own.ErrSubset) {
			continue
		}
		var v any
		good := strict.Unmarshal(b, &v) == nil
		if good {
			again, encoding := canonical.Marshal(v)
			good = encoding == nil && bytes.Equal(again, b)
		}
		counts[good]++
		if err == nil && !good && slices.ContainsFunc(b, isMeaningful) {
			continue
		}
		if good != (err == nil) {
			t.Fatalf("%x: ours says %v, the other that it is good: %v", b, err, good)
		}
	}
	t.Logf("agreed on %d that are good and %d that are not", counts[true], counts[false])
	if counts[true] == 0 {
		t.Error("nothing was good")
	}
}

// isMeaningful tells whether c may be the head of one of the tags 0 to 5.
func isMeaningful(c byte) bool { return c >= 0xc0 && c <= 0xc5 }
