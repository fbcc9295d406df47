package tpm

import (
	"context"

	"github.com/google/go-tpm/tpm2/transport"
)

// SignForTest asks for a signature over nothing in particular.
func SignForTest(ctx context.Context, d *Device) error {
	_, err := ask(ctx, d, signing, Timeout, func(t transport.TPM) ([]byte, error) {
		return d.sign(t, IDevID, make([]byte, 48))
	})
	return err
}

// WaitingForTest counts the calls that wait.
func WaitingForTest(d *Device) (n int) {
	for _, q := range d.queues {
		n += len(q)
	}
	return n
}
