package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// session is a salted HMAC session. It belongs to the owner goroutine.
type session struct {
	hmac  tpm2.Session // nil after it broke; the next use opens a new one
	flush func() error
}

// sessionNonce is the size of the session's nonces in bytes.
const sessionNonce = 32

// StartSalted puts the PCR commands that follow into one HMAC session that is
// salted with the EK, until StopSalted. Whoever sits on the bus between CPU
// and TPM can then neither alter an extend nor forge the answer to one, nor
// to a read. The EK's public half comes over the same bus: against an
// interposer that was there from the start, compare it with the enrolled one.
func (d *Device) StartSalted(ctx context.Context) error {
	_, err := ask(ctx, d, urgent, Timeout, func(t transport.TPM) (struct{}, error) {
		if d.session != nil {
			return struct{}{}, d.session.open(t)
		}
		s := &session{}
		if err := s.open(t); err != nil {
			return struct{}{}, err
		}
		d.session = s
		return struct{}{}, nil
	})
	if err != nil {
		return fmt.Errorf("start salted session: %w", err)
	}
	return nil
}

// StopSalted ends what StartSalted began, and frees the TPM's session slot.
func (d *Device) StopSalted(ctx context.Context) error {
	_, err := ask(ctx, d, urgent, Timeout, func(t transport.TPM) (struct{}, error) {
		return struct{}{}, d.dropSession(t)
	})
	if err != nil {
		return fmt.Errorf("stop salted session: %w", err)
	}
	return nil
}

// open starts the session in the TPM unless it is open.
func (s *session) open(t transport.TPM) error {
	if s.hmac != nil {
		return nil
	}
	pub, _, err := readPublic(t, handleEK)
	if err != nil {
		return fmt.Errorf("EK: %w", err)
	}
	s.hmac, s.flush, err = tpm2.HMACSession(t, tpm2.TPMAlgSHA256, sessionNonce,
		tpm2.Salted(handleEK, *pub), tpm2.Audit())
	return err
}

// close flushes the session. A session that the TPM has lost already is no error.
func (s *session) close() error {
	if s.hmac == nil {
		return nil
	}
	flush := s.flush
	s.hmac, s.flush = nil, nil
	if err := flush(); err != nil && !is(err, tpm2.TPMRCHandle) {
		return err
	}
	return nil
}

func (d *Device) dropSession(t transport.TPM) error {
	if d.session == nil {
		return nil
	}
	s := d.session
	d.session = nil
	return s.close()
}

// authorised runs f with the salted session if one was asked for, else with
// the PCRs' empty password. After an error the session's nonces may be out of
// step, so the next call opens a new one; it never goes on without.
func (d *Device) authorised(t transport.TPM, f func(tpm2.Session) error) error {
	if d.session == nil {
		return f(tpm2.PasswordAuth(nil))
	}
	if err := d.session.open(t); err != nil {
		return err
	}
	if err := f(d.session.hmac); err != nil {
		return errors.Join(err, d.session.close())
	}
	return nil
}

// pcrRead reads PCRs inside the salted session if there is one, so that the
// answer is authenticated too.
func (d *Device) pcrRead(t transport.TPM, cmd tpm2.PCRRead) (rsp *tpm2.PCRReadResponse, err error) {
	if d.session == nil {
		return cmd.Execute(t)
	}
	err = d.authorised(t, func(s tpm2.Session) error {
		rsp, err = cmd.Execute(t, s)
		return err
	})
	return rsp, err
}
