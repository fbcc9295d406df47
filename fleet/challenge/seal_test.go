package challenge_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"testing"

	"waxseal/fleet/challenge"
	"waxseal/fleet/challenge/challengetest"
	"waxseal/measure/evidence/evidencetest"
)

func TestSealHoldsForItsFileOnly(t *testing.T) {
	owner := authority(t, "owner", nil)
	client, err := challengetest.Client(owner)
	if err != nil {
		t.Fatal(err)
	}
	file := []byte("evidence")
	seal, err := challenge.Seal(file, client)
	if err != nil {
		t.Fatal(err)
	}
	roots := []*x509.Certificate{owner.Certificate}
	by, err := challenge.CheckSeal(file, seal, roots, evidencetest.Noon)
	if err != nil || !by.Equal(client.Leaf) {
		t.Fatalf("sealed by %v, %v", by, err)
	}
	other := []*x509.Certificate{authority(t, "owner", nil).Certificate}
	for name, c := range map[string]struct {
		file, seal []byte
		roots      []*x509.Certificate
		years      int
	}{
		"another file":         {[]byte("Evidence"), seal, roots, 0},
		"longer file":          {append(bytes.Clone(file), '\n'), seal, roots, 0},
		"no file":              {nil, seal, roots, 0},
		"another owner":        {file, seal, other, 0},
		"no owner":             {file, seal, nil, 0},
		"expired certificate":  {file, seal, roots, 5},
		"another format":       {file, bytes.Replace(seal, []byte("seal-1"), []byte("seal-2"), 1), roots, 0},
		"unknown key":          {file, bytes.Replace(seal, []byte("{"), []byte(`{"x": 1,`), 1), roots, 0},
		"doubled key":          {file, bytes.Replace(seal, []byte("{"), []byte(`{"format": "waxseal-seal-1",`), 1), roots, 0},
		"cut":                  {file, seal[:len(seal)/2], roots, 0},
		"too long":             {file, append(bytes.Clone(seal), make([]byte, challenge.MaxSeal)...), roots, 0},
		"nothing":              {file, nil, roots, 0},
		"signature is missing": {file, []byte(`{"format": "waxseal-seal-1", "verifier": [], "signature": ""}`), roots, 0},
	} {
		if _, err := challenge.CheckSeal(c.file, c.seal, c.roots, evidencetest.Noon.AddDate(c.years, 0, 0)); !errors.Is(err, challenge.ErrSeal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nobody but the verifiers of the owner can make a seal.
func TestSealNeedsAClientOfTheOwner(t *testing.T) {
	owner := authority(t, "owner", nil)
	for name, uses := range map[string][]x509.ExtKeyUsage{
		"server": {x509.ExtKeyUsageServerAuth}, "any use": {x509.ExtKeyUsageAny}, "no use named": nil,
	} {
		client, err := challengetest.Client(owner)
		if err != nil {
			t.Fatal(err)
		}
		template := evidencetest.Leaf("verifier")
		template.ExtKeyUsage = uses
		cert, err := owner.Certify(template, client.Leaf.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		client.Certificate = [][]byte{cert.Raw}
		seal, err := challenge.Seal([]byte("evidence"), client)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := challenge.CheckSeal([]byte("evidence"), seal, []*x509.Certificate{owner.Certificate}, evidencetest.Noon); !errors.Is(err, challenge.ErrSeal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCheckSeal(f *testing.F) {
	owner, err := evidencetest.NewAuthority("owner", nil)
	if err != nil {
		f.Fatal(err)
	}
	client, err := challengetest.Client(owner)
	if err != nil {
		f.Fatal(err)
	}
	seal, err := challenge.Seal([]byte("evidence"), client)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("evidence"), seal)
	roots := []*x509.Certificate{owner.Certificate}
	f.Fuzz(func(t *testing.T, file, seal []byte) {
		by, err := challenge.CheckSeal(file, seal, roots, evidencetest.Noon)
		if err == nil && (!by.Equal(client.Leaf) || string(file) != "evidence") {
			t.Errorf("%q was sealed by %s", file, by.Subject)
		}
		if err != nil && !errors.Is(err, challenge.ErrSeal) {
			t.Errorf("error is %v", err)
		}
	})
}
