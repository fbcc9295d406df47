package delivery

import (
	"fmt"
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
	Reasons  []string          `json:"reasons"`           // why it is not accepted, each with the name of its check
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

// note adds the result of a check. What is not good is a reason.
func (r *Report) note(name Name, state State, format string, args ...any) {
	text := evidence.Escape(fmt.Sprintf(format, args...))
	r.Checks = append(r.Checks, Finding{name, state, text})
	if state == Bad || state == Unknown {
		r.Reasons = append(r.Reasons, string(name)+": "+text)
	}
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
	r.Outcome = Accepted
	made := map[Name]bool{}
	for _, c := range r.Checks {
		made[c.Check] = true
		switch {
		case c.State == Bad:
			r.Outcome = Refused
		case c.State == Unknown && r.Outcome == Accepted:
			r.Outcome = Unproven
		}
	}
	for _, name := range always {
		if !made[name] {
			r.note(name, Unknown, "not looked at")
			if r.Outcome == Accepted {
				r.Outcome = Unproven
			}
		}
	}
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
