package delivery

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"

	"waxseal/agent/quote"
	"waxseal/measure"
	"waxseal/measure/wire"
)

// chip opens every credential: what is inside is its blob, backwards.
type chip struct {
	asked   []string
	refuses error
	hold    chan struct{} // nil: at once
}

func (c *chip) Activate(_ context.Context, k Key, cred wire.Credential) ([]byte, error) {
	if c.hold != nil {
		<-c.hold
	}
	c.asked = append(c.asked, "activate "+string(k))
	return inside(cred), c.refuses
}

func (c *chip) Certify(_ context.Context, k Key, nonce []byte) (wire.Signed, error) {
	c.asked = append(c.asked, "certify "+string(k))
	return wire.Signed{Attest: append([]byte(k), nonce...), Signature: []byte("signature")}, nil
}

func inside(c wire.Credential) []byte {
	out := bytes.Clone(c.Blob)
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// desk answers every question, and counts them.
type desk struct {
	refuses error
	taken   int
}

func (d *desk) Check(measure.Alg) error { return d.refuses }

func (d *desk) Take(_ context.Context, q quote.Question) (quote.Answer, error) {
	d.taken++
	return quote.Answer{Quoted: q.Nonce, Signature: []byte("signature"), Log: []byte("log")}, nil
}

func request() wire.ProofRequest {
	return wire.ProofRequest{
		Nonce: bytes.Repeat([]byte{1}, 32), Bank: measure.SHA384, PCRs: []measure.PCR{12},
		IAK:    wire.Credential{Blob: []byte("of the IAK"), Secret: []byte("s")},
		IDevID: wire.Credential{Blob: []byte("of the IDevID"), Secret: []byte("s")},
	}
}

func newServer(c Chip, d *desk) *Server {
	return New(Config{Identity: wire.Identity{EK: []byte("ek"), SRK: []byte("srk")}, Chip: c, Desk: d})
}

func TestProofIsMadeWithWhatIsInTheCredentials(t *testing.T) {
	c, d, req := &chip{}, &desk{}, request()
	proof, err := newServer(c, d).Prove(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]struct {
		got  []byte
		cred wire.Credential
	}{wire.ProofOfIAK: {proof.IAKProof, req.IAK}, wire.ProofOfIDevID: {proof.IDevIDProof, req.IDevID}} {
		bare := proof
		bare.IAKProof, bare.IDevIDProof = nil, nil
		if !bytes.Equal(p.got, req.Authenticate(name, inside(p.cred), bare)) {
			t.Errorf("%s is %x", name, p.got)
		}
		if bytes.Contains(p.got, inside(p.cred)) {
			t.Errorf("%s gives the secret away", name)
		}
	}
	if !bytes.Equal(proof.Quote.Attest, req.Nonce) || string(proof.Log) != "log" || len(proof.SRK.Attest) == 0 || len(proof.IDevID.Attest) == 0 {
		t.Errorf("proof %+v", proof)
	}
	if d.taken != 1 || len(c.asked) != 4 {
		t.Errorf("%d quotes, TPM asked %v", d.taken, c.asked)
	}
}

func TestRefusedWithoutAskingTheTPM(t *testing.T) {
	unattested := errors.New("UNATTESTED(no TPM)")
	for name, test := range map[string]struct {
		request func(*wire.ProofRequest)
		desk    desk
		noChip  bool
		want    error
	}{
		"short nonce":   {request: func(r *wire.ProofRequest) { r.Nonce = r.Nonce[:15] }, want: wire.ErrInvalid},
		"no PCR":        {request: func(r *wire.ProofRequest) { r.PCRs = nil }, want: wire.ErrInvalid},
		"SHA-1":         {request: func(r *wire.ProofRequest) { r.Bank = measure.SHA1 }, want: wire.ErrInvalid},
		"no credential": {request: func(r *wire.ProofRequest) { r.IAK = wire.Credential{} }, want: wire.ErrInvalid},
		"long blob":     {request: func(r *wire.ProofRequest) { r.IDevID.Blob = make([]byte, 1000) }, want: wire.ErrInvalid},
		"unattested":    {desk: desk{refuses: unattested}, want: unattested},
		"no TPM":        {noChip: true, want: wire.ErrNotReady},
	} {
		c, req := &chip{}, request()
		if test.request != nil {
			test.request(&req)
		}
		s := newServer(c, &test.desk)
		if test.noChip {
			s = newServer(nil, &test.desk)
		}
		if _, err := s.Prove(t.Context(), req); !errors.Is(err, test.want) {
			t.Errorf("%s: %v: want %v", name, err, test.want)
		}
		if len(c.asked) != 0 || test.desk.taken != 0 {
			t.Errorf("%s: the TPM was asked", name)
		}
	}
}

func TestCredentialOfAnotherDeviceCostsNoQuote(t *testing.T) {
	c, d := &chip{refuses: wire.ErrInvalid}, &desk{}
	proof, err := newServer(c, d).Prove(t.Context(), request())
	if !errors.Is(err, wire.ErrInvalid) || proof.IAKProof != nil || d.taken != 0 || len(c.asked) != 1 {
		t.Errorf("%+v, %v after %v and %d quotes", proof, err, c.asked, d.taken)
	}
}

func TestTPMWithoutSRKStillProves(t *testing.T) {
	c := &chip{}
	s := New(Config{Chip: c, Desk: &desk{}})
	if proof, err := s.Prove(t.Context(), request()); err != nil || proof.SRK.Attest != nil {
		t.Errorf("%+v, %v", proof.SRK, err)
	}
}

func TestFloodOfProofsTakesOneTurnAtATime(t *testing.T) {
	c := &chip{hold: make(chan struct{})}
	s := newServer(c, &desk{})
	results := make(chan error)
	for range queue {
		go func() { _, err := s.Prove(t.Context(), request()); results <- err }()
	}
	for len(s.waiting) < queue || len(s.proving) == 0 {
		runtime.Gosched()
	}
	if _, err := s.Prove(t.Context(), request()); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("one too many: %v: want ErrBusy", err)
	}
	if n := len(s.proving); n != 1 {
		t.Errorf("%d proofs are made at once", n)
	}
	close(c.hold)
	for range queue {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	s.proving <- struct{}{}
	cancel()
	if _, err := s.Prove(cancelled, request()); !errors.Is(err, context.Canceled) || len(s.waiting) != 0 {
		t.Errorf("cancelled: %v, %d still wait", err, len(s.waiting))
	}
}
