package enroll_test

import (
	"errors"
	"testing"

	"waxseal/fleet/enroll"
	"waxseal/measure/csr"
	"waxseal/measure/devid"
	"waxseal/measure/devid/devidtest"
)

// newTogether is a router with certificates of its maker that says where its
// keys are.
func newTogether(t *testing.T) fresh {
	t.Helper()
	f := newFresh(t)
	keys, err := eks()
	if err != nil {
		t.Fatal(err)
	}
	f.EK = keys[0]
	return f
}

func TestKeysThatTheMakerCertifiesAreShownToBeInOneTPM(t *testing.T) {
	r, err := enroll.Enroll(t.Context(), newTogether(t).config)
	if err != nil || !r.OneTPM {
		t.Errorf("one TPM: %v, %v", r.OneTPM, err)
	}
	r, err = enroll.Enroll(t.Context(), newFresh(t).config)
	if err != nil || r.OneTPM {
		t.Errorf("a router that does not answer: one TPM: %v, %v", r.OneTPM, err)
	}
}

// certifiedBy returns the word of a TPM's IAK that the key of this public area
// is in it.
func certifiedBy(t *testing.T, by devidtest.TPM, area []byte) (attest, proof []byte) {
	t.Helper()
	attest = devidtest.Certification(area).Bytes()
	proof, err := by.Sign(devid.IAK, attest)
	if err != nil {
		t.Fatal(err)
	}
	return attest, proof
}

func TestKeysOfTwoTPMsAreNotEnrolledWhateverTheMakerCertifies(t *testing.T) {
	other, err := devidtest.New()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*fresh, *csr.Content){
		"IDevID certified by the IAK of another TPM": func(f *fresh, c *csr.Content) {
			c.IDevIDAttest, c.IDevIDProof = certifiedBy(t, other, c.IDevID)
		},
		"keys of another TPM": func(f *fresh, c *csr.Content) {
			c.IAK, c.IDevID = other.Public(devid.IAK), other.Public(devid.IDevID)
			c.IDevIDAttest, c.IDevIDProof = certifiedBy(t, other, c.IDevID)
		},
		"IAK certified in place of the IDevID": func(f *fresh, c *csr.Content) {
			c.IDevIDAttest, c.IDevIDProof = certifiedBy(t, f.tpm(), c.IAK)
		},
		"no certification": func(_ *fresh, c *csr.Content) { c.IDevIDProof[10] ^= 1 },
	} {
		f := newTogether(t)
		request(&f, func(c *csr.Content) { change(&f, c) })
		if _, err := enroll.Enroll(t.Context(), f.config); !errors.Is(err, enroll.ErrProof) || len(f.Rotations()) != 0 {
			t.Errorf("%s: %v, %d rotations: want ErrProof and none", name, err, len(f.Rotations()))
		}
	}
}
