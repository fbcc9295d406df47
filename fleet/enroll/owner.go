package enroll

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Files of an owner's directory.
const (
	CAFile        = "owner-ca.pem" // trust anchor; also goes onto the routers' configuration partition
	CAKeyFile     = "owner-ca.key" // mode 0600; needed to enroll, not to challenge
	ClientFile    = "client.pem"   // the verifier's client certificate
	ClientKeyFile = "client.key"   // mode 0600
)

// How long certificates are valid.
const (
	year       = 365 * 24 * time.Hour
	lifeCA     = 20 * year
	lifeDevice = 10 * year
	lifeClient = 2 * year
)

// OwnerCA is an owner's certificate authority in files. It implements Issuer.
type OwnerCA struct {
	Root *x509.Certificate
	Now  func() time.Time // nil: time.Now
	key  crypto.Signer
}

var _ Issuer = (*OwnerCA)(nil)

// Issue implements Issuer.
func (ca *OwnerCA) Issue(_ context.Context, r Request) (*x509.Certificate, error) {
	now := time.Now()
	if ca.Now != nil {
		now = ca.Now()
	}
	t, err := r.template(now, lifeDevice)
	if err != nil {
		return nil, err
	}
	return sign(t, ca.Root, r.Key, ca.key)
}

// Init makes an owner's directory: a CA and a client certificate, all ECDSA on
// P-384. It never replaces a file.
func Init(dir string, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{CAFile, CAKeyFile, ClientFile, ClientKeyFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already: choose another directory, or remove it and enroll all routers again", filepath.Join(dir, name))
		}
	}
	root, key, err := newRoot(now)
	if err != nil {
		return err
	}
	if err := writeKey(filepath.Join(dir, CAKeyFile), key); err != nil {
		return err
	}
	if err := writeClient(dir, root, key, now); err != nil {
		return err
	}
	return writeNew(filepath.Join(dir, CAFile), encodeCert(root), 0o644)
}

func newRoot(now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t, err := template(pkix.Name{CommonName: "waxseal owner CA"}, now, lifeCA)
	if err != nil {
		return nil, nil, err
	}
	t.IsCA, t.MaxPathLenZero = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	root, err := sign(t, t, &key.PublicKey, key)
	return root, key, err
}

func writeClient(dir string, root *x509.Certificate, caKey crypto.Signer, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	t, err := template(pkix.Name{CommonName: "waxseal verifier"}, now, lifeClient)
	if err != nil {
		return err
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert, err := sign(t, root, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	if err := writeKey(filepath.Join(dir, ClientKeyFile), key); err != nil {
		return err
	}
	return writeNew(filepath.Join(dir, ClientFile), encodeCert(cert), 0o644)
}

func sign(t, issuer *x509.Certificate, key crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, issuer, key, by)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", t.Subject, err)
	}
	return x509.ParseCertificate(der)
}

// OpenCA opens the certificate authority of an owner's directory.
func OpenCA(dir string) (*OwnerCA, error) {
	roots, err := ReadCertificates(filepath.Join(dir, CAFile))
	if err != nil {
		return nil, ownerHint(err)
	}
	key, err := readKey(filepath.Join(dir, CAKeyFile))
	if err != nil {
		return nil, ownerHint(err)
	}
	for _, root := range roots {
		if pub := publicKey(root); pub != nil && pub.Equal(key.Public()) {
			return &OwnerCA{Root: root, key: key}, nil
		}
	}
	return nil, fmt.Errorf("%s is not the key of a certificate in %s", filepath.Join(dir, CAKeyFile), CAFile)
}

// Credentials are what a verifier needs to challenge an owner's routers. The
// owner's CA key is not among them.
type Credentials struct {
	Roots  []*x509.Certificate // the owner's trust anchors
	Client tls.Certificate     // the verifier's client certificate
}

// OpenCredentials reads the credentials of an owner's directory.
func OpenCredentials(dir string) (Credentials, error) {
	roots, err := ReadCertificates(filepath.Join(dir, CAFile))
	if err != nil {
		return Credentials{}, ownerHint(err)
	}
	chain, err := ReadCertificates(filepath.Join(dir, ClientFile))
	if err != nil {
		return Credentials{}, ownerHint(err)
	}
	key, err := readKey(filepath.Join(dir, ClientKeyFile))
	if err != nil {
		return Credentials{}, ownerHint(err)
	}
	if pub := publicKey(chain[0]); pub == nil || !pub.Equal(key.Public()) {
		return Credentials{}, fmt.Errorf("%s is not the key of %s", filepath.Join(dir, ClientKeyFile), ClientFile)
	}
	client := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		client.Certificate = append(client.Certificate, c.Raw)
	}
	return Credentials{roots, client}, nil
}

// ownerHint says what to do where a directory is not an owner's.
func ownerHint(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (make an owner's directory with: waxseal owner init DIR)", err)
	}
	return err
}
