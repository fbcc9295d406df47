package evidencetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"slices"

	"waxseal/measure"
	"waxseal/measure/evidence"
)

// Attest is a TPMS_ATTEST of a quote, each field free (TPM 2.0 Part 2,
// section 10.12.12).
type Attest struct {
	Magic      uint32
	Type       uint16
	Signer     []byte
	ExtraData  []byte
	Counters   evidence.Counters
	Selections []Selection
	PCRDigest  []byte
	Trailing   []byte
}

// Selection is a TPMS_PCR_SELECTION.
type Selection struct {
	Bank measure.Alg
	Bits []byte
}

// Select returns the selection of pcrs.
func Select(bank measure.Alg, pcrs ...measure.PCR) Selection {
	bits := make([]byte, 3)
	for _, pcr := range pcrs {
		bits[pcr/8] |= 1 << (pcr % 8)
	}
	return Selection{bank, bits}
}

// Attest returns what the router's TPM would attest for ch.
func (r *Router) Attest(ch evidence.Challenge) Attest {
	pcrs := slices.Sorted(slices.Values(ch.PCRs))
	var all []byte
	for _, pcr := range pcrs {
		all = append(all, r.PCR(ch.Bank, pcr)...)
	}
	return Attest{
		Magic: 0xff544347, Type: 0x8018, ExtraData: ch.Nonce, Counters: r.Counters,
		Signer:     append([]byte{0, 11}, make([]byte, 32)...),
		Selections: []Selection{Select(ch.Bank, pcrs...)},
		PCRDigest:  measure.Hash(Scheme(r.AK.Curve), all).Sum,
	}
}

// Encode returns the bare TPMS_ATTEST.
func (a Attest) Encode() []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, a.Magic)
	b = be.AppendUint16(b, a.Type)
	b = sized(sized(b, a.Signer), a.ExtraData)
	b = be.AppendUint64(b, a.Counters.Clock)
	b = be.AppendUint32(b, a.Counters.Reset)
	b = be.AppendUint32(b, a.Counters.Restart)
	safe := byte(0)
	if a.Counters.Safe {
		safe = 1
	}
	b = be.AppendUint64(append(b, safe), a.Counters.FirmwareVersion)
	b = be.AppendUint32(b, uint32(len(a.Selections)))
	for _, s := range a.Selections {
		b = append(be.AppendUint16(b, uint16(s.Bank)), byte(len(s.Bits)))
		b = append(b, s.Bits...)
	}
	return append(sized(b, a.PCRDigest), a.Trailing...)
}

func sized(b, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(data))), data...)
}

// Scheme returns the hash that a TPM signs with on curve.
func Scheme(curve elliptic.Curve) measure.Alg {
	switch curve {
	case elliptic.P384():
		return measure.SHA384
	case elliptic.P521():
		return measure.SHA512
	}
	return measure.SHA256
}

// Sign returns the TPMT_SIGNATURE of key over quoted, with the key's scheme.
func Sign(key *ecdsa.PrivateKey, quoted []byte) ([]byte, error) {
	return SignAs(key, Scheme(key.Curve), quoted)
}

// SignAs is Sign over another hash.
func SignAs(key *ecdsa.PrivateKey, hash measure.Alg, quoted []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, key, measure.Hash(hash, quoted).Sum)
	if err != nil {
		return nil, err
	}
	size := (key.Curve.Params().BitSize + 7) / 8
	b := binary.BigEndian.AppendUint16(nil, 0x0018)
	b = binary.BigEndian.AppendUint16(b, uint16(hash))
	return sized(sized(b, r.FillBytes(make([]byte, size))), s.FillBytes(make([]byte, size))), nil
}
