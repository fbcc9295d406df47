package enroll_test

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"

	"waxseal/fleet/challenge/challengetest"
	"waxseal/fleet/enroll"
	"waxseal/measure"
	"waxseal/measure/manifest"
	"waxseal/measure/manifest/manifesttest"
	"waxseal/measure/manifest/sealed"
)

// shipped is the manifest of a device with this EK, signed by its maker.
func shipped(t *testing.T, ek *rsa.PublicKey) (file []byte, maker sealed.Trust) {
	t.Helper()
	s, _, err := manifesttest.Shipment()
	if err != nil {
		t.Fatal(err)
	}
	key := manifesttest.Key(challengetest.EKArea(ek), measure.SHA256)
	s.EK = manifest.EndorsementKey{Name: key.Name, Public: key.Public}
	keys, err := sealed.NewKeys(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if file, err = s.Seal(keys.Signers()...); err != nil {
		t.Fatal(err)
	}
	return file, keys.Trust()
}

// The shipment manifest of a device is enough to enroll it by its EK.
func TestRouterIsEnrolledByItsManifest(t *testing.T) {
	f := newBare(t)
	ek, err := enroll.ShippedEK(shipped(t, &f.EK.PublicKey))
	if err != nil || ek.Serial != serial {
		t.Fatalf("%q, %v", ek.Serial, err)
	}
	f.config.EKs, f.config.Serial = ek, ""
	if _, err := enroll.Enroll(t.Context(), f.config); err != nil {
		t.Fatal(err)
	}
	keys, err := eks()
	if err != nil {
		t.Fatal(err)
	}
	f.EK = keys[1] // the TPM was exchanged on the way
	if _, err := enroll.Enroll(t.Context(), f.config); !errors.Is(err, enroll.ErrProof) {
		t.Errorf("another TPM than was shipped: %v", err)
	}
}

func TestManifestOfAStrangerNamesNoEK(t *testing.T) {
	keys, err := eks()
	if err != nil {
		t.Fatal(err)
	}
	file, _ := shipped(t, &keys[0].PublicKey)
	_, stranger := shipped(t, &keys[0].PublicKey)
	if _, err := enroll.ShippedEK(file, stranger); !errors.Is(err, enroll.ErrEK) {
		t.Errorf("signed by another maker: %v", err)
	}
	if _, err := enroll.ShippedEK(file[:len(file)-1], stranger); !errors.Is(err, enroll.ErrEK) {
		t.Errorf("cut: %v", err)
	}
}
