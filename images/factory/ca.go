// Package factory plays the maker of the lab's routers: a vendor CA, and the
// step that gives a TPM its keys and certificates before the box is packed.
//
// It runs on the build host only. It never makes, moves or sees a private key
// of a router, and it keeps no secret of a shipment: with all that it stores
// nobody can answer as a router. Its own keys are files without a password,
// fit for the lab; they vouch for nothing outside it.
package factory

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"waxseal/measure/manifest/sealed"
)

// Files of a CA's directory.
const (
	CertFile = "vendor-ca.pem" // the vendor's root certificate: trust anchor of the fleet
	KeyFile  = "vendor-ca.key" // its key, PKCS #8 in PEM, mode 0600
	EKDir    = "ek-ca"         // the CA of the TPM's maker, for package swtpm
)

// forever is "no well-defined expiry" (IEEE 802.1AR, section 8.7; RFC 5280,
// section 4.1.2.5).
var forever = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// ErrCAExists means that the directory holds a CA already.
var ErrCAExists = errors.New("there is a CA already")

// CA is the vendor's certificate authority.
type CA struct {
	Certificate *x509.Certificate
	// EKRoots and EKIntermediates are whom the factory believes when a TPM
	// says whose make it is. Without roots a TPM needs no EK certificate;
	// one that it has must still be for its EK.
	EKRoots, EKIntermediates *x509.CertPool
	Now                      func() time.Time // when EK certificates must be valid

	dir     string
	key     *ecdsa.PrivateKey
	signing *sealed.Keys // sign manifests; nil: there are none
}

// NewCA makes a CA in the directory, valid from now on. One that is there
// already is ErrCAExists: routers would be orphaned.
func NewCA(dir string, now time.Time) (*CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, KeyFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, errors.Join(ErrCAExists, err))
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, caTemplate(key, now), caTemplate(key, now), key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("vendor CA: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("vendor CA: %w", err)
	}
	if err := writePEM(filepath.Join(dir, CertFile), "CERTIFICATE", der, 0o644); err != nil {
		return nil, err
	}
	if err := makeSigningKeys(dir); err != nil {
		return nil, fmt.Errorf("vendor CA: %w", err)
	}
	// The key last: a directory with a key holds a whole CA.
	if err := writePEM(filepath.Join(dir, KeyFile), "PRIVATE KEY", private, 0o600); err != nil {
		return nil, err
	}
	return OpenCA(dir)
}

func caTemplate(key *ecdsa.PrivateKey, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          serialNumber("vendor-ca", key.PublicKey),
		Subject:               pkix.Name{Organization: []string{"waxseal lab"}, CommonName: "waxseal lab vendor CA"},
		NotBefore:             now.UTC().Truncate(time.Second),
		NotAfter:              forever,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SignatureAlgorithm:    x509.ECDSAWithSHA384,
	}
}

// serialNumber is derived from what is certified, so that the same
// certificate made twice has the same number: 128 bits, positive.
func serialNumber(what string, pub ecdsa.PublicKey) *big.Int {
	der, err := x509.MarshalPKIXPublicKey(&pub)
	if err != nil {
		panic("factory: a P-384 key has no DER form: " + err.Error()) // cannot happen: the curve is ours
	}
	sum := sha256.Sum256(append([]byte(what+"\x00"), der...))
	sum[0] = sum[0]&0x3f | 0x40
	return new(big.Int).SetBytes(sum[:16])
}

// OpenCA opens the CA of a directory. EK certificates are checked against the
// CA in EKDir if there is one.
func OpenCA(dir string) (*CA, error) {
	cert, err := readCertificate(filepath.Join(dir, CertFile))
	if err != nil {
		return nil, err
	}
	private, err := readPrivate(filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, err
	}
	der, err := onePEM(filepath.Join(dir, KeyFile), private, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", KeyFile, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s: %s and %s do not belong together", dir, KeyFile, CertFile)
	}
	ca := &CA{Certificate: cert, Now: time.Now, dir: dir, key: key}
	if err := ca.openSigningKeys(); err != nil {
		return nil, err
	}
	return ca, ca.openEKTrust()
}

// Dir returns the directory of the CA.
func (ca *CA) Dir() string { return ca.dir }

func readCertificate(path string) (*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	der, err := onePEM(path, b, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

// onePEM returns what the one PEM block of a file holds.
func onePEM(path string, b []byte, kind string) ([]byte, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != kind || len(rest) != 0 {
		return nil, fmt.Errorf("%s: need exactly one PEM block %s", path, kind)
	}
	return block.Bytes, nil
}

func writePEM(path, kind string, der []byte, mode fs.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
