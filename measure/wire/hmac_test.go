package wire

import (
	"errors"
	"reflect"
	"testing"

	cpb "github.com/openconfig/attestz/proto/common_definitions"
	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
	"google.golang.org/protobuf/proto"
)

func goodHMAC() HMACChallenge {
	return HMACChallenge{Select: Selection{Role: Active}, Parent: ParentEK, Public: []byte("public"), Duplicate: []byte("duplicate"), Seed: []byte("seed")}
}

func TestProofsOfKeysCrossTheWire(t *testing.T) {
	d := &device{
		hmac: HMACAnswer{IAK: []byte("iak"), Attest: []byte("attest"), Signature: []byte("signature")},
		csr:  CSRAnswer{Card: testCard, Content: []byte("content"), Signature: []byte("signature")},
	}
	client := NewEnrollz(serve(t, d))
	if ans, err := client.Challenge(t.Context(), goodHMAC()); err != nil || !reflect.DeepEqual(ans, d.hmac) || !reflect.DeepEqual(d.hmacked, goodHMAC()) {
		t.Errorf("asked %+v, answer %+v, %v", d.hmacked, ans, err)
	}
	req := CSRRequest{Select: Selection{Role: Active}, Parent: ParentEK, Template: TemplateP384}
	if ans, err := client.IDevIDCSR(t.Context(), req); err != nil || !reflect.DeepEqual(ans, d.csr) || d.csrAsked != req {
		t.Errorf("asked %+v, answer %+v, %v", d.csrAsked, ans, err)
	}
	d.err = ErrUnsupported
	if _, err := client.IDevIDCSR(t.Context(), req); !errors.Is(err, ErrUnsupported) {
		t.Errorf("unsupported template: %v", err)
	}
	d.err, d.csr.Content, d.hmac.IAK = nil, make([]byte, MaxCSR+1), make([]byte, maxStructure+1)
	if _, err := client.IDevIDCSR(t.Context(), req); !errors.Is(err, ErrAnswer) {
		t.Errorf("large CSR: %v", err)
	}
	if _, err := client.Challenge(t.Context(), goodHMAC()); !errors.Is(err, ErrAnswer) {
		t.Errorf("large IAK: %v", err)
	}
}

// An unsupported template is an answer, not a failed call.
func TestUnsupportedTemplateIsAStatus(t *testing.T) {
	d := &device{csr: CSRAnswer{Card: testCard}, err: ErrUnsupported}
	resp, err := epb.NewTpmEnrollzServiceClient(serve(t, d)).GetIdevidCsr(t.Context(), &epb.GetIdevidCsrRequest{
		ControlCardSelection: role(1), Key: epb.Key_KEY_EK, KeyTemplate: 99,
	})
	if err != nil || resp.GetStatus() != epb.Status_STATUS_UNSUPPORTED || resp.GetCsrResponse() != nil || resp.GetControlCardId().GetControlCardSerial() != "WX-0001" {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestBadChallengesAreRefusedBeforeTheTPMIsAsked(t *testing.T) {
	good := func() *epb.ChallengeRequest {
		return &epb.ChallengeRequest{ControlCardSelection: role(1), Key: epb.Key_KEY_EK, Challenge: &epb.HMACChallenge{
			HmacPubKey: []byte{1}, Duplicate: []byte{2}, InSymSeed: []byte{3},
		}}
	}
	if _, err := challengeOf(good()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*epb.ChallengeRequest){
		"no selection":      func(p *epb.ChallengeRequest) { p.ControlCardSelection = nil },
		"empty selection":   func(p *epb.ChallengeRequest) { p.ControlCardSelection = &cpb.ControlCardSelection{} },
		"role 0":            func(p *epb.ChallengeRequest) { p.ControlCardSelection = role(0) },
		"no key":            func(p *epb.ChallengeRequest) { p.Key = epb.Key_KEY_UNSPECIFIED },
		"key -1":            func(p *epb.ChallengeRequest) { p.Key = -1 },
		"no challenge":      func(p *epb.ChallengeRequest) { p.Challenge = nil },
		"no public area":    func(p *epb.ChallengeRequest) { p.Challenge.HmacPubKey = nil },
		"no duplicate":      func(p *epb.ChallengeRequest) { p.Challenge.Duplicate = nil },
		"no seed":           func(p *epb.ChallengeRequest) { p.Challenge.InSymSeed = nil },
		"large public area": func(p *epb.ChallengeRequest) { p.Challenge.HmacPubKey = make([]byte, maxStructure+1) },
		"large duplicate":   func(p *epb.ChallengeRequest) { p.Challenge.Duplicate = make([]byte, maxStructure+1) },
		"large seed":        func(p *epb.ChallengeRequest) { p.Challenge.InSymSeed = make([]byte, maxStructure+1) },
	} {
		p := good()
		change(p)
		if _, err := challengeOf(p); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	d := &device{}
	_, err := epb.NewTpmEnrollzServiceClient(serve(t, d)).GetIdevidCsr(t.Context(), &epb.GetIdevidCsrRequest{ControlCardSelection: role(1), KeyTemplate: 1})
	if err := fromStatus("GetIdevidCsr", err); !errors.Is(err, ErrInvalid) || d.csrAsked.Template != 0 {
		t.Errorf("CSR for no key: %v", err)
	}
}

func FuzzChallengeRequest(f *testing.F) {
	f.Add(marshal(f, &epb.ChallengeRequest{ControlCardSelection: role(1), Key: 1, Challenge: &epb.HMACChallenge{
		HmacPubKey: []byte{1}, Duplicate: []byte{2}, InSymSeed: []byte{3},
	}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p epb.ChallengeRequest
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		c, err := challengeOf(&p)
		if err == nil && (c.Select.check() != nil || len(c.Public) == 0 || len(c.Duplicate) > maxStructure || len(c.Seed) > maxStructure) {
			t.Fatalf("accepted is %+v", c)
		}
	})
}
