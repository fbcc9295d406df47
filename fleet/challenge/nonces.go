package challenge

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// NonceSize is the size of a nonce in bytes.
const NonceSize = 32

// maxOpen bounds the nonces that wait for an answer.
const maxOpen = 1 << 16

// Why a nonce is not good.
var (
	ErrNonceUnknown = errors.New("nonce was never issued, or was used before")
	ErrNonceDevice  = errors.New("nonce was issued for another router")
	ErrNonceExpired = errors.New("nonce has expired")
	ErrRandom       = errors.New("random source repeats itself")
	ErrNoncesFull   = errors.New("too many challenges wait for an answer")
)

// Nonces issues nonces and takes each back once. It may be used concurrently.
type Nonces struct {
	random io.Reader

	mu   sync.Mutex // guards what follows
	last [NonceSize]byte
	open map[[NonceSize]byte]issue
}

type issue struct {
	device  string
	expires time.Time
}

// NewNonces returns an empty store over a random source; nil is crypto/rand.
func NewNonces(random io.Reader) (*Nonces, error) {
	if random == nil {
		random = rand.Reader
	}
	n := &Nonces{random: random, open: map[[NonceSize]byte]issue{}}
	// The first draw is only compared with the second, so that a generator that
	// is stuck never issues a nonce (continuous test, FIPS 140-2, section 4.9.2).
	_, err := io.ReadFull(random, n.last[:])
	return n, err
}

// Issue returns a fresh nonce that is good for device until now + life.
func (n *Nonces) Issue(device string, now time.Time, life time.Duration) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var nonce [NonceSize]byte
	if _, err := io.ReadFull(n.random, nonce[:]); err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	if _, open := n.open[nonce]; open || nonce == n.last {
		return nil, fmt.Errorf("nonce: %w", ErrRandom)
	}
	n.last = nonce
	if len(n.open) >= maxOpen {
		n.forget(now)
	}
	if len(n.open) >= maxOpen {
		return nil, ErrNoncesFull
	}
	n.open[nonce] = issue{device, now.Add(life)}
	return bytes.Clone(nonce[:]), nil
}

// Consume takes a nonce back: of all calls for one nonce, one returns nil. A
// call for another device than it was issued for leaves the nonce open.
func (n *Nonces) Consume(nonce []byte, device string, now time.Time) error {
	if len(nonce) != NonceSize {
		return fmt.Errorf("%w: it has %d bytes: need %d", ErrNonceUnknown, len(nonce), NonceSize)
	}
	key := [NonceSize]byte(nonce)
	n.mu.Lock()
	defer n.mu.Unlock()
	i, open := n.open[key]
	if !open {
		return ErrNonceUnknown
	}
	if i.device != device {
		return ErrNonceDevice
	}
	delete(n.open, key)
	if now.After(i.expires) {
		return ErrNonceExpired
	}
	return nil
}

// forget drops what has expired.
func (n *Nonces) forget(now time.Time) {
	for key, i := range n.open {
		if now.After(i.expires) {
			delete(n.open, key)
		}
	}
}
