package factory_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/swtpm"
	"waxseal/images/factory"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newCA(t *testing.T) *factory.CA {
	t.Helper()
	ca, err := factory.NewCA(filepath.Join(t.TempDir(), "ca"), now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// bench runs f over a TPM of the lab, made at first use.
func bench(t *testing.T, ca *factory.CA, state string, f func(context.Context, *tpm.Device)) {
	t.Helper()
	if err := swtpm.Check(); err != nil {
		t.Skip(swtpm.ErrMissing)
	}
	err := ca.WithTPM(t.Context(), state, "WX-0001", func(d *tpm.Device) error {
		f(t.Context(), d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestProvisionedRouterProvesItsSerial(t *testing.T) {
	ca, state := newCA(t), t.TempDir()
	var receipt factory.Receipt
	bench(t, ca, state, func(ctx context.Context, d *tpm.Device) {
		var err error
		if receipt, err = factory.Provision(ctx, d, ca, "WX-0001"); err != nil {
			t.Fatal(err)
		}
	})
	bench(t, ca, state, func(ctx context.Context, d *tpm.Device) { // after a reboot
		iak, idevid := certificate(ctx, t, d, tpm.NVCertIAK), certificate(ctx, t, d, tpm.NVCertIDevID)
		for _, cert := range []*x509.Certificate{iak, idevid} {
			verify(t, ca, cert)
			if cert.Subject.SerialNumber != "WX-0001" || cert.IsCA || !cert.NotBefore.Equal(now) {
				t.Errorf("certificate is %v, CA %v, from %v", cert.Subject, cert.IsCA, cert.NotBefore)
			}
		}
		if !bytes.Equal(iak.RawSubject, idevid.RawSubject) {
			t.Error("IAK and IDevID have different subjects")
		}
		if err := idevid.VerifyHostname("wx-0001"); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(receipt.IAK.Certificate, iak.Raw) || !bytes.Equal(receipt.IDevID.Certificate, idevid.Raw) {
			t.Error("the receipt names other certificates")
		}
		for k, cert := range map[tpm.Key]*x509.Certificate{tpm.IAK: iak, tpm.IDevID: idevid} {
			pub, _, err := d.Public(ctx, k)
			if err != nil {
				t.Fatal(err)
			}
			if !pub.Equal(cert.PublicKey) {
				t.Errorf("certificate of %s is for another key", k)
			}
		}
	})
	if len(receipt.EK.Certificate) == 0 || receipt.EK.PEM() == "" {
		t.Error("the receipt has no EK certificate")
	}
}

func certificate(ctx context.Context, t *testing.T, d *tpm.Device, index uint32) *x509.Certificate {
	t.Helper()
	cert, err := d.Certificate(ctx, index)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func verify(t *testing.T, ca *factory.CA, cert *x509.Certificate) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now.AddDate(50, 0, 0), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		t.Error(err)
	}
}

func TestProvisionIsIdempotent(t *testing.T) {
	ca, state := newCA(t), t.TempDir()
	bench(t, ca, state, func(ctx context.Context, d *tpm.Device) {
		first, err := factory.Provision(ctx, d, ca, "WX-0001")
		if err != nil {
			t.Fatal(err)
		}
		again, err := factory.OpenCA(ca.Dir())
		if err != nil {
			t.Fatal(err)
		}
		second, err := factory.Provision(ctx, d, again, "WX-0001")
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(first, second) {
			t.Errorf("second time: %+v, first: %+v", second, first)
		}
	})
}

func TestProvisionRefusesAnotherIdentity(t *testing.T) {
	ca, other, state := newCA(t), newCA(t), t.TempDir()
	bench(t, ca, state, func(ctx context.Context, d *tpm.Device) {
		if _, err := factory.Provision(ctx, d, ca, "WX-0001"); err != nil {
			t.Fatal(err)
		}
		if _, err := factory.Provision(ctx, d, ca, "WX-0002"); !errors.Is(err, factory.ErrOtherRouter) {
			t.Errorf("other serial: %v", err)
		}
		if _, err := factory.Provision(ctx, d, other, "WX-0001"); err == nil {
			t.Error("a certificate of another CA is taken")
		}
		for _, serial := range []string{"", "None", "a b", "naïve"} {
			if _, err := factory.Provision(ctx, d, ca, serial); err == nil {
				t.Errorf("serial %q is taken", serial)
			}
		}
	})
}

// One TPM as two makers' product: the EK certificate must chain to a CA the
// factory knows, and be for this EK.
func TestProvisionRefusesUnknownEK(t *testing.T) {
	ca := newCA(t)
	if err := swtpm.Check(); err != nil {
		t.Skip(swtpm.ErrMissing)
	}
	bench(t, ca, t.TempDir(), func(context.Context, *tpm.Device) {}) // makes the EK CA
	known, err := factory.OpenCA(ca.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if known.EKRoots == nil {
		t.Fatal("OpenCA does not know the EK CA")
	}
	err = factory.WithTPM(t.Context(), t.TempDir(), func(d *tpm.Device) error {
		_, err := factory.Provision(t.Context(), d, known, "WX-0003")
		return err
	})
	if !errors.Is(err, factory.ErrEK) {
		t.Errorf("TPM without an EK certificate: %v", err)
	}
	stranger := newCA(t)
	bench(t, stranger, t.TempDir(), func(ctx context.Context, d *tpm.Device) {
		if _, err := factory.Provision(ctx, d, known, "WX-0001"); !errors.Is(err, factory.ErrEK) {
			t.Errorf("TPM of another maker: %v", err)
		}
	})
}

func TestNewCANeverReplacesOne(t *testing.T) {
	ca := newCA(t)
	if _, err := factory.NewCA(ca.Dir(), now); !errors.Is(err, factory.ErrCAExists) {
		t.Errorf("second CA in one directory: %v", err)
	}
	info, err := os.Stat(filepath.Join(ca.Dir(), factory.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("key file has mode %v", info.Mode())
	}
}

func TestOpenCARefusesAForeignKey(t *testing.T) {
	a, b := newCA(t), newCA(t)
	key, err := os.ReadFile(filepath.Join(b.Dir(), factory.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.Dir(), factory.KeyFile), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := factory.OpenCA(a.Dir()); err == nil {
		t.Error("a key that does not belong to the certificate is taken")
	}
}
