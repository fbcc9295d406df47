package factory

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"waxseal/measure/manifest/sealed"
)

// Files of the keys that sign manifests. They are not the CA's: whoever signs
// shipments can certify nothing, and whoever certifies can ship nothing.
const (
	SignFile    = "vendor-sign.pem" // both public keys: what a buyer trusts
	SignKeyFile = "vendor-sign.key" // both private keys, mode 0600
)

// ErrNoSigningKeys means that the directory of a CA has none.
var ErrNoSigningKeys = errors.New("no keys to sign manifests with")

// OpenOrMakeCA opens the CA of a directory, or makes it. A directory of an
// older release gets the keys that sign manifests.
func OpenOrMakeCA(dir string, now time.Time) (*CA, error) {
	ca, err := OpenCA(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return NewCA(dir, now)
	}
	if err != nil || ca.signing != nil {
		return ca, err
	}
	if err := makeSigningKeys(dir); err != nil {
		return nil, err
	}
	return OpenCA(dir)
}

func makeSigningKeys(dir string) error {
	keys, err := sealed.NewKeys(rand.Reader)
	if err != nil {
		return err
	}
	public, err := keys.Trust().PEM()
	if err != nil {
		return err
	}
	private, err := keys.PEM()
	if err != nil {
		return err
	}
	// The private keys last: a directory that has them has both files.
	if err := os.WriteFile(filepath.Join(dir, SignFile), public, 0o644); err != nil {
		return err
	}
	return writePrivate(filepath.Join(dir, SignKeyFile), private)
}

// openSigningKeys reads the keys that sign manifests, if they are there.
func (ca *CA) openSigningKeys() error {
	path := filepath.Join(ca.dir, SignKeyFile)
	private, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	keys, err := sealed.ParseKeys(private)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	public, err := os.ReadFile(filepath.Join(ca.dir, SignFile))
	if err != nil {
		return err
	}
	if want, err := keys.Trust().PEM(); err != nil || !bytes.Equal(public, want) {
		return errors.Join(fmt.Errorf("%s: %s and %s do not belong together", ca.dir, SignKeyFile, SignFile), err)
	}
	ca.signing = &keys
	return nil
}

// Trust returns what a buyer of this vendor trusts: the content of SignFile.
func (ca *CA) Trust() (sealed.Trust, error) {
	if ca.signing == nil {
		return sealed.Trust{}, fmt.Errorf("%s: %w", ca.dir, ErrNoSigningKeys)
	}
	return ca.signing.Trust(), nil
}

// readPrivate reads a file that nobody else may read.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: others can read it (mode %v): chmod 600", path, info.Mode().Perm())
	}
	return os.ReadFile(path)
}

// writePrivate writes a file that nobody else can read, not even if one of
// that name was there and could be.
func writePrivate(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".private-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
