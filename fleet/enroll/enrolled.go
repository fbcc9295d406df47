package enroll

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"waxseal/measure/evidence"
)

// Enrolled tells whether the key is the IAK that the router of a serial number
// was enrolled with: ErrOtherKey if it is not. A router that the ledger does
// not know is good with any key that is certified.
func (l FileLedger) Enrolled(serial string, iak *ecdsa.PublicKey) error {
	kept, err := read(filepath.Join(l.Dir, serialFile("serial-", serial)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	name, err := fingerprint(iak)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if !bytes.HasPrefix(kept, []byte(name+"\n")) {
		return fmt.Errorf("%w: %s came with key %s…, although it is certified", ErrOtherKey, evidence.Escape(serial), name[:16])
	}
	return nil
}
