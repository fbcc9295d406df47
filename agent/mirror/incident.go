package mirror

import "time"

// Severity is how much an incident matters.
type Severity string

// The severities. Only an alarm wakes people.
const (
	Info   Severity = "info"   // worth keeping: an inventory, an authorised mirror, a flood of unknown unicast
	Notice Severity = "notice" // worth looking at: not proven, or not covered
	Alarm  Severity = "alarm"  // traffic is copied or diverted, or the watch is being blinded
)

// Incident is what the judge makes of observations that belong together. A new
// value with the same ID is an update of it.
type Incident struct {
	ID       string    `json:"id"`   // the same for all updates; begins with the kind
	Time     time.Time `json:"time"` // of this update
	Kind     Kind      `json:"kind"`
	Severity Severity  `json:"severity"`
	State    State     `json:"state"`
	Cause    string    `json:"cause"`           // "tc mirred mirror r0 → r2, confirmed by 3 duplicates in 60 ms"
	Ports    []string  `json:"ports,omitempty"` // where the traffic came in, then where the copy left
	In       string    `json:"in_port,omitempty"`
	Copy     string    `json:"copy_port,omitempty"`
	Inner    Flow      `json:"inner,omitzero"`
	Outer    Flow      `json:"outer,omitzero"`
	Encap    string    `json:"encapsulation,omitempty"`
	Process  Process   `json:"process,omitzero"`
	Netns    string    `json:"netns,omitempty"`
	Subject  string    `json:"subject,omitempty"`
	Rate     float64   `json:"rate"`  // copied packets a second, estimated from the samples
	Count    uint64    `json:"count"` // sampled copies so far
	First    time.Time `json:"first_seen"`
	Last     time.Time `json:"last_seen"`
	Detector string    `json:"detector"`           // the first that saw it
	Evidence []string  `json:"evidence,omitempty"` // each detector's words, in the order in which they came

	Baseline   bool   `json:"baseline,omitempty"`   // what it is about was there when the watch began
	Authorised string `json:"authorised,omitempty"` // approval reference of the authorised mirror that covers it
}

// State tells whether an incident goes on.
type State string

// The states of an incident.
const (
	Open  State = "open"
	Ended State = "ended"
)

// Capability is one thing that the watch can or cannot see on this kernel, so
// that "nothing found" never means "could not look".
type Capability struct {
	Name  string `json:"name"`            // "hooks/r0", "tc-notifications", "packet-sockets", "syscalls"
	State Cover  `json:"state"`           //
	How   string `json:"how,omitempty"`   // "tcx", "clsact", "netlink", "poll 100ms"
	Why   string `json:"cause,omitempty"` // why it is not covered in full
}

// Cover is how far something is watched.
type Cover string

// The degrees of cover.
const (
	Full    Cover = "full"
	Partial Cover = "partial"
	None    Cover = "none"
)
