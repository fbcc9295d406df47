package finding

import (
	"bytes"
	"slices"
)

// Coverage is the content of a record of capabilities: what the watch can see on
// this router, and what it cannot. Without it "nothing found" could mean "could
// not look".
type Coverage struct {
	Parts []Part `json:"capabilities"`
}

// Part is one thing that is watched or not.
type Part struct {
	Name  string `json:"name"`
	State string `json:"state"`           // full, partial, none
	How   string `json:"how,omitempty"`   //
	Cause string `json:"cause,omitempty"` // why it is not full
}

const maxParts = 128

// Encode returns the content of the record.
func (c Coverage) Encode() ([]byte, error) {
	parts := []Part{}
	for i, p := range c.Parts {
		if i == maxParts {
			parts[i-1] = Part{Name: "more", State: "none", Cause: "the list has no room for more"}
			break
		}
		parts = append(parts, Part{cut(p.Name), cut(p.State), short(p.How), short(p.Cause)})
	}
	return encode(Coverage{parts})
}

// short bounds a text so that a list of maxParts has room in a content.
func short(s string) string {
	const limit = 96
	s = cut(s)
	if len(s) <= limit {
		return s
	}
	for limit := limit; ; limit-- {
		if cutHere := cut(s[:limit]); len(cutHere) <= limit {
			return cutHere
		}
	}
}

// ParseCoverage reads what Encode has written, and nothing else.
func ParseCoverage(data []byte) (Coverage, error) {
	var c Coverage
	if err := parse(data, &c); err != nil {
		return Coverage{}, err
	}
	again, err := c.Encode()
	if err != nil || !bytes.Equal(again, data) {
		return Coverage{}, ErrMalformed
	}
	return c, nil
}

// Missing returns what is not covered in full.
func (c Coverage) Missing() []Part {
	return slices.DeleteFunc(slices.Clone(c.Parts), func(p Part) bool { return p.State == "full" })
}
