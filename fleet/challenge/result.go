package challenge

import (
	"context"
	"errors"
	"strings"

	"waxseal/fleet/appraise"
	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/reference"
	"waxseal/measure/wire"
)

// Outcome says how far a challenge came.
type Outcome string

// The outcomes of a challenge.
const (
	Judged          Outcome = "judged"          // genuine, and held against reference values
	Genuine         Outcome = "genuine"         // genuine, without reference values to judge by
	Refused         Outcome = "refused"         // the evidence is not genuine
	Unattested      Outcome = "unattested"      // the router itself says that it cannot attest, or not for this asker
	Unauthenticated Outcome = "unauthenticated" // who answered is not proven to be the router
	Unreachable     Outcome = "unreachable"     // no answer, or none in time
)

// Result is the outcome of one challenge.
type Result struct {
	Outcome   Outcome
	Verdict   appraise.Verdict
	Challenge evidence.Challenge
	Evidence  *evidence.Evidence // nil: none came
	Token     []byte             // in which the evidence came; nil: it came raw
	Counters  evidence.Counters  // of the quote, if it is genuine: Config.Previous of the next challenge
	Notes     []string           // what an operator should know beside the verdict
}

// Judge returns the result over verified evidence. Without reference values it
// is Genuine, and its verdict names what was measured and judges nothing.
func Judge(v evidence.Verified, ref *reference.Values, p appraise.Policy) Result {
	r := Result{Outcome: Judged, Counters: v.Counters()}
	if !r.Counters.Safe {
		r.Notes = append(r.Notes, "the TPM's clock is not safe, as after a power cut: when its last quote was made cannot be told from it")
	}
	if ref != nil {
		r.Verdict = appraise.Appraise(v, *ref, p)
		return r
	}
	r.Outcome = Genuine
	r.Verdict = none("evidence is genuine; without reference values the boot was not judged")
	r.Verdict.Serial, r.Verdict.Bank, r.Verdict.Received = evidence.Escape(v.Serial()), v.Bank().String(), v.Received()
	r.Verdict.Components = measured(v.Records())
	return r
}

// measured lists records without judging them, one component for each name.
func measured(records []measure.Record) []appraise.Component {
	out := []appraise.Component{}
	at := map[string]int{}
	for _, r := range records {
		i, known := at[r.Name]
		if !known {
			i = len(out)
			at[r.Name] = i
			out = append(out, appraise.Component{Name: r.Name, Result: appraise.None, State: appraise.Informational})
		}
		out[i].Evidence = append(out[i].Evidence, appraise.Row{PCR: r.PCR, Source: appraise.SourceAgent, Actual: r.Content[:]})
	}
	return out
}

// RefusedResult is the result over evidence that evidence.Verify refused.
func RefusedResult(err error) Result {
	return Result{Outcome: Refused, Verdict: appraise.Refused(err)}
}

func refusal(err error, ev *evidence.Evidence, ch evidence.Challenge) Result {
	r := RefusedResult(err)
	r.Evidence, r.Challenge = ev, ch
	return r
}

func none(reasons ...string) appraise.Verdict {
	return appraise.Verdict{
		Format: appraise.Format, Result: appraise.None, Assurance: appraise.AssuranceNone,
		Reasons: reasons, Components: []appraise.Component{},
	}
}

// unanswered is the result where the router is not reached, or is and gives no evidence.
func unanswered(err error) Result {
	reason := evidence.Escape(err.Error())
	switch {
	case errors.Is(err, wire.ErrAnswer), strings.Contains(reason, "received message larger than max"):
		return RefusedResult(err)
	case errors.Is(err, wire.ErrNotReady):
		return Result{Outcome: Unattested, Verdict: none("router gives no evidence: " + reason)}
	case errors.Is(err, wire.ErrDenied), strings.Contains(reason, "remote error: tls: "):
		return Result{Outcome: Unattested, Verdict: none("router does not answer this client (is the owner's CA the one on its configuration partition?): " + reason)}
	case errors.Is(err, wire.ErrInvalid), errors.Is(err, wire.ErrNoMethod):
		return Result{Outcome: Unattested, Verdict: none("router cannot answer this challenge: " + reason)}
	}
	for _, passing := range []error{wire.ErrBusy, wire.ErrRetry, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, passing) {
			return Result{Outcome: Unreachable, Verdict: none("unreachable: " + reason)}
		}
	}
	return Result{Outcome: Unattested, Verdict: none("router gives no evidence: " + reason)}
}
