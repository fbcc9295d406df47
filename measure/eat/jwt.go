package eat

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"waxseal/measure"
	"waxseal/measure/evidence"
)

// algJWT is ES384: ECDSA on P-384 with SHA-384 (RFC 7518, section 3.4).
const algJWT = "ES384"

// header is the JOSE header, members in the order in which they are written.
type header struct {
	Algorithm string   `json:"alg"`
	Type      string   `json:"typ"`
	Chain     [][]byte `json:"x5c"` // standard base64, leaf first (RFC 7515, section 4.1.6)
}

// claims is the claims-set, members in the order in which they are written.
type claims struct {
	Nonce   url           `json:"eat_nonce"`
	Profile string        `json:"eat_profile"`
	Model   url           `json:"hwmodel,omitempty"`
	Issued  int64         `json:"iat"`
	Submods submods       `json:"submods"`
	Name    string        `json:"swname"`
	UEID    url           `json:"ueid"`
	Card    evidence.Card `json:"waxseal_card"`
}

type submods struct {
	TPM tpmClaims `json:"tpm"`
}

type tpmClaims struct {
	Attest    url                 `json:"waxseal_attest"`
	Bank      uint16              `json:"waxseal_bank"` // TPM_ALG_ID
	Log       url                 `json:"waxseal_log"`
	PCRs      map[measure.PCR]url `json:"waxseal_pcrs"`
	Signature url                 `json:"waxseal_signature"`
}

// base64url without padding and without stray bits (RFC 7515, section 2).
var base64url = base64.RawURLEncoding.Strict()

// url is bytes in base64url.
type url []byte

// MarshalText implements encoding.TextMarshaler.
func (u url) MarshalText() ([]byte, error) { return base64url.AppendEncode(nil, u), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts only what
// MarshalText returns.
func (u *url) UnmarshalText(text []byte) (err error) {
	*u, err = decode(text)
	return err
}

func decode(text []byte) ([]byte, error) {
	if bytes.ContainsAny(text, "\r\n") { // which the package would skip
		return nil, errors.New("base64url with line breaks")
	}
	return base64url.AppendDecode(nil, text)
}

func encode(b []byte) []byte { return base64url.AppendEncode(nil, b) }

// jwt returns the token in the JWS compact form before its signature.
func (t Token) jwt() (unsigned, error) {
	payload, err := t.payloadJSON()
	if err != nil {
		return unsigned{}, err
	}
	head, err := json.Marshal(header{algJWT, typeJWT, t.Chain}, json.Deterministic(true))
	if err != nil {
		return unsigned{}, fmt.Errorf("token header: %w", err)
	}
	signed := slices.Concat(encode(head), []byte{'.'}, encode(payload))
	return unsigned{signed, func(signature []byte) []byte {
		return slices.Concat(signed, []byte{'.'}, encode(signature))
	}}, nil
}

func (t Token) payloadJSON() ([]byte, error) {
	key, err := t.key()
	if err != nil {
		return nil, err
	}
	ueid, err := UEID(key)
	if err != nil {
		return nil, err
	}
	pcrs := map[measure.PCR]url{}
	for pcr, v := range t.PCRs {
		pcrs[pcr] = v
	}
	b, err := json.Marshal(claims{
		Nonce: t.Nonce, Profile: Profile, Model: model(t.Card), Issued: t.Issued, Name: Software, UEID: ueid, Card: t.Card,
		Submods: submods{tpmClaims{Attest: t.Quoted, Bank: uint16(t.Bank), Log: t.Log, PCRs: pcrs, Signature: t.Signature}},
	}, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("token claims: %w", err)
	}
	return b, nil
}

// parseJWT reads the three parts of a JWS (RFC 7515, section 7.1).
func parseJWT(b []byte) (Signed, error) {
	parts := bytes.Split(b, []byte{'.'})
	if len(parts) != 3 {
		return Signed{}, fmt.Errorf("%w: %d parts instead of three", ErrForm, len(parts))
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = decode(part); err != nil {
			return Signed{}, fmt.Errorf("%w: part %d: %w", ErrForm, i, err)
		}
	}
	t := Token{}
	if err := t.readHeader(decoded[0]); err != nil {
		return Signed{}, err
	}
	if err := t.readJSON(decoded[1]); err != nil {
		return Signed{}, err
	}
	return Signed{t, b[:len(b)-len(parts[2])-1], decoded[2]}, nil
}

// readHeader reads the JOSE header. Members that name a key (jwk, jku, x5u,
// kid), that change the meaning of the others (crit, b64) or that are unknown
// are refused, and so is every algorithm but one.
func (t *Token) readHeader(b []byte) error {
	var h header
	if err := json.Unmarshal(b, &h, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("%w: header: %w", ErrAlgorithm, err)
	}
	if h.Algorithm != algJWT || h.Type != typeJWT {
		return fmt.Errorf("%w: alg %q, typ %q: need %s and %s", ErrAlgorithm, h.Algorithm, h.Type, algJWT, typeJWT)
	}
	t.Chain = h.Chain
	return nil
}

func (t *Token) readJSON(b []byte) error {
	var c claims
	if err := json.Unmarshal(b, &c, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("%w: claims: %w", ErrForm, err)
	}
	tpm := c.Submods.TPM
	if len(tpm.PCRs) > measure.NumPCRs {
		return fmt.Errorf("%w: %d PCRs", ErrForm, len(tpm.PCRs))
	}
	t.Nonce, t.Issued, t.Card, t.Bank = c.Nonce, c.Issued, c.Card, measure.Alg(tpm.Bank)
	t.Quoted, t.Signature, t.Log = tpm.Attest, tpm.Signature, tpm.Log
	t.PCRs = map[measure.PCR][]byte{}
	for pcr, v := range tpm.PCRs {
		t.PCRs[pcr] = v
	}
	return nil
}
