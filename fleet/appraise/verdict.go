// Package appraise judges a boot: it holds verified evidence against the
// reference values of a release and says, component by component, what is
// good, what differs, and which difference explains the others.
//
// It is pure, and it fails closed. Only what is in the reference is good, at
// its place; unknown is not good, and missing is not good. It cannot be handed
// a claim: it takes evidence.Verified, which only evidence.Verify makes. It
// never says more than was proven: each verdict states its assurance level.
package appraise

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waxseal/measure"
	"waxseal/measure/reference"
)

// Format is the value of Verdict.Format. Within one format, keys are added
// and never change their meaning.
const Format = "waxseal-verdict-1"

// Result is the outcome of an appraisal (EAR trustworthiness tier,
// draft-ietf-rats-ar4si, section 3.2).
type Result string

// The results, from no statement to the worst.
const (
	None            Result = "none"
	Affirming       Result = "affirming"
	Warning         Result = "warning"
	Contraindicated Result = "contraindicated"
)

// Assurance says what the root of the measurement was.
type Assurance string

// The assurance levels, the weakest first.
const (
	AssuranceNone     Assurance = "none"
	AssuranceSelf     Assurance = "self"     // the agent measured the boot that loaded it
	AssuranceFirmware Assurance = "firmware" // the firmware's log covers what holds the agent, as predicted
	AssuranceHardware Assurance = "hardware" // as firmware, and verified-boot hardware is its root
)

// State says how a component compares with its reference.
type State string

// The states of a component.
const (
	Good          State = "good"
	Changed       State = "changed"
	Unknown       State = "unknown"       // measured, but not in the reference
	Missing       State = "missing"       // in the reference, but not measured
	Absent        State = "absent"        // the agent found nothing at its place
	Unreadable    State = "unreadable"    // the agent could not read it
	Incomplete    State = "incomplete"    // the measuring did not end with the hand-over of the reference
	Follows       State = "follows"       // differs only because it contains another component that differs
	Finding       State = "finding"       // something the running agent has seen, such as a mirror
	Noticed       State = "noticed"       // something it has seen that proves nothing
	Past          State = "past"          // a finding that has ended since the start of the router
	NotCovered    State = "not covered"   // something it cannot see here, or did not look at
	Unverified    State = "unverified"    // in a PCR that the quote does not cover
	Informational State = "informational" // says something, and is not judged
)

// Verdict is the outcome of judging one answer of one router.
type Verdict struct {
	Format     string      `json:"format"`
	Result     Result      `json:"result"`
	Assurance  Assurance   `json:"assurance"`
	Serial     string      `json:"serial,omitempty"`
	Product    string      `json:"product,omitempty"` // of the reference
	Version    string      `json:"version,omitempty"` // of the reference
	Bank       string      `json:"bank,omitempty"`
	Received   time.Time   `json:"received,omitzero"`
	Reasons    []string    `json:"reasons"`            // why the result is contraindicated; the culprit first
	Warnings   []string    `json:"warnings,omitempty"` // why it is no better than a warning, or what is to be known beside it
	Components []Component `json:"components"`
}

// Component is one thing that was measured or should have been.
type Component struct {
	Name           string `json:"name"`
	Result         Result `json:"result"`
	State          State  `json:"state"`
	Follows        string `json:"follows,omitempty"`        // the component that explains the difference
	FirstDiverging bool   `json:"first_diverging,omitzero"` // the first in boot order that differs by itself
	Note           string `json:"note,omitempty"`
	Evidence       []Row  `json:"evidence,omitempty"`
	Diff           []Line `json:"diff,omitempty"` // lines that differ, for a component that is text
}

// Sources of a row.
const (
	SourceAgent    = "agent"
	SourceFirmware = "firmware"
)

// Row is one measurement of a component beside what was expected.
type Row struct {
	PCR      measure.PCR   `json:"pcr"`
	Source   string        `json:"source"`             // agent or firmware
	Good     bool          `json:"good"`               //
	Expected reference.Hex `json:"expected,omitempty"` // the first of the accepted digests; empty: none is
	Actual   reference.Hex `json:"actual,omitempty"`   // empty: not measured
}

// Line is one line of a text that differs from the reference, escaped.
type Line struct {
	Number int    `json:"number"` // from 1; in the reference for "-", in the router's text for "+"
	Op     string `json:"op"`     // "-" only in the reference, "+" only on the router
	Text   string `json:"text"`
}

// Policy is what the owner demands besides the reference values.
type Policy struct {
	PCRs []measure.PCR // the quote must cover all of them; none: nothing can be affirmed
}

// DefaultPolicy demands the PCRs of the default challenge: firmware, loaders
// and agent, without IMA's PCR 10.
var DefaultPolicy = Policy{PCRs: []measure.PCR{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15}}

// Refused returns the verdict over evidence that Verify has refused with err.
func Refused(err error) Verdict {
	return Verdict{
		Format: Format, Result: Contraindicated, Assurance: AssuranceNone,
		Reasons: []string{fmt.Sprintf("evidence refused: %v", err)}, Components: []Component{},
	}
}

// Culprits returns the components that differ by themselves.
func (v Verdict) Culprits() []Component {
	var out []Component
	for _, c := range v.Components {
		if c.Result == Contraindicated && c.State != Follows {
			out = append(out, c)
		}
	}
	return out
}

// Encode returns the verdict as JSON with stable order, for storage and display.
func (v Verdict) Encode() ([]byte, error) {
	b, err := json.Marshal(v, jsontext.WithIndent("  "), json.Deterministic(true), json.FormatNilSliceAsNull(false))
	if err != nil {
		return nil, fmt.Errorf("verdict: %w", err)
	}
	return append(b, '\n'), nil
}

// Parse reads what Encode has written. Unknown and doubled keys are errors.
func Parse(data []byte) (Verdict, error) {
	var v Verdict
	if err := json.Unmarshal(data, &v, json.RejectUnknownMembers(true)); err != nil {
		return Verdict{}, fmt.Errorf("verdict: %w", err)
	}
	if v.Format != Format {
		return Verdict{}, fmt.Errorf("verdict: format is %q: need %q", v.Format, Format)
	}
	return v, nil
}
