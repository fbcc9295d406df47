package attestz

import (
	"context"
	"errors"
	"testing"

	"waxseal/agent/quote"
	"waxseal/measure"
	"waxseal/measure/wire"
)

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

var (
	card    = wire.Card{Role: wire.Active, Serial: "S", Slot: "0", Maker: "M", Part: "P", ChassisSerial: "S"}
	request = wire.AttestRequest{
		Select: wire.Selection{Role: wire.Active}, Nonce: make([]byte, 32),
		Bank: measure.SHA384, PCRs: []measure.PCR{15, 12},
	}
)

func newServer(d *desk) Server {
	return Server{Card: card, Desk: d, OIAK: func() wire.Chain { return wire.Chain{"oiak"} }}
}

func TestAnswerSaysWhoseQuoteItIs(t *testing.T) {
	ans, err := newServer(&desk{}).Attest(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if ans.Card != card || ans.OIAK.String() != "oiak" || string(ans.Log) != "log" || len(ans.Quoted) != 32 {
		t.Errorf("answer %+v", ans)
	}
}

func TestRefusedWithoutAskingTheTPM(t *testing.T) {
	unattested := errors.New("UNATTESTED(no TPM)")
	for name, test := range map[string]struct {
		server  func(*Server)
		request func(*wire.AttestRequest)
		want    error
	}{
		"no PCR":         {request: func(r *wire.AttestRequest) { r.PCRs = nil }, want: wire.ErrInvalid},
		"PCR twice":      {request: func(r *wire.AttestRequest) { r.PCRs = []measure.PCR{1, 1} }, want: wire.ErrInvalid},
		"PCR 24":         {request: func(r *wire.AttestRequest) { r.PCRs = []measure.PCR{24} }, want: wire.ErrInvalid},
		"SHA-1":          {request: func(r *wire.AttestRequest) { r.Bank = measure.SHA1 }, want: wire.ErrInvalid},
		"short nonce":    {request: func(r *wire.AttestRequest) { r.Nonce = make([]byte, 15) }, want: wire.ErrInvalid},
		"long nonce":     {request: func(r *wire.AttestRequest) { r.Nonce = make([]byte, 65) }, want: wire.ErrInvalid},
		"no selection":   {request: func(r *wire.AttestRequest) { r.Select = wire.Selection{} }, want: wire.ErrInvalid},
		"two selections": {request: func(r *wire.AttestRequest) { r.Select.Serial = "S" }, want: wire.ErrInvalid},
		"standby":        {request: func(r *wire.AttestRequest) { r.Select.Role = wire.Standby }, want: wire.ErrInvalid},
		"not enrolled":   {server: func(s *Server) { s.OIAK = func() wire.Chain { return nil } }, want: wire.ErrNotReady},
		"unattested":     {server: func(s *Server) { s.Desk.(*desk).refuses = unattested }, want: unattested},
	} {
		d := &desk{}
		s, req := newServer(d), request
		if test.request != nil {
			test.request(&req)
		}
		if test.server != nil {
			test.server(&s)
		}
		if _, err := s.Attest(t.Context(), req); !errors.Is(err, test.want) {
			t.Errorf("%s: %v: want %v", name, err, test.want)
		}
		if d.taken != 0 {
			t.Errorf("%s: the TPM was asked", name)
		}
	}
}
