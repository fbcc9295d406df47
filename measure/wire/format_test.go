package wire

import (
	"errors"
	"testing"

	apb "github.com/openconfig/attestz/proto/tpm_attestz"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"waxseal/measure"
)

var plainRequest = AttestRequest{
	Select: Selection{Role: Active}, Nonce: make([]byte, 32), Bank: measure.SHA384, PCRs: []measure.PCR{12},
}

func TestFormatIsAskedForAndAnswered(t *testing.T) {
	d := &device{}
	c := NewAttestz(serve(t, d))
	for _, f := range []Format{JWT, CWT} {
		d.attest = AttestAnswer{Format: f, Token: []byte("token"), Card: testCard, Quoted: []byte("quote")}
		req := plainRequest
		req.Format = f
		ans, err := c.Attest(t.Context(), req)
		if err != nil || d.asked.Format != f || ans.Format != f || string(ans.Token) != "token" {
			t.Errorf("%v: asked %v, answered %+v, %v", f, d.asked.Format, ans, err)
		}
		if ans.Quoted != nil || ans.Card != (Card{}) {
			t.Errorf("%v: fields of the raw form are filled beside the token", f)
		}
	}
	d.attest = goodAnswer(t)
	if ans, err := c.Attest(t.Context(), plainRequest); err != nil || d.asked.Format != Raw || ans.Format != Raw {
		t.Errorf("nothing asked for: asked %v, answered %v, %v", d.asked.Format, ans.Format, err)
	}
}

func TestFormatsThatAreNoneAreRefused(t *testing.T) {
	d := &device{attest: goodAnswer(t)}
	conn := serve(t, d)
	p, err := plainRequest.proto()
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range map[string][]string{
		"unknown":        {"EAT_XML"},
		"other case":     {"eat_jwt"},
		"empty":          {""},
		"a number":       {"2"},
		"two":            {"EAT_JWT", "EAT_CWT"},
		"the same twice": {"EAT_JWT", "EAT_JWT"},
		"a list":         {"EAT_JWT,EAT_CWT"},
	} {
		ctx := t.Context()
		for _, v := range values {
			ctx = metadata.AppendToOutgoingContext(ctx, FormatKey, v)
		}
		if _, err := apb.NewTpmAttestzServiceClient(conn).Attest(ctx, p); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, f := range []Format{1, 4, -1} {
		req := plainRequest
		req.Format = f
		if _, err := NewAttestz(conn).Attest(t.Context(), req); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", f, err)
		}
	}
}

func TestAnswerInAnotherFormatThanAskedIsRefused(t *testing.T) {
	token := AttestAnswer{Format: JWT, Token: []byte("token")}.proto()
	ask := plainRequest
	ask.Format = JWT
	if _, err := attestAnswerOf(token, ask); err != nil {
		t.Fatal(err)
	}
	full := goodAnswer(t).proto()
	for name, change := range map[string]func(*apb.AttestResponse){
		"CWT":             func(p *apb.AttestResponse) { p.Format = apb.AttestResponse_ATTESTATION_FORMAT_EAT_CWT },
		"raw":             func(p *apb.AttestResponse) { p.Format = apb.AttestResponse_ATTESTATION_FORMAT_TPM_RAW },
		"unspecified":     func(p *apb.AttestResponse) { p.Format = 0 },
		"the raw answer":  func(p *apb.AttestResponse) { proto.Reset(p); proto.Merge(p, full) },
		"no token":        func(p *apb.AttestResponse) { p.EatToken = nil },
		"a card beside":   func(p *apb.AttestResponse) { p.ControlCardId = full.ControlCardId },
		"values beside":   func(p *apb.AttestResponse) { p.PcrValues = full.PcrValues },
		"a quote beside":  func(p *apb.AttestResponse) { p.Quoted = full.Quoted },
		"a signature too": func(p *apb.AttestResponse) { p.QuoteSignature = full.QuoteSignature },
		"oIAK beside":     func(p *apb.AttestResponse) { p.AttestationCert = full.AttestationCert },
		"old oIAK beside": func(p *apb.AttestResponse) { setOldOIAK(p, "x") },
		"oIDevID beside":  func(p *apb.AttestResponse) { p.OidevidCert = "x" },
		"a log beside":    func(p *apb.AttestResponse) { p.EventlogBytes = full.EventlogBytes },
	} {
		p := proto.Clone(token).(*apb.AttestResponse)
		change(p)
		if _, err := attestAnswerOf(p, ask); err == nil {
			t.Errorf("%s: accepted where a JWT was asked for", name)
		}
	}
	if _, err := attestAnswerOf(token, plainRequest); err == nil {
		t.Error("a JWT is accepted where nothing was asked for")
	}
	full.EatToken = []byte("token")
	if _, err := attestAnswerOf(full, plainRequest); err == nil {
		t.Error("a token beside the raw form is accepted")
	}
}
