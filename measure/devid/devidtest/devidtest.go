// Package devidtest is a TPM in software, as far as package devid looks at one:
// two keys made from their templates, and the structures by which it certifies
// them. A test may change any byte.
//
// It is for tests. It holds no secret of worth, and proves nothing about a
// machine.
package devidtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"math/big"

	"waxseal/measure"
	"waxseal/measure/csr"
	"waxseal/measure/devid"
	"waxseal/measure/structure"
)

// TPM holds the keys of a device.
type TPM struct {
	Keys map[devid.Kind]*ecdsa.PrivateKey
}

// New returns a TPM with new keys.
func New() (TPM, error) {
	t := TPM{map[devid.Kind]*ecdsa.PrivateKey{}}
	for _, kind := range []devid.Kind{devid.IAK, devid.IDevID} {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			return TPM{}, err
		}
		t.Keys[kind] = key
	}
	return t, nil
}

// Attributes of the two templates (TPMA_OBJECT).
const (
	AttributesIAK    uint32 = 0x000500f2
	AttributesIDevID uint32 = 0x000400f2
)

// Public returns the TPMT_PUBLIC of a key.
func (t TPM) Public(kind devid.Kind) []byte {
	attributes := AttributesIDevID
	if kind == devid.IAK {
		attributes = AttributesIAK
	}
	return Public(&t.Keys[kind].PublicKey, attributes, devid.Policy(kind))
}

// Public writes a TPMT_PUBLIC: ECC, SHA-384, no symmetric cipher, ECDSA with
// SHA-384, P-384, no key derivation.
func Public(key *ecdsa.PublicKey, attributes uint32, policy []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0x00, 0x23, 0x00, 0x0c}, attributes)
	b = structure.AppendSized(b, policy)
	b = append(b, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0c, 0x00, 0x04, 0x00, 0x10)
	point, err := key.Bytes()
	if err != nil {
		panic(err)
	}
	half := len(point) / 2
	b = structure.AppendSized(b, point[1:1+half])
	return structure.AppendSized(b, point[1+half:])
}

// Attest is what a certification says.
type Attest struct {
	Magic               uint32
	Type                uint16
	ExtraData           []byte
	Name, QualifiedName []byte
}

// Certification returns what a TPM says of a primary key with this public area.
func Certification(public []byte) Attest {
	name := append([]byte{0x00, 0x0c}, measure.Hash(measure.SHA384, public).Sum...)
	under := append([]byte{0x40, 0x00, 0x00, 0x0b}, name...) // TPM_RH_ENDORSEMENT
	return Attest{
		Magic: 0xff544347, Type: 0x8017, Name: name,
		QualifiedName: append([]byte{0x00, 0x0c}, measure.Hash(measure.SHA384, under).Sum...),
	}
}

// Bytes writes the TPMS_ATTEST.
func (a Attest) Bytes() []byte {
	b := binary.BigEndian.AppendUint32(nil, a.Magic)
	b = binary.BigEndian.AppendUint16(b, a.Type)
	b = structure.AppendSized(b, append([]byte{0x00, 0x0c}, make([]byte, 48)...)) // signer
	b = structure.AppendSized(b, a.ExtraData)
	b = append(b, make([]byte, 8+4+4)...) // clock
	b = append(b, 1)                      // safe
	b = append(b, make([]byte, 8)...)     // firmwareVersion
	return structure.AppendSized(structure.AppendSized(b, a.Name), a.QualifiedName)
}

// Sign returns the TPMT_SIGNATURE of a key over content.
func (t TPM) Sign(kind devid.Kind, content []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, t.Keys[kind], measure.Hash(measure.SHA384, content).Sum)
	if err != nil {
		return nil, err
	}
	b := []byte{0x00, 0x18, 0x00, 0x0c}
	for _, n := range []*big.Int{r, s} {
		b = structure.AppendSized(b, n.FillBytes(make([]byte, 48)))
	}
	return b, nil
}

// Tag returns the TPMT_SIGNATURE of an HMAC key over attest.
func Tag(secret, attest []byte) []byte {
	digest := sha256.Sum256(attest)
	mac := hmac.New(sha256.New, secret)
	mac.Write(digest[:])
	return mac.Sum([]byte{0x00, 0x05, 0x00, 0x0b})
}

// CSR returns the content by which the device of serial asks for certificates,
// and the IDevID's signature over it.
func (t TPM) CSR(serial string, ek []byte) (content, signature []byte, err error) {
	attest := Certification(t.Public(devid.IDevID)).Bytes()
	proof, err := t.Sign(devid.IAK, attest)
	if err != nil {
		return nil, nil, err
	}
	content, err = csr.Content{
		Model: "router", Serial: serial, EK: ek, IAK: t.Public(devid.IAK), IDevID: t.Public(devid.IDevID),
		IDevIDAttest: attest, IDevIDProof: proof,
	}.Encode()
	if err != nil {
		return nil, nil, err
	}
	signature, err = t.Sign(devid.IDevID, content)
	return content, signature, err
}
