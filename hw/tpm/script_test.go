package tpm_test

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"waxseal/hw/tpm"
	"waxseal/measure"
)

// script is a TPM that does nothing but answer, for faults that no software
// TPM can be talked into. Without a line of its own a command gets the answer
// of a healthy TPM with the banks sha256 and sha384.
type script struct {
	// answer is asked first; nil, nil is the healthy answer.
	answer func(code tpm2.TPMCC, cmd []byte) ([]byte, error)

	mu   sync.Mutex // guards sent
	sent []tpm2.TPMCC
}

var _ transport.TPMCloser = (*script)(nil)

func (s *script) Send(cmd []byte) ([]byte, error) {
	code := tpm2.TPMCC(binary.BigEndian.Uint32(cmd[6:]))
	s.mu.Lock()
	s.sent = append(s.sent, code)
	s.mu.Unlock()
	if s.answer != nil {
		if rsp, err := s.answer(code, cmd); rsp != nil || err != nil {
			return rsp, err
		}
	}
	return healthy(code), nil
}

func (s *script) Close() error { return nil }

func (s *script) commands() []tpm2.TPMCC {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]tpm2.TPMCC(nil), s.sent...)
}

func (s *script) count(code tpm2.TPMCC) (n int) {
	for _, c := range s.commands() {
		if c == code {
			n++
		}
	}
	return n
}

func healthy(code tpm2.TPMCC) []byte {
	switch code {
	case tpm2.TPMCCGetCapability:
		return banks(measure.SHA256, measure.SHA384)
	case tpm2.TPMCCPCRExtend:
		// Sessions, parameter size 0, one empty password session with continueSession.
		return respond(0x8002, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0)
	case tpm2.TPMCCReadClock:
		return respond(0x8001, 0, make([]byte, 25)...)
	}
	return respond(0x8001, tpm2.TPMRCSuccess)
}

// respond is a response with a header that fits.
func respond(tag uint16, rc tpm2.TPMRC, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(10+len(body)))
	b = binary.BigEndian.AppendUint32(b, uint32(rc))
	return append(b, body...)
}

// banks is the answer to GetCapability(TPM_CAP_PCRS) with all PCRs in algs.
func banks(algs ...measure.Alg) []byte {
	body := []byte{0, 0, 0, 0, 5, 0, 0, 0, byte(len(algs))}
	for _, a := range algs {
		body = append(body, byte(a>>8), byte(a), 3, 0xff, 0xff, 0xff)
	}
	return respond(0x8001, 0, body...)
}

// open opens a scripted TPM; closing it may fail where the script hangs.
func open(t *testing.T, s *script) *tpm.Device {
	t.Helper()
	d, err := tpm.New(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// extend extends PCR 12 with some record.
func extend(ctx context.Context, d measure.Extender) error {
	return d.Extend(ctx, 12, measure.Record{PCR: 12, Name: "kernel/file/a"}.Digests(d.Banks()))
}
