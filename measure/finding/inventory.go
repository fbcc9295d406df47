package finding

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// Things is the content of a record of an inventory: what was there when the
// watch began. It holds nothing that differs from boot to boot by chance, such as
// process numbers.
type Things []Thing

// Thing is a module, a listener, a packet socket, a BPF program or a namespace.
type Thing struct {
	Kind    string `json:"kind"`
	Cause   string `json:"cause"`             // in an engineer's words
	Target  string `json:"target,omitempty"`  //
	Process string `json:"process,omitempty"` // who holds it
}

// Encode returns the content of the record: sorted, each once. What has no room
// is counted in a last thing of kind "more".
func (list Things) Encode() ([]byte, error) {
	sorted := Things{}
	more := Thing{}
	for _, t := range list {
		if t.Kind == kindMore {
			more = t
			continue
		}
		sorted = append(sorted, Thing{short(t.Kind), short(t.Cause), short(t.Target), short(t.Process)})
	}
	slices.SortFunc(sorted, func(a, b Thing) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Process, b.Process))
	})
	sorted = slices.Compact(sorted)
	if more.Kind != "" { // it was cut before
		return encode(append(sorted, more))
	}
	for n := len(sorted); ; n = n * 3 / 4 {
		out := slices.Clone(sorted[:n])
		if left := len(sorted) - n; left > 0 {
			out = append(out, Thing{Kind: kindMore, Cause: fmt.Sprintf("%d things have no room in this list", left)})
		}
		if b, err := encode(out); err == nil || n == 0 {
			return b, err
		}
	}
}

const kindMore = "more"

// ParseThings reads what Encode has written, and nothing else.
func ParseThings(data []byte) (Things, error) {
	var list Things
	if err := parse(data, &list); err != nil {
		return nil, err
	}
	again, err := list.Encode()
	if err != nil || !bytes.Equal(again, data) {
		return nil, ErrMalformed
	}
	return list, nil
}

// Count tells how many there are of each kind.
func (list Things) Count() map[string]int {
	n := map[string]int{}
	for _, t := range list {
		n[t.Kind]++
	}
	return n
}
