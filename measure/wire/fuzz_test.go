package wire

import (
	"testing"

	apb "github.com/openconfig/attestz/proto/tpm_attestz"
	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
	"google.golang.org/protobuf/proto"

	"waxseal/measure"
)

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzAttestRequest(f *testing.F) {
	p, err := goodRequest().proto()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(marshal(f, p))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p apb.AttestRequest
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		req, err := attestRequestOf(&p)
		if err != nil {
			return
		}
		if err := req.Check(); err != nil {
			t.Fatalf("accepted, and then: %v", err)
		}
		if len(req.PCRs) != len(p.PcrIndices) || len(req.PCRs) > measure.NumPCRs {
			t.Fatalf("%d PCRs of %d", len(req.PCRs), len(p.PcrIndices))
		}
	})
}

func FuzzAttestAnswer(f *testing.F) {
	f.Add(marshal(f, AttestAnswer{
		Card: testCard, PCRs: map[measure.PCR][]byte{12: make([]byte, 48)}, Quoted: []byte{1}, Signature: []byte{2}, Log: []byte{3},
	}.proto()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p apb.AttestResponse
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		a, err := attestAnswerOf(&p, AttestRequest{Bank: measure.SHA384})
		if err != nil {
			return
		}
		for pcr, v := range a.PCRs {
			if pcr >= measure.NumPCRs || len(v) != 48 {
				t.Fatalf("PCR %d of %d bytes", pcr, len(v))
			}
		}
		for _, f := range a.Card.texts() {
			if clean(f.text, MaxText) != f.text {
				t.Fatalf("%s is %q", f.name, f.text)
			}
		}
	})
}

func FuzzRotation(f *testing.F) {
	f.Add(marshal(f, &epb.RotateOIakCertRequest{SslProfileId: "tls", Updates: []*epb.ControlCardCertUpdate{
		{ControlCardSelection: role(1), OiakCert: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
	}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p epb.RotateOIakCertRequest
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		rot, err := rotationOf(&p)
		if err != nil {
			return
		}
		if _, err := rot.proto(); err != nil {
			t.Fatalf("accepted, and then: %v", err)
		}
	})
}
