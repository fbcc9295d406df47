package tpmtest

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/swtpm"
)

// Slow is a transport that takes its time: before each command it waits as
// long as a chip would work on it. It also counts what it sends.
type Slow struct {
	transport.TPMCloser
	process *swtpm.Process
	delays  map[tpm2.TPMCC]time.Duration

	mu   sync.Mutex // guards sent
	sent map[tpm2.TPMCC]int
}

// Send implements transport.TPM.
func (s *Slow) Send(command []byte) ([]byte, error) {
	if len(command) >= 10 {
		code := tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) // TPM 2.0 Part 1, section 18: tag, size, code
		s.mu.Lock()
		s.sent[code]++
		s.mu.Unlock()
		time.Sleep(s.delays[code])
	}
	return s.TPMCloser.Send(command)
}

// Sent returns how many commands with this code were sent.
func (s *Slow) Sent(code tpm2.TPMCC) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent[code]
}

// Loaded is Loaded of the TPM behind it.
func (s *Slow) Loaded(t testing.TB) int { return Loaded(t, s.process) }

// OpenSlow opens a running swtpm with delays, by command, until the end of
// the test.
func OpenSlow(t testing.TB, p *swtpm.Process, delays map[tpm2.TPMCC]time.Duration) (*tpm.Device, *Slow) {
	t.Helper()
	conn, err := linuxudstpm.Open(p.Socket())
	if err != nil {
		t.Fatal(err)
	}
	slow := &Slow{TPMCloser: conn, process: p, delays: delays, sent: map[tpm2.TPMCC]int{}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := tpm.New(ctx, slow)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, slow
}

// SlowProvisioned returns Provisioned with delays.
func SlowProvisioned(t testing.TB, delays map[tpm2.TPMCC]time.Duration) (*tpm.Device, *Slow) {
	t.Helper()
	d, slow := OpenSlow(t, Run(t, t.TempDir()), delays)
	for _, k := range []tpm.Key{tpm.IAK, tpm.IDevID} {
		if err := d.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	return d, slow
}
