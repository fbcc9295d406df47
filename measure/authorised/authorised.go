// Package authorised is the file of mirrors that are allowed: who approved that
// which traffic of which router is copied to where, how much of it, and until
// when.
//
// An entry allows nothing by itself: Open takes one only from a file that as
// many people have signed as the reader's Approvers demand, each with two
// algorithms (package sealed). One of them is enough to revoke. What an entry
// does not name it does not allow. The package opens nothing and reads no clock.
package authorised

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Format is the value of List.Format, and the kind of its sealed files.
const Format = "waxseal-authorised-1"

// Bounds.
const (
	MaxEntries = 256
	MaxSize    = 512 << 10 // of a list without signatures, in bytes
	MaxDays    = 366       // between an entry's first and last moment: what nobody approves again ends
)

// ErrList means that a list cannot be used.
var ErrList = errors.New("list of authorised mirrors is not acceptable")

// List is what is signed: all entries at one time.
type List struct {
	Format  string       `json:"format"`
	Number  uint64       `json:"number"` // grows with each list and each revocation, so that an old file cannot be put back
	Issued  time.Time    `json:"issued"` // in UTC, whole seconds; no clock that is before it is right
	Entries []Entry      `json:"entries"`
	Revoked []Revocation `json:"revoked"`
}

// Entry is one mirror that is allowed. Of each list that is not empty one
// element has to fit.
type Entry struct {
	ID         string         `json:"id"`         // unique for ever in the lists of an owner
	Reference  string         `json:"reference"`  // of the approval: a ticket, an order of a court
	Devices    []string       `json:"devices"`    // serial numbers of routers, or "*"
	From       []string       `json:"from"`       // ports whose traffic is copied, in or out, or "*"
	To         []string       `json:"to"`         // ports or devices by which copies leave; empty: any
	Outer      []netip.Prefix `json:"outer"`      // addresses that copies are sent to; empty: none may leave inside other packets. With no To either, nothing may leave the router
	Inner      []netip.Prefix `json:"inner"`      // of source or destination of the traffic that is copied; empty: all traffic
	VLANs      []uint16       `json:"vlans"`      // outermost VLAN of the traffic that is copied; empty: any
	Mechanisms []string       `json:"mechanisms"` // how: "tc mirred", "packet socket"; empty: any that sends copies on, and takes nothing away
	MaxRate    uint64         `json:"max_rate"`   // packets a second
	NotBefore  time.Time      `json:"not_before"` // in UTC, whole seconds
	Until      time.Time      `json:"until"`      // in UTC, whole seconds; at this second it is over
}

// Revocation ends an entry before its time.
type Revocation struct {
	ID     string    `json:"id"` // of the entry
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// Parse reads a list that stands by itself, without signatures: what it returns
// is a claim. Any bytes but those of Encode are refused.
func Parse(data []byte) (List, error) {
	var l List
	return l, parse(data, &l, func() ([]byte, error) { return l.Encode() })
}

// Encode returns the list that Parse reads.
func (l List) Encode() ([]byte, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	return encode(l)
}

// Find returns the entries of an ID or a reference.
func (l List) Find(name string) []Entry {
	var found []Entry
	for _, e := range l.Entries {
		if e.ID == name || e.Reference == name {
			found = append(found, e)
		}
	}
	return found
}

// revocation returns the revocation of an entry.
func (l List) revocation(id string) (Revocation, bool) {
	i := slices.IndexFunc(l.Revoked, func(r Revocation) bool { return r.ID == id })
	if i < 0 {
		return Revocation{}, false
	}
	return l.Revoked[i], true
}

// parse reads strict JSON that is written in its one plain form.
func parse(data []byte, into any, again func() ([]byte, error)) error {
	if len(data) > MaxSize {
		return fmt.Errorf("%w: %d bytes: at most %d", ErrList, len(data), MaxSize)
	}
	if err := json.Unmarshal(data, into, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("%w: %w", ErrList, err)
	}
	plain, err := again()
	if err != nil {
		return err
	}
	if !bytes.Equal(plain, data) {
		return fmt.Errorf("%w: it is not written in its one plain form", ErrList)
	}
	return nil
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrList, err)
	}
	if len(b) >= MaxSize {
		return nil, fmt.Errorf("%w: %d bytes: at most %d", ErrList, len(b)+1, MaxSize)
	}
	return append(b, '\n'), nil
}
