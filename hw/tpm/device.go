// Package tpm is the one door to a TPM 2.0: PCRs, quotes, keys, NV and
// counters, over /dev/tpmrm0, /dev/tpm0 or the socket of a software TPM.
//
// One goroutine owns the transport, so commands never mix. Calls wait in
// three bounded queues: PCRs before quotes before TLS signatures. Every call
// has a deadline, its context's or a default; a TPM that stops answering gives
// an error that names the command and the time, and holds up no later caller
// beyond that caller's own deadline.
//
// The package never falls back: no weaker bank, no other key, no unsalted
// session after a salted one was asked for, no evidence without a TPM.
package tpm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"waxseal/measure"
)

// Timeout is the deadline of a call whose context has none.
const Timeout = 5 * time.Second

// creationTimeout is Timeout for calls that make a key: an RSA key takes a
// real chip many seconds (TPM 2.0 Part 3, TPM2_CreatePrimary).
const creationTimeout = 90 * time.Second

// closeGrace is how long Close waits for the running command.
const closeGrace = time.Second

// openInterval is the pause between two attempts to open a device.
const openInterval = 50 * time.Millisecond

// Paths are the devices that Open tries, in this order: the kernel's resource
// manager first, so that sessions and keys of others are swapped, not lost.
var Paths = []string{"/dev/tpmrm0", "/dev/tpm0"}

// Device is an open TPM. It is safe for concurrent use.
type Device struct {
	transport transport.TPMCloser // touched by the owner goroutine only
	queues    [classes]chan *job
	current   atomic.Pointer[command] // the command that the TPM is working on, nil when idle
	banks     []measure.Alg           // set before the first caller sees the device

	closing   chan struct{} // closed by Close
	stopped   chan struct{} // closed by the owner when it is gone
	closeOnce sync.Once
	closeErr  error // set by the owner before stopped is closed

	// What follows is touched by the owner goroutine only.
	session *session
	names   map[Key]loadedKey
	nvChunk uint16 // TPM_PT_NV_BUFFER_MAX, 0 before it was asked
}

// Open opens the first of paths (Paths if none are given) that is there. It
// waits for one to appear until ctx ends, or for Timeout. No device by then is
// ErrNoTPM.
func Open(ctx context.Context, paths ...string) (*Device, error) {
	if len(paths) == 0 {
		paths = Paths
	}
	ctx, cancel := withDeadline(ctx, Timeout)
	defer cancel()
	t, err := waitOpen(ctx, paths)
	if err != nil {
		return nil, err
	}
	return New(ctx, t)
}

func waitOpen(ctx context.Context, paths []string) (transport.TPMCloser, error) {
	for {
		var last error
		for _, path := range paths {
			t, err := linuxtpm.Open(path)
			if err == nil {
				return t, nil
			}
			if !mayAppear(err) {
				return nil, fmt.Errorf("open TPM %s: %w", path, err)
			}
			last = err
		}
		if err := sleep(ctx, openInterval); err != nil {
			return nil, fmt.Errorf("%w: last attempt: %w", ErrNoTPM, last)
		}
	}
}

// mayAppear tells whether a device that cannot be opened now may be opened
// later: the driver is still probing, or another process holds /dev/tpm0.
func mayAppear(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENXIO) ||
		errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EBUSY)
}

// OpenSocket opens a software TPM at a Unix socket that takes raw TPM
// commands (swtpm socket --server type=unixio,path=…).
func OpenSocket(ctx context.Context, path string) (*Device, error) {
	t, err := linuxudstpm.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open TPM socket %s: %w", path, err)
	}
	return New(ctx, t)
}

// New returns a device over t and owns t from now on, also when it fails. It
// asks for the active banks; a TPM that was never started is started.
func New(ctx context.Context, t transport.TPMCloser) (*Device, error) {
	d := &Device{
		transport: t,
		closing:   make(chan struct{}),
		stopped:   make(chan struct{}),
		names:     map[Key]loadedKey{},
	}
	for i, size := range queueSizes {
		d.queues[i] = make(chan *job, size)
	}
	go d.own()
	banks, err := d.readBanks(ctx)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.banks = banks
	return d, nil
}

// Close ends the owner goroutine and closes the transport. Calls that wait
// get ErrClosed. A TPM that is stuck in a command is left behind, with its
// goroutine, after a second; the error says so.
func (d *Device) Close() error {
	d.closeOnce.Do(func() { close(d.closing) })
	select {
	case <-d.stopped:
		return d.closeErr
	case <-time.After(closeGrace):
		return fmt.Errorf("close TPM: %w: still in %s", ErrNoAnswer, d.doing())
	}
}

func withDeadline(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
