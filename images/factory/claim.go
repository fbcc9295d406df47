package factory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"waxseal/hw/board"
	"waxseal/hw/tpm"
)

// IssuedDir is the place, in a CA's directory, of the list of what TPM has
// which serial number. Nothing in it is secret.
const IssuedDir = "issued"

// Claim notes that the TPM is the one of the serial number, before Provision
// certifies anything. A TPM never gets a second serial number, even if what
// the factory wrote into it was removed, and a serial number gets another TPM
// only with replace: the router's board was replaced.
func (ca *CA) Claim(ctx context.Context, dev *tpm.Device, serial string, replace bool) error {
	if err := board.CheckSerial(serial); err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	if err := dev.CreateKey(ctx, tpm.EK); err != nil {
		return fmt.Errorf("claim %s: %w", serial, err)
	}
	ek, err := recordOf(ctx, dev, tpm.EK)
	if err != nil {
		return fmt.Errorf("claim %s: %w", serial, err)
	}
	if err := ca.claim(ek.Name, serial, replace); err != nil {
		return fmt.Errorf("claim %s: %w", serial, err)
	}
	return nil
}

func (ca *CA) claim(ek, serial string, replace bool) error {
	dir := filepath.Join(ca.dir, IssuedDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(serial)) // a serial number may hold what a file name may not
	bySerial, byEK := filepath.Join(dir, "serial-"+hex.EncodeToString(sum[:])), filepath.Join(dir, "ek-"+ek)
	known, err := os.ReadFile(bySerial)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if known != nil && string(known) != ek+"\n" && !replace {
		return fmt.Errorf("%w: it has the TPM with EK %s; if its board was replaced, say so", ErrOtherRouter, bytes.TrimSpace(known))
	}
	owner, err := noteOnce(byEK, serial+"\n")
	if err != nil {
		return err
	}
	if owner != serial+"\n" {
		return fmt.Errorf("%w: its EK is the one of %s", ErrOtherRouter, bytes.TrimSpace([]byte(owner)))
	}
	if replace {
		return writePrivate(bySerial, []byte(ek+"\n"))
	}
	if known, err := noteOnce(bySerial, ek+"\n"); err != nil || known != ek+"\n" {
		return errors.Join(fmt.Errorf("%w: another TPM has just got this serial number", ErrOtherRouter), err)
	}
	return nil
}

// noteOnce makes a file with the text unless it is there, whole or not at all,
// and returns what it holds.
func noteOnce(path, text string) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	err = os.Link(f.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		b, err := os.ReadFile(path)
		return string(b), err
	}
	return text, err
}
