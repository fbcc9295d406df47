package wire

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"waxseal/measure"
	"waxseal/measure/merkle"
	"waxseal/measure/wire/waxsealpb"
)

func goodBatchRequest() BatchRequest {
	return BatchRequest{Nonce: make([]byte, 32), Bank: measure.SHA384, PCRs: []measure.PCR{0, 12, 23}, KnownLog: make([]byte, 32)}
}

func goodBatchAnswer(t testing.TB) BatchAnswer {
	a := BatchAnswer{AttestAnswer: goodAnswer(t), Proof: merkle.Proof{Index: 1, Size: 2, Path: make([]byte, 32)}}
	a.OIDevID = nil
	a.PCRs[23] = bytes.Repeat([]byte{2}, 48)
	return a
}

func TestBatchedChallengeCrossesTheWire(t *testing.T) {
	d := &device{batch: goodBatchAnswer(t)}
	c := NewChallenge(serve(t, d))
	for name, change := range map[string]func(*BatchAnswer){
		"with a log": func(*BatchAnswer) {},
		"log known":  func(a *BatchAnswer) { a.Log, a.LogKnown = nil, true },
	} {
		change(&d.batch)
		req := goodBatchRequest()
		ans, err := c.Attest(t.Context(), req)
		if err != nil || !reflect.DeepEqual(ans, d.batch) {
			t.Errorf("%s: answer %+v, %v", name, ans, err)
		}
		if !reflect.DeepEqual(d.joined, req) {
			t.Errorf("%s: asked %+v: want %+v", name, d.joined, req)
		}
	}
}

func TestBadBatchRequestsAreRefused(t *testing.T) {
	good := func() *waxsealpb.BatchedAttestRequest {
		p, err := goodBatchRequest().proto()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, change := range map[string]func(*waxsealpb.BatchedAttestRequest){
		"nonce missing":          func(p *waxsealpb.BatchedAttestRequest) { p.Nonce = nil },
		"nonce short":            func(p *waxsealpb.BatchedAttestRequest) { p.Nonce = make([]byte, 15) },
		"nonce long":             func(p *waxsealpb.BatchedAttestRequest) { p.Nonce = make([]byte, 65) },
		"bank missing":           func(p *waxsealpb.BatchedAttestRequest) { p.Bank = 0 },
		"SHA-1":                  func(p *waxsealpb.BatchedAttestRequest) { p.Bank = 4 },
		"bank of 17 bits":        func(p *waxsealpb.BatchedAttestRequest) { p.Bank = 1<<16 | 0x0c },
		"no PCR":                 func(p *waxsealpb.BatchedAttestRequest) { p.Pcrs = 0 },
		"PCR 24":                 func(p *waxsealpb.BatchedAttestRequest) { p.Pcrs = 1 << 24 },
		"PCR 31 beside PCR 0":    func(p *waxsealpb.BatchedAttestRequest) { p.Pcrs = 1<<31 | 1 },
		"digest of 31 bytes":     func(p *waxsealpb.BatchedAttestRequest) { p.KnownLog = make([]byte, 31) },
		"digest of 60,000 bytes": func(p *waxsealpb.BatchedAttestRequest) { p.KnownLog = make([]byte, 60_000) },
	} {
		p := good()
		change(p)
		if _, err := batchRequestOf(p); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v: want ErrInvalid", name, err)
		}
	}
}

func TestBadBatchAnswersAreRefused(t *testing.T) {
	ans, req := goodBatchAnswer(t), goodBatchRequest()
	for name, change := range map[string]func(*waxsealpb.BatchedAttestResponse, *BatchRequest){
		"no size":        func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.Size = 0 },
		"batch of 5,000": func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.Size = 5000 },
		"index is size":  func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.Index = 2 },
		"long path":      func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.Path = make([]byte, 64) },
		"one value less": func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.PcrValues = p.PcrValues[1:] },
		"one value more": func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) {
			p.PcrValues = append(p.PcrValues, make([]byte, 48))
		},
		"value of another bank": func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.PcrValues[1] = make([]byte, 32) },
		"known log, and a log":  func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.LogKnown = true },
		"known log, none was": func(p *waxsealpb.BatchedAttestResponse, r *BatchRequest) {
			p.LogKnown, p.Log, r.KnownLog = true, nil, nil
		},
		"long quote": func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.Quoted = make([]byte, maxStructure+1) },
		"long signature": func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) {
			p.QuoteSignature = make([]byte, maxStructure+1)
		},
		"oIAK of text":        func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.OiakCert = "x" },
		"no card":             func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.Card = nil },
		"serial of two lines": func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.Card.Serial = "a\nb" },
		"role 9":              func(p *waxsealpb.BatchedAttestResponse, _ *BatchRequest) { p.Card.Role = 9 },
	} {
		p, asked := proto.Clone(ans.proto()).(*waxsealpb.BatchedAttestResponse), req
		if _, err := batchAnswerOf(p, asked); err != nil {
			t.Fatal(err)
		}
		change(p, &asked)
		if _, err := batchAnswerOf(p, asked); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzBatchRequest(f *testing.F) {
	p, err := goodBatchRequest().proto()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(marshal(f, p))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p waxsealpb.BatchedAttestRequest
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		req, err := batchRequestOf(&p)
		if err != nil {
			return
		}
		again, err := req.proto()
		if err != nil {
			t.Fatalf("accepted, and then: %v", err)
		}
		if req.Mask() != p.GetPcrs() || again.GetBank() != p.GetBank() {
			t.Fatalf("asked %v of %v, read as %v", p.GetPcrs(), p.GetBank(), req)
		}
	})
}

func FuzzBatchAnswer(f *testing.F) {
	req := goodBatchRequest()
	f.Add(marshal(f, BatchAnswer{
		AttestAnswer: AttestAnswer{
			Card: testCard, PCRs: map[measure.PCR][]byte{0: make([]byte, 48), 12: make([]byte, 48), 23: make([]byte, 48)},
			Quoted: []byte{1}, Signature: []byte{2}, Log: []byte{3},
		},
		Proof: merkle.Proof{Size: 1},
	}.proto()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p waxsealpb.BatchedAttestResponse
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		a, err := batchAnswerOf(&p, req)
		if err != nil {
			return
		}
		if err := errors.Join(a.Proof.Check(), a.Card.Check()); err != nil {
			t.Fatalf("accepted, and then: %v", err)
		}
		for _, pcr := range req.PCRs {
			if len(a.PCRs[pcr]) != 48 || len(a.PCRs) != len(req.PCRs) {
				t.Fatalf("PCR %d of %d bytes, %d values", pcr, len(a.PCRs[pcr]), len(a.PCRs))
			}
		}
	})
}
