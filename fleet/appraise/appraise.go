package appraise

import (
	"fmt"
	"slices"

	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/reference"
)

// Names of records that are judged by rules of their own.
const (
	policyName    = "policy/measure"
	serialName    = "identity/serial"
	aggregateName = "aggregate/boot?c="
)

// Bounds that keep the verdict over a hostile log small.
const (
	maxRows    = 64  // of one component
	maxUnknown = 256 // components that the reference does not know
)

// appraisal is a verdict in the making.
type appraisal struct {
	v       evidence.Verified
	ref     reference.Values
	policy  Policy
	profile measure.Profile

	items    map[string]*expected // of the reference, by subject
	parts    map[string]*part
	contains map[string][]string // names that a name holds, as the reference says
	unknown  int                 // parts that the reference does not know
	reasons  []string
	open     map[measure.PCR]bool // PCRs that the hand-over did not close
	foretold bool                 // the firmware's log names what was predicted
	coverage *measure.Record      // what the watch on traffic can see, as it last said
}

// part is a component in the making.
type part struct {
	name    string
	rows    []row
	dropped int // rows beyond maxRows, all of the states of those kept
	note    string
	diff    []Line
}

// row is a Row with what is needed to find the culprit.
type row struct {
	Row
	state    State
	position int // in the order of the boot
	contains []string
	culprit  string // what explains the row for a reason other than contains
}

// differs tells whether the state speaks against the boot.
func (s State) differs() bool {
	switch s {
	case Good, Informational, Noticed, Past, NotCovered:
		return false
	}
	return true
}

// Appraise judges v by ref and p.
func Appraise(v evidence.Verified, ref reference.Values, p Policy) Verdict {
	a := &appraisal{
		v: v, ref: ref, policy: p,
		parts: map[string]*part{}, contains: map[string][]string{}, open: map[measure.PCR]bool{},
	}
	verdict := Verdict{
		Format: Format, Result: Contraindicated, Assurance: AssuranceNone, Components: []Component{},
		Serial: evidence.Escape(v.Serial()), Product: evidence.Escape(ref.Product), Version: evidence.Escape(ref.Version),
		Bank: v.Bank().String(), Received: v.Received(),
	}
	if a.unable() {
		verdict.Reasons = a.reasons
		return verdict
	}
	a.index()
	a.judgeFirmware()
	a.judgeCaps()
	a.judgeRecords()
	a.judgeUnverified()
	a.judgeCoverage()
	verdict.Assurance = a.assurance()
	verdict.Components = a.components()
	verdict.Reasons = a.because(verdict)
	verdict.Warnings = warnings(verdict.Components)
	switch {
	case len(verdict.Reasons) > 0:
	case slices.ContainsFunc(verdict.Components, func(c Component) bool { return c.Result == Warning }):
		verdict.Result = Warning
	default:
		verdict.Result = Affirming
	}
	return verdict
}

// unable notes why nothing can be judged.
func (a *appraisal) unable() bool {
	if a.v.Serial() == "" {
		a.reason("evidence was not verified")
	}
	if err := a.ref.Check(); err != nil {
		a.reason("reference values: %v", err)
		return true
	}
	a.profile, _ = measure.ParseProfile(a.ref.Profile)
	if read := a.v.Profile().Name; read != a.ref.Profile && len(a.reasons) == 0 {
		a.reason("evidence was read by PCR profile %s, the reference is of %s", read, a.ref.Profile)
	}
	if len(a.policy.PCRs) == 0 {
		a.reason("the policy names no PCR")
	}
	return len(a.reasons) > 0
}

// reason notes what speaks against the whole, and not against one component.
func (a *appraisal) reason(format string, args ...any) {
	a.reasons = append(a.reasons, fmt.Sprintf(format, args...))
}

// add adds a row to the part called name.
func (a *appraisal) add(name string, r row) *part {
	p := a.parts[name]
	if p == nil {
		p = &part{name: name}
		a.parts[name] = p
	}
	r.Good = r.state == Good
	if len(p.rows) >= maxRows && slices.ContainsFunc(p.rows, func(x row) bool { return x.state == r.state }) {
		p.dropped++
		return p
	}
	p.rows = append(p.rows, r)
	return p
}

// assurance returns the level that the evidence reaches: firmware if the
// firmware's log explains PCR 0 to 9 and 11, names the firmware that the
// reference knows, and nothing in the PCRs of loaders but what was predicted
// from the image.
func (a *appraisal) assurance() Assurance {
	for _, pcr := range []measure.PCR{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11} {
		if !a.v.Quoted(pcr) {
			return AssuranceSelf
		}
	}
	if a.foretold {
		return AssuranceFirmware
	}
	return AssuranceSelf
}

// level orders the assurance levels.
func (a Assurance) level() int {
	return slices.Index([]Assurance{AssuranceNone, AssuranceSelf, AssuranceFirmware, AssuranceHardware}, a)
}

// because returns why the verdict is not affirming: first what differs by
// itself, in boot order, then what is missing as a whole.
func (a *appraisal) because(v Verdict) []string {
	reasons := []string{}
	for _, c := range v.Culprits() {
		text := string(c.State) + " " + c.Name
		if c.Note != "" {
			text += ": " + c.Note
		}
		reasons = append(reasons, text)
	}
	reasons = append(reasons, a.reasons...)
	for _, pcr := range a.policy.PCRs {
		if !a.v.Quoted(pcr) {
			reasons = append(reasons, fmt.Sprintf("PCR %d, which the policy demands, is not quoted", pcr))
		}
	}
	if want := Assurance(a.ref.Assurance); v.Assurance.level() < want.level() {
		reasons = append(reasons, fmt.Sprintf("assurance %s is below %s, which the reference demands", v.Assurance, want))
	}
	return reasons
}
