// Package canon turns configuration into canonical text: what matters in it,
// without what differs from day to day, and without secrets.
//
// A form has a version in its name (uci1), and the name stands in the record,
// so a digest always says how it was made. Each form is idempotent, keeps
// apart whatever it keeps, and never changes once released: a better rule is
// a form of a new name. The forms are specified in docs/formats.md.
//
// The package is pure: bytes in, text out.
package canon

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// Form is the name of a canonical form, as it stands after ?c= in a record name.
type Form string

// The canonical forms.
const (
	Raw   Form = "raw"   // the bytes as they are; never shown
	Text1 Form = "text1" // lines of any text file; comments kept
	UCI1  Form = "uci1"  // OpenWrt UCI files
	FRR1  Form = "frr1"  // FRR and other line-based router configuration with ! comments
	List1 Form = "list1" // sorted lines "sha256 name"
	Link1 Form = "link1" // the target of a symbolic link; never shown as anything else
)

// MaxSize is the largest input in bytes that is brought into a form. Larger
// inputs are Raw.
const MaxSize = 1 << 20

// Mask stands where a secret stood.
const Mask = "=*"

// Text is content in a canonical form.
type Text struct {
	Form   Form // the form that Bytes are in: the one asked for, or Raw
	Bytes  []byte
	Public bool  // Bytes may be shown: no secret that the form knows of is in it
	Why    error // why Form is Raw though another was asked for
}

var forms = map[Form]func([]byte) (Text, error){
	Raw:   func(in []byte) (Text, error) { return Text{Form: Raw, Bytes: in}, nil },
	Text1: text1,
	UCI1:  uci1,
	FRR1:  frr1,
	List1: list1,
}

// Known tells whether Of has the form.
func (f Form) Known() bool { return forms[f] != nil }

// Of brings in into form. Input that the form does not understand comes back
// as it is, as Raw, with the reason in Why. It panics unless form.Known().
func Of(form Form, in []byte) Text {
	convert := forms[form]
	if len(in) > MaxSize && form != Raw {
		return raw(in, fmt.Errorf("%s: %d bytes: at most %d", form, len(in), MaxSize))
	}
	t, err := convert(in)
	if err != nil {
		return raw(in, fmt.Errorf("%s: %w", form, err))
	}
	return t
}

func raw(in []byte, why error) Text { return Text{Form: Raw, Bytes: in, Why: why} }

// lines cuts a text file into lines without their ends ("\n" or "\r\n") and
// without spaces and tabs before them. A byte order mark at the head is
// dropped. Text that is not UTF-8 or has control characters other than the
// tab is an error, because it could look like other text.
func lines(in []byte) ([]string, error) {
	in = bytes.TrimPrefix(in, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(in) {
		return nil, fmt.Errorf("text is not UTF-8")
	}
	var ls []string
	for n, l := range bytes.Split(in, []byte("\n")) {
		l = bytes.TrimRight(bytes.TrimSuffix(l, []byte("\r")), " \t")
		if i := bytes.IndexFunc(l, isControl); i >= 0 {
			return nil, fmt.Errorf("line %d: control character 0x%02x", n+1, l[i])
		}
		ls = append(ls, string(l))
	}
	return ls, nil
}

// isControl tells control characters (C0 but tab, DEL, C1) and the marks that
// change the order of the text around them.
func isControl(r rune) bool {
	switch {
	case r == '\t':
		return false
	case r < 0x20, r >= 0x7f && r < 0xa0, r == 0x2028, r == 0x2029, r == 0xfeff:
		return true
	}
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// join ends each line with "\n".
func join(ls []string) []byte {
	var b bytes.Buffer
	for _, l := range ls {
		b.WriteString(l)
		b.WriteByte('\n')
	}
	return b.Bytes()
}
