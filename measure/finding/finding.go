// Package finding is what the running agent records of what it sees: names and
// contents of the records in the runtime PCR. The router writes them, the fleet
// reads them.
//
// It is pure, and it judges nothing: whoever holds the router can record what it
// likes, but it cannot take back what was recorded.
package finding

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// Step is what a record says of a finding. A finding has one record for each
// step that it takes, in the order in which they come.
type Step string

// The steps.
const (
	Info       Step = "info"       // a difference from the inventory
	Notice     Step = "notice"     // worth looking at
	Alarm      Step = "alarm"      // traffic is copied or diverted, or the watch is blinded
	Authorised Step = "authorised" // a mirror that was allowed
	Ended      Step = "ended"
)

var steps = []Step{Info, Notice, Alarm, Authorised, Ended}

// Names of records that are no finding.
const (
	Capabilities = "mirror/capabilities/" // and a number from 1: what the watch can see from now on
	Inventory    = "runtime/inventory/"   // and a number from 1: what was there when the watch began
	Overflow     = "mirror/overflow"      // there are more findings than are recorded in one boot
	Stopped      = "mirror/stopped/"      // and a number from 1: the watch ended, or did not run when a quote was asked for
)

const maxPart = 80 // bytes of a kind, and of an identity, in a name

// Name returns the name of the record of a step: mirror/KIND/ID/STEP for what is
// about traffic, runtime/KIND/ID/STEP for what is about the machine. Bytes that
// no name holds become "_".
func Name(class, kind, id string, step Step) string {
	return class + "/" + plain(kind) + "/" + plain(id) + "/" + string(step)
}

// plain keeps letters, digits, dots and dashes.
func plain(s string) string {
	if s == "" {
		return "_"
	}
	if len(s) > maxPart {
		s = s[:maxPart]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		}
		return '_'
	}, s)
}

// Split takes a name apart: subject is the name without its step. ok tells
// whether the name is one that Name returns.
func Split(name string) (subject string, step Step, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 4 || parts[0] != "mirror" && parts[0] != "runtime" || parts[1] != plain(parts[1]) || parts[2] != plain(parts[2]) {
		return "", "", false
	}
	for _, s := range steps {
		if parts[3] == string(s) {
			return strings.Join(parts[:3], "/"), s, true
		}
	}
	return "", "", false
}

// Finding is the content of a record of a finding.
type Finding struct {
	Kind       string    `json:"kind"`
	Severity   string    `json:"severity"`
	State      string    `json:"state"`
	Cause      string    `json:"cause"`
	Ports      []string  `json:"ports,omitempty"`      // where the traffic came in, then where the copy left
	Inner      string    `json:"inner,omitempty"`      // "192.0.2.1 → 198.51.100.7"
	Outer      string    `json:"outer,omitempty"`      // as inner
	Process    string    `json:"process,omitempty"`    // "tc (pid 4711)"
	Netns      string    `json:"netns,omitempty"`      //
	Subject    string    `json:"subject,omitempty"`    //
	Rate       float64   `json:"rate,omitzero"`        // copied packets a second when it was recorded
	Count      uint64    `json:"count,omitzero"`       // sampled copies when it was recorded
	First      time.Time `json:"first_seen"`           //
	Last       time.Time `json:"last_seen"`            //
	Detector   string    `json:"detector"`             //
	Authorised string    `json:"authorised,omitempty"` // approval reference
	Evidence   []string  `json:"evidence,omitempty"`   //
}

// Bounds of a content.
const (
	MaxSize     = 32 << 10 // bytes
	maxText     = 1024     // bytes of one text
	maxEvidence = 32
	maxPorts    = 16
)

// ErrMalformed means that a content is not one that Encode returns.
var ErrMalformed = errors.New("content of a finding is malformed")

// Encode returns the content of the record: the same bytes for the same finding.
func (f Finding) Encode() ([]byte, error) {
	f.First, f.Last = f.First.UTC().Truncate(time.Millisecond), f.Last.UTC().Truncate(time.Millisecond)
	for _, s := range f.texts() {
		*s = cut(*s)
	}
	f.Ports, f.Evidence = cutAll(f.Ports, maxPorts), cutAll(f.Evidence, maxEvidence)
	return encode(f)
}

func (f *Finding) texts() []*string {
	return []*string{
		&f.Kind, &f.Severity, &f.State, &f.Cause, &f.Inner, &f.Outer, &f.Process, &f.Netns, &f.Subject, &f.Detector, &f.Authorised,
	}
}

// cut bounds a text, at the end of a character, and makes it valid UTF-8.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "�")
	if len(s) <= maxText {
		return s
	}
	s = s[:maxText]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

func cutAll(list []string, limit int) []string {
	if len(list) > limit {
		list = list[:limit]
	}
	var out []string
	for _, s := range list {
		out = append(out, cut(s))
	}
	return out
}

// Parse reads what Encode has written, and nothing else.
func Parse(data []byte) (Finding, error) {
	var f Finding
	if err := parse(data, &f); err != nil {
		return Finding{}, err
	}
	again, err := f.Encode()
	if err != nil || !bytes.Equal(again, data) {
		return Finding{}, ErrMalformed
	}
	return f, nil
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("content of a finding: %w", err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("content of a finding has %d bytes: at most %d", len(b), MaxSize)
	}
	return b, nil
}

func parse(data []byte, into any) error {
	if len(data) > MaxSize {
		return fmt.Errorf("%w: %d bytes: at most %d", ErrMalformed, len(data), MaxSize)
	}
	if err := json.Unmarshal(data, into, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}
