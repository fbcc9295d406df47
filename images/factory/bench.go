package factory

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-tpm-tools/client"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/swtpm"
)

// WithTPM runs f over the TPM in the state directory and shuts it down
// orderly. A TPM that is not there yet is made, with an EK that nobody has
// certified.
func WithTPM(ctx context.Context, state string, f func(*tpm.Device) error) error {
	return withTPM(ctx, swtpm.Making{State: state}, nil, f)
}

// WithTPM is WithTPM with a TPM whose EK the maker's CA in EKDir has certified
// under the name, usually the router's serial number. A new TPM's EK is
// read back once with Google's client library, which is not ours.
func (ca *CA) WithTPM(ctx context.Context, state, name string, f func(*tpm.Device) error) error {
	m := swtpm.Making{State: state, CA: filepath.Join(ca.dir, EKDir), Name: name}
	return withTPM(ctx, m, ca.inspect, f)
}

// OnTPM runs f over the TPM at path: a device below /dev, which is opened and
// left running, or a state directory of the lab, for which see WithTPM.
func (ca *CA) OnTPM(ctx context.Context, path, name string, f func(*tpm.Device) error) error {
	if !IsDevice(path) {
		return ca.WithTPM(ctx, path, name, f)
	}
	dev, err := tpm.Open(ctx, path)
	if err != nil {
		return err
	}
	err = f(dev)
	return errors.Join(err, dev.Close())
}

// IsDevice tells whether the path is the one of a TPM of this machine.
func IsDevice(path string) bool { return strings.HasPrefix(filepath.Clean(path), "/dev/") }

func withTPM(ctx context.Context, m swtpm.Making, inspect func(socket string) error, f func(*tpm.Device) error) (err error) {
	fresh := !swtpm.Made(m.State)
	if fresh {
		if err := swtpm.Manufacture(ctx, m); err != nil {
			return err
		}
	}
	p, err := swtpm.Start(ctx, m.State)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	if fresh && inspect != nil {
		if err := inspect(p.Socket()); err != nil {
			return fmt.Errorf("new TPM in %s: %w", m.State, err)
		}
	}
	return onBench(ctx, p, f)
}

func onBench(ctx context.Context, p *swtpm.Process, f func(*tpm.Device) error) error {
	dev, err := p.Open(ctx)
	if err != nil {
		return err
	}
	err = f(dev)
	// The TPM is put away in order even when f was not done in time.
	return errors.Join(err, dev.Shutdown(context.WithoutCancel(ctx)), dev.Close())
}

// inspect reads the EK and its certificate with go-tpm-tools, which refuses a
// certificate for another key, and checks who issued it.
func (ca *CA) inspect(socket string) error {
	if ca.EKRoots == nil { // the maker's CA was made with its first TPM
		if err := ca.openEKTrust(); err != nil {
			return err
		}
	}
	cert, err := readEKCertificate(socket)
	if err != nil {
		return err
	}
	return ca.verifyEK(cert)
}

func readEKCertificate(socket string) (*x509.Certificate, error) {
	conn, err := net.DialTimeout("unix", socket, tpm.Timeout)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(tpm.Timeout)); err != nil {
		return nil, err
	}
	ek, err := client.EndorsementKeyRSA(conn)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEK, err)
	}
	defer ek.Close()
	if ek.Cert() == nil {
		return nil, fmt.Errorf("%w: no certificate in NV", ErrEK)
	}
	return ek.Cert(), nil
}
