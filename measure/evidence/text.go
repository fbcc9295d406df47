package evidence

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"

	"waxseal/measure"
	"waxseal/measure/eventlog"
)

// Escape returns s with everything that could steer a terminal or mislead a
// reader written out: control characters, bidirectional marks, what is not
// UTF-8 and the backslash itself, as Go escapes.
func Escape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x`)
			b.WriteString(strconv.FormatUint(uint64(s[0])|0x100, 16)[1:])
		case r == '\\' || !strconv.IsPrint(r):
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

// Text returns what an event says, escaped, and whether its digest in bank
// covers it. Text that is not covered was never authenticated and is to be
// shown as unverified or not at all.
func Text(e eventlog.Event, bank measure.Alg) (text string, verified bool) {
	if e.Ours {
		r, err := e.Record()
		return Escape(r.Name), err == nil && covered(e, bank)
	}
	return Escape(string(e.Data)), covered(e, bank)
}

// covered tells whether the digest of e in bank is the one of its data.
func covered(e eventlog.Event, bank measure.Alg) bool {
	d, ok := e.Digest(bank)
	var sum [64]byte // of the longest digest
	return ok && e.Extends() && bytes.Equal(d.Sum, measure.AppendHash(sum[:0], bank, e.Data))
}
