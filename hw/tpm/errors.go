package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Errors that a caller decides on. They are wrapped: use errors.Is.
var (
	ErrNoTPM     = errors.New("no TPM")
	ErrTPM12     = errors.New("the TPM speaks version 1.2: a TPM 2.0 is needed")
	ErrBanks     = errors.New("PCR banks of the TPM are not usable")
	ErrNoAnswer  = errors.New("no answer from the TPM in time")
	ErrGone      = errors.New("the TPM is gone")
	ErrBusy      = errors.New("too many calls wait for the TPM")
	ErrClosed    = errors.New("the TPM device is closed")
	ErrMalformed = errors.New("the TPM's answer is malformed")
	ErrFailed    = errors.New("the TPM is in failure mode: only a power cycle or its maker's tools help")
	ErrLockout   = errors.New("the TPM is in lockout after wrong authorisations: wait or reset the lockout")
	ErrFull      = errors.New("the TPM is out of memory or NV space")
	ErrNoKey     = errors.New("key is not in the TPM: provision it")
	ErrOtherKey  = errors.New("another key is in the TPM under this handle")
	ErrNoNV      = errors.New("NV index is not defined or not written")
	ErrQuote     = errors.New("quote is not what was asked for")
)

// advice adds the sentinel that a caller decides on to a TPM's response code
// (TPM 2.0 Part 2, section 6.6).
func advice(err error) error {
	sentinel := func() error {
		switch {
		case is(err, tpm2.TPMRCFailure):
			return ErrFailed
		case is(err, tpm2.TPMRCLockout):
			return ErrLockout
		case is(err, tpm2.TPMRCObjectMemory, tpm2.TPMRCSessionMemory, tpm2.TPMRCMemory,
			tpm2.TPMRCObjectHandles, tpm2.TPMRCSessionHandles, tpm2.TPMRCNVSpace):
			return ErrFull
		}
		return nil
	}()
	if sentinel == nil {
		return err
	}
	return fmt.Errorf("%w: %w", sentinel, err)
}

// is tells whether err is one of the response codes.
func is(err error, codes ...tpm2.TPMRC) bool {
	for _, rc := range codes {
		if errors.Is(err, rc) {
			return true
		}
	}
	return false
}
