package factory

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/swtpm"
	"waxseal/measure/manifest"
)

// ErrEK means that the TPM cannot prove whose make it is.
var ErrEK = errors.New("the EK is not certified")

// openEKTrust takes the CA of the TPM's maker from EKDir, if it is there.
func (ca *CA) openEKTrust() error {
	root, err := readCertificate(filepath.Join(ca.dir, EKDir, swtpm.RootFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	issuer, err := readCertificate(filepath.Join(ca.dir, EKDir, swtpm.IssuerFile))
	if err != nil {
		return err
	}
	ca.trustEKs(root, issuer)
	return nil
}

// TrustEKs believes the makers of TPMs whose certificates are in a PEM file,
// and no others: the self-issued ones are roots.
func (ca *CA) TrustEKs(path string) error {
	rest, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var certs []*x509.Certificate
	for len(bytes.TrimSpace(rest)) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return fmt.Errorf("%s: need PEM blocks CERTIFICATE and nothing else", path)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		certs = append(certs, cert)
	}
	if !slices.ContainsFunc(certs, selfIssued) {
		return fmt.Errorf("%s: no root certificate", path)
	}
	ca.trustEKs(certs...)
	return nil
}

func (ca *CA) trustEKs(certs ...*x509.Certificate) {
	ca.EKRoots, ca.EKIntermediates = x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range certs {
		if selfIssued(cert) {
			ca.EKRoots.AddCert(cert)
		} else {
			ca.EKIntermediates.AddCert(cert)
		}
	}
}

func selfIssued(cert *x509.Certificate) bool { return bytes.Equal(cert.RawIssuer, cert.RawSubject) }

// checkEKs checks the makers' certificates of both EKs. The one of RSA-2048 is
// always there, the one of P-384 if the TPM has the key or a certificate for it.
func (ca *CA) checkEKs(ctx context.Context, dev *tpm.Device) (rsa KeyRecord, p384 *KeyRecord, err error) {
	rsa, err = ca.checkEK(ctx, dev, tpm.EK, tpm.NVCertEK)
	if err != nil {
		return rsa, nil, err
	}
	_, noKey := dev.Area(ctx, tpm.EK384)
	_, noCert := dev.NVRead(ctx, tpm.NVCertEK384)
	if errors.Is(noKey, tpm.ErrNoKey) && errors.Is(noCert, tpm.ErrNoNV) {
		return rsa, nil, nil
	}
	if err := dev.CreateKey(ctx, tpm.EK384); err != nil {
		return rsa, nil, err
	}
	other, err := ca.checkEK(ctx, dev, tpm.EK384, tpm.NVCertEK384)
	return rsa, &other, err
}

// checkEK checks the maker's certificate of an EK: it must be for this EK, and
// from a maker that the factory knows if it knows any.
func (ca *CA) checkEK(ctx context.Context, dev *tpm.Device, k tpm.Key, index uint32) (KeyRecord, error) {
	area, err := dev.Area(ctx, k)
	if err != nil {
		return KeyRecord{}, err
	}
	ek, err := manifest.ParseEK(area)
	if err != nil {
		return KeyRecord{}, fmt.Errorf("%s: %w: %w", k, ErrEK, err)
	}
	record := KeyRecord{Name: hex.EncodeToString(ek.Name), Public: area}
	cert, err := dev.Certificate(ctx, index)
	switch {
	case errors.Is(err, tpm.ErrNoNV) && ca.EKRoots == nil:
		return record, nil
	case err != nil:
		return record, fmt.Errorf("%s: %w: %w", k, ErrEK, err)
	case !sameKey(ek.Key, cert.PublicKey):
		return record, fmt.Errorf("%s: %w: %w", k, ErrEK, ErrOtherKey)
	}
	record.Certificate = cert.Raw
	if err := ca.verifyEK(cert); err != nil {
		return record, fmt.Errorf("%s: %w", k, err)
	}
	return record, nil
}

// verifyEK checks that a certificate is one of an EK, and that it leads to a
// maker that is known.
func (ca *CA) verifyEK(cert *x509.Certificate) error {
	if err := ekUse(cert); err != nil {
		return fmt.Errorf("%w: %w", ErrEK, err)
	}
	if ca.EKRoots == nil {
		return nil
	}
	if err := checkModel(cert); err != nil {
		return fmt.Errorf("%w: %w", ErrEK, err)
	}
	own := *cert
	own.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(cert.UnhandledCriticalExtensions), subjectAltName.Equal)
	chains, err := own.Verify(x509.VerifyOptions{
		Roots: ca.EKRoots, Intermediates: ca.EKIntermediates, CurrentTime: ca.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEK, err)
	}
	for _, c := range chains[0] {
		if err := strong(c); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrEK, c.Subject, err)
		}
	}
	return nil
}

// tcgEK is tcg-kp-EKCertificate, the extended key usage of EKs (TCG EK
// Credential Profile for TPM 2.0, section 3.2.16).
var tcgEK = asn1.ObjectIdentifier{2, 23, 133, 8, 1}

// ekUse refuses a certificate of anything but a key that decrypts.
func ekUse(cert *x509.Certificate) error {
	uses := len(cert.ExtKeyUsage) + len(cert.UnknownExtKeyUsage)
	const wrong = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	switch {
	case cert.IsCA:
		return errors.New("the certificate is one of a certificate authority")
	case uses > 0 && !slices.ContainsFunc(cert.UnknownExtKeyUsage, tcgEK.Equal):
		return errors.New("the certificate is for another use than an EK")
	case cert.KeyUsage&wrong != 0:
		return errors.New("the certificate is for a key that signs")
	}
	if _, isRSA := cert.PublicKey.(*rsa.PublicKey); isRSA && cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageKeyEncipherment == 0 {
		return errors.New("the certificate of an RSA key is not for key encipherment")
	}
	if _, isEC := cert.PublicKey.(*ecdsa.PublicKey); isEC && cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageKeyAgreement == 0 {
		return errors.New("the certificate of an ECC key is not for key agreement")
	}
	return nil
}

// strong refuses keys below 112 bits of strength (NIST SP 800-131A).
func strong(cert *x509.Certificate) error {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() >= 2048 {
			return nil
		}
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P224() {
			return nil
		}
	}
	return fmt.Errorf("weak key (%T): need RSA-2048, P-256 or above", cert.PublicKey)
}
