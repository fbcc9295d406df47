// Package watchtest is a lab to try a watch on: a client, a router, a server
// and a collector in network namespaces of this machine, ways in which a
// router's traffic is copied to the collector, and traffic and set-ups that
// are harmless.
//
// It is for tests and for the lab's attack command. It makes devices and rules
// in the namespaces that it made itself and nowhere else, sends to them alone,
// and takes everything away again. Links, tc, nft and iptables are set with the
// programs of those names, which must be in PATH.
package watchtest

import (
	"errors"

	"waxseal/agent/mirror"
)

// ErrLacking is returned by a Start when this kernel or machine lacks what the
// set-up needs. The error that wraps it names it.
var ErrLacking = errors.New("not on this machine")

// Attack is a way to copy or divert the traffic of a router's customers, or to
// blind the watch.
type Attack struct {
	Name  string
	Shape Shape
	Ports []string // watched ports besides r0, r1 and r2
	Start Start
	Want  Want

	OnWatch bool // it is an attack on the hooks of a running watch
}

// Start sets something up in the lab. What it returns takes that away again,
// as far as it lives longer than the lab's namespaces.
type Start func(*Lab) (stop func(), err error)

// Want says which incident must be reported. Empty fields are not looked at.
type Want struct {
	Kinds    []mirror.Kind // any of them
	In, Copy string        // where the original came in, where the copy left
	Cause    string        // a regular expression for the cause or one line of evidence
	Severity mirror.Severity
	Process  bool // the process is this one or a child of it
}

// Benign is a set-up or traffic that is no attack. No alarm may be raised.
type Benign struct {
	Name  string
	Shape Shape
	Ports []string
	Run   func(*Lab) error // returns when the traffic has flowed
}
