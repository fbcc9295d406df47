package challengetest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"waxseal/measure/devid"
	"waxseal/measure/devid/devidtest"
	"waxseal/measure/structure"
	"waxseal/measure/wire"
)

// Challenge implements wire.EnrollServer: it unwraps the HMAC key with the EK
// and certifies the attestation key by it.
func (e enrollz) Challenge(_ context.Context, c wire.HMACChallenge) (wire.HMACAnswer, error) {
	d := e.d
	if d.EK == nil {
		return wire.HMACAnswer{}, fmt.Errorf("%w: no EK", wire.ErrNotReady)
	}
	secret, err := unwrap(d.EK, c)
	if err != nil {
		return wire.HMACAnswer{}, fmt.Errorf("%w: %w", wire.ErrInvalid, err)
	}
	public := d.tpm().Public(devid.IAK)
	attest := devidtest.Certification(public).Bytes()
	ans := wire.HMACAnswer{
		IAK: structure.AppendSized(nil, public), Attest: structure.AppendSized(nil, attest), Signature: devidtest.Tag(secret, attest),
	}
	if d.Certifying != nil {
		d.Certifying(secret, &ans)
	}
	return ans, nil
}

// IDevIDCSR implements wire.EnrollServer.
func (e enrollz) IDevIDCSR(context.Context, wire.CSRRequest) (wire.CSRAnswer, error) {
	d := e.d
	ans := wire.CSRAnswer{Card: d.Card}
	if d.EK == nil {
		return ans, fmt.Errorf("%w: no EK", wire.ErrNotReady)
	}
	var err error
	if ans.Content, ans.Signature, err = d.tpm().CSR(d.Card.Serial, EKArea(&d.EK.PublicKey)); err != nil {
		return ans, err
	}
	if d.Requesting != nil {
		err = d.Requesting(&ans)
	}
	return ans, err
}

// tpm returns the router's keys as a TPM that certifies them.
func (d *Device) tpm() devidtest.TPM {
	return devidtest.TPM{Keys: map[devid.Kind]*ecdsa.PrivateKey{devid.IAK: d.AK, devid.IDevID: d.Identity}}
}

// EKArea returns the TPMT_PUBLIC of an EK of template L-1 (TCG EK Credential
// Profile, section B.3.3).
func EKArea(key *rsa.PublicKey) []byte {
	b := []byte{0x00, 0x01, 0x00, 0x0b, 0x00, 0x03, 0x00, 0xb2}
	b = structure.AppendSized(b, []byte("\x83\x71\x97\x67\x44\x84\xb3\xf8\x1a\x90\xcc\x8d\x46\xa5\xd7\x24\xfd\x52\xd7\x6e\x06\x52\x0b\x64\xf2\xa1\xda\x1b\x33\x14\x69\xaa"))
	b = append(b, 0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00, 0, 0, 0, 0)
	return structure.AppendSized(b, key.N.Bytes())
}

var errUnwrap = errors.New("not wrapped for this EK")

// unwrap is TPM2_Import as far as it gives the sensitive area of an HMAC key
// (TPM 2.0 Part 1, sections 23.3 and B.10.3).
func unwrap(ek *rsa.PrivateKey, c wire.HMACChallenge) ([]byte, error) {
	sized := func(b []byte) []byte { r := structure.Reader{Rest: b}; return r.Sized() }
	public, duplicate := sized(c.Public), sized(c.Duplicate)
	seed, err := rsa.DecryptOAEP(sha256.New(), rand.Reader, ek, sized(c.Seed), []byte("DUPLICATE\x00"))
	if err != nil {
		return nil, errUnwrap
	}
	digest := sha256.Sum256(public)
	name := append([]byte{0x00, 0x0b}, digest[:]...)
	r := structure.Reader{Rest: duplicate}
	integrity, sealed := r.Sized(), r.Rest
	mac := hmac.New(sha256.New, kdfa(seed, "INTEGRITY", nil, 32))
	mac.Write(sealed)
	mac.Write(name)
	if !hmac.Equal(mac.Sum(nil), integrity) {
		return nil, errUnwrap
	}
	block, err := aes.NewCipher(kdfa(seed, "STORAGE", name, 16))
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(sealed))
	//lint:ignore SA1019 the mode that TPMs use; what is decrypted was authenticated above
	cipher.NewCFBDecrypter(block, make([]byte, aes.BlockSize)).XORKeyStream(plain, sealed)
	r = structure.Reader{Rest: sized(plain)}
	r.U16()   // type
	r.Sized() // auth
	r.Sized() // seed
	secret := r.Sized()
	if !r.Done() {
		return nil, errUnwrap
	}
	return secret, nil
}

// kdfa is KDFa of SHA-256 for at most one block (Part 1, section 11.4.10.2).
func kdfa(key []byte, label string, context []byte, size int) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte{0, 0, 0, 1})
	mac.Write(append([]byte(label), 0))
	mac.Write(context)
	mac.Write(binary.BigEndian.AppendUint32(nil, uint32(8*size)))
	return mac.Sum(nil)[:size]
}
