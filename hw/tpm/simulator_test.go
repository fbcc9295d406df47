//go:build cgo

package tpm_test

import (
	"errors"
	"io"
	"testing"

	"github.com/google/go-tpm-tools/simulator"
	"github.com/google/go-tpm/tpm2/transport"

	"waxseal/hw/tpm"
	"waxseal/measure"
)

// reference is Microsoft's TPM of the specification, in this process: a
// second make of TPM beside swtpm. It has SHA-1, SHA-256, SHA-384 and SHA-512.
func reference(t *testing.T) *tpm.Device {
	t.Helper()
	sim, err := simulator.Get()
	if err != nil {
		t.Fatal(err)
	}
	d, err := tpm.New(t.Context(), transport.FromReadWriteCloser(sim))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
	return d
}

func TestReferenceTPMKeepsContract(t *testing.T) { testContract(t, reference(t)) }

func TestReferenceTPMQuotesInASaltedSession(t *testing.T) {
	d := reference(t)
	for _, k := range []tpm.Key{tpm.EK, tpm.IAK, tpm.IDevID} {
		if err := d.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.StartSalted(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := extend(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	attest, sig, err := d.Quote(t.Context(), tpm.IAK, make([]byte, 32), measure.SHA384, []measure.PCR{0, 12})
	if err != nil {
		t.Fatal(err)
	}
	checkSignature(t, d, attest, sig)
}

func TestReferenceTPMActivatesCredentials(t *testing.T) {
	d := reference(t)
	if err := d.CreateKey(t.Context(), tpm.IAK); err != nil {
		t.Fatal(err)
	}
	if err := last(d.ActivateCredential(t.Context(), tpm.IAK, inside, inside)); !errors.Is(err, tpm.ErrNoKey) {
		t.Errorf("without an EK: %v: want ErrNoKey", err)
	}
	testActivation(t, provision(t, d), func() {})
}

func TestReferenceTPMCertifiesByHMAC(t *testing.T) {
	testHMAC(t, provision(t, reference(t)), func() {})
}
