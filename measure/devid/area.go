package devid

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/binary"
	"fmt"

	"waxseal/measure/structure"
)

// Numbers of the template (TPM 2.0 Part 2, sections 6.3 and 6.4).
const (
	algECC    = 0x0023
	algECDSA  = 0x0018
	algSHA384 = 0x000c
	algNull   = 0x0010
	curveP384 = 0x0004
)

// Areas returns the public areas (TPMT_PUBLIC) that a key may have which was
// made from the template of kind: one with noDA and one without. Which it has,
// if either, its name in a quote tells.
func Areas(kind Kind, key *ecdsa.PublicKey) ([][]byte, error) {
	point, err := key.Bytes()
	if err != nil || key.Curve != elliptic.P384() || policies[kind] == nil {
		return nil, fmt.Errorf("%w: a key of kind %q on %s (%v)", ErrTemplate, string(kind), key.Curve.Params().Name, err)
	}
	want := uint32(attributes)
	if kind == IAK {
		want |= restricted
	}
	return [][]byte{area(kind, want|noDA, point[1:]), area(kind, want, point[1:])}, nil
}

// area is a TPMT_PUBLIC over a point of two coordinates (Part 2, section 12.2.4).
func area(kind Kind, attributes uint32, point []byte) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint16(nil, algECC), algSHA384)
	b = structure.AppendSized(be.AppendUint32(b, attributes), policies[kind])
	for _, n := range []uint16{algNull, algECDSA, algSHA384, curveP384, algNull} {
		b = be.AppendUint16(b, n)
	}
	half := len(point) / 2
	return structure.AppendSized(structure.AppendSized(b, point[:half]), point[half:])
}
