package restconf

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waxseal/measure"
)

// maxDepth is how deep objects and arrays may stand in each other. The
// deepest input of the modules needs 6.
const maxDepth = 16

// decode reads a document into v, which has a field for each node that the
// YANG module allows there.
func decode(b []byte, v any) error {
	if err := scan(b); err != nil {
		return err
	}
	err := json.Unmarshal(b, v, json.RejectUnknownMembers(true))
	var syntax *jsontext.SyntacticError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, json.ErrUnknownName):
		return unknown(err.Error())
	case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF):
		return malformed(err.Error())
	}
	return invalid("%v", err)
}

// scan refuses what is not JSON, or not JSON of RFC 7951: null stands for no
// value that an input may have, and must not pass for a node that is absent.
func scan(b []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(b)) // refuses names that stand twice, and invalid UTF-8
	for {
		token, err := d.ReadToken()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return malformed(err.Error())
		case token.Kind() == 'n':
			return invalid("%s is null", d.StackPointer())
		case d.StackDepth() > maxDepth:
			return malformed(fmt.Sprintf("more than %d objects and arrays in each other", maxDepth))
		}
	}
}

// binary is the YANG type of the same name: standard base64 with padding, in
// its one spelling (RFC 7951, section 6.6).
type binary []byte

var strict64 = base64.StdEncoding.Strict()

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *binary) UnmarshalText(text []byte) error {
	if bytes.ContainsAny(text, "\r\n") {
		return errors.New("base64 with line breaks")
	}
	b, err := strict64.AppendDecode([]byte{}, text)
	*v = b
	return err
}

// counter is the YANG type uint64: a decimal number in a string (RFC 7951,
// section 6.1), without sign and leading zeros.
type counter uint64

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *counter) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return err
	}
	if strconv.FormatUint(n, 10) != string(text) {
		return fmt.Errorf("number %q is not in its canonical form", text)
	}
	*v = counter(n)
	return nil
}

// instant is the type date-and-time of ietf-yang-types (RFC 6991).
type instant struct{ at time.Time }

// UnmarshalText implements encoding.TextUnmarshaler. Package time also takes an
// hour of one digit, and a comma before the fraction.
func (v *instant) UnmarshalText(text []byte) (err error) {
	if len(text) < len("2006-01-02T15:04:05Z") || text[len("2006-01-02T15")] != ':' || bytes.ContainsRune(text, ',') {
		return fmt.Errorf("%q is no date-and-time", text)
	}
	v.at, err = time.Parse(time.RFC3339, string(text))
	return err
}

// algIdentity is the identity of each hash algorithm in ietf-tcg-algs.
var algIdentity = map[measure.Alg]string{
	measure.SHA1:   tcgAlgs + ":TPM_ALG_SHA1",
	measure.SHA256: tcgAlgs + ":TPM_ALG_SHA256",
	measure.SHA384: tcgAlgs + ":TPM_ALG_SHA384",
	measure.SHA512: tcgAlgs + ":TPM_ALG_SHA512",
	measure.SM3:    tcgAlgs + ":TPM_ALG_SM3_256",
}

// bankOf returns the PCR bank of an identity. A name of another module than
// the leaf's needs its module in front (RFC 7951, section 6.8).
func bankOf(name string) (measure.Alg, error) {
	for alg, known := range algIdentity {
		if known == name && alg.Computable() {
			return alg, nil
		}
	}
	return 0, invalid("tpm20-hash-algo %q: need %s:TPM_ALG_SHA256, TPM_ALG_SHA384 or TPM_ALG_SHA512", name, tcgAlgs)
}

// own returns the name of an identity of ietf-tpm-remote-attestation itself,
// which may stand with its module or without.
func own(name string) string { return strings.TrimPrefix(name, charra+":") }
