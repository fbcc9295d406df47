package factory

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"

	"waxseal/hw/board"
	"waxseal/hw/tpm"
)

// Receipt says what the factory has put into a router: the facts that go into
// its shipment manifest.
type Receipt struct {
	Serial string     // the maker's serial number
	EK     KeyRecord  // RSA-2048; its certificate is the TPM maker's, empty if the TPM has none
	EK384  *KeyRecord // the same on P-384; nil if the TPM has none
	IAK    KeyRecord
	IDevID KeyRecord
	SRK    KeyRecord // without a certificate
}

// KeyRecord is the public side of one key.
type KeyRecord struct {
	Name        string // TPM Name in hexadecimal: nameAlg and digest of the public area
	Public      []byte // TPMT_PUBLIC
	Certificate []byte // DER
}

// PEM returns the certificate in PEM, "" if there is none.
func (k KeyRecord) PEM() string {
	if len(k.Certificate) == 0 {
		return ""
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate}))
}

// tcgAIK is tcg-kp-AIKCertificate, the extended key usage of attestation
// keys (TCG OID Registry; TCG EK Credential Profile, section 3.6).
var tcgAIK = asn1.ObjectIdentifier{2, 23, 133, 8, 3}

// Provision gives the TPM what a router leaves the factory with: EK, SRK, IAK
// and IDevID as persistent keys, and certificates of IAK and IDevID in NV, for
// the serial number. Done again it changes nothing: a key that is there stays, and
// so does a certificate that holds. A certificate of another router or another
// CA is an error, never overwritten.
func Provision(ctx context.Context, dev *tpm.Device, ca *CA, serial string) (Receipt, error) {
	r := Receipt{Serial: serial}
	if err := board.CheckSerial(serial); err != nil {
		return r, fmt.Errorf("provision: %w", err)
	}
	for _, k := range []tpm.Key{tpm.EK, tpm.SRK, tpm.IAK, tpm.IDevID} {
		if err := dev.CreateKey(ctx, k); err != nil {
			return r, fmt.Errorf("provision %s: %w", serial, err)
		}
	}
	var err error
	if r.EK, r.EK384, err = ca.checkEKs(ctx, dev); err != nil {
		return r, fmt.Errorf("provision %s: %w", serial, err)
	}
	if r.SRK, err = recordOf(ctx, dev, tpm.SRK); err != nil {
		return r, fmt.Errorf("provision %s: %w", serial, err)
	}
	if r.IAK, err = ca.certify(ctx, dev, tpm.IAK, serial); err != nil {
		return r, fmt.Errorf("provision %s: %w", serial, err)
	}
	if r.IDevID, err = ca.certify(ctx, dev, tpm.IDevID, serial); err != nil {
		return r, fmt.Errorf("provision %s: %w", serial, err)
	}
	return r, nil
}

// certify puts the certificate of a key into NV unless it is there.
func (ca *CA) certify(ctx context.Context, dev *tpm.Device, k tpm.Key, serial string) (KeyRecord, error) {
	pub, _, err := dev.Public(ctx, k)
	if err != nil {
		return KeyRecord{}, err
	}
	record, err := recordOf(ctx, dev, k)
	if err != nil {
		return KeyRecord{}, err
	}
	index := map[tpm.Key]uint32{tpm.IAK: tpm.NVCertIAK, tpm.IDevID: tpm.NVCertIDevID}[k]
	der, err := dev.NVRead(ctx, index)
	switch {
	case err == nil:
		record.Certificate = der
		return record, ca.checkIssued(der, k, pub, serial)
	case !errors.Is(err, tpm.ErrNoNV):
		return KeyRecord{}, err
	}
	der, err = ca.issue(k, pub, serial)
	if err != nil {
		return KeyRecord{}, err
	}
	if err := dev.NVDefine(ctx, index, len(der)); err != nil {
		return KeyRecord{}, err
	}
	record.Certificate = der
	return record, dev.NVWrite(ctx, index, der)
}

// issue makes the certificate of a key. Both of a router have one subject,
// with the serial number in it (IEEE 802.1AR, section 8.6).
func (ca *CA) issue(k tpm.Key, pub *ecdsa.PublicKey, serial string) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber:          serialNumber(string(k)+"\x00"+serial, *pub),
		Subject:               pkix.Name{Organization: []string{"waxseal lab"}, SerialNumber: serial},
		NotBefore:             ca.Certificate.NotBefore, // a router without a clock lives in 1970
		NotAfter:              forever,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		SignatureAlgorithm:    x509.ECDSAWithSHA384,
	}
	switch k {
	case tpm.IAK:
		template.UnknownExtKeyUsage = []asn1.ObjectIdentifier{tcgAIK}
	case tpm.IDevID: // serves TLS until an owner has enrolled the router
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		template.DNSNames = []string{DNSName(serial)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", k, err)
	}
	return der, nil
}

// DNSName is the name that the certificate of the IDevID holds for TLS: the
// serial number in lower case.
func DNSName(serial string) string { return strings.ToLower(serial) }

// checkIssued makes sure that a certificate found in NV is the one that this
// factory would issue for this key and router.
func (ca *CA) checkIssued(der []byte, k tpm.Key, pub *ecdsa.PublicKey, serial string) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("certificate of %s in NV: %w", k, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	_, err = cert.Verify(x509.VerifyOptions{
		Roots:       roots,
		CurrentTime: ca.Certificate.NotBefore.Add(time.Second),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	switch {
	case err != nil:
		return fmt.Errorf("certificate of %s in NV: not from the CA in %s: %w", k, ca.dir, err)
	case !pub.Equal(cert.PublicKey):
		return fmt.Errorf("certificate of %s in NV: %w", k, ErrOtherKey)
	case cert.Subject.SerialNumber != serial:
		return fmt.Errorf("certificate of %s in NV: %w: it is %s's", k, ErrOtherRouter, cert.Subject.SerialNumber)
	}
	return nil
}

// Errors about what is in the TPM already.
var (
	ErrOtherKey    = errors.New("the certificate is for another key")
	ErrOtherRouter = errors.New("the TPM belongs to another router")
)

// recordOf is the record of a key without its certificate.
func recordOf(ctx context.Context, dev *tpm.Device, k tpm.Key) (KeyRecord, error) {
	area, err := dev.Area(ctx, k)
	if err != nil {
		return KeyRecord{}, err
	}
	name, err := nameOf(area)
	return KeyRecord{Name: name, Public: area}, err
}

// nameOf is the TPM Name of a TPMT_PUBLIC.
func nameOf(area []byte) (string, error) {
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](area)
	if err != nil {
		return "", err
	}
	name, err := tpm2.ObjectName(pub)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(name.Buffer), nil
}

// sameKey compares public keys by their DER form.
func sameKey(a, b any) bool {
	x, errX := x509.MarshalPKIXPublicKey(a)
	y, errY := x509.MarshalPKIXPublicKey(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
