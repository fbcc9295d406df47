package wire

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"

	epb "github.com/openconfig/attestz/proto/tpm_enrollz"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"waxseal/measure"
)

var testCard = Card{Role: Active, Serial: "WX-0001", Slot: "0", Maker: "QEMU", Part: "qemu-amd64", ChassisSerial: "WX-0001"}

// device answers every call with what it holds, and keeps what it was asked.
type device struct {
	attest   AttestAnswer
	iak      IAKAnswer
	content  []byte
	status   Status
	err      error
	asked    AttestRequest
	rotation Rotation
	batch    BatchAnswer
	joined   BatchRequest
	hmac     HMACAnswer
	hmacked  HMACChallenge
	csr      CSRAnswer
	csrAsked CSRRequest
}

func (d *device) Attest(_ context.Context, r AttestRequest) (AttestAnswer, error) {
	d.asked = r
	return d.attest, d.err
}
func (d *device) AttestBatched(_ context.Context, r BatchRequest) (BatchAnswer, error) {
	d.joined = r
	return d.batch, d.err
}
func (d *device) CardID(context.Context, Selection) (Card, error)       { return d.attest.Card, d.err }
func (d *device) IAKCert(context.Context, Selection) (IAKAnswer, error) { return d.iak, d.err }
func (d *device) Challenge(_ context.Context, c HMACChallenge) (HMACAnswer, error) {
	d.hmacked = c
	return d.hmac, d.err
}
func (d *device) IDevIDCSR(_ context.Context, r CSRRequest) (CSRAnswer, error) {
	d.csrAsked = r
	return d.csr, d.err
}
func (d *device) RotateOIAK(_ context.Context, r Rotation) error {
	d.rotation = r
	return d.err
}
func (d *device) Content(context.Context, [sha256.Size]byte) ([]byte, error) { return d.content, d.err }
func (d *device) Status(context.Context) (Status, error)                     { return d.status, d.err }

// serve serves d in memory and returns a connection to it.
func serve(t *testing.T, d *device) *grpc.ClientConn {
	t.Helper()
	s := grpc.NewServer()
	RegisterAttestz(s, d)
	RegisterEnrollz(s, d)
	RegisterContents(s, d)
	RegisterChallenge(s, d)
	l := bufconn.Listen(1 << 20)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func goodRequest() AttestRequest {
	return AttestRequest{Select: Selection{Role: Active}, Nonce: make([]byte, 32), Bank: measure.SHA384, PCRs: []measure.PCR{0, 12}}
}

func goodAnswer(t testing.TB) AttestAnswer {
	return AttestAnswer{
		Card:      testCard,
		PCRs:      map[measure.PCR][]byte{0: make([]byte, 48), 12: bytes.Repeat([]byte{1}, 48)},
		Quoted:    []byte("quoted"),
		Signature: []byte("signature"),
		OIAK:      ChainOf(newCertificate(t), newCertificate(t)),
		OIDevID:   ChainOf(newCertificate(t)),
		Log:       []byte("log"),
	}
}

func TestValuesCrossTheWire(t *testing.T) {
	d := &device{attest: goodAnswer(t), content: []byte("text"), status: Status{Attested: true, Enrolled: true, Owned: true, Reason: "x"}}
	d.iak = IAKAnswer{Card: testCard, IAK: d.attest.OIAK, IDevID: d.attest.OIDevID, Atomic: true}
	conn := serve(t, d)
	for _, sel := range []Selection{{Role: Active}, {Role: Standby}, {Role: Chassis}, {Serial: "WX-0001"}, {Slot: "0"}} {
		req := goodRequest()
		req.Select = sel
		ans, err := NewAttestz(conn).Attest(t.Context(), req)
		if err != nil || !reflect.DeepEqual(ans, d.attest) {
			t.Errorf("answer %+v, %v", ans, err)
		}
		if !reflect.DeepEqual(d.asked, req) {
			t.Errorf("asked %+v: want %+v", d.asked, req)
		}
	}
	if ans, err := NewEnrollz(conn).IAKCert(t.Context(), Selection{Role: Active}); err != nil || !reflect.DeepEqual(ans, d.iak) {
		t.Errorf("IAK answer %+v, %v", ans, err)
	}
	if c, err := NewEnrollz(conn).CardID(t.Context(), Selection{Role: Active}); err != nil || c != testCard {
		t.Errorf("card %+v, %v", c, err)
	}
	rot := Rotation{Profile: "tls", Updates: []Update{{Select: Selection{Role: Active}, OIAK: d.attest.OIAK, OIDevID: d.attest.OIDevID}}}
	if err := NewEnrollz(conn).RotateOIAK(t.Context(), rot); err != nil || !reflect.DeepEqual(d.rotation, rot) {
		t.Errorf("rotation %+v, %v", d.rotation, err)
	}
	if b, err := NewContents(conn).Content(t.Context(), sha256.Sum256(d.content)); err != nil || string(b) != "text" {
		t.Errorf("content %q, %v", b, err)
	}
	if s, err := NewContents(conn).Status(t.Context()); err != nil || s != d.status {
		t.Errorf("status %+v, %v", s, err)
	}
}

func TestErrorsKeepTheirMeaning(t *testing.T) {
	d := &device{}
	conn := serve(t, d)
	for _, want := range []error{ErrInvalid, ErrNotReady, ErrNotFound, ErrDenied, ErrBusy, ErrRetry, ErrNoMethod, context.Canceled, context.DeadlineExceeded} {
		d.err = fmt.Errorf("thing: %w", want)
		if _, err := NewAttestz(conn).Attest(t.Context(), goodRequest()); !errors.Is(err, want) || !strings.Contains(err.Error(), "thing") {
			t.Errorf("%v arrives as %v", d.err, err)
		}
	}
	d.err = errors.New("open /etc/secret: \x1b[31m")
	_, err := NewAttestz(conn).Attest(t.Context(), goodRequest())
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("an inner error arrives as %v", err)
	}
	d.err = fmt.Errorf("%w: \x1b[31m\u202e<script>%s", ErrInvalid, strings.Repeat("x", 1000))
	_, err = NewAttestz(conn).Attest(t.Context(), goodRequest())
	if text := fmt.Sprint(err); strings.ContainsAny(text, "\x1b\u202e") || len(text) > MaxReason+100 {
		t.Errorf("a peer's text arrives as %q", text)
	}
}

// TPM 1.2 is not supported.
func TestCallOfTPM12IsUnimplemented(t *testing.T) {
	c, err := epb.NewTpmEnrollzServiceClient(serve(t, &device{})).RotateAIKCert(t.Context())
	if err == nil {
		_, err = c.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("RotateAIKCert: %v", err)
	}
}

func TestMethodsAreTheServedOnes(t *testing.T) {
	s := grpc.NewServer()
	RegisterAttestz(s, &device{})
	RegisterEnrollz(s, &device{})
	RegisterContents(s, &device{})
	RegisterDelivery(s, &parcel{})
	RegisterChallenge(s, &device{})
	RegisterFindings(s, nil)
	named := map[string]bool{}
	for _, m := range Methods() {
		named[m] = true
	}
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			if full := "/" + service + "/" + m.Name; !named[full] {
				t.Errorf("%s is served and not in Methods", full)
			} else {
				delete(named, full)
			}
		}
	}
	if len(named) != 0 {
		t.Errorf("%v are not served", named)
	}
}

func TestContentOfAnotherDigestIsRefused(t *testing.T) {
	c := NewContents(serve(t, &device{content: []byte("forged")}))
	if _, err := c.Content(t.Context(), sha256.Sum256([]byte("text"))); !errors.Is(err, ErrAnswer) {
		t.Errorf("%v: want ErrAnswer", err)
	}
}

func TestSelectionOfAFixedBox(t *testing.T) {
	for _, sel := range []Selection{{Role: Active}, {Role: Chassis}, {Serial: "WX-0001"}, {Slot: "0"}} {
		if err := testCard.Select(sel); err != nil {
			t.Errorf("%+v: %v", sel, err)
		}
	}
	for _, sel := range []Selection{{}, {Role: Standby}, {Role: 9}, {Serial: "WX-0002"}, {Slot: "1"}} {
		if err := testCard.Select(sel); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v: want ErrInvalid", sel, err)
		}
	}
}
