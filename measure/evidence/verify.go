package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/merkle"
)

// Verified is evidence that was found genuine. Only Verify makes one.
type Verified struct {
	serial   string
	bank     measure.Alg
	pcrs     map[measure.PCR][]byte
	profile  measure.Profile
	counters Counters
	story    *story
	contents map[string][]byte
	received time.Time
}

// Serial returns the serial number that the certificates agree on.
func (v Verified) Serial() string { return v.serial }

// Bank returns the PCR bank that was quoted.
func (v Verified) Bank() measure.Alg { return v.bank }

// PCRs returns the quoted values. They are not to be changed.
func (v Verified) PCRs() map[measure.PCR][]byte { return v.pcrs }

// Quoted tells whether the quote covers pcr.
func (v Verified) Quoted(pcr measure.PCR) bool { return v.pcrs[pcr] != nil }

// Profile returns the PCR profile that the log was read by.
func (v Verified) Profile() measure.Profile { return v.profile }

// Counters returns the reset and clock counters of the quote.
func (v Verified) Counters() Counters { return v.counters }

// Received returns when the answer came.
func (v Verified) Received() time.Time { return v.received }

// Events returns the events of the quoted PCRs in log order, without
// EV_NO_ACTION. Their digests are proven; see Text for what else is.
func (v Verified) Events() []eventlog.Event {
	if v.story == nil {
		return nil
	}
	return slices.Clone(v.story.events)
}

// Firmware returns those of Events that are not ours.
func (v Verified) Firmware() []eventlog.Event {
	return slices.DeleteFunc(v.Events(), func(e eventlog.Event) bool { return e.Ours })
}

// Records returns the records of the quoted PCRs in log order.
func (v Verified) Records() []measure.Record {
	if v.story == nil {
		return nil
	}
	return slices.Clone(v.story.records)
}

// Unverified returns the events of PCRs that the quote does not cover. They
// are proven by nothing and are never good.
func (v Verified) Unverified() []eventlog.Event {
	if v.story == nil {
		return nil
	}
	return slices.Clone(v.story.beyond)
}

// Content returns the bytes whose SHA-256 is sum, if they came along.
func (v Verified) Content(sum [sha256.Size]byte) ([]byte, bool) {
	b, ok := v.contents[hex.EncodeToString(sum[:])]
	return b, ok
}

// Verifier verifies evidence for one set of roots. It keeps chains and logs
// that it has found good, in bounded memory. It may be used concurrently.
type Verifier struct {
	trust      Trust
	identities cache[[sha256.Size]byte, identity]
	stories    cache[storyKey, kept]
}

// storyKey is where a log is looked for: under the PCR values that it has to
// explain, as they were quoted. It says nothing about the log itself.
type storyKey struct {
	rules  rules
	values string // digest of the PCR values
}

// kept is a log that came with a quote, byte by byte, and what it says. The
// zero value stands for a log that came once: it is copied when it comes again.
type kept struct {
	log   []byte
	story *story
}

// Bounds of what a Verifier keeps.
const (
	keptIdentities = 16384
	keptLogBytes   = 32 << 20
	keptAtLeast    = 512 // bytes that an entry without its log counts for
)

// NewVerifier returns a verifier for trust.Roots and trust.Intermediates. The
// other fields of trust are of one router and one moment; Verify is given them.
func NewVerifier(trust Trust) *Verifier {
	return &Verifier{
		trust:      Trust{Roots: trust.Roots, Intermediates: trust.Intermediates},
		identities: cache[[sha256.Size]byte, identity]{limit: keptIdentities},
		stories:    cache[storyKey, kept]{limit: keptLogBytes},
	}
}

// Verify is Verifier.Verify for evidence that comes alone.
func Verify(ev Evidence, ch Challenge, trust Trust) (Verified, error) {
	return NewVerifier(trust).Verify(ev, ch, trust)
}

// Verify tells whether ev is a genuine answer to ch by the router that trust
// names. The roots are those of the verifier; of trust it uses Serial, Now
// and Public. It returns one of the errors of this package, wrapped. What it
// returns may share memory with ev.Log, which must not be changed any more;
// what the verifier keeps does not.
func (v *Verifier) Verify(ev Evidence, ch Challenge, trust Trust) (Verified, error) {
	if err := ch.answeredBy(ev); err != nil {
		return Verified{}, err
	}
	trust.Roots, trust.Intermediates = v.trust.Roots, v.trust.Intermediates
	id, err := v.identity(ev, trust)
	if err != nil {
		return Verified{}, err
	}
	quote, err := ch.quote(ev, id.key, trust.Public)
	if err != nil {
		return Verified{}, err
	}
	s, err := v.story(ev.Log, ch, quote)
	if err != nil {
		return Verified{}, err
	}
	if err := ch.tell(s, ev.PCRs, quote.counters); err != nil {
		return Verified{}, err
	}
	if err := checkContents(ev.Contents); err != nil {
		return Verified{}, err
	}
	return Verified{
		serial: id.serial, bank: ev.Bank, pcrs: copyValues(ev.PCRs), profile: ch.profile(), counters: quote.counters,
		story: s, contents: maps.Clone(ev.Contents), received: ev.Received,
	}, nil
}

func copyValues(values map[measure.PCR][]byte) map[measure.PCR][]byte {
	out := make(map[measure.PCR][]byte, len(values))
	all := make([]byte, 0, len(values)*64)
	for pcr, v := range values {
		start := len(all)
		all = append(all, v...)
		out[pcr] = all[start:len(all):len(all)]
	}
	return out
}

// answeredBy checks what can be seen without looking into the quote.
func (c Challenge) answeredBy(ev Evidence) error {
	if err := c.Check(); err != nil {
		return err
	}
	if ev.Received.Before(c.Issued) || ev.Received.After(c.Deadline) {
		return fmt.Errorf("%w: received %s after it was issued, allowed are %s",
			ErrLate, ev.Received.Sub(c.Issued), c.Deadline.Sub(c.Issued))
	}
	if !bytes.Equal(ev.Nonce, c.Nonce) {
		return fmt.Errorf("%w: the evidence names another", ErrNonce)
	}
	if c.Batched != (ev.Batch != nil) {
		return fmt.Errorf("%w: asked as batched is %v, answered as batched is %v", ErrBatch, c.Batched, ev.Batch != nil)
	}
	if ev.Bank != c.Bank {
		return fmt.Errorf("%w: evidence has %v, asked was %v", ErrBank, ev.Bank, c.Bank)
	}
	if len(ev.PCRs) != len(c.PCRs) {
		return fmt.Errorf("%w: %d values, asked were %d", ErrValues, len(ev.PCRs), len(c.PCRs))
	}
	for _, pcr := range c.PCRs {
		if len(ev.PCRs[pcr]) != c.Bank.Size() {
			return fmt.Errorf("%w: PCR %d has %d bytes: need %d", ErrValues, pcr, len(ev.PCRs[pcr]), c.Bank.Size())
		}
	}
	return nil
}

// identity returns what the certificates say, checked at trust.Now.
func (v *Verifier) identity(ev Evidence, trust Trust) (identity, error) {
	if trust.PublicAlone {
		return trust.named(ev)
	}
	if trust.Now.IsZero() || len(trust.Roots) == 0 {
		return identity{}, fmt.Errorf("%w: it has %d roots, and the time is %v", ErrTrust, len(trust.Roots), trust.Now)
	}
	key := ev.Certificates.fingerprint()
	id, ok := v.identities.get(key)
	if !ok || !id.valid(trust.Now) {
		var err error
		if id, err = trust.identify(ev.Certificates); err != nil {
			return id, err
		}
		v.identities.put(key, id, 1)
	}
	return id, id.of(trust.Serial, ev.Card)
}

// quote checks that ev.Quoted is what was asked, and signed by key.
func (c Challenge) quote(ev Evidence, key *ecdsa.PublicKey, public []byte) (attest, error) {
	a, err := parseAttest(ev.Quoted)
	if err != nil {
		return a, err
	}
	signed, err := c.signed(ev.Batch)
	if err != nil {
		return a, err
	}
	if !bytes.Equal(a.extraData, signed) {
		return a, fmt.Errorf("%w: the quote holds %d other bytes", ErrNonce, len(a.extraData))
	}
	if a.bank != c.Bank {
		return a, fmt.Errorf("%w: quote is of %v, asked was %v", ErrBank, a.bank, c.Bank)
	}
	if a.mask != mask(c.PCRs) {
		return a, fmt.Errorf("%w: quoted are %024b, asked were %024b", ErrSelection, a.mask, mask(c.PCRs))
	}
	if err := VerifySignature(key, ev.Quoted, ev.Signature); err != nil {
		return a, err
	}
	if err := checkPublic(public, key, a.signer); err != nil {
		return a, err
	}
	hash, err := scheme(key)
	if err != nil {
		return a, err
	}
	return a, a.covers(ev.PCRs, hash)
}

// signed returns the extraData that a quote for this challenge has: the nonce,
// or the commitment to which its path leads.
func (c Challenge) signed(batch *merkle.Proof) ([]byte, error) {
	if batch == nil {
		return c.Nonce, nil
	}
	b, err := batch.Commitment(c.Nonce)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBatch, err)
	}
	return b, nil
}

// covers tells whether the quote is over values. The digest is made with the
// hash of the signature scheme, not with that of the bank (TPM 2.0 Part 3,
// section 18.4).
func (a attest) covers(values map[measure.PCR][]byte, hash measure.Alg) error {
	var all [measure.NumPCRs * 64]byte // on the stack
	var sum [64]byte
	b := all[:0]
	for pcr := range measure.PCR(measure.NumPCRs) {
		b = append(b, values[pcr]...)
	}
	if !bytes.Equal(measure.AppendHash(sum[:0], hash, b), a.pcrDigest) {
		return fmt.Errorf("%w: they have another %v digest", ErrValues, hash)
	}
	return nil
}

// story returns what the log says: from memory, if every byte of it is as it
// was before. A log is kept, in a copy, when it comes for the second time.
func (v *Verifier) story(log []byte, ch Challenge, quote attest) (*story, error) {
	if len(log) > eventlog.MaxSize {
		return nil, fmt.Errorf("%w: %d bytes: at most %d", ErrLog, len(log), eventlog.MaxSize)
	}
	r := rules{ch.Bank, mask(ch.PCRs), ch.profile()}
	key := storyKey{r, string(quote.pcrDigest)}
	known, again := v.stories.get(key)
	if known.story != nil && bytes.Equal(known.log, log) {
		return known.story, nil
	}
	if again {
		log = slices.Clone(log)
	}
	s, err := r.read(log)
	if err != nil {
		return nil, err
	}
	if again {
		v.stories.put(key, kept{log, s}, keptAtLeast+len(log))
	} else {
		v.stories.put(key, kept{}, keptAtLeast)
	}
	return s, nil
}

// tell holds the log against the quote: values, boot and counters.
func (c Challenge) tell(s *story, values map[measure.PCR][]byte, now Counters) error {
	if err := s.explains(values); err != nil {
		return err
	}
	if !now.Safe && !c.UnsafeClock {
		return fmt.Errorf("%w: the clock is not safe, as after a power cut", ErrCounters)
	}
	if values[c.profile().Runtime] != nil {
		if err := now.checkStart(s.records); err != nil {
			return err
		}
	}
	return now.checkSince(c.Previous, s.records)
}

func checkContents(contents map[string][]byte) error {
	for name, b := range contents {
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != name {
			return fmt.Errorf("%w: content %q", ErrContents, name)
		}
	}
	return nil
}
