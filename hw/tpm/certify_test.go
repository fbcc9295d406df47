package tpm_test

import (
	"bytes"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
)

func TestKeysOfOneTPMAreCertifiedByItsIAK(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := tpmtest.Open(t, p)
	nonce := bytes.Repeat([]byte{7}, 48)
	for _, k := range []tpm.Key{tpm.IAK, tpm.IDevID, tpm.SRK} {
		if err := d.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		attest, _, err := d.Certify(t.Context(), k, nonce)
		if err != nil {
			t.Fatal(err)
		}
		if got := certifiedName(t, attest); !bytes.Equal(got, nameOf(t, d, k)) {
			t.Errorf("%s: certified is %x", k, got)
		}
		if n := tpmtest.Loaded(t, p); n != 0 {
			t.Errorf("%s: %d objects and sessions are left in the TPM", k, n)
		}
	}
	if _, _, err := d.Certify(t.Context(), tpm.EK, nonce); err == nil {
		t.Error("the EK is certified")
	}
	if _, _, err := d.Certify(t.Context(), tpm.IAK, make([]byte, 65)); err == nil {
		t.Error("a nonce of 65 bytes is taken")
	}
}

// All other keys come back after a clear, and the counters can be counted up
// again: the storage root key alone cannot.
func TestAClearedTPMHasAnotherStorageRootKey(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := tpmtest.Open(t, p)
	names := func() map[tpm.Key]string {
		out := map[tpm.Key]string{}
		for _, k := range []tpm.Key{tpm.EK, tpm.IAK, tpm.IDevID, tpm.SRK} {
			if err := d.CreateKey(t.Context(), k); err != nil {
				t.Fatal(err)
			}
			out[k] = string(nameOf(t, d, k))
		}
		return out
	}
	before := names()
	clearTPM(t, p.Socket())
	after := names()
	for k, name := range before {
		if same := after[k] == name; same != (k != tpm.SRK) {
			t.Errorf("%s after a clear: the same: %v", k, same)
		}
	}
}

func certifiedName(t *testing.T, attest []byte) []byte {
	t.Helper()
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](attest)
	if err != nil {
		t.Fatal(err)
	}
	info, err := a.Attested.Certify()
	if err != nil {
		t.Fatal(err)
	}
	return info.Name.Buffer
}

func nameOf(t *testing.T, d *tpm.Device, k tpm.Key) []byte {
	t.Helper()
	area, err := d.Area(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](area)
	if err != nil {
		t.Fatal(err)
	}
	name, err := tpm2.ObjectName(pub)
	if err != nil {
		t.Fatal(err)
	}
	return name.Buffer
}
