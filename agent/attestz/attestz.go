// Package attestz answers challenges: a quote by the attestation key, the
// values it covers, and the log that explains them
// (openconfig.attestz.TpmAttestzService).
//
// Quote and log are taken while nothing can be recorded, so that they agree.
// The package asks the TPM for one quote at a time, and only after everything
// that can be refused without it has been refused. It never answers without a
// quote, and never judges what it reports.
package attestz

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/wire"
)

// Quoter is the part of a TPM that answers challenges.
type Quoter interface {
	// Banks returns the active PCR banks.
	Banks() []measure.Alg
	// ReadPCRs returns the values of exactly pcrs in one bank.
	ReadPCRs(ctx context.Context, bank measure.Alg, pcrs []measure.PCR) (map[measure.PCR][]byte, error)
	// Quote signs pcrs of one bank with the IAK. nonce becomes the extraData.
	// attest is a bare TPMS_ATTEST, signature a TPMT_SIGNATURE.
	Quote(ctx context.Context, nonce []byte, bank measure.Alg, pcrs []measure.PCR) (attest, signature []byte, err error)
}

// Recorder is what was measured so far; *measure.Recorder is one.
type Recorder interface {
	// Freeze calls f with a copy of the log while nothing can be recorded.
	Freeze(f func(log []measure.Event) error) error
}

// Config is what a Server works with.
type Config struct {
	Card       wire.Card
	Quoter     Quoter            // nil: no TPM
	Recorder   Recorder          // nil: nothing was measured
	Firmware   eventlog.Log      // the firmware's events; zero where it has left no log
	Unattested string            // why the device cannot attest, for example "boot incomplete"; empty: it can
	OIAK       func() wire.Chain // the owner's certificate of the IAK; empty chain: not enrolled
	Queue      int               // challenges that may wait for the TPM; 0: 16
}

// Server implements wire.AttestServer.
type Server struct {
	config  Config
	waiting chan struct{} // a slot for each challenge that waits or is answered
	quoting chan struct{} // the one challenge that is answered
}

var _ wire.AttestServer = (*Server)(nil)

// New returns a server.
func New(c Config) *Server {
	if c.Queue == 0 {
		c.Queue = 16
	}
	return &Server{config: c, waiting: make(chan struct{}, c.Queue), quoting: make(chan struct{}, 1)}
}

// Reason tells why the device cannot attest; it is empty if it can.
func (s *Server) Reason() string {
	switch {
	case s.config.Unattested != "":
		return s.config.Unattested
	case s.config.Quoter == nil:
		return "no TPM"
	case s.config.Recorder == nil:
		return "nothing measured"
	}
	return ""
}

// Probe is Reason, and also asks the recorder whether it still records. It
// waits for a quote in flight.
func (s *Server) Probe() string {
	if reason := s.Reason(); reason != "" {
		return reason
	}
	if err := s.config.Recorder.Freeze(func([]measure.Event) error { return nil }); err != nil {
		return err.Error()
	}
	return ""
}

// Attest implements wire.AttestServer.
func (s *Server) Attest(ctx context.Context, req wire.AttestRequest) (wire.AttestAnswer, error) {
	oiak, err := s.refuse(req)
	if err != nil {
		return wire.AttestAnswer{}, err
	}
	leave, err := s.queue(ctx)
	if err != nil {
		return wire.AttestAnswer{}, err
	}
	defer leave()
	ans := wire.AttestAnswer{Card: s.config.Card, OIAK: oiak}
	frozen := false
	err = s.config.Recorder.Freeze(func(log []measure.Event) error {
		frozen = true
		if ans.Log, err = s.encode(req.Bank, log); err != nil {
			return err
		}
		return s.quote(ctx, req, &ans)
	})
	if err != nil && !frozen {
		return wire.AttestAnswer{}, fmt.Errorf("%w: UNATTESTED(%w)", wire.ErrNotReady, err)
	}
	if err != nil {
		return wire.AttestAnswer{}, err
	}
	return ans, nil
}

// refuse finds what is wrong with a request without asking the TPM.
func (s *Server) refuse(req wire.AttestRequest) (wire.Chain, error) {
	if err := req.Check(); err != nil {
		return nil, err
	}
	if err := s.config.Card.Select(req.Select); err != nil {
		return nil, err
	}
	if reason := s.Reason(); reason != "" {
		return nil, fmt.Errorf("%w: UNATTESTED(%s)", wire.ErrNotReady, reason)
	}
	if banks := s.config.Quoter.Banks(); !slices.Contains(banks, req.Bank) {
		return nil, fmt.Errorf("%w: hash_algo %v is no active bank: need one of %v", wire.ErrInvalid, req.Bank, banks)
	}
	oiak := s.config.OIAK()
	if len(oiak) == 0 {
		return nil, fmt.Errorf("%w: not enrolled: no oIAK certificate installed", wire.ErrNotReady)
	}
	return oiak, nil
}

// queue waits until no other challenge is answered. The queue is short: who
// finds it full is told so at once.
func (s *Server) queue(ctx context.Context) (leave func(), err error) {
	select {
	case s.waiting <- struct{}{}:
	default:
		return nil, fmt.Errorf("%w: %d challenges wait for the TPM", wire.ErrBusy, cap(s.waiting))
	}
	select {
	case s.quoting <- struct{}{}:
		return func() { <-s.quoting; <-s.waiting }, nil
	case <-ctx.Done():
		<-s.waiting
		return nil, ctx.Err()
	}
}

// attempts bounds the quotes taken for one challenge. Others than the agent
// extend PCRs too, such as IMA in the kernel.
const attempts = 3

// quote fills in PCR values and a quote that covers exactly them.
func (s *Server) quote(ctx context.Context, req wire.AttestRequest, ans *wire.AttestAnswer) error {
	for range attempts {
		values, err := s.config.Quoter.ReadPCRs(ctx, req.Bank, req.PCRs)
		if err != nil {
			return fmt.Errorf("read PCRs: %w", err)
		}
		if err := checkValues(values, req); err != nil {
			return err
		}
		attest, signature, err := s.config.Quoter.Quote(ctx, req.Nonce, req.Bank, req.PCRs)
		if err != nil {
			return fmt.Errorf("quote: %w", err)
		}
		if covers(attest, values) {
			ans.PCRs, ans.Quoted, ans.Signature = values, attest, signature
			return nil
		}
	}
	return fmt.Errorf("%w: PCRs changed during each of %d quotes", wire.ErrRetry, attempts)
}

func checkValues(values map[measure.PCR][]byte, req wire.AttestRequest) error {
	if len(values) != len(req.PCRs) {
		return fmt.Errorf("TPM gave %d PCR values for %d", len(values), len(req.PCRs))
	}
	for _, pcr := range req.PCRs {
		if len(values[pcr]) != req.Bank.Size() {
			return fmt.Errorf("TPM gave PCR %d with %d bytes: need %d", pcr, len(values[pcr]), req.Bank.Size())
		}
	}
	return nil
}

func (s *Server) encode(bank measure.Alg, log []measure.Event) ([]byte, error) {
	joined, err := eventlog.Join(s.config.Firmware, eventlog.New(s.config.Quoter.Banks(), log))
	if err != nil {
		return nil, fmt.Errorf("%w: UNATTESTED(%w)", wire.ErrNotReady, err)
	}
	if len(joined.Events) == 0 {
		return nil, fmt.Errorf("%w: UNATTESTED(nothing measured)", wire.ErrNotReady)
	}
	if !slices.Contains(joined.Banks, bank) {
		return nil, fmt.Errorf("%w: the firmware's log has no bank %v", wire.ErrNotReady, bank)
	}
	b, err := eventlog.EncodeCEL(joined)
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	if len(b) > eventlog.MaxSize {
		return nil, errors.New("event log is above 4 MiB")
	}
	return b, nil
}
