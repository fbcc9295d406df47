package enrollz

import (
	"context"
	"errors"
	"testing"
	"time"

	"waxseal/measure/csr"
	"waxseal/measure/devid"
	"waxseal/measure/devid/devidtest"
	"waxseal/measure/wire"
)

// slowChip proves keys when it is let, and tells when it has begun.
type slowChip struct {
	devidtest.TPM
	begun chan struct{}
	let   chan struct{}
	err   error
}

func newSlowChip(t *testing.T) *slowChip {
	t.Helper()
	tpm, err := devidtest.New()
	if err != nil {
		t.Fatal(err)
	}
	return &slowChip{TPM: tpm, begun: make(chan struct{}, 8), let: make(chan struct{}, 8)}
}

func (c *slowChip) wait(ctx context.Context) error {
	c.begun <- struct{}{}
	select {
	case <-c.let:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *slowChip) CertifyByHMAC(ctx context.Context, _ wire.HMACChallenge) (wire.HMACAnswer, error) {
	return wire.HMACAnswer{IAK: c.Public(devid.IAK)}, c.wait(ctx)
}

func (c *slowChip) Keys(ctx context.Context) (Proof, error) {
	attest := devidtest.Certification(c.Public(devid.IDevID)).Bytes()
	signature, err := c.TPM.Sign(devid.IAK, attest)
	if err != nil {
		return Proof{}, err
	}
	return Proof{EK: []byte("ek"), IAK: c.Public(devid.IAK), IDevID: c.Public(devid.IDevID), Attest: attest, Signature: signature}, c.wait(ctx)
}

func (c *slowChip) Sign(_ context.Context, content []byte) ([]byte, error) {
	return c.TPM.Sign(devid.IDevID, content)
}

var (
	testCard  = wire.Card{Role: wire.Active, Serial: "WX-0001", Slot: "0", Maker: "lab", Part: "board", ChassisSerial: "WX-0001"}
	anyone    = wire.Selection{Role: wire.Active}
	challenge = wire.HMACChallenge{Select: anyone, Parent: wire.ParentEK}
	request   = wire.CSRRequest{Select: anyone, Parent: wire.ParentEK, Template: wire.TemplateP384}
)

func newProving(t *testing.T, c Chip) *Server {
	t.Helper()
	s, err := New(Config{Card: testCard, Chip: c})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The TPM makes one proof of keys at a time; who waits longer than it can is
// told so, and a caller who leaves makes room.
func TestOneProofAtATime(t *testing.T) {
	chip := newSlowChip(t)
	s := newProving(t, chip)
	first, leave := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Challenge(first, challenge)
		ended <- err
	}()
	<-chip.begun
	brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.IDevIDCSR(brief, request); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("a second proof beside the first: %v, want: %v", err, wire.ErrBusy)
	}
	leave()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who has left: %v", err)
	}
	chip.let <- struct{}{}
	if _, err := s.IDevIDCSR(t.Context(), request); err != nil {
		t.Errorf("after that: %v", err)
	}
}

func TestRequestHoldsWhatTheChipProves(t *testing.T) {
	chip := newSlowChip(t)
	chip.let <- struct{}{}
	ans, err := newProving(t, chip).IDevIDCSR(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	c, err := csr.Parse(ans.Content)
	if err != nil || c.Serial != testCard.Serial || c.Model != testCard.Part || string(c.EK) != "ek" || ans.Card != testCard {
		t.Fatalf("%+v of %+v, %v", c, ans.Card, err)
	}
	iak, err := devid.Parse(devid.IAK, c.IAK)
	if err != nil {
		t.Fatal(err)
	}
	idevid, err := devid.Parse(devid.IDevID, c.IDevID)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(idevid.CertifiedBy(iak, c.IDevIDAttest, c.IDevIDProof), idevid.Signed(ans.Content, ans.Signature)); err != nil {
		t.Error(err)
	}
}

// A chip that fails gives no half of a request, and what it says is kept.
func TestChipThatFailsMakesNoRequest(t *testing.T) {
	chip := newSlowChip(t)
	chip.err = wire.ErrRetry
	for range 2 {
		chip.let <- struct{}{}
	}
	s := newProving(t, chip)
	if ans, err := s.IDevIDCSR(t.Context(), request); !errors.Is(err, wire.ErrRetry) || ans.Content != nil || ans.Signature != nil {
		t.Errorf("%x, %v", ans.Content, err)
	}
	if _, err := s.Challenge(t.Context(), challenge); !errors.Is(err, wire.ErrRetry) {
		t.Errorf("Challenge: %v", err)
	}
	if ans, err := newProving(t, nil).IDevIDCSR(t.Context(), request); !errors.Is(err, wire.ErrNotReady) || ans.Content != nil {
		t.Errorf("without a chip: %v", err)
	}
}

// What this device does not have is unsupported, with the card's name, before
// the chip is asked.
func TestWhatTheDeviceDoesNotHaveIsUnsupported(t *testing.T) {
	chip := newSlowChip(t)
	s := newProving(t, chip)
	for name, change := range map[string]func(*wire.CSRRequest){
		"template": func(r *wire.CSRRequest) { r.Template = 2 },
		"parent":   func(r *wire.CSRRequest) { r.Parent = wire.ParentPPK },
	} {
		r := request
		change(&r)
		if ans, err := s.IDevIDCSR(t.Context(), r); !errors.Is(err, wire.ErrUnsupported) || ans.Card != testCard {
			t.Errorf("another %s: %+v, %v", name, ans.Card, err)
		}
	}
	if len(chip.begun) != 0 {
		t.Error("the chip was asked")
	}
}
