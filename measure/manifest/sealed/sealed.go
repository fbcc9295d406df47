// Package sealed is the envelope of files that a maker signs: a payload and
// two signatures over it, ECDSA on P-384 and ML-DSA-87 (FIPS 204), which must
// both verify. Neither a broken curve nor a broken lattice alone forges one.
//
// The envelope names its algorithms, and that list is signed with the payload:
// a file never gets by with fewer of them, with others, or with one named
// twice. Nothing in the file chooses a key; keys come from the reader's Trust.
//
// It reads no file and no clock, and it does not look into payloads.
package sealed

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Format is the value of the key "format" in a sealed file. It also separates
// what is signed here from everything else that a key may ever sign.
const Format = "waxseal-sealed-1"

// Bounds of a sealed file, in bytes.
const (
	MaxPayload = 12 << 20
	MaxFile    = MaxPayload/3*4 + 16<<10 // in base64, with two signatures
	maxKind    = 64
)

// Why a sealed file is refused. Open wraps one of them.
var (
	ErrFormat    = errors.New("sealed file is malformed")
	ErrKind      = errors.New("sealed file is of another kind")
	ErrAlgorithm = errors.New("sealed file is not signed with just " + string(ECDSAP384) + " and " + string(MLDSA87))
	ErrSignature = errors.New("sealed file is not as its signers signed it")
	// ErrDisagree is an ErrSignature where one of the two signatures is good.
	ErrDisagree = fmt.Errorf("%w: the two signers disagree", ErrSignature)
)

// file is a sealed file as it is written.
type file struct {
	Format     string      `json:"format"`
	Kind       string      `json:"kind"`
	Payload    blob        `json:"payload"`
	Signatures []signature `json:"signatures"`
}

type signature struct {
	Algorithm Algorithm `json:"algorithm"`
	Value     blob      `json:"value"`
}

// blob is bytes in standard base64 with padding.
type blob []byte

// MarshalText implements encoding.TextMarshaler.
func (b blob) MarshalText() ([]byte, error) { return base64.StdEncoding.AppendEncode(nil, b), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Other spellings of the
// same bytes do not come back as they were, so Open refuses them.
func (b *blob) UnmarshalText(text []byte) (err error) {
	*b, err = base64.StdEncoding.Strict().AppendDecode(nil, text)
	return err
}

// Seal returns the file that Open reads: the payload, signed once with each
// algorithm, whatever the order of the signers. kind says what the payload is,
// usually its format.
func Seal(kind string, payload []byte, signers ...Signer) ([]byte, error) {
	if err := checkContent(kind, payload); err != nil {
		return nil, err
	}
	f := file{Format: Format, Kind: kind, Payload: payload}
	for _, alg := range algorithms {
		i := slices.IndexFunc(signers, func(s Signer) bool { return s.Algorithm() == alg })
		if i < 0 || len(signers) != len(algorithms) {
			return nil, fmt.Errorf("%w: %d signers: need one for each", ErrAlgorithm, len(signers))
		}
		value, err := signers[i].Sign(f.message(), f.context())
		if err != nil {
			return nil, fmt.Errorf("sign with %s: %w", alg, err)
		}
		f.Signatures = append(f.Signatures, signature{alg, value})
	}
	return f.encode()
}

// Open returns the payload of a sealed file of the kind, if both signatures
// are those of the trusted keys, and if the file is in every byte as Seal
// writes it.
func Open(kind string, data []byte, trust Trust) ([]byte, error) {
	if trust.ecdsa == nil || trust.mldsa == nil {
		return nil, errors.New("open a sealed file: no keys to verify with")
	}
	f, err := parse(data)
	if err != nil {
		return nil, err
	}
	if f.Kind != kind {
		return nil, fmt.Errorf("%w: it is a %q: need %q", ErrKind, f.Kind, kind)
	}
	return f.Payload, f.verify(trust)
}

// parse reads a file whose signatures nobody has looked at.
func parse(data []byte) (file, error) {
	var f file
	if len(data) > MaxFile {
		return f, fmt.Errorf("%w: %d bytes: at most %d", ErrFormat, len(data), MaxFile)
	}
	if err := json.Unmarshal(data, &f, json.RejectUnknownMembers(true)); err != nil {
		return f, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if f.Format != Format {
		return f, fmt.Errorf("%w: format is %q: need %q", ErrFormat, f.Format, Format)
	}
	if err := checkContent(f.Kind, f.Payload); err != nil {
		return f, err
	}
	if named := f.named(); !slices.Equal(named, algorithms) {
		return f, fmt.Errorf("%w: it names %q", ErrAlgorithm, named)
	}
	plain, err := f.encode()
	if err != nil || !bytes.Equal(plain, data) {
		return f, fmt.Errorf("%w: it is not written in its one plain form", ErrFormat)
	}
	return f, nil
}

func checkContent(kind string, payload []byte) error {
	if len(kind) == 0 || len(kind) > maxKind {
		return fmt.Errorf("%w: kind of %d bytes: need 1 to %d", ErrFormat, len(kind), maxKind)
	}
	if len(payload) == 0 || len(payload) > MaxPayload {
		return fmt.Errorf("%w: payload of %d bytes: need 1 to %d", ErrFormat, len(payload), MaxPayload)
	}
	return nil
}

// verify looks at both signatures, also when the first is bad: which of the
// two signers was got around is worth knowing.
func (f file) verify(trust Trust) error {
	message, context := f.message(), f.context()
	classic := trust.verifyECDSA(message, f.Signatures[0].Value)
	lattice := trust.verifyMLDSA(message, context, f.Signatures[1].Value)
	switch {
	case classic && lattice:
		return nil
	case classic:
		return fmt.Errorf("%w: %s is good, %s is not", ErrDisagree, ECDSAP384, MLDSA87)
	case lattice:
		return fmt.Errorf("%w: %s is good, %s is not", ErrDisagree, MLDSA87, ECDSAP384)
	}
	return ErrSignature
}

// message is what both algorithms sign: the format, the kind, the names of the
// algorithms and the payload, each with its length.
func (f file) message() []byte {
	m := make([]byte, 0, len(f.Payload)+256)
	for _, part := range []string{Format, f.Kind} {
		m = append(append(m, byte(len(part))), part...)
	}
	m = append(m, byte(len(algorithms)))
	for _, alg := range algorithms {
		m = append(append(m, byte(len(alg))), alg...)
	}
	m = binary.BigEndian.AppendUint64(m, uint64(len(f.Payload)))
	return append(m, f.Payload...)
}

// context is the context string of ML-DSA (FIPS 204, section 5.2).
func (f file) context() []byte { return []byte(Format + " " + f.Kind) }

func (f file) named() []Algorithm {
	var named []Algorithm
	for _, s := range f.Signatures {
		named = append(named, s.Algorithm)
	}
	return named
}

func (f file) encode() ([]byte, error) {
	b, err := json.Marshal(f, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return append(b, '\n'), nil
}
