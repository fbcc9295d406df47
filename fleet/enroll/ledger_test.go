package enroll_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"waxseal/fleet/enroll"
)

func TestLedgerKnowsWhichIAKARouterWasEnrolledWith(t *testing.T) {
	var keys [4]*ecdsa.PublicKey
	for i := range keys {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = &key.PublicKey
	}
	l := enroll.FileLedger{Dir: filepath.Join(t.TempDir(), "ledger")}
	if err := l.Enrolled("WX-0001", keys[0]); err != nil {
		t.Errorf("a ledger that knows nobody: %v", err)
	}
	if err := l.Admit("WX-0001", false, enroll.Keys{IAK: keys[0], IDevID: keys[1]}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, enroll.ErrOtherKey, enroll.ErrOtherKey, enroll.ErrOtherKey} {
		if err := l.Enrolled("WX-0001", keys[i]); !errors.Is(err, want) {
			t.Errorf("key %d: %v, want: %v", i, err, want)
		}
	}
	if err := l.Enrolled("WX-0002", keys[2]); err != nil {
		t.Errorf("a router that is not in the ledger: %v", err)
	}
	// Its board is replaced: now only the new key is its own.
	if err := l.Admit("WX-0001", true, enroll.Keys{IAK: keys[2], IDevID: keys[3]}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{enroll.ErrOtherKey, enroll.ErrOtherKey, nil, enroll.ErrOtherKey} {
		if err := l.Enrolled("WX-0001", keys[i]); !errors.Is(err, want) {
			t.Errorf("after a replacement, key %d: %v, want: %v", i, err, want)
		}
	}
	// A ledger that cannot be read admits nobody.
	files, err := filepath.Glob(filepath.Join(l.Dir, "serial-*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := errors.Join(os.Remove(files[0]), os.Mkdir(files[0], 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := l.Enrolled("WX-0001", keys[2]); err == nil {
		t.Error("a ledger that cannot be read admits a router")
	}
}
