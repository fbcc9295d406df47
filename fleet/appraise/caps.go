package appraise

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"waxseal/measure"
)

// judgeCaps demands that the hand-over of the reference has closed each of
// the PCRs that are to be closed. A boot that stopped earlier is incomplete.
func (a *appraisal) judgeCaps() {
	caps := map[measure.PCR]measure.Record{}
	for _, r := range a.v.Records() {
		if r.IsCap() {
			caps[r.PCR] = r
		}
	}
	want := sha256.Sum256([]byte(a.ref.Handoff))
	var why []string
	for _, pcr := range a.profile.Capped() {
		r, ok := caps[pcr]
		out := row{Row: Row{PCR: pcr, Source: SourceAgent, Expected: want[:]}, state: Good, position: a.end() - 1}
		if ok {
			out.Actual = r.Content[:]
		}
		if text := a.incomplete(pcr, r, ok); text != "" {
			a.open[pcr] = true
			out.state = Incomplete
			if !slices.Contains(why, text) {
				why = append(why, text)
			}
		}
		a.add(a.ref.Handoff, out)
	}
	a.parts[a.ref.Handoff].note = strings.Join(why, "; ")
}

// incomplete says why pcr is not closed as it should be, or nothing.
func (a *appraisal) incomplete(pcr measure.PCR, r measure.Record, ok bool) string {
	abort, aborted := strings.CutPrefix(r.Name, measure.Abort)
	switch {
	case !a.v.Quoted(pcr):
		return fmt.Sprintf("PCR %d is not quoted", pcr)
	case !ok:
		return fmt.Sprintf("no hand-over in PCR %d", pcr)
	case aborted:
		return "measuring stopped: " + abort
	case r.Name != a.ref.Handoff:
		return "handed over by " + r.Name
	case r.Content != sha256.Sum256([]byte(r.Name)):
		return fmt.Sprintf("hand-over in PCR %d has another content", pcr)
	}
	return ""
}
