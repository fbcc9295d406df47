package enroll_test

import (
	"crypto/elliptic"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"waxseal/fleet/enroll"
)

func owner(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "owner")
	if err := enroll.Init(dir, noon()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestVerifierNeedsNoCAKey(t *testing.T) {
	dir := owner(t)
	if err := os.Remove(filepath.Join(dir, enroll.CAKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := enroll.OpenCredentials(dir); err != nil {
		t.Error(err)
	}
	if _, err := enroll.OpenCA(dir); err == nil {
		t.Error("a CA without its key was opened")
	}
}

func TestKeysThatOthersCanReadAreRefused(t *testing.T) {
	dir := owner(t)
	for _, name := range []string{enroll.CAKeyFile, enroll.ClientKeyFile} {
		if err := os.Chmod(filepath.Join(dir, name), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := enroll.OpenCA(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("CA key: %v", err)
	}
	if _, err := enroll.OpenCredentials(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("client key: %v", err)
	}
}

func TestKeysOfAnotherOwnerAreRefused(t *testing.T) {
	dir, other := owner(t), owner(t)
	for _, name := range []string{enroll.CAKeyFile, enroll.ClientKeyFile} {
		b, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := enroll.OpenCA(dir); err == nil {
		t.Error("CA with the key of another was opened")
	}
	if _, err := enroll.OpenCredentials(dir); err == nil {
		t.Error("client certificate with the key of another was opened")
	}
}

func TestCAIssuesNothingElse(t *testing.T) {
	ca, err := enroll.OpenCA(owner(t))
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, elliptic.P384())
	for name, r := range map[string]enroll.Request{
		"no kind":      {Serial: serial, Host: "h", Key: &key.PublicKey},
		"another kind": {Kind: "CA", Serial: serial, Host: "h", Key: &key.PublicKey},
		"no host":      {Kind: enroll.OIDevID, Serial: serial, Key: &key.PublicKey},
	} {
		if cert, err := ca.Issue(t.Context(), r); err == nil {
			t.Errorf("%s: %v", name, cert.Subject)
		}
	}
}

func TestLedgerAdmitsAKeyOnceUnderConcurrency(t *testing.T) {
	l := enroll.FileLedger{Dir: t.TempDir()}
	key := newKey(t, elliptic.P384())
	var admitted atomic.Int32
	var wait sync.WaitGroup
	for i := range 16 {
		wait.Go(func() {
			switch err := l.Admit(string(rune('A'+i)), false, enroll.Keys{IAK: &key.PublicKey, IDevID: &key.PublicKey}); {
			case err == nil:
				admitted.Add(1)
			case !errors.Is(err, enroll.ErrKeyTaken):
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if admitted.Load() != 1 {
		t.Fatalf("one key was admitted for %d routers", admitted.Load())
	}
}
