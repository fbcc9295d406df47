package tpm

import (
	"context"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Counters is TPMS_CLOCK_INFO (Part 2, section 10.11.1).
type Counters struct {
	ResetCount   uint32 // TPM resets since the TPM was cleared: boots
	RestartCount uint32 // TPM restarts and resumes since the last reset
	Clock        uint64 // milliseconds of powered time
	Safe         bool   // false: a lower Clock may follow a higher one, after a power cut
}

// Counters reads the counters (Part 3, TPM2_ReadClock).
func (d *Device) Counters(ctx context.Context) (Counters, error) {
	c, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) (Counters, error) {
		rsp, err := tpm2.ReadClock{}.Execute(t)
		if err != nil {
			return Counters{}, err
		}
		info := rsp.CurrentTime.ClockInfo
		return Counters{info.ResetCount, info.RestartCount, info.Clock, bool(info.Safe)}, nil
	})
	if err != nil {
		return c, fmt.Errorf("read counters: %w", err)
	}
	return c, nil
}

// Shutdown tells the TPM that power goes away (Part 3, TPM2_Shutdown), so
// that the next start keeps the clock safe.
func (d *Device) Shutdown(ctx context.Context) error {
	_, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) (*tpm2.ShutdownResponse, error) {
		return tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}.Execute(t)
	})
	if err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	return nil
}
