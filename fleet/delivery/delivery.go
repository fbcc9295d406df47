// Package delivery is the buyer's half of the doorstep check: is the device
// that was unpacked the one that its maker has packed, and is it as it was?
//
// The buyer brings what comes by other ways than the parcel: a manifest that
// the maker has signed, and a secret. A challenge is derived from both and
// from fresh randomness. The device must open two credentials, which only the
// TPM that was shipped can, and quote its boot.
//
// A report names every reason that was found, not the first. Nothing that the
// device says of itself is believed, and nothing is accepted that was not
// looked at: without the maker's keys, or without reference values, the best
// outcome is that nothing is proven. The secret goes into no report, no file
// and not to the device.
package delivery

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"waxseal/fleet/appraise"
	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/manifest"
	"waxseal/measure/wire"
)

// Config says what to check, and by what.
type Config struct {
	Address   string          // host:port; without a port, wire.Port
	Manifest  []byte          // the sealed file
	Reference []byte          // file of reference values; nil: those in the manifest
	Secret    manifest.Secret // of the shipment
	Trust     Trust           // Secret and Witness are set by Check

	Client *tls.Certificate // shown to a device that has an owner already; nil: none
	Now    func() time.Time // nil: time.Now
}

// Result is a report, and what was said at the doorstep.
type Result struct {
	Report     Report
	Transcript *Transcript // nil: nobody answered
}

// Check checks one device. An error means that the question could not be put;
// whatever the device does or fails to do is a report.
func Check(ctx context.Context, c Config) (Result, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		c.Address = net.JoinHostPort(c.Address, strconv.Itoa(wire.Port))
	}
	c.Trust.Secret, c.Trust.Witness = &c.Secret, "this computer"
	t, err := c.challenge()
	if errors.Is(err, errUnreadable) {
		return Result{Report: Judge(t, c.Trust)}, nil
	}
	if err != nil {
		return Result{}, fmt.Errorf("delivery check: %w", err)
	}
	err = c.ask(ctx, &t)
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	t.Received = moment(c.Now())
	if err != nil {
		return Result{Report: unreachable(err, t.Received)}, nil
	}
	return Result{Judge(t, c.Trust), &t}, nil
}

// moment is a time as a saved file holds it.
func moment(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// errUnreadable means that a manifest does not say whom to ask what.
var errUnreadable = errors.New("manifest cannot be read")

// challenge makes the question.
func (c Config) challenge() (Transcript, error) {
	t := Transcript{Manifest: c.Manifest, Reference: c.Reference, Issued: moment(c.Now())}
	t.Received = t.Issued
	s, _, err := Open(c.Manifest, c.Trust.Maker)
	if err != nil {
		return t, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if _, err := rand.Read(t.Fresh[:]); err != nil {
		return t, err
	}
	digest, err := s.Digest()
	if err != nil {
		return t, err
	}
	t.Request = wire.ProofRequest{
		Nonce: manifest.ChallengeNonce(c.Secret, t.Fresh, digest), Bank: measure.SHA384, PCRs: appraise.DefaultPolicy.PCRs,
	}
	t.Request.IAK, t.Request.IDevID, t.Inside, err = credentials(s)
	return t, err
}

// ask puts the question. An error means that nobody answered; a device that
// refuses has answered.
func (c Config) ask(ctx context.Context, t *Transcript) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	conn, asked, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if t.Identity, err = conn.Delivery().Identify(ctx); err != nil {
		if c.Client == nil && asked() {
			t.Refusal = "it has an owner already, and asks for a client certificate of that owner (--owner)"
			return nil
		}
		return t.refused(err)
	}
	proof, err := conn.Delivery().Prove(ctx, t.Request)
	if err != nil {
		return t.refused(err)
	}
	t.Proof = &proof
	return nil
}

// dial returns a connection on which everybody is spoken to: who it is, and
// whether it is the one who answers, is a part of what is judged. asked tells
// whether the device has asked for a client certificate: how it hangs up on who
// has none is a matter of luck.
func (c Config) dial() (conn wire.Conn, asked func() bool, err error) {
	var seen atomic.Bool
	conn, err = wire.Dial(c.Address, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // see CheckTLS
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			seen.Store(true)
			if c.Client == nil {
				return &tls.Certificate{}, nil
			}
			return c.Client, nil
		},
	})
	return conn, seen.Load, err
}

// refused keeps why a device gave no proof. It returns an error where that
// says nothing about the device.
func (t *Transcript) refused(err error) error {
	for _, passing := range []error{wire.ErrBusy, wire.ErrRetry, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, passing) && !strings.Contains(err.Error(), "remote error: tls: ") {
			return err
		}
	}
	t.Refusal = evidence.Escape(err.Error())
	return nil
}

// unreachable is the report where nobody answered.
func unreachable(err error, at time.Time) Report {
	r := newReport(at)
	r.Outcome = Unreachable
	r.Reasons = append(r.Reasons, "unreachable: "+evidence.Escape(err.Error()))
	return r
}
