package authorised

import (
	"fmt"
	"slices"
	"time"
)

// Next returns the list that follows, without what is over by then. It has no
// signatures yet.
func (l List) Next(at time.Time) List {
	over := func(e Entry) bool { return !at.Before(e.Until) }
	n := List{Format: Format, Number: l.Number + 1, Issued: at.UTC().Truncate(time.Second)}
	n.Entries = slices.DeleteFunc(slices.Clone(l.Entries), over)
	n.Revoked = slices.DeleteFunc(slices.Clone(l.Revoked), func(r Revocation) bool {
		return !slices.ContainsFunc(n.Entries, func(e Entry) bool { return e.ID == r.ID })
	})
	return n
}

// Add returns the list with one more entry, whose ID is made of the list's
// number, which no other list has.
func (l List) Add(e Entry) (List, error) {
	e.ID = fmt.Sprintf("m%d", l.Number)
	l.Entries = append(slices.Clone(l.Entries), e.Arrange())
	return l, l.Check()
}

// State says in one word and its reason how an entry stands at a time: "in
// force", or why it does not count.
func (s Set) State(e Entry, now time.Time) string {
	if why := s.Void(e, now); why != "" {
		return why
	}
	return "in force"
}
