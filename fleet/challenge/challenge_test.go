package challenge_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"waxseal/fleet/appraise"
	"waxseal/fleet/challenge"
	"waxseal/fleet/challenge/challengetest"
	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/reference"
	"waxseal/measure/wire"
)

const (
	serial = "WX-0001"
	config = "config/uci/network?c=uci1"
)

var items = [][2]string{{"policy/measure", "p"}, {"rootfs/squashfs/root", "r"}, {config, "one\ntwo\n"}}

func device(t *testing.T) *challengetest.Device {
	t.Helper()
	d, err := challengetest.New(serial)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Boot(items...); err != nil {
		t.Fatal(err)
	}
	return d
}

// good returns the reference values of a boot of items.
func good(t *testing.T) *reference.Values {
	t.Helper()
	v := reference.Values{
		Format: reference.Format, Product: "soft", Version: "1", Profile: "waxseal-1",
		Assurance: "self", Handoff: measure.Handoff + "switch_root",
	}
	for _, item := range items {
		r, err := measure.Waxseal1.Of(item[0], []byte(item[1]))
		if err != nil {
			t.Fatal(err)
		}
		v.Items = append(v.Items, reference.Item{PCR: r.PCR, Name: r.Name, SHA256: []reference.Hex{r.Content[:]}, Text: item[1]})
	}
	if err := v.Check(); err != nil {
		t.Fatal(err)
	}
	return &v
}

// asked serves d and returns the configuration of an honest challenge to it.
func asked(t *testing.T, d *challengetest.Device) challenge.Config {
	t.Helper()
	address, stop, err := d.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	client, err := challengetest.Client(d.Owner)
	if err != nil {
		t.Fatal(err)
	}
	return challenge.Config{
		Address: address, Roots: []*x509.Certificate{d.Owner.Certificate}, Client: client, Serial: serial,
		Reference: good(t), Now: func() time.Time { return evidencetest.Noon },
	}
}

func run(t *testing.T, c challenge.Config) challenge.Result {
	t.Helper()
	r, err := challenge.Challenge(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGoodRouterIsAffirmed(t *testing.T) {
	c := asked(t, device(t))
	r := run(t, c)
	if r.Outcome != challenge.Judged || r.Verdict.Result != appraise.Affirming || r.Verdict.Serial != serial {
		t.Fatalf("%s, %+v", r.Outcome, r.Verdict)
	}
	if r.Evidence == nil || r.Counters.Reset != 7 {
		t.Fatalf("evidence %v, counters %+v", r.Evidence, r.Counters)
	}
}

func TestEachChallengeHasItsOwnNonce(t *testing.T) {
	d := device(t)
	c := asked(t, d)
	run(t, c)
	run(t, c)
	got := d.Requests()
	if len(got) != 2 || len(got[0].Nonce) != 32 || bytes.Equal(got[0].Nonce, got[1].Nonce) {
		t.Fatalf("requests are %+v", got)
	}
	if got[0].Bank != measure.SHA384 || fmt.Sprint(got[0].PCRs) != "[0 1 2 3 4 5 6 7 8 9 11 12 13 14 15]" {
		t.Fatalf("asked for %v %v", got[0].Bank, got[0].PCRs)
	}
}

func TestChangedTextIsFetchedAndShown(t *testing.T) {
	d, err := challengetest.New(serial)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Boot(items[0], items[1], [2]string{config, "one\nTWO\n"}); err != nil {
		t.Fatal(err)
	}
	r := run(t, asked(t, d))
	culprits := r.Verdict.Culprits()
	if len(culprits) != 1 || culprits[0].Name != config || len(culprits[0].Diff) == 0 || culprits[0].Diff[0].Number != 2 {
		t.Fatalf("culprits are %+v", culprits)
	}
	if len(r.Evidence.Contents) != 1 {
		t.Fatalf("fetched %d texts, only the one that differs is needed", len(r.Evidence.Contents))
	}
}

func TestAllTextsAreFetchedToBeSaved(t *testing.T) {
	c := asked(t, device(t))
	c.AllTexts = true
	r := run(t, c)
	sum := sha256.Sum256([]byte("one\ntwo\n"))
	if got := r.Evidence.Contents[fmt.Sprintf("%x", sum)]; string(got) != "one\ntwo\n" {
		t.Fatalf("contents are %q", r.Evidence.Contents)
	}
}

func TestWithoutReferenceNothingIsJudged(t *testing.T) {
	c := asked(t, device(t))
	c.Reference = nil
	r := run(t, c)
	if r.Outcome != challenge.Genuine || r.Verdict.Result != appraise.None || len(r.Verdict.Components) == 0 {
		t.Fatalf("%s, %+v", r.Outcome, r.Verdict)
	}
	for _, component := range r.Verdict.Components {
		if component.Result != appraise.None || component.State != appraise.Informational {
			t.Errorf("%+v was judged", component)
		}
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func authority(t *testing.T, name string, parent *evidencetest.Authority) evidencetest.Authority {
	t.Helper()
	a, err := evidencetest.NewAuthority(name, parent)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Each case is a router whose TLS certificate does not prove who it is.
func TestStrangerIsNeverJudged(t *testing.T) {
	show := func(t *testing.T, d *challengetest.Device, by evidencetest.Authority, change func(*x509.Certificate)) {
		template := challengetest.ServerLeaf(serial)
		change(template)
		if err := d.ShowTLS(by, template, d.Identity); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		change func(*testing.T, *challengetest.Device)
		want   string
	}{
		"another owner": {func(t *testing.T, d *challengetest.Device) {
			show(t, d, authority(t, "owner", nil), func(*x509.Certificate) {})
		}, "not the owner's"},
		"maker's certificate": {func(t *testing.T, d *challengetest.Device) {
			if err := d.ShowMaker(); err != nil {
				t.Fatal(err)
			}
		}, "waxseal enroll"},
		"expired": {func(t *testing.T, d *challengetest.Device) {
			show(t, d, d.Owner, func(c *x509.Certificate) { c.NotAfter = evidencetest.Noon.Add(-time.Second) })
		}, "expired"},
		"not yet valid": {func(t *testing.T, d *challengetest.Device) {
			show(t, d, d.Owner, func(c *x509.Certificate) { c.NotBefore = evidencetest.Noon.Add(time.Second) })
		}, "not yet valid"},
		"a client's certificate": {func(t *testing.T, d *challengetest.Device) {
			show(t, d, d.Owner, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
		}, "incompatible key usage"},
		"another router": {func(t *testing.T, d *challengetest.Device) {
			show(t, d, d.Owner, func(c *x509.Certificate) { c.Subject.SerialNumber = "WX-0002" })
		}, "is of WX-0002, expected is WX-0001"},
		"no serial number": {func(t *testing.T, d *challengetest.Device) {
			show(t, d, d.Owner, func(c *x509.Certificate) { c.Subject.SerialNumber = "" })
		}, "serial number"},
		"an intermediate of its own": {func(t *testing.T, d *challengetest.Device) {
			between := authority(t, "between", &d.Owner)
			if err := d.ShowTLS(between, challengetest.ServerLeaf(serial), d.Identity, between.Certificate); err != nil {
				t.Fatal(err)
			}
		}, "not the owner's"},
	} {
		t.Run(name, func(t *testing.T) {
			d := device(t)
			config := asked(t, d)
			c.change(t, d)
			d.Says.Reason, d.Says.Attested = "all is \x1b[32mgood", false
			r := run(t, config)
			if r.Outcome != challenge.Unauthenticated || r.Verdict.Result != appraise.None || r.Evidence != nil {
				t.Fatalf("%s, %+v", r.Outcome, r.Verdict)
			}
			reasons := strings.Join(r.Verdict.Reasons, "\n")
			if !strings.Contains(reasons, c.want) || !strings.Contains(reasons, "device says (not verified): UNATTESTED(all is ?[32mgood)") {
				t.Fatalf("reasons are %q, want %q and its claim", reasons, c.want)
			}
			if n := len(d.Requests()); n != 0 {
				t.Fatalf("a stranger was sent %d challenges", n)
			}
		})
	}
}

func TestWithoutExpectedSerialTheAddressCounts(t *testing.T) {
	d := device(t)
	c := asked(t, d)
	c.Serial = ""
	if r := run(t, c); r.Verdict.Result != appraise.Affirming {
		t.Fatalf("enrolled under this address: %+v", r.Verdict)
	}
	template := challengetest.ServerLeaf(serial)
	template.IPAddresses, template.DNSNames = nil, []string{"elsewhere.example"}
	if err := d.ShowTLS(d.Owner, template, d.Identity); err != nil {
		t.Fatal(err)
	}
	r := run(t, c)
	if r.Outcome != challenge.Unauthenticated || !strings.Contains(r.Verdict.Reasons[0], "--serial") {
		t.Fatalf("enrolled under another address: %s %+v", r.Outcome, r.Verdict)
	}
	c.Serial = serial
	if r := run(t, c); r.Verdict.Result != appraise.Affirming {
		t.Fatalf("expected by its serial number: %+v", r.Verdict)
	}
}

// Each case is an answer over the right TLS session that is not genuine.
func TestFalseAnswerIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		lie  func(*testing.T, *challengetest.Device) func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error
		want string
	}{
		"another nonce": {func(t *testing.T, d *challengetest.Device) func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error {
			return func(_ context.Context, req wire.AttestRequest, ans *wire.AttestAnswer) error {
				ans.Quoted = d.Router.Attest(evidence.Challenge{Nonce: make([]byte, 32), Bank: req.Bank, PCRs: req.PCRs}).Encode()
				var err error
				ans.Signature, err = evidencetest.Sign(d.AK, ans.Quoted)
				return err
			}
		}, evidence.ErrNonce.Error()},
		"an old answer": {func(*testing.T, *challengetest.Device) func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error {
			var old *wire.AttestAnswer
			return func(_ context.Context, _ wire.AttestRequest, ans *wire.AttestAnswer) error {
				if old == nil {
					first := *ans
					old = &first
				}
				*ans = *old
				return nil
			}
		}, evidence.ErrNonce.Error()},
		"relay of another router's answer": {func(t *testing.T, d *challengetest.Device) func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error {
			victim := newKey(t)
			oiak, err := d.Owner.Certify(evidencetest.Leaf("WX-0002"), victim.Public())
			if err != nil {
				t.Fatal(err)
			}
			return func(_ context.Context, _ wire.AttestRequest, ans *wire.AttestAnswer) error {
				ans.OIAK, ans.Card.Serial, ans.Card.ChassisSerial = wire.ChainOf(oiak), "WX-0002", "WX-0002"
				var err error
				ans.Signature, err = evidencetest.Sign(victim, ans.Quoted)
				return err
			}
		}, evidence.ErrSerial.Error()},
		"a key of nobody": {func(t *testing.T, _ *challengetest.Device) func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error {
			thief := newKey(t)
			return func(_ context.Context, _ wire.AttestRequest, ans *wire.AttestAnswer) error {
				var err error
				ans.Signature, err = evidencetest.Sign(thief, ans.Quoted)
				return err
			}
		}, evidence.ErrSignature.Error()},
		"log withheld": {func(*testing.T, *challengetest.Device) func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error {
			return func(_ context.Context, _ wire.AttestRequest, ans *wire.AttestAnswer) error {
				ans.Log = nil
				return nil
			}
		}, "evidence refused"},
		"fewer PCRs": {func(*testing.T, *challengetest.Device) func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error {
			return func(_ context.Context, _ wire.AttestRequest, ans *wire.AttestAnswer) error {
				delete(ans.PCRs, 12)
				return nil
			}
		}, evidence.ErrValues.Error()},
		"a log that is too long": {func(*testing.T, *challengetest.Device) func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error {
			return func(_ context.Context, _ wire.AttestRequest, ans *wire.AttestAnswer) error {
				ans.Log = make([]byte, wire.MaxAnswer+1)
				return nil
			}
		}, "larger than max"},
	} {
		t.Run(name, func(t *testing.T) {
			d := device(t)
			config := asked(t, d)
			lie := c.lie(t, d)
			if name == "an old answer" {
				d.Attesting = lie
				if r := run(t, config); r.Verdict.Result != appraise.Affirming {
					t.Fatalf("the first answer: %+v", r.Verdict)
				}
			}
			d.Attesting = lie
			for _, expected := range []string{serial, ""} {
				config.Serial = expected
				r := run(t, config)
				if r.Outcome != challenge.Refused || r.Verdict.Result != appraise.Contraindicated {
					t.Fatalf("expected %q: %s, %+v", expected, r.Outcome, r.Verdict)
				}
				if !strings.Contains(r.Verdict.Reasons[0], c.want) {
					t.Fatalf("expected %q: reasons are %q, want %q", expected, r.Verdict.Reasons, c.want)
				}
			}
		})
	}
}

// Each case is a router that gives no evidence, by its error.
func TestNoEvidenceIsNoVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want challenge.Outcome
	}{
		"no TPM":           {fmt.Errorf("%w: UNATTESTED(no TPM)", wire.ErrNotReady), challenge.Unattested},
		"not allowed":      {wire.ErrDenied, challenge.Unattested},
		"bank not active":  {wire.ErrInvalid, challenge.Unattested},
		"not implemented":  {wire.ErrNoMethod, challenge.Unattested},
		"busy":             {wire.ErrBusy, challenge.Unreachable},
		"try again":        {wire.ErrRetry, challenge.Unreachable},
		"something inside": {errors.New("secret"), challenge.Unattested},
	} {
		t.Run(name, func(t *testing.T) {
			d := device(t)
			d.Attesting = func(context.Context, wire.AttestRequest, *wire.AttestAnswer) error { return c.err }
			r := run(t, asked(t, d))
			if r.Outcome != c.want || r.Verdict.Result != appraise.None || r.Evidence != nil {
				t.Fatalf("%s, %+v", r.Outcome, r.Verdict)
			}
		})
	}
}

func TestSilentRouterIsUnreachableInTime(t *testing.T) {
	d := device(t)
	d.Attesting = func(ctx context.Context, _ wire.AttestRequest, _ *wire.AttestAnswer) error {
		<-ctx.Done()
		return ctx.Err()
	}
	c := asked(t, d)
	c.Timeout = 100 * time.Millisecond
	if r := run(t, c); r.Outcome != challenge.Unreachable || r.Verdict.Result != appraise.None {
		t.Fatalf("%s, %+v", r.Outcome, r.Verdict)
	}
}

func TestLateAnswerIsRefused(t *testing.T) {
	c := asked(t, device(t))
	now := evidencetest.Noon
	c.Now = func() time.Time { // the clock jumps while the router answers
		defer func() { now = now.Add(20 * time.Second) }()
		return now
	}
	r := run(t, c)
	if r.Outcome != challenge.Refused || r.Verdict.Result != appraise.Contraindicated {
		t.Fatalf("%s, %+v", r.Outcome, r.Verdict)
	}
}

func TestCallerCanGiveUp(t *testing.T) {
	d := device(t)
	ctx, cancel := context.WithCancel(t.Context())
	d.Attesting = func(c context.Context, _ wire.AttestRequest, _ *wire.AttestAnswer) error {
		cancel()
		<-c.Done()
		return c.Err()
	}
	if _, err := challenge.Challenge(ctx, asked(t, d)); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
}

func TestTextsThatFailCostNoVerdict(t *testing.T) {
	for name, giving := range map[string]func(context.Context, []byte) ([]byte, error){
		"other text":    func(context.Context, []byte) ([]byte, error) { return []byte("other"), nil },
		"too long":      func(context.Context, []byte) ([]byte, error) { return make([]byte, wire.MaxContent+2048), nil },
		"never":         func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
		"not shown":     func(context.Context, []byte) ([]byte, error) { return nil, wire.ErrNotFound },
		"not a service": func(context.Context, []byte) ([]byte, error) { return nil, wire.ErrNoMethod },
	} {
		t.Run(name, func(t *testing.T) {
			d := device(t)
			d.Giving = giving
			c := asked(t, d)
			c.AllTexts, c.Texts = true, 200*time.Millisecond
			r := run(t, c)
			if r.Verdict.Result != appraise.Affirming || len(r.Evidence.Contents) != 0 {
				t.Fatalf("%+v, contents %v", r.Verdict, r.Evidence.Contents)
			}
			if silent := name == "not shown" || name == "not a service"; silent != (len(r.Notes) == 0) {
				t.Fatalf("notes are %q", r.Notes)
			}
		})
	}
}

func TestClockThatIsNotSafe(t *testing.T) {
	d := device(t)
	d.Counters.Safe = false
	c := asked(t, d)
	if r := run(t, c); r.Outcome != challenge.Refused {
		t.Fatalf("%s, %+v", r.Outcome, r.Verdict)
	}
	c.UnsafeClock = true
	if r := run(t, c); r.Verdict.Result != appraise.Affirming || len(r.Notes) != 1 {
		t.Fatalf("accepted by the operator: %+v, notes %q", r.Verdict, r.Notes)
	}
}

func TestCountersNeverGoBack(t *testing.T) {
	d := device(t)
	c := asked(t, d)
	c.Previous = &evidence.Counters{Reset: d.Counters.Reset + 1, FirmwareVersion: d.Counters.FirmwareVersion}
	if r := run(t, c); r.Outcome != challenge.Refused || !strings.Contains(r.Verdict.Reasons[0], evidence.ErrCounters.Error()) {
		t.Fatalf("%s, %+v", r.Outcome, r.Verdict)
	}
}

func TestQuestionThatCannotBePutIsAnError(t *testing.T) {
	whole := asked(t, device(t))
	for name, change := range map[string]func(*challenge.Config){
		"no trust anchors":      func(c *challenge.Config) { c.Roots = nil },
		"no client certificate": func(c *challenge.Config) { c.Client.Certificate = nil },
		"weak bank":             func(c *challenge.Config) { c.Bank = measure.SHA1 },
		"resettable PCR":        func(c *challenge.Config) { c.PCRs = []measure.PCR{16} },
		"PCR twice":             func(c *challenge.Config) { c.PCRs = []measure.PCR{1, 1} },
	} {
		c := whole
		change(&c)
		if r, err := challenge.Challenge(t.Context(), c); err == nil {
			t.Errorf("%s: %s", name, r.Outcome)
		}
	}
}
