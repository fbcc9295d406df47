package tpm_test

import (
	"bytes"
	"crypto"
	"errors"
	"path/filepath"
	"testing"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/swtpm"
	"waxseal/hw/tpm/tpmtest"
)

// A maker made and certified both EKs; from our templates the TPM makes the
// same again, also after it was cleared.
func TestBothEKsAreThoseOfTheMaker(t *testing.T) {
	if err := swtpm.Check(); err != nil {
		t.Skip(swtpm.ErrMissing)
	}
	state := filepath.Join(t.TempDir(), "state")
	m := swtpm.Making{State: state, CA: filepath.Join(t.TempDir(), "ca"), Name: "WX-0001"}
	if err := swtpm.Manufacture(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	p := tpmtest.Run(t, state)
	d := tpmtest.Open(t, p)
	eks := map[tpm.Key]uint32{tpm.EK: tpm.NVCertEK, tpm.EK384: tpm.NVCertEK384}
	before := map[tpm.Key][]byte{}
	for k, index := range eks {
		before[k] = area(t, d, k)
		cert, err := d.Certificate(t.Context(), index)
		if err != nil {
			t.Fatal(err)
		}
		if !ekOf(t, d, k).Equal(cert.PublicKey) {
			t.Errorf("certificate in 0x%08x is for another key than %s", index, k)
		}
	}
	clearTPM(t, p.Socket())
	for k := range eks {
		if _, err := d.Area(t.Context(), k); !errors.Is(err, tpm.ErrNoKey) {
			t.Errorf("%s after a clear: %v", k, err)
		}
		if err := d.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if got := area(t, d, k); !bytes.Equal(got, before[k]) {
			t.Errorf("%s made anew is another", k)
		}
	}
}

func area(t *testing.T, d *tpm.Device, k tpm.Key) []byte {
	t.Helper()
	b, err := d.Area(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ekOf(t *testing.T, d *tpm.Device, k tpm.Key) interface{ Equal(crypto.PublicKey) bool } {
	t.Helper()
	if k == tpm.EK384 {
		key, _, err := d.Public(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key, _, err := d.EKPublic(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return key
}
