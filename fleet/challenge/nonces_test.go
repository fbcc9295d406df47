package challenge

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func issued(t *testing.T) (*Nonces, []byte) {
	t.Helper()
	n, err := NewNonces(nil)
	if err != nil {
		t.Fatal(err)
	}
	nonce, err := n.Issue("a", noon, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return n, nonce
}

func TestNonceIsConsumedOnceUnderConcurrency(t *testing.T) {
	n, nonce := issued(t)
	var good atomic.Int32
	var wait sync.WaitGroup
	start := make(chan struct{})
	for range 64 {
		wait.Go(func() {
			<-start
			switch err := n.Consume(nonce, "a", noon); {
			case err == nil:
				good.Add(1)
			case !errors.Is(err, ErrNonceUnknown):
				t.Errorf("second use: %v", err)
			}
		})
	}
	close(start)
	wait.Wait()
	if good.Load() != 1 {
		t.Fatalf("nonce was consumed %d times", good.Load())
	}
}

func TestNoncesAreFreshUnderConcurrency(t *testing.T) {
	n, err := NewNonces(nil)
	if err != nil {
		t.Fatal(err)
	}
	var seen sync.Map
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for range 64 {
				nonce, err := n.Issue("a", noon, time.Minute)
				if err != nil || len(nonce) != NonceSize {
					t.Errorf("nonce of %d bytes, %v", len(nonce), err)
				}
				if _, twice := seen.LoadOrStore(string(nonce), true); twice {
					t.Error("a nonce was issued twice")
				}
			}
		})
	}
	wait.Wait()
}

func TestNonceOfAnotherRouterIsRefusedAndStaysOpen(t *testing.T) {
	n, nonce := issued(t)
	if err := n.Consume(nonce, "b", noon); !errors.Is(err, ErrNonceDevice) {
		t.Fatalf("nonce of a, by b: %v", err)
	}
	if err := n.Consume(nonce, "a", noon); err != nil {
		t.Fatalf("b has spoilt the nonce of a: %v", err)
	}
}

func TestNonceExpires(t *testing.T) {
	n, nonce := issued(t)
	if err := n.Consume(nonce, "a", noon.Add(time.Minute+1)); !errors.Is(err, ErrNonceExpired) {
		t.Fatalf("after its time: %v", err)
	}
	if err := n.Consume(nonce, "a", noon); !errors.Is(err, ErrNonceUnknown) {
		t.Fatalf("an expired nonce came back: %v", err)
	}
	_, nonce = issued(t)
	if len(nonce) == 0 {
		t.Fatal("no nonce")
	}
}

func TestNonceMustBeTheIssuedOne(t *testing.T) {
	n, nonce := issued(t)
	flipped := bytes.Clone(nonce)
	flipped[31] ^= 1
	for name, other := range map[string][]byte{
		"empty": nil, "prefix": nonce[:31], "longer": append(bytes.Clone(nonce), 0),
		"another": bytes.Repeat([]byte{7}, NonceSize), "one bit": flipped,
	} {
		if err := n.Consume(other, "a", noon); !errors.Is(err, ErrNonceUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStuckGeneratorIssuesNoNonce(t *testing.T) {
	n, err := NewNonces(strings.NewReader(strings.Repeat("\x00", 1024)))
	if err != nil {
		t.Fatal(err)
	}
	if nonce, err := n.Issue("a", noon, time.Minute); !errors.Is(err, ErrRandom) {
		t.Fatalf("a constant generator gave %x, %v", nonce, err)
	}
}

func TestGeneratorThatRepeatsItselfIsNoticed(t *testing.T) {
	a, b := strings.Repeat("a", NonceSize), strings.Repeat("b", NonceSize)
	n, err := NewNonces(strings.NewReader("x" + a[1:] + a + b + a))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, nil, ErrRandom} {
		if _, err := n.Issue("a", noon, time.Minute); !errors.Is(err, want) {
			t.Fatalf("nonce %d: %v, want %v", i, err, want)
		}
	}
}

func TestGeneratorThatFailsIssuesNoNonce(t *testing.T) {
	if _, err := NewNonces(strings.NewReader("short")); err == nil {
		t.Fatal("a generator without bytes was accepted")
	}
	n, err := NewNonces(strings.NewReader(strings.Repeat("a", NonceSize) + "short"))
	if err != nil {
		t.Fatal(err)
	}
	if nonce, err := n.Issue("a", noon, time.Minute); err == nil {
		t.Fatalf("a generator that ran dry gave %x", nonce)
	}
}

func TestOpenNoncesAreBounded(t *testing.T) {
	n, err := NewNonces(nil)
	if err != nil {
		t.Fatal(err)
	}
	for range maxOpen {
		if _, err := n.Issue("a", noon, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Issue("a", noon, time.Minute); !errors.Is(err, ErrNoncesFull) {
		t.Fatalf("nonce beyond the bound: %v", err)
	}
	if _, err := n.Issue("a", noon.Add(time.Hour), time.Minute); err != nil {
		t.Fatalf("expired nonces were not forgotten: %v", err)
	}
}
