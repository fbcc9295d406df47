package tpm

import (
	"context"

	"github.com/google/go-tpm/tpm2"
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

// CertifyForTest certifies k by itself, authorised by its policy for command.
func CertifyForTest(ctx context.Context, d *Device, k Key, command tpm2.TPMCC) error {
	_, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) (struct{}, error) {
		key, err := d.signer(t, k)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, d.withPolicy(t, k, command, func(s tpm2.Session) error {
			_, err := tpm2.Certify{
				ObjectHandle: tpm2.AuthHandle{Handle: k.handle(), Name: key.name, Auth: s},
				SignHandle:   tpm2.AuthHandle{Handle: k.handle(), Name: key.name, Auth: tpm2.PasswordAuth(nil)},
				InScheme:     ecdsaSHA384(),
			}.Execute(t)
			return err
		})
	})
	return err
}

// SignDataForTest asks the TPM itself, whatever data begins with.
func SignDataForTest(ctx context.Context, d *Device, data []byte) error {
	_, err := ask(ctx, d, quoting, Timeout, func(t transport.TPM) ([]byte, error) { return d.signData(t, data) })
	return err
}

// SignWithoutTicketForTest asks the IAK to sign a digest that the TPM has not made.
func SignWithoutTicketForTest(ctx context.Context, d *Device) error {
	_, err := ask(ctx, d, signing, Timeout, func(t transport.TPM) ([]byte, error) {
		return d.sign(t, IAK, make([]byte, 48))
	})
	return err
}
