package enroll_test

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"waxseal/fleet/challenge"
	"waxseal/fleet/enroll"
)

// Keylime's registrar through 7.13: who registered with another TPM under the
// identifier of an agent that was there already took its place. Here the name
// is the serial number that the maker certifies, and a second TPM under it is
// refused, even one that the same maker has certified.
func TestCVE2025_13609_SecondTPMUnderOneNameIsRefused(t *testing.T) {
	ledger := enroll.FileLedger{Dir: t.TempDir()}
	first := newFresh(t)
	first.config.Ledger = ledger
	if _, err := enroll.Enroll(t.Context(), first.config); err != nil {
		t.Fatal(err)
	}
	noted := contents(t, ledger.Dir)

	second := newFresh(t) // another board, with keys of its own, by the same maker
	second.Vendor = first.Vendor
	second.IAK, second.IDevID = chain(t, first.Vendor, second.AK), chain(t, first.Vendor, second.Identity)
	if err := second.ShowMaker(); err != nil {
		t.Fatal(err)
	}
	second.config.Ledger, second.config.Maker = ledger, first.config.Maker
	for range 2 { // it does not get in by being stubborn
		if _, err := enroll.Enroll(t.Context(), second.config); !errors.Is(err, enroll.ErrOtherKey) {
			t.Errorf("Enroll: %v, want: %v", err, enroll.ErrOtherKey)
		}
	}
	if n := len(second.Rotations()); n != 0 {
		t.Errorf("the second TPM got %d certificates", n)
	}
	for name, b := range contents(t, ledger.Dir) {
		if old, there := noted[name]; there && !bytes.Equal(old, b) {
			t.Errorf("the first router's entry %s was changed", name)
		}
	}
	if r, err := enroll.Enroll(t.Context(), first.config); err != nil || r.First.Outcome != challenge.Genuine {
		t.Errorf("the first router is no longer itself: %s, %v", r.First.Outcome, err)
	}
}

func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, name := range names {
		if out[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// The same, at the ledger, with half of the keys right.
func TestCVE2025_13609_OneRightKeyIsNotEnough(t *testing.T) {
	l := enroll.FileLedger{Dir: t.TempDir()}
	iak, idevid, other := newKey(t, elliptic.P384()), newKey(t, elliptic.P384()), newKey(t, elliptic.P384())
	if err := l.Admit(serial, false, enroll.Keys{IAK: &iak.PublicKey, IDevID: &idevid.PublicKey}); err != nil {
		t.Fatal(err)
	}
	if err := l.Admit(serial, false, enroll.Keys{IAK: &other.PublicKey, IDevID: &idevid.PublicKey}); !errors.Is(err, enroll.ErrOtherKey) {
		t.Errorf("another attestation key beside the known identity: %v", err)
	}
	if err := l.Admit(serial, false, enroll.Keys{IAK: &iak.PublicKey, IDevID: &other.PublicKey}); !errors.Is(err, enroll.ErrOtherKey) {
		t.Errorf("another identity beside the known attestation key: %v", err)
	}
	if err := l.Admit("WX-0002", true, enroll.Keys{IAK: &iak.PublicKey, IDevID: &idevid.PublicKey}); !errors.Is(err, enroll.ErrKeyTaken) {
		t.Errorf("the known keys under another name: %v", err)
	}
}
