//lint:file-ignore SA1019 clients of the reference still send and read the deprecated fields

package wire

import (
	"errors"
	"strings"
	"testing"

	cpb "github.com/openconfig/attestz/proto/common_definitions"
	apb "github.com/openconfig/attestz/proto/tpm_attestz"
	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
	"google.golang.org/protobuf/proto"

	"waxseal/measure"
)

func TestBadAttestRequestsAreRefused(t *testing.T) {
	good := func() *apb.AttestRequest {
		p, err := goodRequest().proto()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if _, err := attestRequestOf(good()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*apb.AttestRequest){
		"no selection":     func(p *apb.AttestRequest) { p.ControlCardSelection = nil },
		"empty selection":  func(p *apb.AttestRequest) { p.ControlCardSelection = &cpb.ControlCardSelection{} },
		"role 0":           func(p *apb.AttestRequest) { p.ControlCardSelection = role(0) },
		"role 4":           func(p *apb.AttestRequest) { p.ControlCardSelection = role(4) },
		"role -1":          func(p *apb.AttestRequest) { p.ControlCardSelection = role(-1) },
		"empty serial":     func(p *apb.AttestRequest) { p.ControlCardSelection = bySerial("") },
		"long serial":      func(p *apb.AttestRequest) { p.ControlCardSelection = bySerial(strings.Repeat("x", MaxText+1)) },
		"serial of ANSI":   func(p *apb.AttestRequest) { p.ControlCardSelection = bySerial("\x1b[2J") },
		"serial of bidi":   func(p *apb.AttestRequest) { p.ControlCardSelection = bySerial("a\u202eb") },
		"nonce missing":    func(p *apb.AttestRequest) { p.Nonce = nil },
		"nonce short":      func(p *apb.AttestRequest) { p.Nonce = make([]byte, 15) },
		"nonce long":       func(p *apb.AttestRequest) { p.Nonce = make([]byte, 65) },
		"nonce of a batch": func(p *apb.AttestRequest) { p.Nonce = append([]byte("waxseal-batch-1\x00"), make([]byte, 34)...) },
		"hash unspecified": func(p *apb.AttestRequest) { p.HashAlgo = 0 },
		"SHA-1":            func(p *apb.AttestRequest) { p.HashAlgo = cpb.Tpm20HashAlgo_TPM_2_0_HASH_ALGO_SHA1 },
		"hash unknown":     func(p *apb.AttestRequest) { p.HashAlgo = 99 },
		"no PCR":           func(p *apb.AttestRequest) { p.PcrIndices = nil },
		"PCR -1":           func(p *apb.AttestRequest) { p.PcrIndices = []int32{-1} },
		"PCR 24":           func(p *apb.AttestRequest) { p.PcrIndices = []int32{24} },
		"PCR 256":          func(p *apb.AttestRequest) { p.PcrIndices = []int32{256} },
		"PCR twice":        func(p *apb.AttestRequest) { p.PcrIndices = []int32{1, 2, 1} },
		"25 PCRs":          func(p *apb.AttestRequest) { p.PcrIndices = make([]int32, 25) },
	} {
		p := good()
		change(p)
		if _, err := attestRequestOf(p); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v: want ErrInvalid", name, err)
		}
	}
}

func role(r cpb.ControlCardRole) *cpb.ControlCardSelection {
	return &cpb.ControlCardSelection{ControlCardId: &cpb.ControlCardSelection_Role{Role: r}}
}

func bySerial(s string) *cpb.ControlCardSelection {
	return &cpb.ControlCardSelection{ControlCardId: &cpb.ControlCardSelection_Serial{Serial: s}}
}

func TestBadAnswersAreRefused(t *testing.T) {
	ans := goodAnswer(t)
	if _, err := attestAnswerOf(ans.proto(), AttestRequest{Bank: measure.SHA384}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*apb.AttestResponse){
		"JWT":                 func(p *apb.AttestResponse) { p.Format = apb.AttestResponse_ATTESTATION_FORMAT_EAT_JWT },
		"long quote":          func(p *apb.AttestResponse) { p.Quoted = make([]byte, maxStructure+1) },
		"long signature":      func(p *apb.AttestResponse) { p.QuoteSignature = make([]byte, maxStructure+1) },
		"PCR of another bank": func(p *apb.AttestResponse) { p.PcrValues[0] = make([]byte, 32) },
		"PCR 24":              func(p *apb.AttestResponse) { p.PcrValues[24] = make([]byte, 48) },
		"PCR -1":              func(p *apb.AttestResponse) { p.PcrValues[-1] = make([]byte, 48) },
		"two oIAKs":           func(p *apb.AttestResponse) { p.OiakCert = p.OidevidCert },
		"oIAK with text":      func(p *apb.AttestResponse) { p.OiakCert, p.AttestationCert = "x", nil },
		"serial of script":    func(p *apb.AttestResponse) { p.ControlCardId.ControlCardSerial = "a\nb" },
		"10 MB of maker":      func(p *apb.AttestResponse) { p.ControlCardId.ChassisManufacturer = strings.Repeat("x", 10<<20) },
		"role 9":              func(p *apb.AttestResponse) { p.ControlCardId.ControlCardRole = 9 },
	} {
		p := proto.Clone(ans.proto()).(*apb.AttestResponse)
		change(p)
		if _, err := attestAnswerOf(p, AttestRequest{Bank: measure.SHA384}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOIAKInTheDeprecatedFieldCounts(t *testing.T) {
	ans := goodAnswer(t)
	p := ans.proto()
	p.AttestationCert = nil
	got, err := attestAnswerOf(p, AttestRequest{Bank: measure.SHA384})
	if err != nil || got.OIAK.String() != ans.OIAK.String() {
		t.Errorf("%v, %v", got.OIAK, err)
	}
}

func TestRotationsAreRead(t *testing.T) {
	oiak, other := ChainOf(newCertificate(t)).String(), ChainOf(newCertificate(t)).String()
	up := func(oiak, oidevid string) *epb.ControlCardCertUpdate {
		return &epb.ControlCardCertUpdate{ControlCardSelection: role(1), OiakCert: oiak, OidevidCert: oidevid}
	}
	for name, test := range map[string]struct {
		p    *epb.RotateOIakCertRequest
		good bool
	}{
		"updates":             {&epb.RotateOIakCertRequest{SslProfileId: "tls", Updates: []*epb.ControlCardCertUpdate{up(oiak, other)}}, true},
		"oIAK only":           {&epb.RotateOIakCertRequest{Updates: []*epb.ControlCardCertUpdate{up(oiak, "")}}, true},
		"single fields":       {&epb.RotateOIakCertRequest{SslProfileId: "tls", ControlCardSelection: role(1), OiakCert: oiak, OidevidCert: other}, true},
		"both, the same":      {&epb.RotateOIakCertRequest{ControlCardSelection: role(1), OiakCert: oiak, Updates: []*epb.ControlCardCertUpdate{up(oiak, "")}}, true},
		"both, different":     {&epb.RotateOIakCertRequest{ControlCardSelection: role(1), OiakCert: other, Updates: []*epb.ControlCardCertUpdate{up(oiak, "")}}, false},
		"both, other card":    {&epb.RotateOIakCertRequest{ControlCardSelection: role(2), OiakCert: oiak, Updates: []*epb.ControlCardCertUpdate{up(oiak, "")}}, false},
		"empty":               {&epb.RotateOIakCertRequest{}, false},
		"no profile":          {&epb.RotateOIakCertRequest{Updates: []*epb.ControlCardCertUpdate{up(oiak, other)}}, false},
		"oIDevID only":        {&epb.RotateOIakCertRequest{SslProfileId: "tls", Updates: []*epb.ControlCardCertUpdate{up("", other)}}, false},
		"no card":             {&epb.RotateOIakCertRequest{Updates: []*epb.ControlCardCertUpdate{{OiakCert: oiak}}}, false},
		"oIAK is text":        {&epb.RotateOIakCertRequest{Updates: []*epb.ControlCardCertUpdate{up("x", "")}}, false},
		"9 updates":           {&epb.RotateOIakCertRequest{Updates: make([]*epb.ControlCardCertUpdate, 9)}, false},
		"profile of controls": {&epb.RotateOIakCertRequest{SslProfileId: "\x00", Updates: []*epb.ControlCardCertUpdate{up(oiak, "")}}, false},
	} {
		rot, err := rotationOf(test.p)
		if test.good && (err != nil || len(rot.Updates) != 1 || rot.Updates[0].OIAK.String() != oiak) {
			t.Errorf("%s: %+v, %v", name, rot, err)
		}
		if !test.good && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v: want ErrInvalid", name, err)
		}
	}
}
