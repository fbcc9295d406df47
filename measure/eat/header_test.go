package eat_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"waxseal/measure/cbor"
	"waxseal/measure/eat"
	"waxseal/measure/eat/eattest"
)

var base64url = base64.RawURLEncoding

// resigned is a JWT of the router whose header and claims are changed as text,
// and signed again by the right key.
func (a answer) resigned(t *testing.T, header, claims func(string) string) []byte {
	t.Helper()
	parts := strings.Split(string(a.sealed(t, eat.JWT, a.router.AK)), ".")
	for i, change := range []func(string) string{header, claims} {
		if change != nil {
			text := must(base64url.DecodeString(parts[i]))(t)
			parts[i] = base64url.EncodeToString([]byte(change(string(text))))
		}
	}
	signed := parts[0] + "." + parts[1]
	return []byte(signed + "." + base64url.EncodeToString(must(eattest.Sign(a.router.AK)([]byte(signed)))(t)))
}

func replace(old, with string) func(string) string {
	return func(s string) string {
		if !strings.Contains(s, old) {
			panic("nothing to replace: " + old)
		}
		return strings.Replace(s, old, with, 1)
	}
}

// Every token here is signed by the right key: it is the header or the
// spelling that is refused.
func TestOtherHeaderOfJWTIsRefused(t *testing.T) {
	a := newAnswer(t, "WX-0001")
	if _, err := eat.Open(eat.JWT, a.resigned(t, nil, nil), a.challenge.Nonce); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	for name, c := range map[string]struct {
		header func(string) string
		want   error
	}{
		"alg none":            {replace(`"ES384"`, `"none"`), eat.ErrAlgorithm},
		"alg HS384":           {replace(`"ES384"`, `"HS384"`), eat.ErrAlgorithm},
		"alg ES256":           {replace(`"ES384"`, `"ES256"`), eat.ErrAlgorithm},
		"alg in other case":   {replace(`"ES384"`, `"es384"`), eat.ErrAlgorithm},
		"alg twice":           {replace(`"typ"`, `"alg":"ES384","typ"`), eat.ErrAlgorithm},
		"no alg":              {replace(`"alg":"ES384",`, ``), eat.ErrAlgorithm},
		"key in other case":   {replace(`"alg"`, `"Alg"`), eat.ErrAlgorithm},
		"other typ":           {replace(`"eat+jwt"`, `"JWT"`), eat.ErrAlgorithm},
		"crit":                {replace(`"typ"`, `"crit":["exp"],"typ"`), eat.ErrAlgorithm},
		"b64":                 {replace(`"typ"`, `"b64":false,"crit":["b64"],"typ"`), eat.ErrAlgorithm},
		"jwk":                 {replace(`"typ"`, `"jwk":{"kty":"EC"},"typ"`), eat.ErrAlgorithm},
		"jku":                 {replace(`"typ"`, `"jku":"https://example.net","typ"`), eat.ErrAlgorithm},
		"x5u":                 {replace(`"typ"`, `"x5u":"https://example.net","typ"`), eat.ErrAlgorithm},
		"kid":                 {replace(`"typ"`, `"kid":"1","typ"`), eat.ErrAlgorithm},
		"zip":                 {replace(`"typ"`, `"zip":"DEF","typ"`), eat.ErrAlgorithm},
		"no x5c":              {func(string) string { return `{"alg":"ES384","typ":"eat+jwt"}` }, eat.ErrForm},
		"empty x5c":           {func(string) string { return `{"alg":"ES384","typ":"eat+jwt","x5c":[]}` }, eat.ErrForm},
		"x5c is no list":      {func(string) string { return `{"alg":"ES384","typ":"eat+jwt","x5c":"AA=="}` }, eat.ErrAlgorithm},
		"white space":         {replace(`,"typ"`, `, "typ"`), eat.ErrForm},
		"other order":         {replace(`"alg":"ES384","typ":"eat+jwt"`, `"typ":"eat+jwt","alg":"ES384"`), eat.ErrForm},
		"escape in the value": {replace(`"ES384"`, `"\u0045S384"`), eat.ErrForm},
		"nothing":             {func(string) string { return `` }, eat.ErrAlgorithm},
		"null":                {func(string) string { return `null` }, eat.ErrAlgorithm},
	} {
		if _, err := eat.Open(eat.JWT, a.resigned(t, c.header, nil), a.challenge.Nonce); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want: %v", name, err, c.want)
		}
	}
}

func TestOtherSpellingOfClaimsIsRefused(t *testing.T) {
	a := newAnswer(t, "WX-0001")
	ueid := base64url.EncodeToString(must(eat.UEID(&a.router.AK.PublicKey))(t))
	for name, change := range map[string]func(string) string{
		"unknown claim":        replace(`"iat"`, `"exp":4000000000,"iat"`),
		"nonce twice":          replace(`"iat"`, `"eat_nonce":"AAAAAAAAAAAAAAAAAAAAAA","iat"`),
		"other profile":        replace(eat.Profile, `urn:uuid:00000000-0000-0000-0000-000000000000`),
		"other UEID":           replace(ueid, `AQ`+strings.Repeat("A", len(ueid)-2)),
		"other model":          replace(`"hwmodel":"`, `"hwmodel":"AAAA`),
		"no model":             replace(`"hwmodel":"`+base64url.EncodeToString([]byte("WX-100"))+`",`, ``),
		"other name":           replace(`"swname":"waxseal"`, `"swname":"Waxseal"`),
		"float time":           replace(`"iat":`, `"iat":0.1e1`),
		"white space":          replace(`,"iat"`, ` ,"iat"`),
		"padding":              replace(`","eat_profile"`, `=","eat_profile"`),
		"line break":           replace(`"eat_nonce":"`, `"eat_nonce":"\n`),
		"nonce is null":        replace(`"eat_nonce":"`, `"eat_nonce":null,"x":"`),
		"two submodules":       replace(`"tpm":{`, `"cpu":{},"tpm":{`),
		"no submodule":         replace(`"tpm":{`, `"tmp":{`),
		"PCR with leading 0":   replace(`"12":`, `"012":`),
		"PCR -1":               replace(`"12":`, `"-1":`),
		"PCR twice":            replace(`"12":`, `"12":"AA","12":`),
		"bank 65548":           replace(`"waxseal_bank":12`, `"waxseal_bank":65548`),
		"unknown card field":   replace(`"role"`, `"colour":"red","role"`),
		"nested 10,001 levels": func(string) string { return strings.Repeat("[", 10001) },
		"nothing":              func(string) string { return `` },
		"not UTF-8":            replace(`"role":"active"`, "\"role\":\"acti\xffe\""),
	} {
		if _, err := eat.Open(eat.JWT, a.resigned(t, nil, change), a.challenge.Nonce); !errors.Is(err, eat.ErrForm) {
			t.Errorf("%s: %v, want: %v", name, err, eat.ErrForm)
		}
	}
}

// sign1 is a COSE_Sign1 of the router with every part free, signed by the
// right key. A nil part is the right one.
func (a answer) sign1(t *testing.T, c coseParts) []byte {
	t.Helper()
	r := must(cbor.NewReader(a.sealed(t, eat.CWT, a.router.AK)))(t)
	r.Tag(18)
	r.Array()
	protected := r.Bytes()
	r.Map()
	payload := r.Bytes()
	if c.header != nil {
		protected = c.header(protected)
	}
	if c.claims != nil {
		payload = c.claims(payload)
	}
	context := "Signature1"
	if c.context != "" {
		context = c.context
	}
	signed := cbor.AppendText(cbor.AppendArray(nil, 4), context)
	signed = cbor.AppendBytes(cbor.AppendBytes(cbor.AppendBytes(signed, protected), nil), payload)
	signature := must(eattest.Sign(a.router.AK)(signed))(t)
	tag, outer := uint64(18), cbor.AppendMap(nil)
	if c.tag != 0 {
		tag = c.tag
	}
	if c.unprotected != nil {
		outer = c.unprotected
	}
	b := append(cbor.AppendBytes(cbor.AppendArray(cbor.AppendTag(nil, tag), 4), protected), outer...)
	return cbor.AppendBytes(cbor.AppendBytes(b, payload), signature)
}

type coseParts struct {
	header, claims func([]byte) []byte
	context        string
	tag            uint64
	unprotected    []byte
}

func swap(old, with []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		if !bytes.Contains(b, old) {
			panic("nothing to replace")
		}
		return bytes.Replace(b, old, with, 1)
	}
}

func TestOtherSpellingOfCWTIsRefused(t *testing.T) {
	a := newAnswer(t, "WX-0001")
	if _, err := eat.Open(eat.CWT, a.sign1(t, coseParts{}), a.challenge.Nonce); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	es384, typ := []byte{0xa3, 0x01, 0x38, 0x22}, cbor.Text("application/eat+cwt")
	kid := cbor.AppendMap(nil, cbor.Pair{Key: cbor.Int(4), Value: cbor.Bytes([]byte("k"))})
	ueid := must(eat.UEID(&a.router.AK.PublicKey))(t)
	for name, c := range map[string]struct {
		parts coseParts
		want  error
	}{
		"alg ES256":               {coseParts{header: swap(es384, []byte{0xa3, 0x01, 0x26})}, eat.ErrAlgorithm},
		"alg HMAC":                {coseParts{header: swap(es384, []byte{0xa3, 0x01, 0x06})}, eat.ErrAlgorithm},
		"crit":                    {coseParts{header: swap(es384, []byte{0xa4, 0x01, 0x38, 0x22, 0x02, 0x81, 0x01})}, eat.ErrAlgorithm},
		"kid":                     {coseParts{header: swap(es384, []byte{0xa4, 0x01, 0x38, 0x22, 0x04, 0x41, 0x01})}, eat.ErrAlgorithm},
		"alg twice":               {coseParts{header: swap(es384, []byte{0xa4, 0x01, 0x38, 0x22, 0x01, 0x38, 0x22})}, eat.ErrAlgorithm},
		"long alg":                {coseParts{header: swap(es384, []byte{0xa3, 0x01, 0x39, 0x00, 0x22})}, eat.ErrAlgorithm},
		"other typ":               {coseParts{header: swap(typ, cbor.Text("application/cwt"))}, eat.ErrAlgorithm},
		"typ a number":            {coseParts{header: swap(typ, cbor.Int(263))}, eat.ErrAlgorithm},
		"no header":               {coseParts{header: func([]byte) []byte { return nil }}, eat.ErrAlgorithm},
		"empty header":            {coseParts{header: func([]byte) []byte { return cbor.AppendMap(nil) }}, eat.ErrAlgorithm},
		"unprotected header":      {coseParts{unprotected: kid}, eat.ErrAlgorithm},
		"COSE_Mac0":               {coseParts{tag: 17}, eat.ErrAlgorithm},
		"CWT tag":                 {coseParts{tag: 61}, eat.ErrAlgorithm},
		"signed as COSE_Sign":     {coseParts{context: "Signature"}, eat.ErrSignature},
		"signed as countersigned": {coseParts{context: "CounterSignature"}, eat.ErrSignature},
		"unknown claim":           {coseParts{claims: swap([]byte{0xa8, 0x06}, []byte{0xa9, 0x04, 0x01, 0x06})}, eat.ErrForm},
		"claims in other order":   {coseParts{claims: nonceFirst}, eat.ErrForm},
		"other UEID":              {coseParts{claims: swap(ueid, append([]byte{1}, make([]byte, 32)...))}, eat.ErrForm},
		"other profile":           {coseParts{claims: swap([]byte("urn:uuid:7"), []byte("urn:uuid:8"))}, eat.ErrForm},
		"other name":              {coseParts{claims: swap(cbor.Text("waxseal"), cbor.Text("Waxseal"))}, eat.ErrForm},
		"other submodule":         {coseParts{claims: swap(cbor.Text("tpm"), cbor.Text("tmp"))}, eat.ErrForm},
		"indefinite claims":       {coseParts{claims: func(b []byte) []byte { return append(append([]byte{0xbf}, b[1:]...), 0xff) }}, eat.ErrForm},
		"claims are a list":       {coseParts{claims: func([]byte) []byte { return []byte{0x80} }}, eat.ErrForm},
		"nothing":                 {coseParts{claims: func([]byte) []byte { return nil }}, eat.ErrForm},
	} {
		if _, err := eat.Open(eat.CWT, a.sign1(t, c.parts), a.challenge.Nonce); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want: %v", name, err, c.want)
		}
	}
}

// nonceFirst moves the claim iat behind the nonce.
func nonceFirst(claims []byte) []byte {
	const issued, nonce = 6, 1 + 2 + 32 // bytes of the two pairs
	b := append([]byte{claims[0]}, claims[1+issued:1+issued+nonce]...)
	b = append(b, claims[1:1+issued]...)
	return append(b, claims[1+issued+nonce:]...)
}
