package wire

import (
	"bytes"
	"context"
	"errors"
	"net"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"waxseal/measure"
	"waxseal/measure/wire/waxsealpb"
)

// parcel is a device at the doorstep.
type parcel struct {
	identity Identity
	proof    Proof
	err      error
	asked    ProofRequest
}

func (p *parcel) Identify(context.Context) (Identity, error) { return p.identity, p.err }
func (p *parcel) Prove(_ context.Context, r ProofRequest) (Proof, error) {
	p.asked = r
	return p.proof, p.err
}

func goodIdentity() Identity {
	return Identity{
		Card: testCard, EK: []byte("ek"), IAK: []byte("iak"), IDevID: []byte("idevid"), SRK: []byte("srk"),
		EKCerts: Chain{pemOf("ek cert")}, IAKCert: Chain{pemOf("a"), pemOf("b")}, IDevIDCert: Chain{pemOf("c")},
	}
}

func pemOf(der string) string {
	chain, err := chainOfDER("", [][]byte{[]byte(der)})
	if err != nil {
		panic(err)
	}
	return chain[0]
}

func goodProofRequest() ProofRequest {
	return ProofRequest{
		Nonce: bytes.Repeat([]byte{1}, 32), Bank: measure.SHA384, PCRs: []measure.PCR{15, 0},
		IAK: Credential{[]byte("blob"), []byte("secret")}, IDevID: Credential{[]byte("blob 2"), []byte("secret 2")},
	}
}

func goodProof() Proof {
	return Proof{
		PCRs:  map[measure.PCR][]byte{0: make([]byte, 48), 15: bytes.Repeat([]byte{15}, 48)},
		Quote: Signed{[]byte("quoted"), []byte("signature")}, Log: []byte("log"),
		SRK: Signed{[]byte("srk"), []byte("signature 2")}, IDevID: Signed{[]byte("idevid"), []byte("signature 3")},
		IAKProof: []byte("proof"), IDevIDProof: []byte("proof 2"),
	}
}

func atDoorstep(t *testing.T, p *parcel) DeliveryClient {
	t.Helper()
	s := grpc.NewServer()
	RegisterDelivery(s, p)
	l := bufconn.Listen(1 << 20)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return Conn{conn}.Delivery()
}

func TestProofCrossesTheWire(t *testing.T) {
	p := &parcel{identity: goodIdentity(), proof: goodProof()}
	c := atDoorstep(t, p)
	id, err := c.Identify(t.Context())
	if err != nil || !reflect.DeepEqual(id, goodIdentity()) {
		t.Errorf("identity %+v, %v", id, err)
	}
	proof, err := c.Prove(t.Context(), goodProofRequest())
	if err != nil || !reflect.DeepEqual(proof, goodProof()) || !reflect.DeepEqual(p.asked, goodProofRequest()) {
		t.Errorf("proof %+v to %+v, %v", proof, p.asked, err)
	}
	for _, want := range []error{ErrInvalid, ErrNotReady, ErrBusy, ErrRetry} {
		p.err = want
		if _, err := c.Prove(t.Context(), goodProofRequest()); !errors.Is(err, want) {
			t.Errorf("%v: want %v", err, want)
		}
	}
}

func TestBadProofRequestsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*waxsealpb.ProveRequest){
		"empty":              func(p *waxsealpb.ProveRequest) { proto.Reset(p) },
		"nonce missing":      func(p *waxsealpb.ProveRequest) { p.Nonce = nil },
		"nonce short":        func(p *waxsealpb.ProveRequest) { p.Nonce = make([]byte, 15) },
		"nonce long":         func(p *waxsealpb.ProveRequest) { p.Nonce = make([]byte, 65) },
		"SHA-1":              func(p *waxsealpb.ProveRequest) { p.Bank = uint32(measure.SHA1) },
		"bank unknown":       func(p *waxsealpb.ProveRequest) { p.Bank = 99 },
		"bank of 17 bits":    func(p *waxsealpb.ProveRequest) { p.Bank |= 1 << 16 },
		"no PCR":             func(p *waxsealpb.ProveRequest) { p.Pcrs = nil },
		"PCR 24":             func(p *waxsealpb.ProveRequest) { p.Pcrs = []uint32{24} },
		"PCR 256":            func(p *waxsealpb.ProveRequest) { p.Pcrs = []uint32{256} },
		"PCR twice":          func(p *waxsealpb.ProveRequest) { p.Pcrs = []uint32{1, 1} },
		"25 PCRs":            func(p *waxsealpb.ProveRequest) { p.Pcrs = make([]uint32, 25) },
		"no credential":      func(p *waxsealpb.ProveRequest) { p.Iak = nil },
		"no second one":      func(p *waxsealpb.ProveRequest) { p.Idevid = nil },
		"empty blob":         func(p *waxsealpb.ProveRequest) { p.Iak.Blob = nil },
		"long blob":          func(p *waxsealpb.ProveRequest) { p.Iak.Blob = make([]byte, maxCredential+1) },
		"empty secret":       func(p *waxsealpb.ProveRequest) { p.Idevid.Secret = nil },
		"long secret":        func(p *waxsealpb.ProveRequest) { p.Idevid.Secret = make([]byte, maxSeed+1) },
		"nonce like a batch": func(p *waxsealpb.ProveRequest) { p.Nonce = append([]byte("waxseal-batch-1\x00"), make([]byte, 34)...) },
	} {
		p := goodProofRequest().proto()
		change(p)
		if _, err := proofRequestOf(p); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v: want ErrInvalid", name, err)
		}
	}
}

func TestHostileProofsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*waxsealpb.ProveResponse){
		"PCR 24":          func(p *waxsealpb.ProveResponse) { p.PcrValues[24] = make([]byte, 48) },
		"PCR 2^32-1":      func(p *waxsealpb.ProveResponse) { p.PcrValues[1<<32-1] = make([]byte, 48) },
		"short PCR":       func(p *waxsealpb.ProveResponse) { p.PcrValues[1] = make([]byte, 47) },
		"long quote":      func(p *waxsealpb.ProveResponse) { p.Quote.Attest = make([]byte, maxStructure+1) },
		"long signature":  func(p *waxsealpb.ProveResponse) { p.Srk = &waxsealpb.Signed{Signature: make([]byte, maxStructure+1)} },
		"long certify":    func(p *waxsealpb.ProveResponse) { p.Idevid = &waxsealpb.Signed{Attest: make([]byte, maxStructure+1)} },
		"long HMAC":       func(p *waxsealpb.ProveResponse) { p.IakProof = make([]byte, maxStructure+1) },
		"long other HMAC": func(p *waxsealpb.ProveResponse) { p.IdevidProof = make([]byte, maxStructure+1) },
	} {
		p := goodProof().proto()
		change(p)
		if _, err := proofOf(p, measure.SHA384); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := proofOf(&waxsealpb.ProveResponse{}, measure.SHA384); err != nil {
		t.Errorf("an empty answer is for the verifier to judge: %v", err)
	}
}

func TestHostileIdentitiesAreRefused(t *testing.T) {
	for name, change := range map[string]func(*waxsealpb.IdentifyResponse){
		"long serial":     func(p *waxsealpb.IdentifyResponse) { p.Card.Serial = strings.Repeat("x", MaxText+1) },
		"serial of ANSI":  func(p *waxsealpb.IdentifyResponse) { p.Card.Serial = "\x1b[2J" },
		"role 4":          func(p *waxsealpb.IdentifyResponse) { p.Card.Role = 4 },
		"long EK":         func(p *waxsealpb.IdentifyResponse) { p.Ek = make([]byte, maxPublic+1) },
		"long SRK":        func(p *waxsealpb.IdentifyResponse) { p.Srk = make([]byte, maxPublic+1) },
		"nine EKs":        func(p *waxsealpb.IdentifyResponse) { p.EkCert = make([][]byte, MaxChain+1) },
		"empty cert":      func(p *waxsealpb.IdentifyResponse) { p.IakCert = [][]byte{nil} },
		"long cert":       func(p *waxsealpb.IdentifyResponse) { p.IdevidCert = [][]byte{make([]byte, MaxCert+1)} },
		"long IAK public": func(p *waxsealpb.IdentifyResponse) { p.Iak = make([]byte, maxPublic+1) },
	} {
		p := goodIdentity().proto()
		change(p)
		if _, err := identityOf(p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Whatever is changed in question or answer, what authenticates them changes.
func TestProofIsOverTheWholeExchange(t *testing.T) {
	secret := bytes.Repeat([]byte{9}, 32)
	want := goodProofRequest().Authenticate(ProofOfIAK, secret, goodProof())
	if len(want) != 48 || !bytes.Equal(want, goodProofRequest().Authenticate(ProofOfIAK, secret, goodProof())) {
		t.Fatalf("proof %x", want)
	}
	for name, change := range map[string]func(*ProofRequest, *Proof, *string, []byte){
		"label":       func(_ *ProofRequest, _ *Proof, l *string, _ []byte) { *l = ProofOfIDevID },
		"secret":      func(_ *ProofRequest, _ *Proof, _ *string, s []byte) { s[0] ^= 1 },
		"nonce":       func(r *ProofRequest, _ *Proof, _ *string, _ []byte) { r.Nonce[31] ^= 1 },
		"bank":        func(r *ProofRequest, _ *Proof, _ *string, _ []byte) { r.Bank = measure.SHA256 },
		"blob":        func(r *ProofRequest, _ *Proof, _ *string, _ []byte) { r.IAK.Blob[0] ^= 1 },
		"other blob":  func(r *ProofRequest, _ *Proof, _ *string, _ []byte) { r.IDevID.Blob[0] ^= 1 },
		"seed":        func(r *ProofRequest, _ *Proof, _ *string, _ []byte) { r.IDevID.Secret[0] ^= 1 },
		"PCR value":   func(_ *ProofRequest, p *Proof, _ *string, _ []byte) { p.PCRs[15][0] ^= 1 },
		"PCR missing": func(_ *ProofRequest, p *Proof, _ *string, _ []byte) { delete(p.PCRs, 15) },
		"quote":       func(_ *ProofRequest, p *Proof, _ *string, _ []byte) { p.Quote.Attest[0] ^= 1 },
		"signature":   func(_ *ProofRequest, p *Proof, _ *string, _ []byte) { p.Quote.Signature[0] ^= 1 },
		"log":         func(_ *ProofRequest, p *Proof, _ *string, _ []byte) { p.Log[0] ^= 1 },
		"SRK":         func(_ *ProofRequest, p *Proof, _ *string, _ []byte) { p.SRK = Signed{} },
		"IDevID":      func(_ *ProofRequest, p *Proof, _ *string, _ []byte) { p.IDevID.Attest[0] ^= 1 },
		"moved byte": func(_ *ProofRequest, p *Proof, _ *string, _ []byte) {
			p.Quote = Signed{append(p.Quote.Attest, p.Quote.Signature[0]), p.Quote.Signature[1:]}
		},
	} {
		r, p, label, key := goodProofRequest(), goodProof(), ProofOfIAK, bytes.Clone(secret)
		change(&r, &p, &label, key)
		if bytes.Equal(r.Authenticate(label, key, p), want) {
			t.Errorf("another %s has the same proof", name)
		}
	}
}

func FuzzProofRequest(f *testing.F) {
	f.Add(marshal(f, goodProofRequest().proto()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p waxsealpb.ProveRequest
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		req, err := proofRequestOf(&p)
		if err != nil {
			return
		}
		if again, err := proofRequestOf(req.proto()); err != nil || !reflect.DeepEqual(again, req) {
			t.Fatalf("accepted, and then: %v", err)
		}
	})
}

func FuzzProof(f *testing.F) {
	f.Add(marshal(f, goodProof().proto()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p waxsealpb.ProveResponse
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		proof, err := proofOf(&p, measure.SHA384)
		if err != nil {
			return
		}
		for pcr, v := range proof.PCRs {
			if pcr >= measure.NumPCRs || len(v) != 48 {
				t.Fatalf("PCR %d of %d bytes", pcr, len(v))
			}
		}
		goodProofRequest().Authenticate(ProofOfIAK, nil, proof)
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add(marshal(f, goodIdentity().proto()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p waxsealpb.IdentifyResponse
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		id, err := identityOf(&p)
		if err != nil {
			return
		}
		for _, f := range id.Card.texts() {
			if clean(f.text, MaxText) != f.text {
				t.Fatalf("%s is %q", f.name, f.text)
			}
		}
		if len(id.EKCerts) > MaxChain || len(id.EKCerts.der()) != len(id.EKCerts) {
			t.Fatalf("%d EK certificates", len(id.EKCerts))
		}
	})
}
