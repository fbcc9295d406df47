package tpm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"waxseal/measure"
)

// Key names one of the TPM's persistent keys.
type Key string

// The keys of a device. All but the SRK are primaries of the endorsement
// hierarchy: from the owner's hierarchy the counters in a quote come out
// scrambled.
const (
	EK     Key = "EK"     // decrypts what is meant for this TPM; RSA-2048, template L-1
	EK384  Key = "EK384"  // as EK, on P-384, template H-3; not every TPM has it
	IAK    Key = "IAK"    // signs quotes and nothing else (restricted); P-384, ECDSA with SHA-384
	IDevID Key = "IDevID" // signs TLS handshakes; P-384, ECDSA with SHA-384
	// SRK is the storage root key, P-256. It protects nothing here: a TPM that
	// is cleared gets another one, whereas the keys above can be made again and
	// the counters start anew. It tells a cleared TPM from one that never was.
	SRK Key = "SRK"
)

// Persistent handles: SRK's and EK's of TCG's handle registry, the others as
// one TPM maker has them.
const (
	handleSRK    tpm2.TPMHandle = 0x81000001
	handleEK     tpm2.TPMHandle = 0x81010001
	handleEK384  tpm2.TPMHandle = 0x81010016
	handleIDevID tpm2.TPMHandle = 0x81020000
	handleIAK    tpm2.TPMHandle = 0x81020001
)

// NV indices of certificates, in DER.
const (
	NVCertEK     uint32 = 0x01c00002 // of the EK RSA-2048 (TCG EK Credential Profile, table 2)
	NVCertEK384  uint32 = 0x01c00016 // of an EK P-384
	NVCertIAK    uint32 = 0x01c90100
	NVCertIDevID uint32 = 0x01c90200
)

// loadedKey is what the owner goroutine remembers of a key.
type loadedKey struct {
	name   tpm2.TPM2BName
	public *ecdsa.PublicKey
}

// Handle returns the key's persistent handle, or 0 for an unknown key.
func (k Key) handle() tpm2.TPMHandle {
	switch k {
	case SRK:
		return handleSRK
	case EK:
		return handleEK
	case EK384:
		return handleEK384
	case IAK:
		return handleIAK
	case IDevID:
		return handleIDevID
	}
	return 0
}

// template is the public area that CreatePrimary is given.
func (k Key) template() (tpm2.TPMTPublic, error) {
	switch k {
	case SRK:
		return tpm2.ECCSRKTemplate, nil
	case EK:
		return tpm2.RSAEKTemplate, nil
	case EK384:
		return ek384Template(), nil
	case IAK, IDevID:
		return k.signingTemplate()
	}
	return tpm2.TPMTPublic{}, fmt.Errorf("key %q is not one of EK, EK384, IAK, IDevID, SRK", string(k))
}

// signingTemplate is "ECC NIST P384" of "TPM 2.0 Keys for Device Identity and
// Attestation", section 7.3.4: unique.x is the key's name in capitals.
// noDA is set: the keys have no password that a lockout could protect.
func (k Key) signingTemplate() (tpm2.TPMTPublic, error) {
	policy, err := AuthPolicy(k, measure.SHA384)
	if err != nil {
		return tpm2.TPMTPublic{}, err
	}
	unique := map[Key]string{IAK: "IAK", IDevID: "IDEVID"}[k]
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA384,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, AdminWithPolicy: true, NoDA: true,
			Restricted: k == IAK, SignEncrypt: true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA384}),
			},
			CurveID: tpm2.TPMECCNistP384,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: []byte(unique)},
		}),
	}, nil
}

// ek384Template is template H-3, ECC NIST P-384 (TCG EK Credential Profile for
// TPM 2.0, annex B.4): unlike the low-range ones it has an empty unique field, and
// a policy with a second branch.
func ek384Template() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA384,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, AdminWithPolicy: true, Restricted: true, Decrypt: true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: ekPolicyB(measure.SHA384)},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: tpm2.TPMTSymDefObject{
				Algorithm: tpm2.TPMAlgAES,
				KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
				Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
			},
			CurveID: tpm2.TPMECCNistP384,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// CreateKey makes the key persistent unless it is there already. Another key
// under its handle is ErrOtherKey and is left alone. It is a step of the
// factory, never of a boot.
func (d *Device) CreateKey(ctx context.Context, k Key) error {
	template, err := k.template()
	if err != nil {
		return err
	}
	_, err = ask(ctx, d, quoting, creationTimeout, func(t transport.TPM) (struct{}, error) {
		pub, _, err := readPublic(t, k.handle())
		switch {
		case err == nil:
			return struct{}{}, sameTemplate(k, pub, &template)
		case !errors.Is(err, ErrNoKey):
			return struct{}{}, err
		}
		delete(d.names, k)
		return struct{}{}, persist(t, template, k)
	})
	if err != nil {
		return fmt.Errorf("create %s: %w", k, err)
	}
	return nil
}

// persist is CreatePrimary and EvictControl (Part 3, sections 24.1 and 28.5).
func persist(t transport.TPM, template tpm2.TPMTPublic, k Key) (err error) {
	hierarchy := tpm2.TPMRHEndorsement
	if k == SRK {
		hierarchy = tpm2.TPMRHOwner
	}
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(template),
	}.Execute(t)
	if err != nil {
		return err
	}
	defer func() {
		_, ferr := tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(t)
		err = errors.Join(err, ferr)
	}()
	_, err = tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:     tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name},
		PersistentHandle: k.handle(),
	}.Execute(t)
	return err
}

// sameTemplate compares everything but the unique field, which CreatePrimary fills.
func sameTemplate(k Key, got, want *tpm2.TPMTPublic) error {
	a, b := *got, *want
	a.Unique, b.Unique = tpm2.TPMUPublicID{}, tpm2.TPMUPublicID{}
	a.Unique, b.Unique = want.Unique, want.Unique
	if !bytes.Equal(tpm2.Marshal(&a), tpm2.Marshal(&b)) {
		return fmt.Errorf("%w: 0x%08x is not made from the %s template", ErrOtherKey, uint32(k.handle()), k)
	}
	return nil
}

// Area returns the TPMT_PUBLIC of a key. A key that was not made from the
// template is ErrOtherKey.
func (d *Device) Area(ctx context.Context, k Key) ([]byte, error) {
	pub, err := d.public(ctx, k)
	if err != nil {
		return nil, err
	}
	return tpm2.Marshal(pub), nil
}

// Public returns the public half of a key on P-384 and its TPMT_PUBLIC.
// A key that was not made from the template is ErrOtherKey.
func (d *Device) Public(ctx context.Context, k Key) (*ecdsa.PublicKey, []byte, error) {
	pub, err := d.public(ctx, k)
	if err != nil {
		return nil, nil, err
	}
	point, err := ecdsaPublic(pub)
	if err != nil {
		return nil, nil, fmt.Errorf("public key of %s: %w", k, err)
	}
	return point, tpm2.Marshal(pub), nil
}

// EKPublic returns the public half of the EK and its TPMT_PUBLIC.
func (d *Device) EKPublic(ctx context.Context) (*rsa.PublicKey, []byte, error) {
	pub, err := d.public(ctx, EK)
	if err != nil {
		return nil, nil, err
	}
	key, err := tpm2.Pub(*pub)
	if err != nil {
		return nil, nil, fmt.Errorf("public key of EK: %w: %w", ErrMalformed, err)
	}
	modulus, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, nil, fmt.Errorf("public key of EK: %w: it is a %T", ErrOtherKey, key)
	}
	return modulus, tpm2.Marshal(pub), nil
}

func (d *Device) public(ctx context.Context, k Key) (*tpm2.TPMTPublic, error) {
	template, err := k.template()
	if err != nil {
		return nil, err
	}
	pub, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) (*tpm2.TPMTPublic, error) {
		pub, _, err := readPublic(t, k.handle())
		if err != nil {
			return nil, err
		}
		return pub, sameTemplate(k, pub, &template)
	})
	if err != nil {
		return nil, fmt.Errorf("public key of %s: %w", k, err)
	}
	return pub, nil
}

// readPublic is TPM2_ReadPublic (Part 3, section 12.4). The name is computed
// here, so that it belongs to the public area that is returned.
func readPublic(t transport.TPM, handle tpm2.TPMHandle) (*tpm2.TPMTPublic, tpm2.TPM2BName, error) {
	var none tpm2.TPM2BName
	rsp, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(t)
	if is(err, tpm2.TPMRCHandle) {
		return nil, none, fmt.Errorf("%w: handle 0x%08x: %w", ErrNoKey, uint32(handle), err)
	}
	if err != nil {
		return nil, none, err
	}
	pub, err := rsp.OutPublic.Contents()
	if err != nil {
		return nil, none, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	name, err := tpm2.ObjectName(pub)
	if err != nil {
		return nil, none, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(name.Buffer, rsp.Name.Buffer) {
		return nil, none, fmt.Errorf("%w: public area and name of 0x%08x disagree", ErrMalformed, uint32(handle))
	}
	return pub, *name, nil
}

// signer returns what is needed to sign with k, asking the TPM once.
func (d *Device) signer(t transport.TPM, k Key) (loadedKey, error) {
	if known, ok := d.names[k]; ok {
		return known, nil
	}
	template, err := k.template()
	if err != nil {
		return loadedKey{}, err
	}
	pub, name, err := readPublic(t, k.handle())
	if err != nil {
		return loadedKey{}, err
	}
	if err := sameTemplate(k, pub, &template); err != nil {
		return loadedKey{}, err
	}
	point, err := ecdsaPublic(pub)
	if err != nil {
		return loadedKey{}, err
	}
	d.names[k] = loadedKey{name, point}
	return d.names[k], nil
}

// forget drops what is known of a key that the TPM no longer has: it was
// cleared while we ran.
func (d *Device) forget(k Key, err error) error {
	if !is(err, tpm2.TPMRCHandle) {
		return err
	}
	delete(d.names, k)
	return fmt.Errorf("%w: %w", ErrNoKey, err)
}

func ecdsaPublic(pub *tpm2.TPMTPublic) (*ecdsa.PublicKey, error) {
	key, err := tpm2.Pub(*pub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	point, ok := key.(*ecdsa.PublicKey)
	if !ok || point.Curve != elliptic.P384() {
		return nil, fmt.Errorf("%w: it is not on P-384", ErrOtherKey)
	}
	if _, err := point.ECDH(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return point, nil
}
