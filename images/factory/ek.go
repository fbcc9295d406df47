package factory

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/swtpm"
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
	ca.EKRoots, ca.EKIntermediates = x509.NewCertPool(), x509.NewCertPool()
	ca.EKRoots.AddCert(root)
	ca.EKIntermediates.AddCert(issuer)
	return nil
}

// checkEK checks the maker's certificate of the EK: it must be for this EK,
// and from a maker that the factory knows if it knows any.
func (ca *CA) checkEK(ctx context.Context, dev *tpm.Device) (KeyRecord, error) {
	pub, area, err := dev.EKPublic(ctx)
	if err != nil {
		return KeyRecord{}, err
	}
	name, err := nameOf(area)
	if err != nil {
		return KeyRecord{}, err
	}
	cert, err := dev.EKCertificate(ctx)
	switch {
	case errors.Is(err, tpm.ErrNoNV) && ca.EKRoots == nil:
		return KeyRecord{Name: name, Public: area}, nil
	case err != nil:
		return KeyRecord{}, fmt.Errorf("%w: %w", ErrEK, err)
	case !sameKey(pub, cert.PublicKey):
		return KeyRecord{}, fmt.Errorf("%w: %w", ErrEK, ErrOtherKey)
	}
	if err := ca.verifyEK(cert); err != nil {
		return KeyRecord{}, err
	}
	return KeyRecord{name, area, cert.Raw}, nil
}

// subjectAltName is critical in EK certificates, since their subject is
// empty, and holds a directory name, which crypto/x509 does not read. It
// names the TPM's model, on which nothing is decided here.
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

func (ca *CA) verifyEK(cert *x509.Certificate) error {
	if ca.EKRoots == nil {
		return nil
	}
	cert.UnhandledCriticalExtensions = slices.DeleteFunc(cert.UnhandledCriticalExtensions,
		func(id asn1.ObjectIdentifier) bool { return id.Equal(subjectAltName) })
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:         ca.EKRoots,
		Intermediates: ca.EKIntermediates,
		CurrentTime:   cert.NotBefore.Add(time.Second), // the chip is new; its clock says nothing
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEK, err)
	}
	return nil
}
