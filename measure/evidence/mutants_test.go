package evidence_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"

	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
)

var mutations = flag.Int("mutations", 20_000, "how many mutated bundles TestNoMutatedBundleIsAccepted verifies")

// Of any number of bundles that were changed at random none is accepted,
// unless it says what a router of this name said to this challenge: each field
// is as it was, but for what is only claimed or was left out (see saysTheSame).
//
//	go test ./measure/evidence -run NoMutatedBundle -mutations 1000000 -v
func TestNoMutatedBundleIsAccepted(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1) // the same keys, nonces and so bytes in each run
	n := newNursery(t)
	const batch = 1000
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		total tally
	)
	batches := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for b := range batches {
				got := n.breed(uint64(b), min(batch, *mutations-b*batch))
				mu.Lock()
				total.add(got)
				mu.Unlock()
			}
		})
	}
	for b := range (*mutations + batch - 1) / batch {
		batches <- b
	}
	close(batches)
	wait.Wait()
	for _, lie := range total.lies {
		t.Error(lie)
	}
	t.Logf("%d of %d mutated bundles accepted; %d are the same in other bytes, %d say what was said with other claims or with less; refused: %v",
		len(total.lies), total.bundles, total.same, total.claims, total.refused)
	if *mutations >= 20_000 && (total.same == 0 || total.claims == 0 || len(total.refused) < 10) {
		t.Error("the mutations reach too few checks")
	}
}

// tally counts what became of mutated bundles.
type tally struct {
	bundles, same, claims int
	refused               map[string]int // by the check, see reason
	lies                  []string
}

func (a *tally) add(b tally) {
	a.bundles, a.same, a.claims = a.bundles+b.bundles, a.same+b.same, a.claims+b.claims
	a.lies = append(a.lies, b.lies...)
	if a.refused == nil {
		a.refused = map[string]int{}
	}
	for reason, n := range b.refused {
		a.refused[reason] += n
	}
}

// nursery is a genuine bundle, and others whose parts can be put into it.
type nursery struct {
	parent   bundle
	file     []byte
	verifier *evidence.Verifier
	donors   []evidence.Evidence
	files    [][]byte
	genuine  []answer // what the router did say to the challenge of parent
}

// answer is evidence that Verify has accepted, and what it proves.
type answer struct {
	evidence.Evidence
	serial string
	proven []string
}

func newNursery(t *testing.T) *nursery {
	t.Helper()
	r := booted(t, elliptic.P256())
	enrol(t, r, r.Owner)
	n := &nursery{parent: ask(t, r, measure.SHA256)}
	n.verifier = evidence.NewVerifier(n.parent.trust)
	n.file = must(n.parent.evidence.Encode())(t)
	n.parent.evidence = must(evidence.Parse(n.file))(t)
	n.accept(n.parent)

	n.adopt(t, ask(t, r, measure.SHA256)) // another nonce
	n.adopt(t, ask(t, r, measure.SHA384)) // another bank
	ok(t, r.Measure("mirror/tc/eth0", []byte("finding")))
	n.adopt(t, bundle{evidence: must(r.Answer(n.parent.challenge))(t)}) // this nonce, later
	r.Counters.Reset++
	n.adopt(t, bundle{evidence: must(r.Answer(n.parent.challenge))(t)}) // after a reset
	for _, serial := range []string{"WX-0002", r.Serial} {              // a neighbour, and a board with other keys under this name
		other := must(evidencetest.New(serial, elliptic.P256()))(t)
		firmware(t, other)
		measured(t, other)
		n.adopt(t, bundle{evidence: must(other.Answer(n.parent.challenge))(t)}) // of another owner
		enrol(t, other, r.Owner)
		n.adopt(t, bundle{evidence: must(other.Answer(n.parent.challenge))(t)})
	}
	if len(n.genuine) != 3 {
		t.Fatalf("%d bundles are genuine: want the parent, the later one and that of other keys", len(n.genuine))
	}
	return n
}

// enrol gives r all the certificates that it can have of an owner.
func enrol(t *testing.T, r *evidencetest.Router, owner evidencetest.Authority) {
	t.Helper()
	certify := func(key *ecdsa.PrivateKey) []string {
		return evidencetest.PEM(must(owner.Certify(evidencetest.Leaf(r.Serial), key.Public()))(t))
	}
	r.Owner = owner
	r.Certificates = evidence.Certificates{OIAK: certify(r.AK), IAK: certify(r.AK), TLS: certify(r.Identity), IDevID: certify(r.Identity)}
}

func (n *nursery) adopt(t *testing.T, b bundle) {
	t.Helper()
	n.donors = append(n.donors, b.evidence)
	n.files = append(n.files, must(b.evidence.Encode())(t))
	n.accept(b)
}

// accept notes b among the genuine ones, if it is.
func (n *nursery) accept(b bundle) {
	if v, err := n.verifier.Verify(b.evidence, n.parent.challenge, n.parent.trust); err == nil {
		n.genuine = append(n.genuine, answer{b.evidence, v.Serial(), proven(v)})
	}
}

// breed verifies count mutants of one seed.
func (n *nursery) breed(seed uint64, count int) tally {
	m := mutator{nursery: n, Rand: rand.New(rand.NewPCG(seed, 0))}
	out := tally{refused: map[string]int{}}
	for i := range count {
		kind, mutant, err := m.mutant()
		out.bundles++
		if err == nil {
			err = n.judge(mutant, &out)
		}
		switch lie := (*lieError)(nil); {
		case err == nil:
		case asLie(err, &lie):
			out.lies = append(out.lies, fmt.Sprintf("batch %d, mutant %d, %s: %s", seed, i, kind, lie.text))
		default:
			out.refused[reason(err)]++
		}
	}
	return out
}

// judge verifies a mutant and counts it if it is accepted and no lie.
func (n *nursery) judge(mutant evidence.Evidence, out *tally) error {
	v, err := n.verifier.Verify(mutant, n.parent.challenge, n.parent.trust)
	if err != nil {
		return err
	}
	if reflect.DeepEqual(mutant, n.parent.evidence) {
		out.same++
		return nil
	}
	for _, g := range n.genuine {
		if g.saysTheSame(mutant, v) && n.named(mutant.Certificates.TLS, mutant.Certificates.IDevID) {
			out.claims++
			return nil
		}
	}
	return &lieError{fmt.Sprintf("accepted, and was never said: counters %+v\n%s", v.Counters(), strings.Join(proven(v), "\n"))}
}

type lieError struct{ text string }

func (e *lieError) Error() string { return e.text }

func asLie(err error, lie **lieError) (is bool) {
	*lie, is = err.(*lieError)
	return is
}

// saysTheSame compares all that Verify vouches for. It does not compare the
// claims: the words of the card (Verified.Serial is not one of them), the
// verifier's own time of receipt within the time of the challenge, and
// data of firmware events that no digest covers. Contents and certificates
// beside the attestation key's may be missing, and none may be new.
func (g answer) saysTheSame(mutant evidence.Evidence, v evidence.Verified) bool {
	a, b := mutant.Certificates, g.Certificates
	for sum, content := range mutant.Contents {
		if !bytes.Equal(content, g.Contents[sum]) {
			return false
		}
	}
	return v.Serial() == g.serial && v.Bank() == g.Bank &&
		bytes.Equal(mutant.Nonce, g.Nonce) && bytes.Equal(mutant.Quoted, g.Quoted) && bytes.Equal(mutant.Signature, g.Signature) &&
		maps.EqualFunc(mutant.PCRs, g.PCRs, bytes.Equal) && maps.EqualFunc(v.PCRs(), g.PCRs, bytes.Equal) &&
		slices.EqualFunc(byPCR(g.proven), byPCR(proven(v)), isOrHides) &&
		sameOrMissing(a.OIAK, b.OIAK) && sameOrMissing(a.IAK, b.IAK) && len(a.OIAK)+len(a.IAK) > 0
}

// byPCR puts the lines of each PCR together and keeps their order. Which of two
// PCRs was extended first is covered by no digest: a log that tells it otherwise
// replays to the same values.
func byPCR(lines []string) []string {
	pcr := func(line string) string { return strings.SplitN(line, " ", 2)[0] }
	return slices.SortedStableFunc(slices.Values(lines), func(a, b string) int { return strings.Compare(pcr(a), pcr(b)) })
}

// named tells whether identity certificates are of a router of this owner and
// name. Nothing but the name ties them to an attestation key: that there is
// one board of a name is for the ledger of enrollments to keep.
func (n *nursery) named(chains ...[]string) bool {
	for _, chain := range chains {
		known := func(g answer) bool {
			return sameOrMissing(chain, g.Certificates.TLS) || sameOrMissing(chain, g.Certificates.IDevID)
		}
		if !slices.ContainsFunc(n.genuine, known) {
			return false
		}
	}
	return true
}

// sameOrMissing compares chains by what the PEM texts hold.
func sameOrMissing(got, want []string) bool {
	return len(got) == 0 || slices.EqualFunc(got, want, func(a, b string) bool {
		x, err := evidence.ParsePEM(a)
		y, other := evidence.ParsePEM(b)
		return err == nil && other == nil && x.Equal(y)
	})
}

// reason names the check that refused, by its sentinel error.
func reason(err error) string {
	text := err.Error()
	for _, check := range []error{
		evidence.ErrFormat, evidence.ErrLate, evidence.ErrNonce, evidence.ErrBatch, evidence.ErrBank, evidence.ErrAttest, evidence.ErrSelection,
		evidence.ErrValues, evidence.ErrScheme, evidence.ErrSignature, evidence.ErrCertificate, evidence.ErrChain,
		evidence.ErrExpired, evidence.ErrWeakKey, evidence.ErrKey, evidence.ErrSerial, evidence.ErrLog, evidence.ErrReplay,
		evidence.ErrWithheld, evidence.ErrData, evidence.ErrUnclean, evidence.ErrPlace, evidence.ErrCap, evidence.ErrSeparator,
		evidence.ErrStart, evidence.ErrCounters, evidence.ErrContents,
	} {
		if strings.Contains(text, check.Error()) {
			return check.Error()
		}
	}
	return "another: " + text
}
