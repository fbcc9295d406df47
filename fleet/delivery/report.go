package delivery

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waxseal/fleet/appraise"
	"waxseal/measure/evidence"
)

// ReportFormat is the value of Report.Format. Within one format, keys are
// added and never change their meaning.
const ReportFormat = "waxseal-delivery-report-1"

// Outcome is what the buyer is told.
type Outcome string

// The outcomes of a doorstep check.
const (
	Accepted    Outcome = "accepted"    // everything was looked at, and is as the maker says
	Refused     Outcome = "refused"     // something is not, or the device cannot prove it
	Unproven    Outcome = "unproven"    // nothing speaks against it, but something that must be was not looked at
	Unreachable Outcome = "unreachable" // no answer: nothing is known
)

// Name is what one check looks at.
type Name string

// The checks, in the order of a report.
const (
	CheckManifest      Name = "manifest"       // both signatures are the maker's
	CheckSecret        Name = "secret"         // it is the one of this shipment
	CheckFresh         Name = "fresh"          // the answer is one to a challenge that was drawn for it
	CheckSerial        Name = "serial"         // the device and its certificates say the manifest's
	CheckEK            Name = "ek"             // the TPM shows the manifest's EK
	CheckEKCertificate Name = "ek-certificate" // it is the manifest's, of this EK, by the TPM's maker
	CheckIAK           Name = "iak"            // the TPM shows the manifest's IAK
	CheckIDevID        Name = "idevid"         // the TPM shows the manifest's IDevID, and the IAK says that it is beside it
	CheckCertificates  Name = "certificates"   // of IAK and IDevID are the maker's
	CheckTLS           Name = "tls"            // the session is with the holder of the IDevID
	CheckCredential    Name = "credential"     // EK, IAK and IDevID are in one TPM, which answers now
	CheckNonce         Name = "nonce"          // what is signed is signed for this check
	CheckEvidence      Name = "evidence"       // quote and log are genuine
	CheckBoot          Name = "boot"           // firmware and configuration are those that were shipped
	CheckResets        Name = "resets"         // not more than promised since packing
	CheckClock         Name = "clock"          // never went back
	CheckCleared       Name = "cleared"        // the TPM was not cleared, so the counters count
	CheckBuyer         Name = "buyer"          // of a saved check: the buyer has accepted it too
)

// State is how a check went.
type State string

// The states of a check.
const (
	Good    State = "good"
	Bad     State = "bad"
	Unknown State = "unknown" // not looked at, and it must be
	Skipped State = "skipped" // not looked at, and it need not be
)

// Finding is what one check has found.
type Finding struct {
	Check Name   `json:"check"`
	State State  `json:"state"`
	Text  string `json:"text"` // what was found, escaped
}

// Report is what a doorstep check has found.
type Report struct {
	Format   string            `json:"format"`
	Outcome  Outcome           `json:"outcome"`
	Reasons  []string          `json:"reasons"`           // why it is not accepted, each with the name of its check: those that failed, or else those that could not be made
	Checks   []Finding         `json:"checks"`            // all, in order
	Warnings []string          `json:"warnings"`          // what was not or cannot be seen
	Shipment *Shipment         `json:"shipment,omitzero"` // as the manifest says; absent if it cannot be read
	Since    *Since            `json:"since_packing,omitzero"`
	Boot     *appraise.Verdict `json:"boot,omitzero"`
	Checked  time.Time         `json:"checked"`
}

// Shipment is the part of a manifest that people compare with the parcel.
type Shipment struct {
	Serial  string    `json:"serial"`
	Maker   string    `json:"maker"`
	Product string    `json:"product"`
	Order   string    `json:"order"`
	SealID  string    `json:"seal_id"`
	Packed  time.Time `json:"packed"`
}

// Since says what the TPM has counted since the device was packed.
type Since struct {
	Resets   int64 `json:"resets"`   // starts of the device, the one of this check among them
	Promised int64 `json:"promised"` // at most
	Powered  int64 `json:"powered_seconds"`
}

func newReport(checked time.Time) Report {
	return Report{Format: ReportFormat, Reasons: []string{}, Checks: []Finding{}, Warnings: []string{}, Checked: checked}
}

// Encode returns the report as JSON.
func (r Report) Encode() ([]byte, error) {
	b, err := json.Marshal(r, jsontext.WithIndent("  "), json.Deterministic(true), json.FormatNilSliceAsNull(false))
	if err != nil {
		return nil, fmt.Errorf("delivery report: %w", err)
	}
	return append(b, '\n'), nil
}

// note adds the result of a check.
func (r *Report) note(name Name, state State, format string, args ...any) {
	text := evidence.Escape(fmt.Sprintf(format, args...))
	r.Checks = append(r.Checks, Finding{name, state, text})
}

// judge adds the result of a check that has failed if err is there.
func (r *Report) judge(name Name, err error, good string) {
	if err != nil {
		r.note(name, Bad, "%v", err)
		return
	}
	r.note(name, Good, "%s", good)
}

func (r *Report) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, evidence.Escape(fmt.Sprintf(format, args...)))
}

// conclude says what follows from all checks. Nothing is accepted unless every
// check was made that must be, and none has failed.
func (r *Report) conclude() {
	for _, name := range always {
		if !slices.ContainsFunc(r.Checks, func(c Finding) bool { return c.Check == name }) {
			r.note(name, Unknown, "not looked at")
		}
	}
	bad, unknown := r.because(Bad), r.because(Unknown)
	switch {
	case len(bad) > 0: // what was not looked at then stands among the checks
		r.Outcome, r.Reasons = Refused, bad
	case len(unknown) > 0:
		r.Outcome, r.Reasons = Unproven, unknown
	default:
		r.Outcome, r.Reasons = Accepted, []string{}
	}
}

// refuse ends a report with a check after which nothing else is worth a look.
func (r *Report) refuse(name Name, format string, args ...any) {
	r.note(name, Bad, format, args...)
	r.Outcome, r.Reasons = Refused, r.because(Bad)
}

// because returns the findings of one state as reasons.
func (r *Report) because(state State) []string {
	var reasons []string
	for _, c := range r.Checks {
		if c.State == state {
			reasons = append(reasons, string(c.Check)+": "+c.Text)
		}
	}
	return reasons
}

// always are the checks that a report must have.
var always = []Name{
	CheckManifest, CheckSecret, CheckFresh, CheckSerial, CheckEK, CheckEKCertificate, CheckIAK, CheckIDevID, CheckCertificates,
	CheckTLS, CheckCredential, CheckNonce, CheckEvidence, CheckBoot, CheckResets, CheckClock, CheckCleared,
}

// Bad returns the names of the checks that have failed, in order.
func (r Report) Bad() []Name {
	var names []Name
	for _, c := range r.Checks {
		if c.State == Bad {
			names = append(names, c.Check)
		}
	}
	return names
}
