package agent_test

import (
	"errors"

	"waxseal/measure"
)

// brokenRecorder is a recorder whose TPM has failed.
type brokenRecorder struct{}

func (brokenRecorder) Freeze(func([]measure.Event) error) error {
	return errors.New("read /dev/tpm0: input/output error")
}
