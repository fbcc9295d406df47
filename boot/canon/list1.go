package canon

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Entry is one line of a list: a record that the list stands for.
type Entry struct {
	SHA256 [sha256.Size]byte // content of the record
	Name   string            // name of the record, printable ASCII without spaces
}

// List returns the list1 text of entries: "sha256 name\n", sorted by name,
// the digest in lower-case hexadecimal. An empty list is an empty text.
func List(entries []Entry) Text {
	es := slices.Clone(entries)
	slices.SortFunc(es, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	var ls []string
	for _, e := range es {
		ls = append(ls, hex.EncodeToString(e.SHA256[:])+" "+e.Name)
	}
	return Text{Form: List1, Bytes: join(ls), Public: true}
}

// ParseList is the inverse of List. It accepts only lines that List writes, in
// any order, each name once.
func ParseList(in []byte) ([]Entry, error) {
	if len(in) == 0 {
		return nil, nil
	}
	if in[len(in)-1] != '\n' {
		return nil, fmt.Errorf("list does not end with a line feed")
	}
	var es []Entry
	seen := map[string]bool{}
	for i, l := range strings.Split(string(in[:len(in)-1]), "\n") {
		e, err := parseEntry(l)
		if err != nil {
			return nil, fmt.Errorf("list line %d: %w", i+1, err)
		}
		if seen[e.Name] {
			return nil, fmt.Errorf("list line %d: name %q stands twice", i+1, e.Name)
		}
		seen[e.Name] = true
		es = append(es, e)
	}
	return es, nil
}

func parseEntry(l string) (Entry, error) {
	sum, name, _ := strings.Cut(l, " ")
	var e Entry
	b, err := hex.DecodeString(sum)
	if err != nil || len(b) != len(e.SHA256) || hex.EncodeToString(b) != sum {
		return Entry{}, fmt.Errorf("%q does not begin with a SHA-256 in lower-case hexadecimal", l)
	}
	if name == "" || strings.IndexFunc(name, func(r rune) bool { return r < 0x21 || r > 0x7e }) >= 0 {
		return Entry{}, fmt.Errorf("name %q is not printable ASCII", name)
	}
	copy(e.SHA256[:], b)
	e.Name = name
	return e, nil
}

func list1(in []byte) (Text, error) {
	es, err := ParseList(in)
	if err != nil {
		return Text{}, err
	}
	return List(es), nil
}
