package enroll

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"waxseal/measure/evidence"
)

// Why a ledger does not admit a router.
var (
	// ErrKeyTaken means that a key is enrolled under another serial number: one
	// TPM stands for two routers.
	ErrKeyTaken = errors.New("key is enrolled under another serial number")
	// ErrOtherKey means that a serial number is enrolled with other keys: the
	// board was replaced, or someone else has its name.
	ErrOtherKey = errors.New("serial number is enrolled with other keys")
)

// Keys are the keys of a router that a ledger remembers.
type Keys struct {
	IAK, IDevID *ecdsa.PublicKey
	EK          *rsa.PublicKey // nil: not known
}

// Ledger remembers which keys belong to which serial number.
type Ledger interface {
	// Admit notes the keys of a router, or refuses them with ErrKeyTaken or
	// ErrOtherKey. With replace a router may come with new keys; a key never
	// goes to another router.
	Admit(serial string, replace bool, keys Keys) error
}

// FileLedger is a ledger in a directory: one file for each key, with the serial
// number in it, one for each serial number, with its IAK and IDevID, and one
// with its EK where that is known. A file is made in one step, so that of two
// enrollments at once one is refused.
type FileLedger struct{ Dir string }

var _ Ledger = FileLedger{}

// LedgerDir is the ledger's place in an owner's directory.
const LedgerDir = "ledger"

// Admit implements Ledger.
func (l FileLedger) Admit(serial string, replace bool, keys Keys) error {
	if err := os.MkdirAll(l.Dir, 0o700); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if keys.EK != nil { // first: who comes with an EK that is taken leaves no other trace
		name, err := l.admitKeys(serial, keys.EK)
		if err != nil {
			return err
		}
		if err := l.admitSerial("ek-", serial, replace, name); err != nil {
			return err
		}
	}
	names, err := l.admitKeys(serial, keys.IAK, keys.IDevID)
	if err != nil {
		return err
	}
	return l.admitSerial("serial-", serial, replace, names)
}

// admitKeys notes whose the keys are, and returns their names, one a line.
func (l FileLedger) admitKeys(serial string, keys ...any) ([]byte, error) {
	var names []byte
	for _, key := range keys {
		name, err := fingerprint(key)
		if err != nil {
			return nil, fmt.Errorf("ledger: %w", err)
		}
		names = append(names, name+"\n"...)
		kept, err := l.note("key-"+name, []byte(serial+"\n"))
		if err != nil {
			return nil, fmt.Errorf("ledger: %w", err)
		}
		if !bytes.Equal(kept, []byte(serial+"\n")) {
			return nil, fmt.Errorf("%w: key %s… is of %s, not of %s", ErrKeyTaken, name[:16], evidence.Escape(string(bytes.TrimSpace(kept))), serial)
		}
	}
	return names, nil
}

// admitSerial notes which keys a serial number has.
func (l FileLedger) admitSerial(prefix, serial string, replace bool, names []byte) error {
	file := serialFile(prefix, serial)
	kept, err := l.note(file, names)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	switch {
	case bytes.Equal(kept, names):
		return nil
	case !replace:
		return fmt.Errorf("%w: %s; if its board was replaced, enroll it with --replace", ErrOtherKey, serial)
	}
	if err := os.WriteFile(filepath.Join(l.Dir, file), names, 0o600); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}

// serialFile names the file of a serial number, which may hold what a file
// name may not.
func serialFile(prefix, serial string) string {
	sum := sha256.Sum256([]byte(serial))
	return prefix + hex.EncodeToString(sum[:])
}

// note makes a file with data unless it is there, and returns what it holds.
// It appears under its name with all of its bytes or not at all.
func (l FileLedger) note(name string, data []byte) ([]byte, error) {
	path := filepath.Join(l.Dir, name)
	f, err := os.CreateTemp(l.Dir, ".new-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	err = os.Link(f.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return read(path)
	}
	return data, err
}

// fingerprint returns the SHA-256 of a public key's SubjectPublicKeyInfo, in hexadecimal.
func fingerprint(key any) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}
