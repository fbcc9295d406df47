package evidence_test

import (
	"bytes"
	"crypto/elliptic"
	"errors"
	"reflect"
	"strings"
	"testing"

	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/evidence/evidencetest"
	"waxseal/measure/merkle"
)

// askBatched is ask over the API where one quote answers many.
func askBatched(t testing.TB, r *evidencetest.Router, bank measure.Alg, index, size int) bundle {
	t.Helper()
	ch := must(evidencetest.Challenge(bank, asked...))(t)
	ch.Batched = true
	return bundle{r, must(r.AnswerBatched(ch, index, size))(t), ch, r.Trust()}
}

func TestBatchedAnswerIsVerified(t *testing.T) {
	r := booted(t, elliptic.P384())
	for _, size := range []int{1, 2, 3, 1000, merkle.MaxSize} {
		for _, index := range []int{0, size / 2, size - 1} {
			if _, err := askBatched(t, r, measure.SHA384, index, size).verify(); err != nil {
				t.Errorf("nonce %d of %d: %v", index, size, err)
			}
		}
	}
}

// The kind of the answer is the one that was asked for; the device does not choose.
func TestAnswerOfTheOtherKindIsRefused(t *testing.T) {
	r := booted(t, elliptic.P256())
	for name, b := range map[string]bundle{
		"batched, asked was single": func() bundle {
			b := askBatched(t, r, measure.SHA256, 0, 1)
			b.challenge.Batched = false
			return b
		}(),
		"single, asked was batched": func() bundle {
			b := ask(t, r, measure.SHA256)
			b.challenge.Batched = true
			return b
		}(),
	} {
		if _, err := b.verify(); !errors.Is(err, evidence.ErrBatch) {
			t.Errorf("%s: %v: want ErrBatch", name, err)
		}
	}
}

func TestQuoteOfAnotherBatchIsRefused(t *testing.T) {
	r := booted(t, elliptic.P256())
	for name, test := range map[string]struct {
		change func(b, other *bundle)
		want   error
	}{
		"another's path": {func(b, other *bundle) { b.evidence.Batch = other.evidence.Batch }, evidence.ErrNonce},
		"another's quote": {func(b, other *bundle) {
			b.evidence.Quoted, b.evidence.Signature = other.evidence.Quoted, other.evidence.Signature
		}, evidence.ErrNonce},
		"another's answer": {func(b, other *bundle) { b.evidence = other.evidence }, evidence.ErrNonce},
		"another's nonce": {func(b, other *bundle) {
			b.challenge.Nonce, b.evidence.Nonce = other.challenge.Nonce, other.challenge.Nonce
		}, evidence.ErrNonce},
		"another index":          {func(b, _ *bundle) { b.evidence.Batch.Index ^= 1 }, evidence.ErrNonce},
		"a quote for it alone":   {func(b, _ *bundle) { b.attest(t, func(*evidencetest.Attest) {}) }, evidence.ErrNonce},
		"a size that is too big": {func(b, _ *bundle) { b.evidence.Batch.Size = merkle.MaxSize + 1 }, evidence.ErrBatch},
		"no path":                {func(b, _ *bundle) { b.evidence.Batch.Path = nil }, evidence.ErrBatch},
		"a path that goes on":    {func(b, _ *bundle) { b.evidence.Batch.Path = append(b.evidence.Batch.Path, make([]byte, 32)...) }, evidence.ErrBatch},
		"the commitment alone": {func(b, _ *bundle) {
			b.attest(t, func(a *evidencetest.Attest) {
				a.ExtraData = must(b.evidence.Batch.Commitment(b.challenge.Nonce))(t)[:48]
			})
		}, evidence.ErrNonce},
	} {
		b, other := askBatched(t, r, measure.SHA256, 2, 4), askBatched(t, r, measure.SHA256, 2, 4)
		test.change(&b, &other)
		if _, err := b.verify(); !errors.Is(err, test.want) {
			t.Errorf("%s: %v: want: %v", name, err, test.want)
		}
	}
}

// A challenger who could ask for a commitment as a nonce of its own would get
// a quote that speaks for a batch.
func TestNonceLikeACommitmentIsNoChallenge(t *testing.T) {
	ch := must(evidencetest.Challenge(measure.SHA256, asked...))(t)
	ch.Nonce = must(merkle.New([][]byte{ch.Nonce}))(t).Commitment()
	if err := ch.Check(); !errors.Is(err, evidence.ErrChallenge) {
		t.Errorf("%v: want ErrChallenge", err)
	}
}

func TestBatchedEvidenceFileIsReadAsItWasWritten(t *testing.T) {
	b := askBatched(t, booted(t, elliptic.P256()), measure.SHA384, 3, 7)
	data := must(b.evidence.Encode())(t)
	got := must(evidence.Parse(data))(t)
	if !reflect.DeepEqual(got, b.evidence) {
		t.Errorf("read:\n%+v\nwritten:\n%+v", got, b.evidence)
	}
	if again := must(got.Encode())(t); !bytes.Equal(again, data) {
		t.Error("the same evidence is written in two ways")
	}
	must(evidence.Verify(got, b.challenge, b.trust))(t)
	must(evidence.Verify(got, got.Offline(), b.trust))(t)
	for name, r := range map[string][2]string{
		"size 0":        {`"size": 7`, `"size": 0`},
		"size of text":  {`"size": 7`, `"size": "7"`},
		"another size":  {`"size": 7`, `"size": 9`},
		"index is size": {`"index": 3`, `"index": 7`},
		"index below 0": {`"index": 3`, `"index": -1`},
		"index of half": {`"index": 3`, `"index": 3.5`},
		"unknown key":   {`"index"`, `"root": "", "index"`},
		"doubled key":   {`"index": 3`, `"index": 3, "index": 3`},
		"empty":         {`"batch": {`, `"batch": {}, "batch": {`},
		"list":          {`"batch": {`, `"batch": [], "x": {`},
	} {
		bad := strings.Replace(string(data), r[0], r[1], 1)
		if bad == string(data) {
			t.Fatalf("%s: nothing to replace", name)
		}
		if _, err := evidence.Parse([]byte(bad)); !errors.Is(err, evidence.ErrFormat) {
			t.Errorf("%s: %v: want ErrFormat", name, err)
		}
	}
}

// A key that is left out would be read as 0 or as nothing: the first place of a
// batch of one would then have several texts.
func TestBatchInAFileHasAllItsKeys(t *testing.T) {
	b := askBatched(t, booted(t, elliptic.P256()), measure.SHA256, 0, 1)
	good := string(must(b.evidence.Encode())(t))
	for _, key := range []string{`"index": 0,`, `"size": 1,`, `"path": ""`} {
		name, _, _ := strings.Cut(key, ":")
		for _, instead := range []string{"", name + ": null" + strings.Repeat(",", strings.Count(key, ","))} {
			bad := strings.Replace(good, key, instead, 1)
			if instead == "" && !strings.HasSuffix(key, ",") {
				bad = strings.Replace(good, `"size": 1,`, `"size": 1`, 1)
				bad = strings.Replace(bad, key, "", 1)
			}
			if bad == good {
				t.Fatalf("%s is not in the file", key)
			}
			if _, err := evidence.Parse([]byte(bad)); !errors.Is(err, evidence.ErrFormat) {
				t.Errorf("%s replaced by %q: %v: want ErrFormat", key, instead, err)
			}
		}
	}
}
