package eat_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"maps"
	"slices"
	"testing"

	"waxseal/measure"
	"waxseal/measure/eat"
	"waxseal/measure/eat/eattest"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

var forms = []eat.Form{eat.JWT, eat.CWT}

// answer is a raw answer of a router in software.
type answer struct {
	router    *evidencetest.Router
	challenge evidence.Challenge
	evidence  evidence.Evidence
}

func newAnswer(t testing.TB, serial string) answer {
	t.Helper()
	r := must(evidencetest.New(serial, elliptic.P384()))(t)
	ok(t, r.Start())
	ch := must(evidencetest.Challenge(measure.SHA384, 12, 15))(t)
	ev := must(r.Answer(ch))(t)
	ev.Contents = nil
	ev.Card = evidence.Card{Role: "active", Serial: serial, Slot: "0", Manufacturer: "waxseal", PartNumber: "WX-100", ChassisSerial: serial}
	return answer{r, ch, ev}
}

func (a answer) token(t testing.TB, changes ...func(*eat.Token)) eat.Token {
	t.Helper()
	token := must(eattest.Of(a.evidence))(t)
	for _, change := range changes {
		change(&token)
	}
	return token
}

// sealed is the token, signed by key.
func (a answer) sealed(t testing.TB, form eat.Form, key *ecdsa.PrivateKey, changes ...func(*eat.Token)) []byte {
	t.Helper()
	return must(eat.Encode(form, a.token(t, changes...), eattest.Sign(key)))(t)
}

// judge is what a verifier does with a token.
func (a answer) judge(form eat.Form, b []byte) (evidence.Verified, error) {
	ev, err := eat.Open(form, b, a.challenge.Nonce)
	if err != nil {
		return evidence.Verified{}, err
	}
	ev.Certificates.TLS, ev.Received = a.evidence.Certificates.TLS, a.evidence.Received
	return evidence.Verify(ev, a.challenge, a.router.Trust())
}

func TestTokenCarriesWhatTheRawAnswerCarries(t *testing.T) {
	a := newAnswer(t, "WX-0001")
	raw := must(evidence.Verify(a.evidence, a.challenge, a.router.Trust()))(t)
	for _, form := range forms {
		b := a.sealed(t, form, a.router.AK)
		ev := must(eat.Open(form, b, a.challenge.Nonce))(t)
		if !bytes.Equal(ev.Log, a.evidence.Log) || ev.Card != a.evidence.Card || !slices.Equal(ev.Certificates.OIAK, a.evidence.Certificates.OIAK) {
			t.Errorf("%v: log, card or certificates differ", form)
		}
		v := must(a.judge(form, b))(t)
		same := v.Serial() == raw.Serial() && v.Counters() == raw.Counters() && len(v.Records()) == len(raw.Records()) &&
			maps.EqualFunc(v.PCRs(), raw.PCRs(), bytes.Equal)
		if !same {
			t.Errorf("%v: verified is %+v, from the raw answer %+v", form, v, raw)
		}
	}
}

func TestTokenWithoutLogOrPartNumberIsOne(t *testing.T) {
	a := newAnswer(t, "WX-0001")
	for _, form := range forms {
		b := a.sealed(t, form, a.router.AK, func(k *eat.Token) { k.Log, k.Card = nil, evidence.Card{Role: "active", PartNumber: "x"} })
		if _, err := eat.Open(form, b, a.challenge.Nonce); err != nil {
			t.Errorf("%v: %v", form, err)
		}
	}
}

func TestChainOfSeveralCertificatesComesThrough(t *testing.T) {
	a := newAnswer(t, "WX-0001")
	for _, form := range forms {
		b := a.sealed(t, form, a.router.AK, func(k *eat.Token) { k.Chain = append(k.Chain, a.router.Owner.Certificate.Raw) })
		if _, err := a.judge(form, b); err != nil {
			t.Errorf("%v: %v", form, err)
		}
	}
}

// TestEveryFlippedBitIsRefused flips each bit of both tokens.
func TestEveryFlippedBitIsRefused(t *testing.T) {
	a := newAnswer(t, "WX-0001")
	for _, form := range forms {
		b := a.sealed(t, form, a.router.AK)
		if _, err := a.judge(form, b); err != nil {
			t.Fatal(err)
		}
		const parts = 4
		for part := range parts {
			t.Run(form.String(), func(t *testing.T) {
				t.Parallel()
				mutant := bytes.Clone(b)
				for i := part; i < len(b); i += parts {
					for bit := range 8 {
						mutant[i] ^= 1 << bit
						if _, err := a.judge(form, mutant); err == nil {
							t.Fatalf("accepted with bit %d of byte %d flipped", bit, i)
						}
						mutant[i] ^= 1 << bit
					}
				}
			})
		}
	}
}

func TestCutOrLengthenedTokenIsRefused(t *testing.T) {
	a := newAnswer(t, "WX-0001")
	for _, form := range forms {
		b := a.sealed(t, form, a.router.AK)
		for n := range len(b) {
			if _, err := eat.Parse(form, b[:n]); err == nil {
				t.Fatalf("%v: accepted with %d of %d bytes", form, n, len(b))
			}
		}
		for _, more := range []string{"\x00", "A", ".", "\n", " ", "="} {
			if _, err := eat.Parse(form, append(bytes.Clone(b), more...)); err == nil {
				t.Errorf("%v: accepted with %q after it", form, more)
			}
		}
	}
}

func TestTokenOfTheOtherFormIsRefused(t *testing.T) {
	a := newAnswer(t, "WX-0001")
	for i, form := range forms {
		b := a.sealed(t, form, a.router.AK)
		for _, other := range []eat.Form{forms[1-i], 0, 7} {
			if _, err := eat.Parse(other, b); !errors.Is(err, eat.ErrForm) {
				t.Errorf("%v read as %v: %v", form, other, err)
			}
		}
	}
}

// TestWhoSignedDecides takes away, one by one, what ties a token to the router.
func TestWhoSignedDecides(t *testing.T) {
	a, other := newAnswer(t, "WX-0001"), newAnswer(t, "WX-0001")
	sibling := must(ecdsa.GenerateKey(elliptic.P384(), nil))(t)
	siblings := must(a.router.Owner.Certify(evidencetest.Leaf("WX-0001"), sibling.Public()))(t)
	for name, c := range map[string]struct {
		key    *ecdsa.PrivateKey
		change func(*eat.Token)
		want   error
	}{
		"the TLS key":                              {a.router.Identity, func(*eat.Token) {}, eat.ErrSignature},
		"a stranger":                               {other.router.AK, func(*eat.Token) {}, eat.ErrSignature},
		"a stranger with its certificate":          {other.router.AK, func(k *eat.Token) { k.Chain = other.token(t).Chain }, evidence.ErrChain},
		"another key that the owner has certified": {sibling, func(k *eat.Token) { k.Chain = [][]byte{siblings.Raw} }, evidence.ErrSignature},
		"the router, over another quote":           {a.router.AK, func(k *eat.Token) { k.Quoted, k.Signature = other.token(t).Quoted, other.token(t).Signature }, evidence.ErrNonce},
		"the router, over no log":                  {a.router.AK, func(k *eat.Token) { k.Log = nil }, evidence.ErrWithheld},
		"the router, over another value":           {a.router.AK, func(k *eat.Token) { k.PCRs[12][0] ^= 1 }, evidence.ErrValues},
		"the router, under another serial":         {a.router.AK, func(k *eat.Token) { k.Card.Serial = "WX-0002" }, evidence.ErrSerial},
		"the router, for another nonce":            {a.router.AK, func(k *eat.Token) { k.Nonce = other.challenge.Nonce }, eat.ErrNonce},
	} {
		for _, form := range forms {
			fresh := a
			fresh.evidence.PCRs = map[measure.PCR][]byte{}
			for pcr, v := range a.evidence.PCRs {
				fresh.evidence.PCRs[pcr] = bytes.Clone(v)
			}
			b := fresh.sealed(t, form, c.key, c.change)
			if _, err := a.judge(form, b); !errors.Is(err, c.want) {
				t.Errorf("%v signed by %s: %v, want: %v", form, name, err, c.want)
			}
		}
	}
}

func TestWhatIsOutOfBoundsIsNotSigned(t *testing.T) {
	a := newAnswer(t, "WX-0001")
	weak := must(evidencetest.New("WX-0001", elliptic.P256()))(t)
	weakEvidence := must(weak.Answer(a.challenge))(t)
	for name, c := range map[string]struct {
		change func(*eat.Token)
		want   error
	}{
		"no nonce":             {func(k *eat.Token) { k.Nonce = nil }, eat.ErrForm},
		"nonce of 65 bytes":    {func(k *eat.Token) { k.Nonce = make([]byte, 65) }, eat.ErrForm},
		"no PCR":               {func(k *eat.Token) { k.PCRs = nil }, eat.ErrForm},
		"PCR 24":               {func(k *eat.Token) { k.PCRs = map[measure.PCR][]byte{24: make([]byte, 48)} }, eat.ErrForm},
		"short PCR":            {func(k *eat.Token) { k.PCRs = map[measure.PCR][]byte{1: make([]byte, 47)} }, eat.ErrForm},
		"SHA-1":                {func(k *eat.Token) { k.Bank = measure.SHA1 }, eat.ErrForm},
		"no quote":             {func(k *eat.Token) { k.Quoted = nil }, eat.ErrForm},
		"no signature":         {func(k *eat.Token) { k.Signature = nil }, eat.ErrForm},
		"no certificate":       {func(k *eat.Token) { k.Chain = nil }, eat.ErrForm},
		"nine certificates":    {func(k *eat.Token) { k.Chain = slices.Repeat(k.Chain, 9) }, eat.ErrForm},
		"a certificate of 0":   {func(k *eat.Token) { k.Chain = append(k.Chain, nil) }, eat.ErrForm},
		"no certificate in it": {func(k *eat.Token) { k.Chain = [][]byte{{0x30, 0}} }, eat.ErrForm},
		"a key on P-256":       {func(k *eat.Token) { k.Chain = must(eattest.Of(weakEvidence))(t).Chain }, eat.ErrAlgorithm},
		"1970":                 {func(k *eat.Token) { k.Issued = 0 }, eat.ErrForm},
		"escape in the card":   {func(k *eat.Token) { k.Card.Slot = "\x1b[2J" }, eat.ErrForm},
		"long card":            {func(k *eat.Token) { k.Card.Slot = string(bytes.Repeat([]byte{'a'}, 129)) }, eat.ErrForm},
		"long log":             {func(k *eat.Token) { k.Log = make([]byte, eat.MaxSigned) }, eat.ErrLong},
	} {
		for _, form := range forms {
			signed := false
			_, err := eat.Encode(form, a.token(t, c.change), func([]byte) ([]byte, error) { signed = true; return make([]byte, 96), nil })
			if !errors.Is(err, c.want) || signed {
				t.Errorf("%v with %s: %v, signed %v, want: %v", form, name, err, signed, c.want)
			}
		}
	}
}

func TestSignerThatFailsGivesNoToken(t *testing.T) {
	a := newAnswer(t, "WX-0001")
	gone := errors.New("TPM is gone")
	for _, form := range forms {
		if b, err := eat.Encode(form, a.token(t), func([]byte) ([]byte, error) { return nil, gone }); !errors.Is(err, gone) || b != nil {
			t.Errorf("%v: %x, %v", form, b, err)
		}
		if b, err := eat.Encode(form, a.token(t), func([]byte) ([]byte, error) { return make([]byte, 64), nil }); err == nil {
			t.Errorf("%v with a signature of 64 bytes: %x", form, b)
		}
	}
}

func TestIdentifierIsThatOfTheKey(t *testing.T) {
	a, b := newAnswer(t, "WX-0001"), newAnswer(t, "WX-0001")
	one, same, other := must(eat.UEID(&a.router.AK.PublicKey))(t), must(eat.UEID(&a.router.AK.PublicKey))(t), must(eat.UEID(&b.router.AK.PublicKey))(t)
	if len(one) != 33 || one[0] != 1 || !bytes.Equal(one, same) || bytes.Equal(one, other) {
		t.Errorf("identifiers %x, %x and of another key %x", one, same, other)
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		ok(t, err)
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
