// Package challenge asks one router to prove its boot: a fresh nonce, one
// call, and the answer verified and judged.
//
// A nonce is drawn from crypto/rand, belongs to one router, and is good for
// one answer. The router is known by the owner's certificate in TLS and by the
// one of its attestation key, and both must name it. What a router says
// without such proof is passed on as its claim and never judged. Every wait
// has an end. The package keeps nothing: what was judged before comes in with
// Config.
package challenge

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"waxseal/fleet/appraise"
	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/merkle"
	"waxseal/measure/reference"
	"waxseal/measure/wire"
)

// Config says whom to challenge, how, and by what to judge the answer.
type Config struct {
	Address string              // host:port; without a port, wire.Port
	Roots   []*x509.Certificate // the owner's trust anchors
	Client  tls.Certificate     // the verifier's client certificate
	Serial  string              // expected serial number; "": whoever has the owner's certificate for Address
	Select  wire.Selection      // control card; zero: the active one. A batched challenge is always to that

	Batched  bool        // ask over waxseal.v1.Challenge, where one quote answers many; the router does not choose
	Format   wire.Format // of the answer; zero: raw. A batched answer is always raw
	KnownLog []byte      // a log of this router that is at hand: a batched answer leaves it out while it is the same; nil: none

	Reference *reference.Values // nil: only whether the evidence is genuine
	Policy    appraise.Policy   // zero: appraise.DefaultPolicy

	Bank        measure.Alg        // 0: SHA-384
	PCRs        []measure.PCR      // none: those of appraise.DefaultPolicy
	Previous    *evidence.Counters // of the last genuine answer; nil: none is known
	Public      []byte             // TPMT_PUBLIC of the enrolled attestation key; nil: not known
	UnsafeClock bool               // accept a TPM clock that is not safe, as after a power cut
	AllTexts    bool               // fetch every text that the router shows, not only those that differ

	Timeout  time.Duration      // from the nonce to the answer; 0: 30 s
	Texts    time.Duration      // for the fetching of texts; 0: 15 s
	Nonces   *Nonces            // shared by all challenges of a verifier; nil: one for this challenge
	Verifier *evidence.Verifier // over Roots, shared likewise; nil: one for this challenge
	Now      func() time.Time   // nil: time.Now
}

// Challenge challenges one router. An error means that the question could not
// be put; whatever the router does or fails to do is a Result.
func Challenge(ctx context.Context, c Config) (Result, error) {
	c, err := c.withDefaults()
	if err != nil {
		return Result{}, fmt.Errorf("challenge %s: %w", c.Address, err)
	}
	r, err := c.run(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("challenge %s: %w", c.Address, err)
	}
	return r, nil
}

func (c Config) withDefaults() (Config, error) {
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		c.Address = net.JoinHostPort(c.Address, strconv.Itoa(wire.Port))
	}
	if len(c.Roots) == 0 || len(c.Client.Certificate) == 0 {
		return c, errors.New("need the owner's trust anchors and a client certificate")
	}
	if c.Batched && c.Format != wire.Raw {
		return c, errBatchedToken
	}
	if c.Select == (wire.Selection{}) {
		c.Select = wire.Selection{Role: wire.Active}
	}
	if len(c.Policy.PCRs) == 0 {
		c.Policy = appraise.DefaultPolicy
	}
	if len(c.PCRs) == 0 {
		c.PCRs = appraise.DefaultPolicy.PCRs
	}
	if c.Bank == 0 {
		c.Bank = measure.SHA384
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Texts == 0 {
		c.Texts = 15 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Verifier == nil {
		c.Verifier = evidence.NewVerifier(evidence.Trust{Roots: c.Roots})
	}
	var err error
	if c.Nonces == nil {
		c.Nonces, err = NewNonces(nil)
	}
	return c, err
}

// device is what a nonce is bound to: the router that was asked.
func (c Config) device() string { return c.Serial + "@" + c.Address }

func (c Config) run(ctx context.Context) (Result, error) {
	conn, refused, err := c.dial()
	if err != nil {
		return Result{}, err
	}
	defer conn.Close()
	ch, err := c.ask()
	if err != nil {
		return Result{}, err
	}
	ans, batch, err := c.attest(ctx, conn, ch)
	received := c.Now()
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	if cause := refused(); cause != nil {
		return c.stranger(ctx, cause), nil
	}
	if err != nil {
		return unanswered(err), nil
	}
	if err := c.Nonces.Consume(ch.Nonce, c.device(), received); err != nil {
		return refusal(err, nil, ch), nil
	}
	ev, err := answered(ans, ch, received)
	if err != nil {
		r := refusal(err, nil, ch)
		r.Token = ans.Token
		return r, nil
	}
	ev.Batch = batch
	r := c.judge(ctx, conn, ev, ch)
	r.Token = ans.Token
	return r, nil
}

// ask draws a nonce and returns the challenge with it.
func (c Config) ask() (evidence.Challenge, error) {
	issued := c.Now().UTC().Truncate(time.Millisecond)
	nonce, err := c.Nonces.Issue(c.device(), issued, c.Timeout)
	if err != nil {
		return evidence.Challenge{}, err
	}
	ch := evidence.Challenge{
		Nonce: nonce, Batched: c.Batched, Bank: c.Bank, PCRs: c.PCRs, Issued: issued, Deadline: issued.Add(c.Timeout),
		Previous: c.Previous, UnsafeClock: c.UnsafeClock,
	}
	if c.Reference != nil {
		if ch.Profile, err = measure.ParseProfile(c.Reference.Profile); err != nil {
			return ch, err
		}
	}
	return ch, ch.Check()
}

// attest puts the question. batch says where the nonce stands among those of
// a batched answer; it is nil for a single one.
func (c Config) attest(ctx context.Context, conn wire.Conn, ch evidence.Challenge) (ans wire.AttestAnswer, batch *merkle.Proof, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if !ch.Batched {
		ans, err = conn.Attestz().Attest(ctx, wire.AttestRequest{
			Select: c.Select, Nonce: ch.Nonce, Bank: ch.Bank, PCRs: ch.PCRs, Format: c.Format,
		})
		return ans, nil, err
	}
	req := wire.BatchRequest{Nonce: ch.Nonce, Bank: ch.Bank, PCRs: ch.PCRs}
	if len(c.KnownLog) > 0 {
		sum := sha256.Sum256(c.KnownLog)
		req.KnownLog = sum[:]
	}
	b, err := conn.Challenge().Attest(ctx, req)
	if b.LogKnown {
		b.Log = c.KnownLog // the quote shows whether it is
	}
	return b.AttestAnswer, &b.Proof, err
}

func evidenceOf(ans wire.AttestAnswer, ch evidence.Challenge, received time.Time) evidence.Evidence {
	return evidence.Evidence{
		Nonce: ch.Nonce, Bank: ch.Bank, PCRs: ans.PCRs, Quoted: ans.Quoted, Signature: ans.Signature, Log: ans.Log,
		Certificates: evidence.Certificates{OIAK: ans.OIAK, TLS: wire.ChainOf(ans.Peer...)},
		Card: evidence.Card{
			Role: ans.Card.Role.String(), Serial: ans.Card.Serial, Slot: ans.Card.Slot,
			Manufacturer: ans.Card.Maker, PartNumber: ans.Card.Part, ChassisSerial: ans.Card.ChassisSerial,
		},
		Received: received.UTC().Truncate(time.Millisecond),
	}
}

// judge verifies ev, fetches the texts that a verdict can show, and judges.
func (c Config) judge(ctx context.Context, conn wire.Conn, ev evidence.Evidence, ch evidence.Challenge) Result {
	trust := evidence.Trust{Roots: c.Roots, Serial: c.Serial, Now: c.Now(), Public: c.Public}
	v, err := c.Verifier.Verify(ev, ch, trust)
	if err != nil {
		return refusal(err, &ev, ch)
	}
	texts, note := c.texts(ctx, conn, v.Records())
	if len(texts) > 0 {
		ev.Contents = texts
		if v, err = c.Verifier.Verify(ev, ch, trust); err != nil {
			return refusal(err, &ev, ch)
		}
	}
	r := Judge(v, c.Reference, c.Policy)
	r.Evidence, r.Challenge = &ev, ch
	if note != "" {
		r.Notes = append(r.Notes, note)
	}
	return r
}
