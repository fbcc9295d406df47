//go:build cgo

package tpm_test

import (
	"errors"
	"io"
	"testing"

	"github.com/google/go-tpm-tools/simulator"
	"github.com/google/go-tpm/tpm2"
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

func TestReferenceTPMAgreesWithMeasure(t *testing.T) {
	d := reference(t)
	for _, k := range []tpm.Key{tpm.EK, tpm.IAK, tpm.IDevID} {
		if err := d.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	want := read(t, d, 12)
	if err := d.StartSalted(t.Context()); err != nil {
		t.Fatal(err)
	}
	rec := measure.Record{PCR: 12, Name: "kernel/file/a"}
	if err := d.Extend(t.Context(), 12, rec.Digests(d.Banks())); err != nil {
		t.Fatal(err)
	}
	for i, digest := range rec.Digests(d.Banks()) {
		if !digest.Alg.Computable() {
			continue
		}
		next, err := measure.Extend(want[i], digest)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, d, 12)[i]; !got.Equal(next) {
			t.Errorf("PCR 12 is %v, want %v", got, next)
		}
	}
	attest, sig, err := d.Quote(t.Context(), tpm.IAK, make([]byte, 32), measure.SHA384, []measure.PCR{0, 12})
	if err != nil {
		t.Fatal(err)
	}
	checkSignature(t, d, attest, sig)
	if _, err := tpm2.Unmarshal[tpm2.TPMSAttest](attest); err != nil {
		t.Error(err)
	}
}
